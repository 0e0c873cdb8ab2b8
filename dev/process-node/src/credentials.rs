//! A pod's identity towards the API server: a kubeconfig with a token of its ServiceAccount.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::ResourceExt;
use serde_json::json;

use crate::context::{Context, why};

/// How long a token is asked to last. Who reads it looks at the file again at least every minute.
const LIFETIME: Duration = Duration::from_hours(1);
/// When it is replaced: as a kubelet, well before its end.
pub const REFRESH: Duration = Duration::from_mins(45);
/// How soon after a failure it is tried again.
pub const RETRY: Duration = Duration::from_secs(10);

/// The kubeconfig for the processes of `pod`, written into `folder`, or `None` if the pod wants none.
///
/// # Errors
///
/// A sentence that says what failed; the same call may be made again.
pub async fn issue(context: &Context, pod: &Pod, folder: &Path) -> Result<Option<PathBuf>, String> {
    if !wants_token(context, pod).await? {
        return Ok(None);
    }
    let token_file = write_token(context, pod, folder).await?;
    // JSON is YAML.
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "cluster", "cluster": context.cluster }],
        "users": [{ "name": account(pod), "user": { "tokenFile": token_file } }],
        "contexts": [{
            "name": "pod",
            "context": { "cluster": "cluster", "user": account(pod), "namespace": pod.namespace() },
        }],
        "current-context": "pod",
    });
    let path = folder.join("kubeconfig");
    write(&path, kubeconfig.to_string().as_bytes())?;
    Ok(Some(path))
}

/// The pod decides, and if it says nothing its ServiceAccount.
async fn wants_token(context: &Context, pod: &Pod) -> Result<bool, String> {
    if let Some(wish) = pod.spec.as_ref().and_then(|spec| spec.automount_service_account_token) {
        return Ok(wish);
    }
    let account = context.api::<ServiceAccount>().get(&account(pod)).await;
    let account = account.map_err(|error| format!("failed to get the ServiceAccount: {}", why(&error)))?;
    Ok(account.automount_service_account_token.unwrap_or(true))
}

/// Puts a new token into `folder`, which ends with the pod at the latest.
///
/// # Errors
///
/// A sentence that says what failed; an earlier token is still there.
pub async fn write_token(context: &Context, pod: &Pod, folder: &Path) -> Result<PathBuf, String> {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name_any()),
                uid: pod.uid(),
            }),
            expiration_seconds: i64::try_from(LIFETIME.as_secs()).ok(),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let accounts = context.api::<ServiceAccount>();
    let answer =
        accounts.create_token_request(&account(pod), &kube::api::PostParams::default(), &request).await;
    let status = answer.map_err(|error| format!("failed to request a token: {}", why(&error)))?.status;
    let token = status.ok_or("the API server answered without a token")?.token;
    let path = folder.join("token");
    write(&path, token.as_bytes())?;
    Ok(path)
}

fn account(pod: &Pod) -> String {
    let named = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    named.unwrap_or_else(|| "default".to_owned())
}

fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    crate::file::replace(path, content, 0o600)
        .map_err(|error| format!("failed to write {}: {error}", path.display()))
}
