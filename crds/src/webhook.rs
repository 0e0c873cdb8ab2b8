//! A receiver of alerts in the form of Standard Webhooks.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::SecretKeyRef;

/// A receiver of alerts as signed JSON, in the form of Standard Webhooks. Its URL stands in a Secret or, where it may be
/// read by whoever may read the Tenant, in the resource itself.
#[derive(KubeSchema, Serialize, Deserialize, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.url) != has(self.urlSecretRef)")
    .message("exactly one of url and urlSecretRef must be set"))]
pub struct WebhookTarget {
    /// Whether alerts are sent; false keeps the settings and sends nothing. Default: true.
    #[serde(default = "yes")]
    pub enabled: bool,

    /// The receiver's https URL, at most 2048 characters. If it has a password or a token in it, urlSecretRef is the
    /// better place. http is taken only where the chart's alerts.allowPrivateAddresses is true.
    #[x_kube(validation = Rule::new(crate::settings::URL_RULE)
        .message("url must be an https URL, such as https://example.com/flagmeter"))]
    #[schemars(length(max = 2048))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,

    /// The Secret, in the Tenant's namespace, that holds the URL. Its label flagmeter.dev/used-by names the tenant. A
    /// change of it is followed within seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_ref: Option<SecretKeyRef>,

    /// The Secret, in the Tenant's namespace, that holds what messages are signed with: whsec_ and base64 of 24 to 64
    /// bytes. Its label flagmeter.dev/used-by names the tenant. After a change of it messages are signed with the former one too, for 24 hours.
    pub secret_ref: SigningSecretRef,
}

impl std::fmt::Debug for WebhookTarget {
    /// Without the URL, which may hold a password.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("WebhookTarget")
            .field("enabled", &self.enabled)
            .field("url", &self.url.as_ref().map(|_| ".."))
            .field("url_secret_ref", &self.url_secret_ref)
            .field("secret_ref", &self.secret_ref)
            .finish()
    }
}

/// One value of a Secret in the Tenant's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SigningSecretRef {
    /// The Secret's name.
    #[x_kube(validation = Rule::new(crate::used_by::NAME_RULE)
        .message("name must be that of a Secret: lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"))]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The key of the value in it, of letters, digits, '-', '_' and '.'. Default: secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    #[serde(default = "secret_key")]
    pub key: String,
}

fn yes() -> bool {
    true
}

fn secret_key() -> String {
    "secret".to_owned()
}
