//! The Secret in which a tenant finds its key.

use flagmeter_crds::Tenant;
use flagmeter_store::api_key::ApiKey;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use super::plan::{Held, Own};
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
            "labels": {
                "app.kubernetes.io/managed-by": NAME,
                "app.kubernetes.io/part-of": "flagmeter",
                "flagmeter.dev/tenant": name,
            },
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

fn api(ctx: &Context, tenant: &Tenant) -> Api<Secret> {
    Api::namespaced(ctx.client.clone(), &tenant.namespace().unwrap_or_default())
}

/// Whose the Secret is, and what is in it.
fn held(tenant: &Tenant, secret: &Secret) -> Held {
    let owners = secret.owner_references();
    let is_going = secret.metadata.deletion_timestamp.is_some();
    if owners.iter().any(|owner| Some(&owner.uid) == tenant.metadata.uid.as_ref()) {
        if is_going {
            return Held::Going;
        }
        let key = secret.data.as_ref().and_then(|data| data.get(DATA));
        let key = key.and_then(|key| std::str::from_utf8(&key.0).ok()?.parse().ok());
        let key = key.map(|key: ApiKey| key.hash());
        let rotation = secret.annotations().get(ROTATE).cloned();
        return Held::Own(Own { key, rotation, version: secret.resource_version().unwrap_or_default() });
    }
    // Kubernetes collects what belonged to a Tenant that is gone.
    let of_former = |owner: &OwnerReference| {
        owner.kind == Tenant::kind(&())
            && owner.name == tenant.name_any()
            && owner.api_version.starts_with("flagmeter.dev/")
    };
    if is_going || owners.iter().any(of_former) { Held::Going } else { Held::Anothers }
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
