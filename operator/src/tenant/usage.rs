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
/// allows, the oldest news first. One query, however many there are.
pub(super) async fn due(
    ctx: &Context,
    known: &[Arc<DeserializeGuard<Tenant>>],
) -> Result<Vec<Arc<DeserializeGuard<Tenant>>>, StoreError> {
    let now = ctx.clock.now();
    let told: Vec<Told<'_>> = known.iter().filter_map(Told::by).collect();
    let names: Vec<_> = told.iter().map(|told| told.tenant.name_any()).collect();
    let open = tenants::usage(&ctx.db, &names, now).await?;
    let (mut urgent, mut later) = (Vec::new(), Vec::new());
    for told in told {
        match told.news(&open, now) {
            News::Urgent => urgent.push(Arc::clone(told.guarded)),
            News::Later => later.push((told.usage.updated_at.0, Arc::clone(told.guarded))),
            News::None => {}
        }
    }
    later.sort_by_key(|(updated_at, _)| *updated_at);
    urgent.extend(later.into_iter().take(ctx.budget.left(now)).map(|(_, tenant)| tenant));
    Ok(urgent)
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
