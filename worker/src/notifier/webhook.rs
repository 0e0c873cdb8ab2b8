//! Webhooks in the form of Standard Webhooks (<https://www.standardwebhooks.com>): the payload, its signatures, and what
//! answers mean.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flagmeter_core::delivery::Attempt;
use flagmeter_core::signing_secret;
use flagmeter_store::postgres::deliveries::Kind;
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use ring::hmac;
use serde_json::{Value, json};
use uuid::Uuid;

use super::message::Message;
use super::post::Answer;
use super::{Verdict, redirected};

/// A key that messages are signed with.
pub(super) struct Key(hmac::Key);

impl Key {
    /// The key that a secret stands for, if it is of the form of one.
    pub(super) fn of(secret: &str) -> Option<Self> {
        signing_secret::key(secret).map(|key| Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
        format!("v1,{}", STANDARD.encode(hmac::sign(&self.0, &signed)))
    }
}

/// What the message says. docs/alerts.md has each field.
pub(super) fn body(message: &Message<'_>) -> Value {
    let taken = message.taken;
    let type_ = match taken.kind {
        Kind::Crossed => "quota.threshold_crossed",
        Kind::Recovered => "quota.threshold_recovered",
        Kind::Test => "quota.test",
    };
    json!({
        "type": type_,
        "timestamp": taken.created_at,
        "data": {
            "tenant": taken.tenant,
            "displayName": taken.tenant_name,
            "threshold": taken.threshold,
            "percent": message.percent(),
            "totalTokens": taken.total_tokens,
            "monthlyQuota": taken.monthly_quota,
            "periodStart": taken.period_start,
            "periodEnd": taken.period_end,
            "timeZone": taken.time_zone,
            "projectedExhaustion": message.exhaustion,
            "dashboard": message.link(),
        },
    })
}

/// The headers by which a receiver knows that the message is ours, and whether it had it before. Signed with each of
/// `keys`: while a secret is being changed, the receiver may know either.
pub(super) fn headers(id: Uuid, now: Timestamp, body: &[u8], keys: &[Key]) -> Vec<(HeaderName, HeaderValue)> {
    let id = id.to_string();
    let timestamp = now.as_second();
    let signatures: Vec<String> = keys.iter().map(|key| key.sign(&id, timestamp, body)).collect();
    let named = [
        ("webhook-id", id),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", signatures.join(" ")),
    ];
    // Digits, letters and what base64 has are all allowed in a header.
    let header = |(name, value): (&'static str, String)| {
        Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
    };
    named.into_iter().filter_map(header).collect()
}

/// What the receiver's answer means: 410 is its word for "never again", 301 and 308 are those for "not here". Everything
/// else may change.
pub(super) fn judge(answer: &Answer) -> Verdict {
    let status = answer.status.as_u16();
    match status {
        200..=299 => Verdict::taken(),
        410 => Verdict {
            attempt: Attempt::Refused,
            why: "the receiver answered 410 Gone: it wants no more messages; change the webhook's URL, or remove it"
                .to_owned(),
        },
        // Moved for good: only an edit of the URL helps. The other redirects may pass.
        301 | 308 => Verdict { attempt: Attempt::Refused, why: redirected(status) },
        300..=399 => {
            Verdict { attempt: Attempt::Failed { retry_after: None }, why: redirected(status) }
        }
        _ => Verdict {
            attempt: Attempt::Failed { retry_after: None },
            why: format!("the receiver answered {status}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn gone_and_moved_for_good_end_it_and_a_redirect_says_what_to_do() {
        let again = Attempt::Failed { retry_after: None };
        let cases = [
            // status, what it means, part of what is said
            (200, Attempt::Taken, ""),
            (204, Attempt::Taken, ""),
            (301, Attempt::Refused, "edit the URL in the tenant's settings"),
            (302, again, "a redirect, which is not followed"),
            (307, again, "edit the URL in the tenant's settings"),
            (308, Attempt::Refused, "edit the URL in the tenant's settings"),
            (400, again, "the receiver answered 400"),
            (404, again, "the receiver answered 404"),
            (410, Attempt::Refused, "410 Gone"),
            (429, again, "the receiver answered 429"),
            (500, again, "the receiver answered 500"),
        ];
        for (status, attempt, part) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            let verdict =
                judge(&Answer { status, retry_after: None, body: b"https://s3cret.example.com".to_vec() });
            assert_eq!(verdict.attempt, attempt, "{status}");
            assert!(verdict.why.contains(part) && !verdict.why.contains("s3cret"), "{}", verdict.why);
        }
    }

    #[test]
    fn a_signature_is_that_of_the_published_example() {
        let key = Key::of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
