//! Does what was planned.

use flagmeter_crds::Tenant;
use flagmeter_store::postgres::tenants::{self, Change, ChangeKind, SealedWebhook};
use flagmeter_store::sealed::Column;
use jiff::Timestamp;
use kube::ResourceExt;

use super::key::{Adopted, Why};
use super::observe::Observed;
use super::plan::{Plan, Problem};
use super::{Context, Error};

/// What was done.
#[derive(Debug)]
pub(super) struct Applied {
    /// What was written; `None` if the rows said already what they should.
    pub(super) written: Option<ChangeKind>,
    /// What only a person can put right.
    pub(super) problem: Option<Problem>,
    /// Why the tenant's key was made, if it was.
    pub(super) made_key: Option<Why>,
    /// Which key the Secret holds that was adopted, if one was.
    pub(super) adopted_key: Option<Adopted>,
    /// Whether somebody else had changed what is kept of the tenant's keys, and it was put back.
    pub(super) repaired_keys: bool,
}

impl Applied {
    /// Nothing but this, as yet.
    fn new(written: Option<ChangeKind>, problem: Option<Problem>) -> Self {
        Self { written, problem, made_key: None, adopted_key: None, repaired_keys: false }
    }

    /// Whether the tenant has a row, and it is its own.
    pub(super) fn has_row(&self, observed: &Observed) -> bool {
        let is_anothers = matches!(self.problem, Some(Problem::TenantIdTaken { .. }));
        (self.written.is_some() || observed.found.is_some()) && !is_anothers
    }
}

/// Writes the rows, if there is something to write.
pub(super) async fn apply(
    ctx: &Context,
    tenant: &Tenant,
    observed: &Observed,
    plan: Plan,
    now: Timestamp,
) -> Result<Applied, Error> {
    let Some(write) = plan.write else {
        return Ok(Applied::new(None, plan.problem));
    };
    let id = tenant.name_any();
    let seal = |column, text: &str| ctx.sealer.seal(&id, column, text);
    let sealed_url = write.slack_url.as_ref().map(|url| seal(Column::SlackUrl, url));
    let sealed_url = sealed_url.transpose().map_err(Error::Seal)?;
    let sealed_webhook = write.webhook.as_ref().map(|texts| {
        let url = seal(Column::WebhookUrl, &texts.url)?;
        Ok(SealedWebhook { url, secret: seal(Column::WebhookSecret, &texts.secret)? })
    });
    let sealed_webhook = sealed_webhook.transpose().map_err(Error::Seal)?;
    let change = Change {
        kind: write.kind,
        before: observed.found.as_ref().map(|found| &found.row),
        after: &write.after,
        sealed_url: sealed_url.as_deref(),
        sealed_webhook: sealed_webhook.as_ref(),
        now,
    };
    if !ctx.answers.of(tenants::write(&ctx.db, &change)).await.map_err(Error::Apply)? {
        return Err(Error::Overtaken);
    }
    tracing::info!(tenant.name = id, change = write.kind.as_str(), "wrote the row of {id}");
    if let ChangeKind::Created | ChangeKind::Adopted = write.kind {
        // What was known of its keys is of a row that is gone, or was detached.
        ctx.kept_keys.forget(tenant.namespace().as_deref(), &id);
    }
    if write.kind == ChangeKind::DriftRepaired {
        ctx.metrics.drift_repairs.inc();
    }
    Ok(Applied::new(Some(write.kind), plan.problem))
}
