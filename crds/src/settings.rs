//! What a spec must say beyond what the definition can refuse: asked by the operator of every Tenant, and by
//! `flagmeter lint` of every file, so that both say the same. No I/O.

use flagmeter_core::calendar::Terms;
use flagmeter_core::period::BillingDay;
use flagmeter_core::quota::{Boost, MAX_TOKENS, Quota};
use flagmeter_core::threshold::Thresholds;
use http::Uri;
use jiff::tz::TimeZone;

use crate::{MAX_URL_LENGTH, QuotaBoost, TenantSpec, text};

/// The most boosts of a tenant, as the database has room for.
const MAX_BOOSTS: usize = 16;

/// The longest reason, in bytes: 256 characters.
const MAX_REASON: usize = 1_024;

/// A setting that cannot be in force until a person changes it. Its text is a condition's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    /// Refused by the API server too, unless its table of time zones is newer than the operator's.
    #[error("spec.timeZone {0:?} is not a time zone that this version knows")]
    TimeZone(String),
    /// Refused by the API server too, unless it has another version of the definition.
    #[error("spec.{0}")]
    Field(&'static str),
}

impl InvalidSetting {
    /// The condition's reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TimeZone(_) => "InvalidTimeZone",
            Self::Field(_) => "InvalidSpec",
        }
    }
}

/// The rule by which the API server takes a URL in a spec. Whether it may be http is a setting, which no rule knows: that
/// is [`webhook_url`]'s to say, of URLs in specs as of those in Secrets.
pub(crate) const URL_RULE: &str =
    "isURL(self) && url(self).getScheme() in ['https', 'http'] && url(self).getHostname() != ''";

/// What stands at a place is not a URL that may be posted to. The text itself is never shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is not an https URL of at most {MAX_URL_LENGTH} characters; http is taken only where the chart's \
     alerts.allowPrivateAddresses is true"
)]
pub struct NotAWebhookUrl(
    /// Where it stands, such as `spec.alerts.slack.url`.
    pub String,
);

/// The billing day and the zone that a spec asks for.
///
/// # Errors
///
/// [`InvalidSetting`]: there is no such day, or no such zone.
pub fn terms(spec: &TenantSpec) -> Result<Terms, InvalidSetting> {
    let billing_day = BillingDay::try_from(spec.billing_day)
        .map_err(|_| InvalidSetting::Field("billingDay must be from 1 to 31"))?;
    let time_zone =
        TimeZone::get(&spec.time_zone).map_err(|_| InvalidSetting::TimeZone(spec.time_zone.clone()))?;
    Ok(Terms { billing_day, time_zone })
}

/// The quota that a spec asks for, boosts and all, whether or not it may be had.
#[must_use]
pub fn quota(spec: &TenantSpec) -> Quota {
    let boost = |boost: &QuotaBoost| Boost {
        tokens: boost.tokens,
        from: boost.from.0,
        until: boost.until.0,
        reason: text::shown(&boost.reason),
    };
    // Before or after all instants that can be told apart, it never holds.
    let is_never = |boost: &&QuotaBoost| boost.from == boost.until && boost.from.is_extreme();
    let boosts = spec.quota_boosts.iter().filter(|boost| !is_never(boost));
    Quota { base: spec.monthly_quota, boosts: boosts.map(boost).collect() }
}

/// [`quota`], if it may be had.
///
/// # Errors
///
/// [`InvalidSetting::Field`]: it may not.
pub fn checked_quota(spec: &TenantSpec) -> Result<Quota, InvalidSetting> {
    let quota = quota(spec);
    let is_token_count = |tokens| (1..=MAX_TOKENS).contains(&tokens);
    if !is_token_count(quota.base) {
        return Err(InvalidSetting::Field("monthlyQuota must be from 1 to 9007199254740991"));
    }
    let is_boost = |boost: &Boost| {
        is_token_count(boost.tokens) && boost.from < boost.until && boost.reason.len() <= MAX_REASON
    };
    if quota.boosts.len() > MAX_BOOSTS || !quota.boosts.iter().all(is_boost) {
        return Err(InvalidSetting::Field(
            "quotaBoosts must be at most 16, each of 1 to 9007199254740991 tokens, with from before until",
        ));
    }
    Ok(quota)
}

/// The thresholds that a spec asks for.
///
/// # Errors
///
/// [`InvalidSetting::Field`]: they are none.
pub fn thresholds(spec: &TenantSpec) -> Result<Thresholds, InvalidSetting> {
    Thresholds::try_from(spec.alerts.thresholds.clone()).map_err(|_| {
        InvalidSetting::Field("alerts.thresholds must be at most 10 different whole numbers from 1 to 1000")
    })
}

/// `text` as a URL that may be posted to, wherever it stands: in a spec or in a Secret. Files end with a line break more
/// often than not, so space around it is dropped.
#[must_use]
pub fn webhook_url(text: &str, allow_http: bool) -> Option<String> {
    let text = text.trim();
    let uri: Uri = text.parse().ok().filter(|_| text.len() <= MAX_URL_LENGTH)?;
    let authority = uri.authority().filter(|authority| !authority.host().is_empty())?;
    // `99999` is digits, as the API server asks for, and no port.
    let port = authority.as_str().trim_end_matches(':').ends_with(authority.host())
        || authority.port_u16().is_some();
    let scheme = uri.scheme_str() == Some("https") || (allow_http && uri.scheme_str() == Some("http"));
    (scheme && port).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(boosts: &Value, thresholds: &Value) -> TenantSpec {
        serde_json::from_value(json!({
            "monthlyQuota": 1_000, "quotaBoosts": boosts, "alerts": { "thresholds": thresholds },
        }))
        .unwrap()
    }

    #[test]
    fn a_boost_is_in_the_quota_while_it_holds() {
        let boost = json!({ "tokens": 500, "from": "2026-03-10T00:00:00Z", "until": "2026-03-20T00:00:00Z" });
        let quota = checked_quota(&spec(&json!([boost]), &json!([]))).unwrap();
        let at = |text: &str| quota.at(text.parse().unwrap());
        assert_eq!((at("2026-03-15T00:00:00Z"), at("2026-03-20T00:00:00Z")), (1_500, 1_000));
    }

    #[test]
    fn a_boost_may_hold_forever_and_one_that_never_holds_does_no_harm() {
        let boost = |from: &str, until: &str| json!({ "tokens": 500, "from": from, "until": until });
        let boosts = json!([
            boost("0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
            boost("9999-12-31T00:00:00Z", "9999-12-31T23:59:59Z"),
            boost("0000-01-01T00:00:00Z", "0000-12-31T00:00:00Z"),
            boost("2026-03-10T00:00:00.0000000001Z", "2026-03-10T00:00:00.1000000000Z"),
        ]);
        let quota = checked_quota(&spec(&boosts, &json!([]))).unwrap();
        assert_eq!(quota.boosts.len(), 2);
        for (at, expected) in [("2026-03-10T00:00:00.05Z", 2_000), ("9999-12-30T00:00:00Z", 1_500)] {
            assert_eq!(quota.at(at.parse().unwrap()), expected, "{at}");
        }
    }

    #[test]
    fn what_hides_in_a_reason_is_replaced() {
        let boost = json!([{ "tokens": 1, "from": "2026-03-10T00:00:00Z", "until": "2026-03-20T00:00:00Z",
            "reason": "a\u{0}b\u{202e}".repeat(64) }]);
        let quota = checked_quota(&spec(&boost, &json!([]))).unwrap();
        assert_eq!(quota.boosts[0].reason, "a\u{fffd}b\u{fffd}".repeat(64));
    }

    #[test]
    fn a_url_has_a_host_and_a_port_that_is_one() {
        for url in [
            "https://a",
            "https://a:",
            "https://a:8443/x",
            "https://user:word@a",
            "https://[::1]",
            " https://a\n",
        ] {
            assert_eq!(webhook_url(url, false).as_deref(), Some(url.trim()), "{url:?}");
        }
        for url in ["", "a", "https://", "https:///x", "https://:80", "https://a:99999", "http://a"] {
            assert_eq!(webhook_url(url, false), None, "{url:?}");
        }
    }

    #[test]
    fn what_the_api_server_should_have_refused_is_refused() {
        let boost = |tokens: i64, until: &str, reason: String| json!([{ "tokens": tokens, "from": "2026-03-10T00:00:00Z", "until": until, "reason": reason }]);
        let later = "2026-03-20T00:00:00Z";
        let many = json!(vec![boost(1, later, String::new())[0].clone(); 17]);
        for boosts in [
            boost(0, later, String::new()),
            boost(MAX_TOKENS + 1, later, String::new()),
            boost(1, "2026-03-10T00:00:00Z", String::new()),
            boost(1, later, "x".repeat(1_025)),
            many,
        ] {
            assert!(checked_quota(&spec(&boosts, &json!([80]))).is_err(), "{boosts}");
        }
        for percents in [json!([0]), json!([1_001]), json!([80, 80])] {
            assert!(thresholds(&spec(&json!([]), &percents)).is_err(), "{percents}");
        }
        assert_eq!(thresholds(&spec(&json!([]), &json!([100, 50]))).unwrap().percents(), [50, 100]);
    }
}
