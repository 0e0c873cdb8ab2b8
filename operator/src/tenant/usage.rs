//! Finds the tenants whose status is to say that usage has changed.

use std::collections::HashMap;
use std::sync::Arc;

use flagmeter_crds::{Tenant, UsageStatus};
use flagmeter_store::StoreError;
use flagmeter_store::postgres::tenants::{self, OpenPeriod};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::DeserializeGuard;

use super::Context;
use super::observe::Usage;
use super::status::{self, News};

/// Those of `known` whose usage is due to be written: what cannot wait, and of the rest as many as the budget
/// allows, what is to be told soon first, and the oldest news before others. One query, however many there are.
///
/// Those that failed are left out: they are tried again after their own pause, which grows, and usage is told then.
pub(super) async fn due(
    ctx: &Context,
    known: &[Arc<DeserializeGuard<Tenant>>],
) -> Result<Vec<Arc<DeserializeGuard<Tenant>>>, StoreError> {
    let now = ctx.clock.now();
    let told: Vec<Told<'_>> = known.iter().filter_map(Told::by).collect();
    let names: Vec<_> = told.iter().map(|told| told.tenant.name_any()).collect();
    let open = ctx.answers.of(tenants::usage(&ctx.db, &names, now)).await?;
    let is_failing =
        |tenant: &Tenant| ctx.failures.is_failing(tenant.metadata.namespace.as_deref(), &tenant.name_any());
    let told = told.into_iter().filter(|told| !is_failing(told.tenant));
    let due = chosen(told, &open, ctx.budget.left(now), now);
    Ok(due.into_iter().map(|told| Arc::clone(told.guarded)).collect())
}

/// Those that are due, of which `left` may be told for the sake of usage alone.
fn chosen<'a>(
    told: impl Iterator<Item = Told<'a>>,
    open: &HashMap<String, OpenPeriod>,
    left: usize,
    now: Timestamp,
) -> Vec<Told<'a>> {
    let (mut urgent, mut soon, mut later, mut tokens) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for told in told {
        match told.news(open, now) {
            News::Urgent => urgent.push(told),
            News::Soon => soon.push(told),
            News::Later => later.push(told),
            News::Tokens => tokens.push(told),
            News::None => {}
        }
    }
    for news in [&mut soon, &mut later, &mut tokens] {
        news.sort_by_key(|told| told.usage.updated_at.0);
    }
    urgent.extend(soon.into_iter().chain(later).chain(tokens).take(left));
    urgent
}

/// A tenant whose status has usage already; the first reconcile of one gives it, if it is to have any.
struct Told<'a> {
    guarded: &'a Arc<DeserializeGuard<Tenant>>,
    tenant: &'a Tenant,
    usage: &'a UsageStatus,
}

impl<'a> Told<'a> {
    fn by(guarded: &'a Arc<DeserializeGuard<Tenant>>) -> Option<Self> {
        let tenant = guarded.0.as_ref().ok()?;
        let usage = tenant.status.as_ref()?.usage.as_ref()?;
        Some(Self { guarded, tenant, usage })
    }

    fn news(&self, open: &HashMap<String, OpenPeriod>, now: Timestamp) -> News {
        let seen = open.get(&self.tenant.name_any()).map(Usage::of);
        seen.map_or(News::None, |seen| status::news(self.tenant, &seen, now))
    }
}

#[cfg(test)]
mod tests {
    use flagmeter_core::period::BillingPeriod;
    use serde_json::json;

    use super::*;

    /// Told in March: `tokens` of a quota of 1,000.
    fn told(name: &str, tokens: i64, minute: usize) -> Arc<DeserializeGuard<Tenant>> {
        let condition = json!({
            "type": "QuotaAvailable",
            "status": if tokens < 1_000 { "True" } else { "False" },
            "reason": "",
            "message": "",
            "lastTransitionTime": "2026-03-01T00:00:00Z",
        });
        let tenant: Tenant = serde_json::from_value(json!({
            "apiVersion": "flagmeter.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": { "name": name, "namespace": "shop", "generation": 1 },
            "spec": { "monthlyQuota": 1_000 },
            "status": {
                "observedGeneration": 1,
                "conditions": [condition],
                "usage": {
                    "totalTokens": tokens,
                    "percent": tokens / 10,
                    "effectiveQuota": 1_000,
                    "periodStart": "2026-03-01T00:00:00Z",
                    "periodEnd": "2026-04-01T00:00:00Z",
                    "updatedAt": format!("2026-03-31T{:02}:{:02}:00Z", minute / 60, minute % 60),
                },
            },
        }))
        .unwrap();
        Arc::new(DeserializeGuard(Ok(tenant)))
    }

    fn open(name: &str, start: &str, end: &str, total_tokens: i64) -> (String, OpenPeriod) {
        let period = BillingPeriod { start: start.parse().unwrap(), end: end.parse().unwrap() };
        (name.to_owned(), OpenPeriod { period, total_tokens })
    }

    fn names(due: &[Told<'_>]) -> Vec<String> {
        due.iter().map(|told| told.tenant.name_any()).collect()
    }

    #[test]
    fn a_period_that_begins_for_ten_thousand_tenants_is_told_as_the_budget_allows_the_oldest_news_first() {
        let known: Vec<_> = (0..10_000).map(|n| told(&format!("t{n}"), 500, (n * 7) % 1_440)).collect();
        let april = |n| open(&format!("t{n}"), "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z", 0);
        let open: HashMap<_, _> = (0..10_000).map(april).collect();
        let now = "2026-04-01T00:00:03Z".parse().unwrap();
        let due = chosen(known.iter().filter_map(Told::by), &open, 20, now);
        assert_eq!(due.len(), 20);
        let earliest = known.iter().filter_map(Told::by).map(|told| told.usage.updated_at.0).min();
        assert_eq!(due.first().map(|told| told.usage.updated_at.0), earliest);
    }

    #[test]
    fn a_quota_that_is_used_up_does_not_wait_then_a_new_period_then_a_percent_then_tokens() {
        let known = ["tokens", "percent", "period", "used-up"].map(|name| told(name, 500, 0));
        let march = |name, tokens| open(name, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z", tokens);
        let open: HashMap<_, _> = [
            march("tokens", 509),
            march("percent", 600),
            march("used-up", 1_000),
            open("period", "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z", 0),
        ]
        .into();
        let now = "2026-03-31T23:59:59Z".parse().unwrap();
        let expected = ["used-up", "period", "percent", "tokens"];
        for left in 0..4 {
            assert_eq!(
                names(&chosen(known.iter().filter_map(Told::by), &open, left, now)),
                expected[..=left]
            );
        }
    }
}
