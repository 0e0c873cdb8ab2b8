//! Writes the number of workers, if it is another, over nothing that was not seen.

use flagmeter_core::scaling::Decision;
use flagmeter_core::scaling::history::Kept;
use flagmeter_runtime::telemetry::chain;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::observe::is_code;
use super::{Fault, MANAGER, Scaler, limited};

impl Scaler {
    /// Whether there are to be as many as was decided. `false`: somebody changed the Deployment meanwhile, and
    /// nothing was written.
    pub(super) async fn act(
        &self,
        deployment: &Deployment,
        decision: &Decision,
        kept: Kept,
    ) -> Result<bool, Fault> {
        if decision.replicas == decision.current {
            return Ok(true);
        }
        // Whoever comes after a process that is cut off here must not take the number for a person's.
        if let Err(fault) = self.write_state(&kept.unsure()).await {
            tracing::warn!(error = chain(&fault), "failed to note a change beforehand");
        }
        // With the version that was read: a scale by hand in between is not overwritten.
        let patch = Patch::Merge(json!({
            "metadata": { "resourceVersion": deployment.metadata.resource_version },
            "spec": { "replicas": decision.replicas },
        }));
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let scaled = self.deployments();
        match limited(scaled.patch_scale(&self.settings.deployment, &params, &patch)).await {
            Ok(_) => {
                tracing::info!(replicas = decision.replicas, "{decision}");
                Ok(true)
            }
            Err(Fault::Refused(error)) if is_code(&error, &[409]) => Ok(false),
            Err(fault) => Err(fault),
        }
    }
}
