//! The finalizer of Tenants that are to be deleted with everything that was counted. One that is to be kept
//! has none, so nothing that is down can keep its namespace from ending.

use flagmeter_crds::{DeletionPolicy, Tenant};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::context::NAME;
use super::{Context, Error};

/// The finalizer.
pub const FINALIZER: &str = "flagmeter.dev/cleanup";

/// The annotation that lets a Tenant go without its rows being deleted, whatever is down.
pub const SKIP_CLEANUP: &str = "flagmeter.dev/skip-cleanup";

/// What has to happen to a Tenant before, or instead of, its settings being brought into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Stay,
    /// It gets the finalizer, before there is a row.
    Add,
    /// It loses the finalizer, and stays.
    Remove,
    /// Its rows are to be deleted, and then it may go.
    CleanUp,
    /// It may go; its rows are kept.
    LetGo,
    /// It is going, and what keeps it is somebody else's.
    Going,
}

/// The step for a resource of this metadata. `policy` is `None` if the spec does not parse: then the
/// finalizer says what was wanted.
pub(super) fn step(meta: &ObjectMeta, policy: Option<DeletionPolicy>) -> Step {
    let held = meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    let skipped =
        meta.annotations.as_ref().and_then(|all| all.get(SKIP_CLEANUP)).is_some_and(|value| value == "true");
    let going = meta.deletion_timestamp.is_some();
    match (going, held, policy) {
        (true, false, _) => Step::Going,
        (true, true, Some(DeletionPolicy::Retain)) => Step::LetGo,
        (true, true, _) if skipped => Step::LetGo,
        (true, true, _) => Step::CleanUp,
        (false, false, Some(DeletionPolicy::Delete)) => Step::Add,
        (false, true, Some(DeletionPolicy::Retain)) => Step::Remove,
        (false, _, _) => Step::Stay,
    }
}

/// Adds or removes the finalizer. Fails if the resource was changed since it was read.
pub(super) async fn set(ctx: &Context, tenant: &DeserializeGuard<Tenant>, held: bool) -> Result<(), Error> {
    let mut finalizers = tenant.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if held {
        finalizers.push(FINALIZER.to_owned());
    }
    let metadata = json!({ "finalizers": finalizers, "resourceVersion": tenant.meta().resource_version });
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    let params = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
    match ctx.tenants_beside(tenant).patch(&tenant.name_any(), &params, &patch).await {
        Ok(_) => Ok(()),
        // It is gone, which is what the finalizer stood in the way of.
        Err(kube::Error::Api(status)) if status.is_not_found() && !held => Ok(()),
        Err(error) => Err(Error::Finalizer(Box::new(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(finalizers: &[&str], going: bool, skip: Option<&str>) -> ObjectMeta {
        serde_json::from_value(json!({
            "name": "acme",
            "finalizers": finalizers,
            "deletionTimestamp": going.then_some("2026-03-20T12:00:00Z"),
            "annotations": skip.map(|value| json!({ SKIP_CLEANUP: value })),
        }))
        .unwrap()
    }

    #[test]
    fn only_what_is_to_be_deleted_is_held_and_everything_else_may_go() {
        use DeletionPolicy::{Delete, Retain};
        let (none, ours, both) = (&[][..], &[FINALIZER][..], &["other/finalizer", FINALIZER][..]);
        let cases = [
            (meta(none, false, None), Some(Retain), Step::Stay),
            (meta(none, false, None), Some(Delete), Step::Add),
            (meta(ours, false, None), Some(Delete), Step::Stay),
            (meta(both, false, None), Some(Retain), Step::Remove),
            (meta(ours, true, None), Some(Delete), Step::CleanUp),
            (meta(ours, true, None), Some(Retain), Step::LetGo),
            (meta(ours, true, Some("true")), Some(Delete), Step::LetGo),
            (meta(ours, true, Some("yes")), Some(Delete), Step::CleanUp),
            (meta(none, true, None), Some(Retain), Step::Going),
            (meta(&["other/finalizer"], true, None), Some(Delete), Step::Going),
            // A spec that does not parse.
            (meta(none, false, None), None, Step::Stay),
            (meta(ours, false, None), None, Step::Stay),
            (meta(ours, true, None), None, Step::CleanUp),
            (meta(ours, true, Some("true")), None, Step::LetGo),
        ];
        for (meta, policy, expected) in cases {
            assert_eq!(step(&meta, policy), expected, "{policy:?}: {meta:?}");
        }
    }
}
