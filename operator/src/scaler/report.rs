//! Says what was decided: in metrics, in the queue's ring of records, in a ConfigMap, and in Events.

use flagmeter_core::scaling::history::Kept;
use flagmeter_core::scaling::record::Record;
use flagmeter_core::scaling::{Decision, Reason, Sample};
use flagmeter_runtime::telemetry::chain;
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource};
use serde_json::{Value, json};

use super::{Fault, MANAGER, Memory, Scaler, is_news, limited};

/// The ConfigMap's name, in the operator's namespace.
const CONFIG_MAP: &str = "flagmeter-scaler";

/// Records that the queue keeps: four hours of a sample each 5 seconds, some 2 MB.
const MOST_RECORDS: usize = 2_880;

/// How soon another reason is written down that changes no number: etcd is the scarce resource of a small box.
const SOON: SignedDuration = SignedDuration::from_secs(30);

/// How old the ConfigMap becomes at most.
const OLD: SignedDuration = SignedDuration::from_mins(5);

/// The key under which the ConfigMap has what the next process should know.
const STATE: &str = "state";

impl Scaler {
    /// Best effort: what cannot be said is no reason to decide otherwise.
    pub(super) async fn report(
        &self,
        memory: &mut Memory,
        deployment: &Deployment,
        sample: Sample,
        decision: Decision,
    ) {
        let now = sample.at;
        self.metrics.say(&sample, &decision);
        let word = decision.reason.word();
        if is_news(&decision, memory.word) {
            self.publish(deployment, &decision).await;
        }
        memory.word = Some(word);

        let kept = memory.history.kept(now);
        let record = Record { sample, decision };
        self.keep(&kept, &record).await;
        let due = memory.told.is_none_or(|(told, at)| {
            let age = now.duration_since(at);
            age >= OLD || (told != word && age >= SOON)
        });
        if due || record.decision.replicas != record.decision.current {
            match self.write_map(&data(&kept, &record, &self.settings)).await {
                Ok(()) => memory.told = Some((word, now)),
                Err(fault) => tracing::warn!(error = chain(&fault), "failed to write the ConfigMap"),
            }
        }
    }

    /// Adds to the queue's ring, for `flagmeter explain-scale`.
    async fn keep(&self, kept: &Kept, record: &Record) {
        // These always are JSON: their numbers were read as such, or made of them.
        let text = (
            serde_json::to_string(&self.settings.limits),
            serde_json::to_string(kept),
            serde_json::to_string(record),
        );
        let (Ok(limits), Ok(kept), Ok(record)) = text else { return };
        if let Err(error) = self.queue.keep_scaling(&limits, &kept, &record, MOST_RECORDS).await {
            tracing::debug!(error = chain(&error), "failed to keep a record");
        }
    }

    /// What an earlier process left in the ConfigMap.
    pub(super) async fn reported_state(&self) -> Result<Option<String>, Fault> {
        let map = limited(self.maps().get_opt(CONFIG_MAP)).await?;
        Ok(map.and_then(|map| map.data?.remove(STATE)))
    }

    /// Writes down what the next process should know, and leaves the rest as it is.
    pub(super) async fn write_state(&self, kept: &Kept) -> Result<(), Fault> {
        let state = serde_json::to_string(kept).unwrap_or_default();
        let patch = Patch::Merge(json!({ "data": { STATE: state } }));
        match limited(self.maps().patch(CONFIG_MAP, &params(), &patch)).await {
            Err(Fault::Refused(error)) if super::observe::is_code(&error, &[404]) => {
                self.write_map(&json!({ STATE: state })).await
            }
            written => written.map(drop),
        }
    }

    async fn write_map(&self, data: &Value) -> Result<(), Fault> {
        let patch = Patch::Apply(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": CONFIG_MAP,
                "labels": { "app.kubernetes.io/name": "flagmeter", "app.kubernetes.io/component": "operator" },
            },
            "data": data,
        }));
        limited(self.maps().patch(CONFIG_MAP, &params().force(), &patch)).await.map(drop)
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn publish(&self, deployment: &Deployment, decision: &Decision) {
        let warns = matches!(decision.reason, Reason::Held(_) | Reason::FellBack { .. } | Reason::NoGain(_));
        let event = Event {
            type_: if warns { EventType::Warning } else { EventType::Normal },
            reason: decision.reason.word().to_owned(),
            note: Some(decision.to_string()),
            action: "Scale".to_owned(),
            secondary: None,
        };
        let workers = deployment.object_ref(&());
        if let Err(error) = self.recorder.publish(&event, &workers).await {
            tracing::debug!(error = chain(&error), "failed to publish an event");
        }
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// What the ConfigMap says, for people first.
fn data(kept: &Kept, record: &Record, settings: &super::Settings) -> Value {
    let Record { sample, decision } = record;
    let text = |truth: bool| if truth { "True" } else { "False" };
    let limited = matches!(
        decision.estimate.as_ref().map(|estimate| estimate.bound),
        Some(
            flagmeter_core::scaling::decision::Bound::Maximum
                | flagmeter_core::scaling::decision::Bound::NoGain { .. }
        )
    );
    json!({
        "decision": decision.to_string(),
        "reason": decision.reason.word(),
        "replicas": decision.replicas.to_string(),
        "ScalingActive": text(decision.is_active()),
        "ScalingLimited": text(limited),
        "whyNotMore": decision.why_not_more(&settings.limits),
        "whyNotFewer": decision.why_not_fewer(&settings.limits),
        "at": sample.at.to_string(),
        "record": serde_json::to_string(record).unwrap_or_default(),
        "limits": serde_json::to_string(&settings.limits).unwrap_or_default(),
        STATE: serde_json::to_string(kept).unwrap_or_default(),
    })
}
