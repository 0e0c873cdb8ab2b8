//! From a Tenant resource to its rows, and back to its status.
//!
//! A reconcile is four steps, a file each: [`observe`], [`plan`] (without I/O), [`apply`], [`report`].
//! Before them, [`finalizer`] says whether the tenant is to go, and [`cleanup`] deletes what was kept of it.
//! [`controller`] runs them whenever something may have changed; [`sweep`] detaches the rows whose
//! resource is gone; [`usage`] asks for a reconcile where usage has changed; [`deliveries`] says whether alerts
//! arrive; [`unfollowed`] says so where nobody follows a Tenant's namespace.

mod answers;
mod apply;
mod budget;
mod cleanup;
mod context;
pub mod controller;
mod deliveries;
mod failures;
mod finalizer;
mod key;
mod memo;
mod observe;
mod plan;
mod report;
mod scope;
mod secrets;
mod status;
mod sweep;
mod unfollowed;
mod usage;
mod view;
mod watching;
mod webhook;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use flagmeter_crds::{Tenant, TenantStatus};
use flagmeter_store::StoreError;
use flagmeter_store::api_key::NoRandomBytes;
use flagmeter_store::sealed::SealError;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};

use self::cleanup::Cleanup;
pub use self::context::{Context, Settings};
use self::failures::jittered;
use self::finalizer::Step;
pub use self::finalizer::{FINALIZER, SKIP_CLEANUP};
use self::key::Kept;
use self::memo::Settled;
use self::observe::Observed;
use self::plan::{Plan, plan};
pub use self::scope::{NotNamespaces, Scope};
use self::status::{News, Outcome};
pub use self::watching::Unwatchable;

/// How soon a deletion that is not another's turn, or not done, goes on.
const DELETION_PAUSE: Duration = Duration::from_secs(2);

/// How soon a write that came too late is tried again.
const CONFLICT_PAUSE: Duration = Duration::from_secs(1);

/// How soon it is looked whether a key can be made now, should the watch of Secrets be late.
const KEY_PAUSE: Duration = Duration::from_secs(5);

/// Why a reconcile stopped. Each variant is one value of the metric's `result` label.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The resource does not parse; only an edit of it helps.
    #[error("tenant does not parse")]
    Invalid(#[source] Box<InvalidObject>),
    /// The finalizer could not be added or removed.
    #[error("failed to change the tenant's finalizers")]
    Finalizer(#[source] Box<kube::Error>),
    /// The rows of a tenant that is to go could not be deleted.
    #[error("failed to delete the tenant's rows, without which it does not go")]
    CleanUp(#[source] StoreError),
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
    /// Whether the resource, or its Secret, was changed since it was read: the watch is about to say how.
    fn is_conflict(&self) -> bool {
        let (Self::Finalizer(error) | Self::WriteSecret(error)) = self else { return false };
        matches!(&**error, kube::Error::Api(status) if status.code == 409)
    }

    /// The SQLSTATE with which PostgreSQL refused the tenant's data: the same would be refused again.
    fn refusal(&self) -> Option<String> {
        match self {
            Self::Observe(error) | Self::Apply(error) | Self::CleanUp(error) => error.refusal(),
            _ => None,
        }
    }

    /// The variant as a metric's label.
    fn label(&self) -> &'static str {
        match self {
            _ if self.is_conflict() => "overtaken",
            Self::Invalid(_) => "invalid",
            Self::Finalizer(_) => "finalizer",
            Self::CleanUp(_) => "clean_up",
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

/// What came of a reconcile that did not fail: a metric's label, and when to come again.
struct Done {
    label: &'static str,
    next: Action,
}

/// Brings one tenant's rows to its spec. Safe to run any number of times, and to be cut off anywhere.
///
/// # Errors
///
/// See [`Error`]; [`error_policy`] says when each is tried again.
pub async fn reconcile(tenant: Arc<DeserializeGuard<Tenant>>, ctx: Arc<Context>) -> Result<Action, Error> {
    // Never closed: a failure to get one would only let one more go on.
    let _slot = ctx.slots.acquire().await;
    let timer = ctx.metrics.reconcile_seconds.start_timer();
    let outcome = follow(&tenant, &ctx).await;
    timer.observe_duration();
    let label = outcome.as_ref().map_or_else(Error::label, |done| done.label);
    ctx.metrics.reconciles.with_label_values(&[label]).inc();
    match outcome {
        Ok(done) => {
            ctx.failures.forget(tenant.namespace().as_deref(), &tenant.name_any());
            Ok(done.next)
        }
        // Nothing has failed, and nobody need hear of it.
        Err(error) if error.is_conflict() => Ok(Action::requeue(CONFLICT_PAUSE)),
        Err(error) => {
            report::trouble(&ctx, &tenant, &error).await;
            Err(error)
        }
    }
}

/// Follows the resource through its life.
async fn follow(tenant: &DeserializeGuard<Tenant>, ctx: &Context) -> Result<Done, Error> {
    let policy = tenant.0.as_ref().ok().map(|tenant| tenant.spec.deletion_policy);
    match finalizer::step(tenant.meta(), policy) {
        Step::Stay => {}
        Step::Add => finalizer::set(ctx, tenant, true).await?,
        Step::Remove => finalizer::set(ctx, tenant, false).await?,
        Step::Going => return Ok(Done { label: "gone", next: Action::await_change() }),
        Step::LetGo => {
            ctx.cleanups.forget(&tenant.uid().unwrap_or_default());
            finalizer::set(ctx, tenant, false).await?;
            return Ok(Done { label: "gone", next: Action::await_change() });
        }
        Step::CleanUp => return clean_up(tenant, ctx).await,
    }
    match &tenant.0 {
        Ok(tenant) => converge(tenant, ctx).await,
        Err(invalid) => Err(Error::Invalid(Box::new(invalid.clone()))),
    }
}

/// Takes the finalizer off a Tenant that stays, and whose rows stay.
///
/// # Errors
///
/// [`Error::Finalizer`].
pub async fn let_go(ctx: &Context, tenant: &DeserializeGuard<Tenant>) -> Result<(), Error> {
    finalizer::set(ctx, tenant, false).await
}

/// Deletes what is kept of a tenant that is to go, and then lets it go.
async fn clean_up(tenant: &DeserializeGuard<Tenant>, ctx: &Context) -> Result<Done, Error> {
    let cleanup = cleanup::clean_up(ctx, &tenant.name_any(), &tenant.uid().unwrap_or_default()).await?;
    if let Cleanup::Done = cleanup {
        finalizer::set(ctx, tenant, false).await?;
        report::deleted(ctx, tenant).await;
        return Ok(Done { label: "gone", next: Action::await_change() });
    }
    match &tenant.0 {
        Ok(tenant) => going_on(tenant, ctx, cleanup).await,
        Err(_) => Ok(Done { label: "deleting", next: Action::requeue(DELETION_PAUSE) }),
    }
}

/// Says how far a deletion has come, and comes again.
async fn going_on(tenant: &Tenant, ctx: &Context, cleanup: Cleanup) -> Result<Done, Error> {
    let (progress, pause) = match cleanup {
        Cleanup::Going(progress) => (progress, Duration::ZERO),
        Cleanup::Waiting => ("another tenant's rows are deleted first".to_owned(), DELETION_PAUSE),
        Cleanup::Done => ("what an earlier resource of this name left is deleted".to_owned(), Duration::ZERO),
    };
    let outcome = Outcome::Deleting(&progress);
    let status = status::after(tenant, &outcome, None, false, ctx.clock.now());
    report::write(ctx, tenant, &status).await?;
    Ok(Done { label: outcome.label(), next: Action::requeue(pause) })
}

/// The reconcile of a tenant that parses and stays.
async fn converge(tenant: &Tenant, ctx: &Context) -> Result<Done, Error> {
    let now = ctx.clock.now();

    // observe
    let mut observed = observe::rows(ctx, tenant, now).await?;
    if let Some(uid) = left_over(tenant, &observed) {
        let cleanup = cleanup::clean_up(ctx, &tenant.name_any(), uid).await?;
        return going_on(tenant, ctx, cleanup).await;
    }

    let secrets = observe::versions(ctx, tenant);
    let known = secrets.as_ref().and_then(|secrets| settled(ctx, tenant, &observed, secrets));
    if known.is_none() {
        observe::secrets(ctx, tenant, &mut observed).await?;
    }

    // plan: no I/O
    let plan = known.unwrap_or_else(|| plan(tenant, &observed, &ctx.sealer));
    if plan.write.is_none()
        && let Some(secrets) = secrets.filter(|secrets| !secrets.is_empty())
    {
        let (generation, found) = (tenant.metadata.generation, observed.found.clone());
        ctx.settled.put(tenant, Settled { generation, found, secrets, problem: plan.problem.clone() });
    }

    // apply
    let mut applied = apply::apply(ctx, tenant, &observed, plan, now).await?;
    let kept = if applied.has_row(&observed) { key::keep(ctx, tenant, now).await? } else { Kept::default() };
    applied.problem = applied.problem.or(kept.problem);
    applied.made_key = kept.made;
    applied.adopted_key = kept.adopted;
    applied.repaired_keys = kept.repaired;
    if kept.repaired {
        ctx.metrics.drift_repairs.inc();
    }

    // report
    let seen = match applied.written {
        // What was written may have made the open period anew.
        Some(_) => observe::usage(ctx, tenant, now).await?,
        None => observed.usage,
    };
    let outcome = match &applied.problem {
        Some(problem) => Outcome::Stalled(problem),
        None if kept.pending => Outcome::KeyPending,
        None => Outcome::InForce,
    };
    let seen = seen.as_ref();
    let show = seen.is_some_and(|seen| match status::news(tenant, seen, now) {
        News::Urgent => true,
        News::Soon | News::Later | News::Tokens => ctx.budget.take(now),
        News::None => false,
    });
    let status = status::after(tenant, &outcome, seen, show, now);
    let status = TenantStatus { api_key_secret: kept.secret, ..status };
    report::report(ctx, tenant, &applied, &status).await?;
    // The watch says when the Secret is gone.
    let pause = if kept.pending { KEY_PAUSE } else { jittered(ctx.resync()) };
    Ok(Done { label: outcome.label(), next: Action::requeue(pause) })
}

/// The plan, if it is known without reading any Secret: that there is nothing to write, as before.
fn settled(ctx: &Context, tenant: &Tenant, observed: &Observed, secrets: &[Option<String>]) -> Option<Plan> {
    ctx.settled.recall(tenant, |settled| {
        let is_as_before = settled.generation == tenant.metadata.generation
            && settled.found == observed.found
            && settled.secrets == secrets;
        is_as_before.then(|| Plan { write: None, problem: settled.problem.clone() })
    })
}

/// The resource whose rows somebody began to delete and did not finish, if it was one of the same name and
/// namespace: it was let go, or its finalizer was taken away by hand.
fn left_over<'a>(tenant: &Tenant, observed: &'a Observed) -> Option<&'a str> {
    let found = observed.found.as_ref().filter(|found| found.is_being_deleted)?;
    (Some(&found.row.owner.namespace) == tenant.namespace().as_ref()).then_some(found.row.owner.uid.as_str())
}

/// When a failed tenant is tried again.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
pub fn error_policy(tenant: Arc<DeserializeGuard<Tenant>>, error: &Error, ctx: Arc<Context>) -> Action {
    match error {
        Error::Invalid(_) => Action::await_change(),
        Error::Finalizer(_)
        | Error::CleanUp(_)
        | Error::Observe(_)
        | Error::ReadSecret(_)
        | Error::MakeKey(_)
        | Error::WriteSecret(_)
        | Error::Seal(_)
        | Error::Apply(_)
        | Error::Overtaken
        | Error::Report(_) => {
            let (namespace, name) = (tenant.namespace(), tenant.name_any());
            Action::requeue(match error.refusal() {
                Some(_) => ctx.failures.longest_delay(namespace.as_deref(), &name),
                None => ctx.failures.delay(namespace.as_deref(), &name),
            })
        }
    }
}
