//! What becomes of a tenant's webhook. No I/O.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flagmeter_crds::{SigningSecretRef, WebhookTarget};
use flagmeter_store::postgres::tenants::WebhookRow;
use flagmeter_store::sealed::Sealer;

use super::observe::Observed;
use super::plan::{Problem, webhook_url};

/// What a secret starts with, in the form that Standard Webhooks gives it.
const PREFIX: &str = "whsec_";

/// A webhook's texts in the clear, to be sealed.
pub(super) struct Texts {
    pub(super) url: String,
    pub(super) secret: String,
}

/// What becomes of the webhook.
#[derive(Default)]
pub(super) struct Webhook {
    pub(super) row: Option<WebhookRow>,
    /// `None` leaves those that are stored.
    pub(super) texts: Option<Texts>,
    pub(super) problem: Option<Problem>,
}

/// The webhook's row. Where its secret cannot be had, the last one that could stays in use with its URL, and the
/// problem says why.
pub(super) fn webhook(
    id: &str,
    target: Option<&WebhookTarget>,
    observed: &Observed,
    sealer: &Sealer,
) -> Webhook {
    let (Some(target), Some(secret)) = (target, &observed.webhook_secret) else { return Webhook::default() };
    let enabled = target.enabled;
    match texts(target, secret.clone(), observed.allow_http) {
        Ok(texts) => {
            let fingerprint = |text: &str| Some(sealer.fingerprint(id, text));
            let row =
                WebhookRow { url: fingerprint(&texts.url), secret: fingerprint(&texts.secret), enabled };
            Webhook { row: Some(row), texts: Some(texts), problem: None }
        }
        Err(problem) => {
            let stored = observed.found.as_ref().and_then(|found| found.row.webhook.clone());
            let row = stored.map(|stored| WebhookRow { enabled, ..stored });
            Webhook { row, texts: None, problem: Some(problem) }
        }
    }
}

fn texts(
    target: &WebhookTarget,
    secret: Result<String, Problem>,
    allow_http: bool,
) -> Result<Texts, Problem> {
    let url = webhook_url(&target.url, allow_http).ok_or(Problem::InvalidWebhookUrl)?;
    let secret = secret?.trim().to_owned();
    if !is_secret(&secret) {
        let SigningSecretRef { name, key } = target.secret_ref.clone();
        return Err(Problem::InvalidWebhookSecret { name, key });
    }
    Ok(Texts { url, secret })
}

/// Whether messages can be signed with it.
fn is_secret(text: &str) -> bool {
    let bytes = text.strip_prefix(PREFIX).and_then(|encoded| STANDARD.decode(encoded).ok());
    bytes.is_some_and(|bytes| (24..=64).contains(&bytes.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    const OTHER: &str = "whsec_/wECAwQFBgcICQoLDA0ODxAREhMUFRYX";

    fn sealer() -> Sealer {
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().unwrap()
    }

    fn target() -> WebhookTarget {
        serde_json::from_value(
            json!({ "url": "https://example.com/hook", "secretRef": { "name": "acme-webhook" } }),
        )
        .unwrap()
    }

    fn planned(secret: &str) -> Webhook {
        let observed = Observed { webhook_secret: Some(Ok(secret.to_owned())), ..Observed::default() };
        webhook("acme", Some(&target()), &observed, &sealer())
    }

    #[test]
    fn a_secret_has_the_form_that_standard_webhooks_gives_it_and_is_never_shown() {
        let planned_row = |secret: &str| planned(secret).row;
        let row = planned_row(SECRET).unwrap();
        assert!(row.enabled && row.url.is_some());
        assert_eq!(planned_row(&format!("{SECRET}\n")), Some(row.clone()), "a line break at the end");
        assert_ne!(planned_row(OTHER), Some(row));
        for wrong in ["", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", "whsec_AAEC", "whsec_s3cret!", "s3cret"] {
            let plan = planned(wrong);
            assert!(plan.row.is_none() && plan.texts.is_none(), "{wrong:?}");
            let problem = plan.problem.unwrap();
            assert_eq!(problem.reason(), "InvalidWebhookSecret");
            let shown = problem.to_string();
            assert!(shown.contains("\"acme-webhook\"") && !shown.contains("s3cret"), "{shown}");
        }
    }
}
