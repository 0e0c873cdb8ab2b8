//! The condition `QuotaAvailable`: True while less than the quota of the billing period is used.

use flagmeter_crds::{Tenant, settings};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Usage, find};

/// The condition's type.
const TYPE: &str = "QuotaAvailable";

/// Tokens that the tenant may use, with the boosts that hold at `now`.
pub(super) fn effective(tenant: &Tenant, now: Timestamp) -> i64 {
    settings::quota(&tenant.spec).at(now)
}

/// The condition for what was seen. What was not seen leaves it as it was told.
pub(super) fn condition(tenant: &Tenant, seen: Option<&Usage>, now: Timestamp) -> Option<Condition> {
    let Some(seen) = seen else { return find(tenant, TYPE).cloned() };
    let quota = effective(tenant, now);
    let verdict = if seen.total_tokens < quota {
        ("True", "WithinQuota", format!("less than the quota of {quota} tokens is used"))
    } else {
        let message = format!(
            "the quota of {quota} tokens is used up until {}; events are counted all the same",
            seen.period.end
        );
        ("False", "QuotaExhausted", message)
    };
    Some(super::condition(tenant, TYPE, verdict, now))
}

/// Whether the tenant's status says already whether there is quota left.
pub(super) fn is_told(tenant: &Tenant, seen: &Usage, now: Timestamp) -> bool {
    let wanted = condition(tenant, Some(seen), now).map(|condition| condition.status);
    wanted.as_deref() == find(tenant, TYPE).map(|condition| condition.status.as_str())
}

#[cfg(test)]
mod tests {
    use flagmeter_core::period::BillingPeriod;
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-03-20T12:00:00Z";

    fn acme(conditions: &[Condition]) -> Tenant {
        serde_json::from_value(json!({
            "apiVersion": "flagmeter.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": { "name": "acme", "generation": 3 },
            "spec": { "monthlyQuota": 1_000 },
            "status": { "conditions": conditions },
        }))
        .unwrap()
    }

    fn used(total_tokens: i64) -> Usage {
        let at = |text: &str| text.parse().unwrap();
        let period = BillingPeriod { start: at("2026-03-15T00:00:00Z"), end: at("2026-04-15T00:00:00Z") };
        Usage { period, total_tokens }
    }

    #[test]
    fn the_quota_is_used_up_at_exactly_a_hundred_percent() {
        let now = NOW.parse().unwrap();
        for (tokens, status, reason) in
            [(0, "True", "WithinQuota"), (999, "True", "WithinQuota"), (1_000, "False", "QuotaExhausted")]
        {
            let condition = condition(&acme(&[]), Some(&used(tokens)), now).unwrap();
            assert_eq!((condition.status.as_str(), condition.reason.as_str()), (status, reason), "{tokens}");
            assert_eq!(condition.observed_generation, Some(3));
        }
    }

    #[test]
    fn only_a_turn_is_news_and_what_is_not_seen_stays_as_it_was_told() {
        let now = NOW.parse().unwrap();
        let told = condition(&acme(&[]), Some(&used(999)), now).unwrap();
        let tenant = acme(std::slice::from_ref(&told));
        assert!(is_told(&tenant, &used(5), now));
        assert!(!is_told(&tenant, &used(1_000), now));
        assert!(!is_told(&acme(&[]), &used(5), now));
        assert_eq!(condition(&tenant, None, now), Some(told));
        assert_eq!(condition(&acme(&[]), None, now), None);
    }
}
