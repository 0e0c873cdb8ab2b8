//! The scheduler: every pod that waits for a node gets this one.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::json;

use crate::context::{Context, why};

/// The node that `pod` is on.
#[must_use]
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Binds `pod` to this node. A failure is logged; the pod still waits then, and comes again.
pub async fn bind(context: &Context, pod: &Pod) {
    let gated = pod.spec.as_ref().is_some_and(|spec| spec.scheduling_gates.is_some());
    if gated || pod.metadata.deletion_timestamp.is_some() {
        return;
    }
    let binding = json!({
        "metadata": { "name": pod.metadata.name, "uid": pod.metadata.uid },
        "target": { "apiVersion": "v1", "kind": "Node", "name": context.config.node_name },
    });
    let (pods, name) = (context.api::<Pod>(), pod.name_any());
    let parameters = PostParams::default();
    match pods.create_subresource::<_, Status>("binding", &name, &parameters, &binding).await {
        Ok(_) => {}
        // Bound or gone meanwhile: the watch has not said so yet.
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {}
        Err(error) => tracing::warn!(pod = name, error = why(&error), "failed to bind the pod"),
    }
}
