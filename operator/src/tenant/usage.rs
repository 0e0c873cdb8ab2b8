//! Finds the tenants whose status is to say that usage has changed.

use std::collections::HashMap;
use std::sync::Arc;

use flagmeter_core::period::BillingPeriod;
use flagmeter_crds::{Tenant, UsageStatus};
use flagmeter_store::StoreError;
use flagmeter_store::postgres::tenants;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::DeserializeGuard;

use super::observe::Usage;
use super::plan::Terms;
use super::{Context, status};

/// The names of those of `known` whose usage is due to be written. One query, however many there are.
pub(super) async fn due(
    ctx: &Context,
    known: &[Arc<DeserializeGuard<Tenant>>],
) -> Result<Vec<String>, StoreError> {
    let now = ctx.clock.now();
    let told: Vec<Told<'_>> = known.iter().filter_map(|tenant| Told::by(tenant, now)).collect();
    let periods: Vec<_> = told.iter().map(|told| (told.name.clone(), told.period.start)).collect();
    let totals = tenants::usage(&ctx.db, &periods).await?;
    Ok(told.into_iter().filter(|told| told.is_due(&totals, now)).map(|told| told.name).collect())
}

/// A tenant whose status has usage already; the first reconcile of one gives it, if it is to have any.
struct Told<'a> {
    name: String,
    tenant: &'a Tenant,
    usage: &'a UsageStatus,
    period: BillingPeriod,
}

impl<'a> Told<'a> {
    fn by(tenant: &'a DeserializeGuard<Tenant>, now: Timestamp) -> Option<Self> {
        let tenant = tenant.0.as_ref().ok()?;
        let usage = tenant.status.as_ref()?.usage.as_ref()?;
        let period = Terms::of(&tenant.spec).ok()?.period(now);
        Some(Self { name: tenant.name_any(), tenant, usage, period })
    }

    fn is_due(&self, totals: &HashMap<String, i64>, now: Timestamp) -> bool {
        let total_tokens = totals.get(&self.name).copied().unwrap_or_default();
        let seen = Usage { period: self.period, total_tokens };
        status::is_due(self.tenant, self.usage, &seen, now)
    }
}
