//! Says what was done: in the status, and in events.

use flagmeter_crds::{Tenant, TenantStatus};
use flagmeter_runtime::telemetry::chain;
use flagmeter_store::postgres::tenants::ChangeKind;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::json;

use super::apply::Applied;
use super::context::NAME;
use super::key::{Adopted, Why};
use super::plan::Problem;
use super::scope::Scope;
use super::status::{self, Outcome};
use super::{Context, Error};

/// The reason given for a resource that does not parse.
const INVALID: &str = "InvalidSpec";

/// Who says so: by another name than usual, for what that one wrote and this one does not know would be taken away.
const UNPARSED: &str = "flagmeter-operator-unparsed";

/// Writes the status, if it says something new, and an event for what people should hear of.
pub(super) async fn report(
    ctx: &Context,
    tenant: &Tenant,
    applied: &Applied,
    status: &TenantStatus,
) -> Result<(), Error> {
    write(ctx, tenant, status).await?;
    for event in events(tenant, applied) {
        publish(ctx, &tenant.object_ref(&()), &event).await;
    }
    Ok(())
}

/// Says in the status that a reconcile failed. What cannot be said is left: the error itself is
/// logged, and tried again.
pub(super) async fn trouble(ctx: &Context, tenant: &DeserializeGuard<Tenant>, error: &Error) {
    match &tenant.0 {
        Ok(tenant) => {
            let refused = error.refusal().map(|sqlstate| Problem::SettingsRefused { sqlstate });
            let outcome = refused.as_ref().map_or(Outcome::Retrying(error), Outcome::Stalled);
            let status = status::after(tenant, &outcome, None, false, ctx.clock.now());
            if let Err(error) = write(ctx, tenant, &status).await {
                return tracing::debug!(error = chain(&error), "failed to report a failure");
            }
            if let Some(problem) = refused.filter(|problem| !status::is_known(tenant, problem)) {
                let event = event(EventType::Warning, problem.reason(), problem.to_string());
                publish(ctx, &tenant.object_ref(&()), &event).await;
            }
        }
        Err(invalid) => unparsed(ctx, tenant, invalid).await,
    }
}

/// Says once for each edit that the resource does not parse: nobody knows here what its status says already.
async fn unparsed(ctx: &Context, tenant: &DeserializeGuard<Tenant>, invalid: &InvalidObject) {
    let generation = tenant.meta().generation;
    if ctx.unparsed.recall(tenant, |said| (*said == generation).then_some(())).is_some() {
        return;
    }
    let message = format!("the resource does not parse: {}", invalid.error);
    let now = Time(ctx.clock.now());
    let condition = |type_: &str, status: &str| Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: INVALID.to_owned(),
        message: message.clone(),
        observed_generation: generation,
        last_transition_time: now.clone(),
    };
    let status = json!({
        "observedGeneration": generation,
        "conditions": [condition("Ready", "False"), condition("Reconciling", "False"), condition("Stalled", "True")],
    });
    match apply(ctx, tenant, UNPARSED, &status).await {
        Ok(()) => ctx.unparsed.put(tenant, generation),
        Err(error) => tracing::debug!(error = chain(&error), "failed to report a failure"),
    }
    publish(ctx, &tenant.object_ref(&()), &event(EventType::Warning, INVALID, message)).await;
}

/// Says that nothing is kept of the tenant any more.
pub(super) async fn deleted(ctx: &Context, tenant: &DeserializeGuard<Tenant>) {
    let note = "everything that was kept of the tenant is deleted".to_owned();
    publish(ctx, &tenant.object_ref(&()), &event(EventType::Normal, "Deleted", note)).await;
}

/// Says, at this process's pod, that a sweep was refused.
pub(super) async fn sweep_refused(ctx: &Context, scope: &Scope, doubt: &str) {
    let pod = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(ctx.settings.identity.clone()),
        namespace: Some(ctx.settings.namespace.clone()),
        ..ObjectReference::default()
    };
    let note = format!("in {scope}, {doubt}; `flagmeter tenants confirm-sweep` says that it is right");
    publish(ctx, &pod, &event(EventType::Warning, "SweepRefused", note)).await;
}

/// Writes the status, if it says something new.
pub(super) async fn write(ctx: &Context, tenant: &Tenant, status: &TenantStatus) -> Result<(), Error> {
    if status::is_told(tenant, status) {
        return Ok(());
    }
    apply(ctx, tenant, NAME, status).await.map_err(|error| Error::Report(Box::new(error)))
}

/// Server-side apply of `status` by `manager`, which then owns these fields and no others.
pub(super) async fn apply(
    ctx: &Context,
    tenant: &impl ResourceExt,
    manager: &str,
    status: &impl Serialize,
) -> Result<(), kube::Error> {
    let name = tenant.name_any();
    let patch = Patch::Apply(json!({
        "apiVersion": Tenant::api_version(&()),
        "kind": Tenant::kind(&()),
        "metadata": { "name": name },
        "status": status,
    }));
    let params = PatchParams::apply(manager).force();
    ctx.tenants_beside(tenant).patch_status(&name, &params, &patch).await.map(drop)
}

/// What people should hear of: a write, and a problem that was not there before.
fn events(tenant: &Tenant, applied: &Applied) -> Vec<Event> {
    let written = applied.written.map(|kind| match kind {
        ChangeKind::Created | ChangeKind::Changed => {
            event(EventType::Normal, "Synced", "the tenant's settings were written to PostgreSQL".to_owned())
        }
        ChangeKind::DriftRepaired => event(
            EventType::Warning,
            "DriftRepaired",
            "somebody else had changed the tenant's row in PostgreSQL; it was put back".to_owned(),
        ),
        ChangeKind::Adopted => event(
            EventType::Normal,
            "Adopted",
            "the row and the usage of an earlier resource of this name were taken over".to_owned(),
        ),
    });
    let problem = applied.problem.as_ref().filter(|problem| !status::is_known(tenant, problem));
    let problem = problem.map(|problem| event(EventType::Warning, problem.reason(), problem.to_string()));
    let key = applied.made_key.and_then(|why| match why {
        Why::First => None,
        Why::Gone => Some((
            "KeyReplaced",
            "the Secret with the tenant's key was gone; all keys before the new one have ended",
        )),
        Why::Invalid => Some((
            "KeyReplaced",
            "what the Secret held was not a key, so one was made; all keys before it have ended",
        )),
        Why::Rotated => Some((
            "KeyRotated",
            "a new key was made, as the annotation asks; the former one works for a while",
        )),
    });
    let adopted = applied.adopted_key.map(|key| match key {
        Adopted::Known => (
            "KeyAdopted",
            "the Secret with the tenant's key had lost its owner; it belongs to the Tenant again, and its key goes on \
             working",
        ),
        Adopted::New => (
            "KeyAdopted",
            "the Secret of the tenant's key was there without an owner, with a key that was not known; it belongs to \
             the Tenant now, and its key works. One that worked before goes on for a while",
        ),
    });
    let key = key.or(adopted).map(|(reason, note)| event(EventType::Normal, reason, note.to_owned()));
    let keys = applied.repaired_keys.then(|| {
        event(
            EventType::Warning,
            "DriftRepaired",
            "somebody else had changed what PostgreSQL has of the tenant's keys; it was put back".to_owned(),
        )
    });
    written.into_iter().chain(keys).chain(key).chain(problem).collect()
}

fn event(type_: EventType, reason: &str, note: String) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}

/// Best effort: an event that is lost is no reason to do anything again.
pub(super) async fn publish(ctx: &Context, about: &ObjectReference, event: &Event) {
    if let Err(error) = ctx.recorder.publish(event, about).await {
        tracing::debug!(error = chain(&error), "failed to publish an event");
    }
}
