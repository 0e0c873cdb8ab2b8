//! Finds the tenants whose status is to say that usage has changed.

use std::collections::HashMap;
use std::sync::Arc;

use flagmeter_crds::{Tenant, UsageStatus};
use flagmeter_store::StoreError;
use flagmeter_store::postgres::tenants::{self, OpenPeriod};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::DeserializeGuard;

use super::observe::Usage;
use super::{Context, status};

/// The names of those of `known` whose usage is due to be written. One query, however many there are.
pub(super) async fn due(
    ctx: &Context,
    known: &[Arc<DeserializeGuard<Tenant>>],
) -> Result<Vec<String>, StoreError> {
    let now = ctx.clock.now();
    let told: Vec<Told<'_>> = known.iter().filter_map(|tenant| Told::by(tenant)).collect();
    let names: Vec<_> = told.iter().map(|told| told.name.clone()).collect();
    let open = tenants::usage(&ctx.db, &names, now).await?;
    Ok(told.into_iter().filter(|told| told.is_due(&open, now)).map(|told| told.name).collect())
}

/// A tenant whose status has usage already; the first reconcile of one gives it, if it is to have any.
struct Told<'a> {
    name: String,
    tenant: &'a Tenant,
    usage: &'a UsageStatus,
}

impl<'a> Told<'a> {
    fn by(tenant: &'a DeserializeGuard<Tenant>) -> Option<Self> {
        let tenant = tenant.0.as_ref().ok()?;
        let usage = tenant.status.as_ref()?.usage.as_ref()?;
        Some(Self { name: tenant.name_any(), tenant, usage })
    }

    fn is_due(&self, open: &HashMap<String, OpenPeriod>, now: Timestamp) -> bool {
        let seen = open.get(&self.name).map(Usage::of);
        seen.is_some_and(|seen| status::is_due(self.tenant, self.usage, &seen, now))
    }
}
