//! From a Tenant resource to its rows, and back to its status.
//!
//! A reconcile is four steps, a file each: [`observe`], [`plan`] (without I/O), [`apply`], [`report`].
//! [`controller`] runs them whenever something may have changed; [`sweep`] detaches the rows whose
//! resource is gone; [`usage`] asks for a reconcile where usage has changed; [`deliveries`] says whether alerts
//! arrive.

mod allowance;
mod apply;
mod context;
pub mod controller;
mod deliveries;
mod failures;
mod key;
mod observe;
mod plan;
mod report;
mod status;
mod sweep;
mod usage;
mod webhook;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use flagmeter_crds::{Tenant, TenantStatus};
use flagmeter_store::StoreError;
use flagmeter_store::api_key::NoRandomBytes;
use flagmeter_store::sealed::SealError;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action;

pub use self::context::{Context, Settings};
use self::failures::jittered;
use self::key::Kept;
use self::plan::plan;
use self::status::Outcome;

/// Why a reconcile stopped. Each variant is one value of the metric's `result` label.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The resource does not parse; only an edit of it helps.
    #[error("tenant does not parse")]
    Invalid(#[source] Box<InvalidObject>),
    /// The tenant's row or usage could not be read.
    #[error("failed to read the tenant's rows")]
    Observe(#[source] StoreError),
    /// The Secret that the tenant names could not be read.
    #[error("failed to read the tenant's Secret")]
    ReadSecret(#[source] Box<kube::Error>),
    /// The tenant's key could not be made.
    #[error("failed to make the tenant's key")]
    MakeKey(#[source] NoRandomBytes),
    /// The Secret with the tenant's key could not be written.
    #[error("failed to write the Secret with the tenant's key")]
    WriteSecret(#[source] Box<kube::Error>),
    /// The webhook's URL could not be sealed.
    #[error("failed to seal the webhook's URL")]
    Seal(#[source] SealError),
    /// The tenant's row could not be written.
    #[error("failed to write the tenant's row")]
    Apply(#[source] StoreError),
    /// Somebody else wrote the tenant's row since it was read.
    #[error("the tenant's row was taken over while it was being written")]
    Overtaken,
    /// The status could not be written.
    #[error("failed to report the status")]
    Report(#[source] Box<kube::Error>),
}

impl Error {
    /// The variant as a metric's label.
    fn label(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Observe(_) => "observe",
            Self::ReadSecret(_) => "read_secret",
            Self::MakeKey(_) => "make_key",
            Self::WriteSecret(_) => "write_secret",
            Self::Seal(_) => "seal",
            Self::Apply(_) => "apply",
            Self::Overtaken => "overtaken",
            Self::Report(_) => "report",
        }
    }
}

/// Brings one tenant's rows to its spec. Safe to run any number of times, and to be cut off anywhere.
///
/// # Errors
///
/// See [`Error`]; [`error_policy`] says when each is tried again.
pub async fn reconcile(tenant: Arc<DeserializeGuard<Tenant>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let timer = ctx.metrics.reconcile_seconds.start_timer();
    let outcome = match &tenant.0 {
        Ok(tenant) => converge(tenant, &ctx).await,
        Err(invalid) => Err(Error::Invalid(Box::new(invalid.clone()))),
    };
    timer.observe_duration();
    let label = outcome.as_ref().map_or_else(Error::label, |label| *label);
    ctx.metrics.reconciles.with_label_values(&[label]).inc();
    match outcome {
        Ok(_) => {
            ctx.failures.forget(&tenant.name_any());
            Ok(Action::requeue(jittered(ctx.settings.resync)))
        }
        Err(error) => {
            report::trouble(&ctx, &tenant, &error).await;
            Err(error)
        }
    }
}

/// The reconcile of a tenant that parses. Answers what came of it, as a metric's label.
async fn converge(tenant: &Tenant, ctx: &Context) -> Result<&'static str, Error> {
    let now = ctx.clock.now();

    // observe
    let observed = observe::observe(ctx, tenant, now).await?;

    // plan: no I/O
    let plan = plan(tenant, &observed, &ctx.sealer);

    // apply
    let mut applied = apply::apply(ctx, tenant, &observed, plan, now).await?;
    let kept = if applied.has_row(&observed) { key::keep(ctx, tenant, now).await? } else { Kept::default() };
    applied.problem = applied.problem.or(kept.problem);
    applied.made_key = kept.made;

    // report
    let seen = match applied.written {
        // What was written may have made the open period anew.
        Some(_) => observe::usage(ctx, tenant, now).await?,
        None => observed.usage,
    };
    let outcome = applied.problem.as_ref().map_or(Outcome::InForce, Outcome::Stalled);
    let status = status::after(tenant, &outcome, seen.as_ref(), now);
    let status = TenantStatus { api_key_secret: kept.secret, ..status };
    report::report(ctx, tenant, &applied, &status).await?;
    Ok(outcome.label())
}

/// When a failed tenant is tried again.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
pub fn error_policy(tenant: Arc<DeserializeGuard<Tenant>>, error: &Error, ctx: Arc<Context>) -> Action {
    match error {
        Error::Invalid(_) => Action::await_change(),
        Error::Observe(_)
        | Error::ReadSecret(_)
        | Error::MakeKey(_)
        | Error::WriteSecret(_)
        | Error::Seal(_)
        | Error::Apply(_)
        | Error::Overtaken
        | Error::Report(_) => Action::requeue(ctx.failures.delay(&tenant.name_any())),
    }
}
