//! How much a spec allows, and at which percents that is watched. No I/O.

use flagmeter_core::quota::{Boost, MAX_TOKENS, Quota};
use flagmeter_core::threshold::Thresholds;
use flagmeter_crds::{QuotaBoost, TenantSpec};

use super::plan::Problem;

/// The most boosts of a tenant, as the database has room for.
const MAX_BOOSTS: usize = 16;

/// The longest reason, in bytes: 256 characters.
const MAX_REASON: usize = 1_024;

/// The quota that a spec asks for, boosts and all, whether or not it may be had.
pub(super) fn quota(spec: &TenantSpec) -> Quota {
    let boost = |boost: &QuotaBoost| Boost {
        tokens: boost.tokens,
        from: boost.from.0,
        until: boost.until.0,
        reason: boost.reason.clone(),
    };
    Quota { base: spec.monthly_quota, boosts: spec.quota_boosts.iter().map(boost).collect() }
}

/// [`quota`], if it may be had. What may not is refused by the API server too, unless it has another version of the
/// definition.
pub(super) fn checked_quota(spec: &TenantSpec) -> Result<Quota, Problem> {
    let quota = quota(spec);
    let is_token_count = |tokens| (1..=MAX_TOKENS).contains(&tokens);
    if !is_token_count(quota.base) {
        return Err(Problem::InvalidSpec("monthlyQuota must be from 1 to 9007199254740991"));
    }
    let is_boost = |boost: &Boost| {
        is_token_count(boost.tokens) && boost.from < boost.until && boost.reason.len() <= MAX_REASON
    };
    if quota.boosts.len() > MAX_BOOSTS || !quota.boosts.iter().all(is_boost) {
        return Err(Problem::InvalidSpec(
            "quotaBoosts must be at most 16, each of 1 to 9007199254740991 tokens, with from before until",
        ));
    }
    Ok(quota)
}

/// The thresholds that a spec asks for.
pub(super) fn thresholds(spec: &TenantSpec) -> Result<Thresholds, Problem> {
    Thresholds::try_from(spec.alerts.thresholds.clone()).map_err(|_| {
        Problem::InvalidSpec("alerts.thresholds must be at most 10 different whole numbers from 1 to 1000")
    })
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
