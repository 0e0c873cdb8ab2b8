//! The Tenant resource. What can be refused is refused by the API server, with a message that says
//! what is allowed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quota::QuotaBoost;
use crate::webhook::WebhookTarget;

/// The longest URL that is taken, in characters. Rules in CEL need a bound to have a known cost.
pub const MAX_URL_LENGTH: usize = 2048;

/// What a tenant may use, and when its billing periods start.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "flagmeter.dev",
    version = "v1alpha1",
    kind = "Tenant",
    doc = "A customer whose usage is counted. The resource's name is the tenant's id in every call and every record.",
    namespaced,
    status = "TenantStatus",
    derive = "PartialEq",
    shortname = "ften",
    category = "flagmeter",
    printcolumn(
        name = "Quota",
        type_ = "integer",
        json_path = ".status.usage.effectiveQuota",
        description = "Tokens a billing period, with the boosts that hold"
    ),
    printcolumn(
        name = "Used",
        type_ = "integer",
        json_path = ".status.usage.totalTokens",
        description = "Tokens used in this billing period"
    ),
    printcolumn(
        name = "Used%",
        type_ = "integer",
        json_path = ".status.usage.percent",
        description = "Share of the quota used, rounded down"
    ),
    printcolumn(
        name = "Resets",
        type_ = "string",
        json_path = ".status.usage.periodEnd",
        description = "When the next billing period starts"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the settings are in force"
    ),
    printcolumn(
        name = "Base",
        type_ = "integer",
        json_path = ".spec.monthlyQuota",
        description = "Tokens a billing period, without boosts",
        priority = "1"
    ),
    printcolumn(
        name = "Billing",
        type_ = "integer",
        json_path = ".spec.billingDay",
        description = "Day of the month on which a billing period starts",
        priority = "1"
    ),
    printcolumn(
        name = "Suspended",
        type_ = "boolean",
        json_path = ".spec.suspended",
        description = "Whether events are refused for now",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')").message(
        "metadata.name is the tenant's id: at most 63 lower-case letters, digits and '-', starting and ending with a letter or digit"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TenantSpec {
    /// The name that people see, 1 to 256 characters in one line. Default: the resource's name.
    #[x_kube(validation = Rule::new(crate::text::RULE)
        .message("displayName must be one line without control characters and without those that turn the direction of text"))]
    #[schemars(length(min = 1, max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,

    /// Tokens that the tenant may use in a billing period: 1 to 9007199254740991 (2^53 − 1, the largest
    /// number that every JSON reader holds exactly). Usage above it is counted, never refused.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub monthly_quota: i64,

    /// Day of the month on which a billing period starts, 1 to 31. In a shorter month it is the month's
    /// last day: 31 starts on 31 January, 28 or 29 February, 31 March. Default: 1.
    #[schemars(range(min = 1, max = 31))]
    #[serde(default = "first_of_month")]
    pub billing_day: i32,

    /// The time zone in which billing days begin at midnight, as an IANA name such as Europe/Berlin.
    /// Default: UTC.
    #[x_kube(validation = Rule::new("self != 'Local' && timestamp('2000-01-01T00:00:00Z').getFullYear(self) > 0")
        .message("timeZone must be the name of an IANA time zone, such as UTC or Europe/Berlin"))]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"))]
    #[serde(default = "utc")]
    pub time_zone: String,

    /// Raises of the quota for a time, at most 16, which may overlap: the quota at an instant is monthlyQuota and the
    /// tokens of all raises that hold at it.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quota_boosts: Vec<QuotaBoost>,

    /// At which shares of the quota an alert is recorded, and who is told of it. Without a channel it is recorded and
    /// shown on the page, and nobody is told. Default: thresholds [80], no channel.
    #[serde(default)]
    pub alerts: Alerts,

    /// Whether events are refused for now, with 403 `tenant_suspended`. What was taken in before is still
    /// counted, and usage can still be read. Default: false.
    #[serde(default)]
    pub suspended: bool,

    /// What becomes of everything that was counted when the Tenant is deleted. Retain keeps it, and a Tenant
    /// of the same name and namespace takes it up again. Delete deletes it, for good, before the Tenant
    /// goes; meanwhile the Tenant has the finalizer flagmeter.dev/cleanup. Default: Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What becomes of everything that was counted when the Tenant is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    #[expect(missing_docs, reason = "what is said of a variant would break up the enum in the schema")]
    #[default]
    Retain,
    #[expect(missing_docs, reason = "what is said of a variant would break up the enum in the schema")]
    Delete,
}

/// Who is told when usage reaches a threshold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Alerts {
    /// At which percents of the quota an alert is recorded and sent: at most 10 different numbers from 1 to 1000. An
    /// empty list records none. Default: 80.
    #[schemars(length(max = 10), inner(range(min = 1, max = 1000)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[serde(default = "eighty_percent")]
    pub thresholds: Vec<i32>,

    /// A Slack channel, through an incoming webhook of Slack's. Exactly one of url and secretRef says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<SlackTarget>,

    /// A receiver of your own, which gets alerts as signed JSON in the form of Standard Webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookTarget>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self { thresholds: eighty_percent(), slack: None, webhook: None }
    }
}

/// A Slack channel, through an incoming webhook. Its URL stands in a Secret or, where it may be read by
/// whoever may read the Tenant, in the resource itself.
#[derive(KubeSchema, Serialize, Deserialize, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.url) != has(self.secretRef)")
    .message("exactly one of url and secretRef must be set"))]
pub struct SlackTarget {
    /// Whether alerts are sent; false keeps the settings and sends nothing. Default: true.
    #[serde(default = "yes")]
    pub enabled: bool,

    /// The webhook's https URL, at most 2048 characters. Anyone who knows it can post to the channel, so
    /// secretRef is the better place. http is taken only where the chart's alerts.allowPrivateAddresses is true.
    #[x_kube(validation = Rule::new(crate::settings::URL_RULE)
        .message("url must be an https URL, such as https://hooks.slack.com/services/..."))]
    #[schemars(length(max = 2048))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,

    /// The Secret, in the Tenant's namespace, that holds the URL. Its label flagmeter.dev/used-by, or an annotation of
    /// that name with a list of names or `*`, names the tenant. A change of it is followed within seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
}

impl std::fmt::Debug for SlackTarget {
    /// Without the URL, which is as good as a password.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SlackTarget")
            .field("enabled", &self.enabled)
            .field("url", &self.url.as_ref().map(|_| ".."))
            .field("secret_ref", &self.secret_ref)
            .finish()
    }
}

/// One value of a Secret in the Tenant's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[x_kube(validation = Rule::new(crate::used_by::NAME_RULE)
        .message("name must be that of a Secret: lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"))]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The key of the value in it, of letters, digits, '-', '_' and '.'. Default: url.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    #[serde(default = "url_key")]
    pub key: String,
}

/// What the operator last saw and did. Written by it alone. While there is no condition Ready, no operator has seen the
/// resource: it is not running, or does not follow this namespace. It follows its own and those of the chart's value
/// operator.watchNamespaces.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// The metadata.generation that the rest of the status is about; −1 until the operator has seen the
    /// resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready: the settings are in force. Reconciling: the operator is working on it and tries again by
    /// itself. Stalled: only an edit helps; reason and message say which. `QuotaAvailable`: less than the quota
    /// of this billing period is used. `AlertDelivered`: the newest alert has reached its receivers.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// Usage in the current billing period. Written when it has changed, at most once a minute; the API knows it to
    /// the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageStatus>,

    /// The Secret in this namespace that holds the tenant's API key, under `key`. It is deleted with the Tenant. To
    /// have a new key, set the annotation flagmeter.dev/rotate-key to any new value: the former key goes on working for
    /// a day, unless it is set otherwise. To end all keys at once, delete the Secret: another is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret: Option<String>,
}

/// Usage in one billing period.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct UsageStatus {
    /// Tokens counted so far.
    pub total_tokens: i64,
    /// Share of the quota used, in whole percent, rounded down. May pass 100.
    pub percent: i64,
    /// The quota that this is a share of: monthlyQuota and the boosts that hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_quota: Option<i64>,
    /// When the period started.
    pub period_start: Time,
    /// When the next period starts, and usage counts from 0 again.
    pub period_end: Time,
    /// When this was read.
    pub updated_at: Time,
}

fn eighty_percent() -> Vec<i32> {
    vec![80]
}

fn first_of_month() -> i32 {
    1
}

fn utc() -> String {
    "UTC".to_owned()
}

fn yes() -> bool {
    true
}

fn url_key() -> String {
    "url".to_owned()
}
