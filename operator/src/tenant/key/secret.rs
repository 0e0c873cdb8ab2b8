//! The Secret in which a tenant finds its key.

use flagmeter_crds::Tenant;
use flagmeter_store::api_key::ApiKey;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use super::plan::{Held, Loose, Own};
use super::{ROTATE, secret_name};
use crate::tenant::context::NAME;
use crate::tenant::{Context, Error};

/// The key of the Secret's data under which the API key is.
const DATA: &str = "key";

/// What is in the Secret. It is read now, unless it is in the version in which it was last seen: no key is ever kept in
/// memory, but its hash is.
pub(super) async fn look(ctx: &Context, tenant: &Tenant) -> Result<Held, Error> {
    let (namespace, name) = (tenant.namespace().unwrap_or_default(), secret_name(&tenant.name_any()));
    if let Some([Some(version)]) = ctx.secrets.of(&namespace, std::iter::once(name.as_str())).as_deref()
        && let Some(own) = ctx.keys.recall(tenant, |own| (own.version == *version).then(|| own.clone()))
    {
        return Ok(Held::Own(own));
    }
    let secret = api(ctx, tenant).get_opt(&name).await;
    let secret = secret.map_err(|error| Error::ReadSecret(Box::new(error)))?;
    Ok(secret.map_or(Held::Nothing, |secret| seen(ctx, tenant, &secret)))
}

/// What is in the Secret, which is remembered.
fn seen(ctx: &Context, tenant: &Tenant, secret: &Secret) -> Held {
    let held = held(tenant, secret);
    if let Held::Own(own) = &held {
        ctx.keys.put(tenant, own.clone());
    }
    held
}

/// Makes the Secret. If there is one by now, the API server refuses.
pub(super) async fn create(ctx: &Context, tenant: &Tenant, key: &ApiKey) -> Result<(), Error> {
    let name = tenant.name_any();
    let secret: Secret = from(json!({
        "metadata": {
            "name": secret_name(&name),
            "labels": labels(&name),
            "annotations": rotation(tenant).map(|value| json!({ ROTATE: value })),
            "ownerReferences": tenant.controller_owner_ref(&()).map(unblocking),
        },
        "stringData": { DATA: key.expose() },
    }))?;
    let parameters = PostParams { field_manager: Some(NAME.to_owned()), ..PostParams::default() };
    let made = api(ctx, tenant).create(&parameters, &secret).await.map_err(failed)?;
    seen(ctx, tenant, &made);
    Ok(())
}

/// Puts another key into the tenant's own Secret, unless somebody else changed it since it was seen.
pub(super) async fn replace(ctx: &Context, tenant: &Tenant, own: &Own, key: &ApiKey) -> Result<(), Error> {
    let patch = json!({
        "metadata": { "resourceVersion": own.version, "annotations": { ROTATE: rotation(tenant) } },
        "stringData": { DATA: key.expose() },
    });
    let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
    let name = secret_name(&tenant.name_any());
    let patched = api(ctx, tenant).patch(&name, &parameters, &Patch::Merge(patch)).await.map_err(failed)?;
    seen(ctx, tenant, &patched);
    Ok(())
}

/// Makes the Secret the tenant's own, unless somebody else changed it since it was seen. The key in it stays, as the
/// answer to whatever rotation the Tenant asks for now.
pub(super) async fn adopt(ctx: &Context, tenant: &Tenant, loose: &Loose) -> Result<Option<Own>, Error> {
    let name = tenant.name_any();
    let owner = tenant.controller_owner_ref(&()).map(unblocking).into_iter().flatten();
    let owners: Vec<OwnerReference> = loose.owners.iter().cloned().chain(owner).collect();
    let mut metadata =
        json!({ "resourceVersion": loose.version, "ownerReferences": owners, "labels": labels(&name) });
    if let Some(rotation) = rotation(tenant) {
        metadata["annotations"] = json!({ ROTATE: rotation });
    }
    let parameters = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    let patched = api(ctx, tenant).patch(&secret_name(&name), &parameters, &patch).await.map_err(failed)?;
    match seen(ctx, tenant, &patched) {
        Held::Own(own) => Ok(Some(own)),
        _ => Ok(None),
    }
}

fn labels(tenant: &str) -> Value {
    json!({
        "app.kubernetes.io/managed-by": NAME,
        "app.kubernetes.io/part-of": "flagmeter",
        "flagmeter.dev/tenant": tenant,
    })
}

fn api(ctx: &Context, tenant: &Tenant) -> Api<Secret> {
    Api::namespaced(ctx.client.clone(), &tenant.namespace().unwrap_or_default())
}

/// Whose the Secret is, and what is in it.
fn held(tenant: &Tenant, secret: &Secret) -> Held {
    if secret.metadata.deletion_timestamp.is_some() {
        return Held::Going;
    }
    let key = secret.data.as_ref().and_then(|data| data.get(DATA));
    let key = key.and_then(|key| std::str::from_utf8(&key.0).ok()?.parse().ok());
    let key = key.map(|key: ApiKey| key.hash());
    let version = secret.resource_version().unwrap_or_default();
    let owners = secret.owner_references();
    if owners.iter().any(|owner| Some(&owner.uid) == tenant.metadata.uid.as_ref()) {
        let rotation = secret.annotations().get(ROTATE).cloned();
        return Held::Own(Own { key, rotation, version });
    }
    // One of an earlier Tenant of this name: it is gone, and a restore brings its uid back where nothing has it.
    let is_of_former = |owner: &&OwnerReference| {
        owner.kind == Tenant::kind(&())
            && owner.name == tenant.name_any()
            && owner.api_version.starts_with("flagmeter.dev/")
    };
    let (former, owners): (Vec<_>, Vec<_>) = owners.iter().partition(is_of_former);
    match key {
        _ if owners.iter().any(|owner| owner.controller == Some(true)) => Held::Taken,
        Some(key) => Held::Loose(Loose { key, owners: owners.into_iter().cloned().collect(), version }),
        // Kubernetes collects what belonged to a Tenant that is gone.
        None if !former.is_empty() => Held::Going,
        None => Held::Taken,
    }
}

/// The rotation that the key answers, so that it is made once for it.
fn rotation(tenant: &Tenant) -> Option<&String> {
    tenant.annotations().get(ROTATE)
}

/// That the Secret goes with the Tenant, and does not hold it up: to say so would take a right to its finalizers.
fn unblocking(owner: OwnerReference) -> [OwnerReference; 1] {
    [OwnerReference { block_owner_deletion: None, ..owner }]
}

fn failed(error: kube::Error) -> Error {
    Error::WriteSecret(Box::new(error))
}

fn from(value: Value) -> Result<Secret, Error> {
    serde_json::from_value(value).map_err(|error| failed(kube::Error::SerdeError(error)))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn tenant() -> Tenant {
        from_json(json!({
            "apiVersion": "flagmeter.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": { "name": "acme", "namespace": "shop", "uid": "uid-1" },
            "spec": { "monthlyQuota": 1 },
        }))
    }

    fn from_json<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn owner(kind: &str, name: &str, uid: &str, controls: bool) -> Value {
        let version = if kind == "Tenant" { "flagmeter.dev/v1alpha1" } else { "external-secrets.io/v1" };
        json!({ "apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": controls })
    }

    /// What is seen of a Secret that holds `text` and has these owners.
    fn seen(text: &str, owners: &[Value]) -> (&'static str, Vec<String>) {
        let secret: Secret = from_json(json!({
            "metadata": { "name": "acme-flagmeter-key", "resourceVersion": "7", "ownerReferences": owners },
            "data": { "key": ByteString(text.as_bytes().to_vec()) },
        }));
        match held(&tenant(), &secret) {
            Held::Nothing => ("nothing", vec![]),
            Held::Going => ("going", vec![]),
            Held::Own(_) => ("own", vec![]),
            Held::Taken => ("taken", vec![]),
            Held::Loose(loose) => {
                assert_eq!(
                    (loose.key, loose.version.as_str()),
                    (text.parse::<ApiKey>().unwrap().hash(), "7")
                );
                ("loose", loose.owners.into_iter().map(|owner| owner.name).collect())
            }
        }
    }

    #[test]
    fn a_secret_with_a_key_is_the_tenants_unless_something_else_controls_it() {
        let key = ApiKey::random().unwrap();
        let key = key.expose();
        let own = owner("Tenant", "acme", "uid-1", true);
        let stale = owner("Tenant", "acme", "uid-0", true);
        let beside = owner("Backup", "daily", "uid-7", false);
        let controller = owner("ExternalSecret", "acme", "uid-8", true);
        let namesake = owner("Tenant", "globex", "uid-9", true);
        let loose = |names: &[&str]| ("loose", names.iter().map(|name| (*name).to_owned()).collect());
        let cases = [
            ("its own", key, vec![own.clone()], ("own", Vec::new())),
            ("its own without a key", "s3cret", vec![own], ("own", vec![])),
            ("without an owner", key, vec![], loose(&[])),
            ("of an earlier Tenant, as after a restore", key, vec![stale.clone()], loose(&[])),
            ("with an owner that does not control it", key, vec![beside.clone()], loose(&["daily"])),
            ("of both", key, vec![stale.clone(), beside.clone()], loose(&["daily"])),
            ("controlled by something else", key, vec![controller.clone()], ("taken", vec![])),
            ("controlled by another Tenant", key, vec![namesake, beside], ("taken", vec![])),
            ("without an owner and without a key", "s3cret", vec![], ("taken", vec![])),
            ("of something else, without a key", "s3cret", vec![controller], ("taken", vec![])),
            ("of an earlier Tenant, without a key", "s3cret", vec![stale], ("going", vec![])),
        ];
        for (what, text, owners, expected) in cases {
            assert_eq!(seen(text, &owners), expected, "{what}");
        }
    }
}
