//! What is: the queue, the Deployment, and who else decides.

use flagmeter_core::scaling::Sample;
use flagmeter_core::scaling::sample::{Fleet, Owner};
use flagmeter_runtime::telemetry::chain;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt};

use super::{Fault, Scaler, limited};

/// On the Deployment: `"false"` leaves the number of its pods to others.
pub(super) const ANNOTATION: &str = "flagmeter.dev/autoscale";

/// More autoscalers than a namespace has.
const MOST: u32 = 500;

impl Scaler {
    pub(super) async fn deployment(&self) -> Result<Deployment, Fault> {
        limited(self.deployments().get(&self.settings.deployment)).await
    }

    pub(super) async fn sample(
        &self,
        at: Timestamp,
        deployment: &Deployment,
        owner: Option<Owner>,
    ) -> Sample {
        let queue = self.queue.sample().await.inspect_err(|error| {
            tracing::debug!(error = chain(error), "the queue cannot be sampled");
        });
        Sample { at, queue: queue.ok(), fleet: fleet(deployment, owner) }
    }

    /// Who else decides how many pods `deployment` has.
    pub(super) async fn owner(&self, deployment: &Deployment) -> Result<Option<Owner>, Fault> {
        if deployment.annotations().get(ANNOTATION).is_some_and(|value| value == "false") {
            return Ok(Some(Owner::Annotation));
        }
        let name = deployment.name_any();
        let params = ListParams::default().limit(MOST);
        let autoscalers: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), &self.namespace);
        let autoscalers = if_permitted(limited(autoscalers.list(&params)).await)?;
        let scales = |autoscaler: &HorizontalPodAutoscaler| {
            let target = autoscaler.spec.as_ref().map(|spec| &spec.scale_target_ref);
            target.is_some_and(|target| target.kind == "Deployment" && target.name == name)
        };
        if let Some(found) = autoscalers.iter().flat_map(|list| &list.items).find(|one| scales(one)) {
            return Ok(Some(Owner::HorizontalPodAutoscaler(found.name_any())));
        }
        let kind = GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject");
        let kind = ApiResource::from_gvk(&kind);
        let objects: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &kind);
        let objects = if_permitted(limited(objects.list(&params)).await)?;
        let found = objects.iter().flat_map(|list| &list.items).find(|object| {
            let target = &object.data["spec"]["scaleTargetRef"];
            target["name"] == name.as_str() && target["kind"].as_str().is_none_or(|kind| kind == "Deployment")
        });
        Ok(found.map(|object| Owner::ScaledObject(object.name_any())))
    }
}

/// Nothing, where it is not permitted to look, or where there is no such kind.
fn if_permitted<T>(answer: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Fault::Refused(error)) if is_code(&error, &[403, 404]) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Whether the API server answered with one of these.
pub(super) fn is_code(error: &kube::Error, codes: &[u16]) -> bool {
    matches!(error, kube::Error::Api(status) if codes.contains(&status.code))
}

pub(super) fn fleet(deployment: &Deployment, owner: Option<Owner>) -> Fleet {
    let number = |value: Option<i32>| u32::try_from(value.unwrap_or_default()).unwrap_or_default();
    let replicas = deployment.spec.as_ref().map_or(0, |spec| number(spec.replicas.or(Some(1))));
    let Some(status) = &deployment.status else {
        return Fleet { replicas, owner, ..Fleet::default() };
    };
    let old = number(status.replicas) > number(status.updated_replicas);
    let unseen = status.observed_generation < deployment.metadata.generation;
    // Pods that are on their way out may still be ready.
    Fleet { replicas, ready: number(status.ready_replicas).min(replicas), rolling_out: old || unseen, owner }
}
