//! What becomes of a tenant's webhook. No I/O.

use flagmeter_core::signing_secret;
use flagmeter_crds::settings::{NotAWebhookUrl, webhook_url};
use flagmeter_crds::{SigningSecretRef, WebhookTarget};
use flagmeter_store::postgres::tenants::WebhookRow;
use flagmeter_store::sealed::Sealer;

use super::observe::Observed;
use super::plan::{Problem, place};

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

/// The webhook's row. Where its URL or its secret cannot be had, the last ones that could stay in use together, and
/// the problem says why.
pub(super) fn webhook(
    id: &str,
    target: Option<&WebhookTarget>,
    observed: &Observed,
    sealer: &Sealer,
) -> Webhook {
    let (Some(target), Some(url), Some(secret)) = (target, &observed.webhook_url, &observed.webhook_secret)
    else {
        return Webhook::default();
    };
    let enabled = target.enabled;
    match texts(target, url.clone(), secret.clone(), observed.allow_http) {
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
    url: Result<String, Problem>,
    secret: Result<String, Problem>,
    allow_http: bool,
) -> Result<Texts, Problem> {
    let url = webhook_url(&url?, allow_http).ok_or_else(|| {
        let place = place("spec.alerts.webhook.url", target.url_secret_ref.as_ref());
        Problem::InvalidWebhookUrl(NotAWebhookUrl(place))
    })?;
    let secret = secret?.trim().to_owned();
    if signing_secret::key(&secret).is_none() {
        let SigningSecretRef { name, key } = target.secret_ref.clone();
        return Err(Problem::InvalidWebhookSecret { name, key });
    }
    Ok(Texts { url, secret })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URL: &str = "https://example.com/hook";
    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    const OTHER: &str = "whsec_/wECAwQFBgcICQoLDA0ODxAREhMUFRYX";

    fn sealer() -> Sealer {
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().unwrap()
    }

    fn target() -> WebhookTarget {
        serde_json::from_value(
            json!({ "urlSecretRef": { "name": "acme-webhook" }, "secretRef": { "name": "acme-webhook" } }),
        )
        .unwrap()
    }

    fn planned_of(url: &str, secret: &str) -> Webhook {
        let (url, secret) = (url.to_owned(), secret.to_owned());
        let observed =
            Observed { webhook_url: Some(Ok(url)), webhook_secret: Some(Ok(secret)), ..Observed::default() };
        webhook("acme", Some(&target()), &observed, &sealer())
    }

    fn planned(secret: &str) -> Webhook {
        planned_of(URL, secret)
    }

    #[test]
    fn a_url_in_a_secret_is_checked_as_one_in_the_spec_and_never_shown() {
        let texts = planned_of(&format!("{URL}\n"), SECRET).texts.unwrap();
        assert_eq!(texts.url, URL, "a line break at the end is dropped");
        let other = planned_of("https://user:s3cret@example.com/hook", SECRET);
        assert_ne!(other.row, planned(SECRET).row);
        for wrong in ["http://s3cret.example.com", "s3cret", "https://", ""] {
            let plan = planned_of(wrong, SECRET);
            assert!(plan.row.is_none() && plan.texts.is_none(), "{wrong:?}");
            let problem = plan.problem.unwrap();
            assert_eq!(problem.reason(), "InvalidWebhookUrl");
            let shown = problem.to_string();
            assert!(shown.contains("key \"url\" of the Secret \"acme-webhook\""), "{shown}");
            assert!(!shown.contains("s3cret"), "{shown}");
        }
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
