//! What has to happen so that the rows say what the spec says. No I/O: the same resource and the same
//! observation always give the same plan.

use flagmeter_crds::settings::{self, InvalidSetting, NotAWebhookUrl, webhook_url};
use flagmeter_crds::used_by::{USED_BY, is_secret_name};
use flagmeter_crds::{SecretKeyRef, SlackTarget, Tenant, text};
use flagmeter_store::postgres::tenants::{ChangeKind, FoundTenant, Owner, SlackRow, TenantRow};
use flagmeter_store::sealed::Sealer;
use kube::ResourceExt;

use super::observe::Observed;
use super::webhook::{self, Texts, Webhook};

/// What keeps a spec, or a part of it, from being in force until a person acts. Each variant is a
/// condition's reason; its text is the condition's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// A setting that the API server should have refused; `flagmeter lint` says the same of it.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// Another namespace was first.
    #[error("the id {id:?} belongs to namespace {namespace:?}, which claimed it first{}", if *.detached {
        "; the Tenant there is gone and its usage is kept: choose another name, or have it deleted by `flagmeter tenants free`"
    } else {
        "; choose another name"
    })]
    TenantIdTaken {
        /// The tenant's id.
        id: String,
        /// Who has it.
        namespace: String,
        /// Whether its resource is gone.
        detached: bool,
    },
    /// There is a Secret where the key belongs that is not the tenant's.
    #[error(
        "the Secret {name:?}, in which the tenant's key belongs, is controlled by something else or holds no key, and is \
         left alone; keys that worked before go on working. Have that Secret made under another name, and the key is made"
    )]
    KeySecretTaken {
        /// The Secret's name.
        name: String,
    },
    /// The Secret does not exist, does not have the key, or does not let the tenant use it. Which of these is not said:
    /// anyone who may write Tenants could learn of Secrets that they may not read.
    #[error(
        "key {key:?} of the Secret {name:?} cannot be used: there is no such Secret in namespace {namespace:?}, it has no \
         such key, or its label {USED_BY} does not name this tenant{}",
        how_to_allow(.name, .tenant, .namespace)
    )]
    SecretUnavailable {
        /// The Secret's name.
        name: String,
        /// The key's.
        key: String,
        /// The tenant.
        tenant: String,
        /// Its namespace, and the Secret's.
        namespace: String,
    },
    /// PostgreSQL answers, and refuses what the operator writes: the same would be refused again.
    #[error(
        "PostgreSQL refuses the tenant's settings (SQLSTATE {sqlstate}); the last ones stay in force. Change what was \
         changed last; the operator's log says which statement it was"
    )]
    SettingsRefused {
        /// PostgreSQL's code.
        sqlstate: String,
    },
    /// What stands there is no https URL. The text itself is never shown.
    #[error(transparent)]
    InvalidSlackUrl(NotAWebhookUrl),
    /// The same of the webhook.
    #[error(transparent)]
    InvalidWebhookUrl(NotAWebhookUrl),
    /// What stands there cannot sign messages. The text itself is never shown.
    #[error(
        "the value of key {key:?} of the Secret {name:?} is not whsec_ and base64 of 24 to 64 bytes; \
         `echo whsec_$(openssl rand -base64 32)` makes one"
    )]
    InvalidWebhookSecret {
        /// The Secret's name.
        name: String,
        /// The key's.
        key: String,
    },
}

/// What anyone who may write the Secret can do. Nothing, if no Secret can have this name, which then stands in no command
/// either.
fn how_to_allow(secret: &str, tenant: &str, namespace: &str) -> String {
    if is_secret_name(secret) {
        format!(
            ". Someone who may write it can allow it: `kubectl label secret {secret} -n {namespace} {USED_BY}={tenant}`"
        )
    } else {
        String::new()
    }
}

impl Problem {
    /// The condition's reason.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Setting(problem) => problem.reason(),
            Self::TenantIdTaken { .. } => "TenantIdTaken",
            Self::KeySecretTaken { .. } => "KeySecretTaken",
            Self::SecretUnavailable { .. } => "SecretUnavailable",
            Self::SettingsRefused { .. } => "SettingsRefused",
            Self::InvalidSlackUrl(_) => "InvalidSlackUrl",
            Self::InvalidWebhookUrl(_) => "InvalidWebhookUrl",
            Self::InvalidWebhookSecret { .. } => "InvalidWebhookSecret",
        }
    }
}

/// What has to happen. Both parts may be there: a tenant whose Secret is missing counts all the same.
pub(super) struct Plan {
    /// What is to be written, unless the rows say it already.
    pub(super) write: Option<Write>,
    /// What only a person can put right.
    pub(super) problem: Option<Problem>,
}

/// A row to be written.
pub(super) struct Write {
    pub(super) kind: ChangeKind,
    pub(super) after: TenantRow,
    /// The URL in the clear, to be sealed; `None` leaves the one that is stored.
    pub(super) slack_url: Option<String>,
    /// The webhook's texts, likewise.
    pub(super) webhook: Option<Texts>,
}

/// What has to happen to `tenant`'s rows, given what was observed. The usage, and anything that is not in the spec, the
/// rows or the Secrets, must make no difference: `memo::Settled` relies on it.
pub(super) fn plan(tenant: &Tenant, observed: &Observed, sealer: &Sealer) -> Plan {
    match wanted(tenant, observed, sealer) {
        Err(problem) => Plan { write: None, problem: Some(problem) },
        Ok((after, slack, webhook)) => Plan {
            write: kind(observed.found.as_ref(), &after).map(|kind| Write {
                kind,
                after,
                slack_url: slack.url,
                webhook: webhook.texts,
            }),
            problem: slack.problem.or(webhook.problem),
        },
    }
}

/// The row that the spec asks for, or why it can have none.
fn wanted(
    tenant: &Tenant,
    observed: &Observed,
    sealer: &Sealer,
) -> Result<(TenantRow, Slack, Webhook), Problem> {
    let spec = &tenant.spec;
    let id = tenant.name_any();
    let owner =
        Owner { namespace: tenant.namespace().unwrap_or_default(), uid: tenant.uid().unwrap_or_default() };
    // First, so that nothing else is said about a tenant that belongs to somebody else.
    if let Some(found) = &observed.found
        && found.row.owner.namespace != owner.namespace
    {
        return Err(Problem::TenantIdTaken {
            id,
            namespace: found.row.owner.namespace.clone(),
            detached: found.row.detached_at.is_some(),
        });
    }
    let terms = settings::terms(spec)?;
    let quota = settings::checked_quota(spec)?;
    let thresholds = settings::thresholds(spec)?;
    let webhook = webhook::webhook(&id, spec.alerts.webhook.as_ref(), observed, sealer);
    let slack = slack(&id, spec.alerts.slack.as_ref(), observed, sealer);
    let row = TenantRow {
        name: spec.display_name.as_deref().map_or_else(|| id.clone(), text::shown),
        monthly_quota: quota.base,
        boosts: quota.boosts,
        thresholds: thresholds.percents().to_vec(),
        billing_day: terms.billing_day.number().into(),
        time_zone: spec.time_zone.clone(),
        suspended: spec.suspended,
        owner,
        detached_at: None,
        slack: slack.row.clone(),
        webhook: webhook.row.clone(),
        id,
    };
    Ok((row, slack, webhook))
}

/// Why the row has to be written; `None` if it says what it should.
fn kind(found: Option<&FoundTenant>, after: &TenantRow) -> Option<ChangeKind> {
    match found {
        None => Some(ChangeKind::Created),
        Some(found) if found.row == *after => None,
        // There is one resource of a name in a namespace, so the former owner is gone.
        Some(found) if found.row.detached_at.is_some() || found.row.owner != after.owner => {
            Some(ChangeKind::Adopted)
        }
        // This very row was written before, and is no longer there: somebody else changed it.
        Some(found) if found.recorded.as_ref() == Some(&after.as_recorded()) => {
            Some(ChangeKind::DriftRepaired)
        }
        Some(_) => Some(ChangeKind::Changed),
    }
}

/// What becomes of the Slack channel.
#[derive(Default)]
struct Slack {
    row: Option<SlackRow>,
    url: Option<String>,
    problem: Option<Problem>,
}

/// The channel's row. Where its URL cannot be had, the last one that could stays in use, and the
/// problem says why.
fn slack(id: &str, target: Option<&SlackTarget>, observed: &Observed, sealer: &Sealer) -> Slack {
    let (Some(target), Some(text)) = (target, &observed.slack_url) else {
        return Slack::default();
    };
    let enabled = target.enabled;
    let invalid = || {
        let place = place("spec.alerts.slack.url", target.secret_ref.as_ref());
        Problem::InvalidSlackUrl(NotAWebhookUrl(place))
    };
    match text.clone().and_then(|text| webhook_url(&text, observed.allow_http).ok_or_else(invalid)) {
        Ok(url) => Slack {
            row: Some(SlackRow { fingerprint: Some(sealer.fingerprint(id, &url)), enabled }),
            url: Some(url),
            problem: None,
        },
        Err(problem) => {
            let stored = observed.found.as_ref().and_then(|found| found.row.slack.clone());
            let row = stored.map(|stored| SlackRow { enabled, ..stored });
            Slack { row, url: None, problem: Some(problem) }
        }
    }
}

/// Where a value stands, for people: in `field` of the resource, or in a Secret.
pub(super) fn place(field: &str, reference: Option<&SecretKeyRef>) -> String {
    match reference {
        Some(SecretKeyRef { name, key }) => format!("the value of key {key:?} of the Secret {name:?}"),
        None => field.to_owned(),
    }
}

#[cfg(test)]
mod tests;
