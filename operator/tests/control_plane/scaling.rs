//! The number of workers: written where it is the operator's, left alone where it is somebody else's, and said why.

use std::time::Duration;

use flagmeter_core::scaling::Limits;
use flagmeter_operator::scaler::{Metrics, Scaler, Settings};
use flagmeter_runtime::clock::Clock;
use flagmeter_runtime::env::Env;
use flagmeter_store::queue::EventQueue;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use prometheus::Registry;
use prometheus::proto::MetricFamily;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, eventually, from, in_namespace};

/// The workers' Deployment, as the chart names it.
const WORKERS: &str = "flagmeter-worker";

/// A scaler that runs with the operator's rights, and wants two workers at least.
struct Running {
    registry: Registry,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(cluster: &Cluster) -> Self {
        // Nobody listens there: what is decided is not a matter of load.
        let nowhere = "redis://127.0.0.1:1";
        let mut env = Env::of([("FLAGMETER_SCALE_DEPLOYMENT", WORKERS), ("VALKEY_URL", nowhere)]);
        let settings = Settings {
            interval: Duration::from_millis(200),
            limits: Limits { min: 2, max: 4, ..Limits::default() },
            ..Settings::read(&mut env).unwrap().unwrap()
        };
        let registry = Registry::new();
        let client: Client = cluster.as_operator().await;
        let scaler = Scaler::new(
            client,
            EventQueue::new(nowhere).unwrap(),
            Metrics::register(&registry).unwrap(),
            Clock::system(),
            cluster.namespace.clone(),
            "operator-0".to_owned(),
            settings,
        );
        Self { registry, task: tokio::spawn(async move { scaler.run().await }) }
    }

    /// How often this was decided.
    fn decided(&self, reason: &str) -> f64 {
        let families = self.registry.gather();
        let decisions =
            families.iter().filter(|family| family.name() == "flagmeter_autoscaler_decisions_total");
        let of_reason = decisions
            .flat_map(MetricFamily::get_metric)
            .filter(|metric| metric.get_label().iter().any(|label| label.value() == reason));
        of_reason.map(|metric| metric.get_counter().get_value()).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn replicas(cluster: &Cluster) -> Option<i32> {
    cluster.api::<Deployment>().get(WORKERS).await.unwrap().spec?.replicas
}

/// What the Event of this reason at the Deployment says.
async fn event(cluster: &Cluster, reason: &str) -> String {
    let events: Api<Event> = cluster.api();
    eventually(&format!("an event {reason}"), async || {
        let events = events.list(&ListParams::default()).await.unwrap();
        let of_workers = |event: &Event| {
            let about = event.regarding.as_ref().and_then(|about| about.name.as_deref());
            about == Some(WORKERS) && event.reason.as_deref() == Some(reason)
        };
        events.into_iter().find(of_workers)?.note
    })
    .await
}

/// What the ConfigMap says under `key`, once it is `value`.
async fn told(cluster: &Cluster, key: &str, value: &str) {
    let maps: Api<ConfigMap> = cluster.api();
    eventually(&format!("{key} is {value}"), async || {
        let map = maps.get_opt("flagmeter-scaler").await.unwrap()?;
        (map.data?.get(key)? == value).then_some(())
    })
    .await;
}

#[tokio::test]
async fn somebody_elses_number_is_left_alone_and_ones_own_is_written_and_both_are_said() {
    in_namespace(async |cluster| {
        let labels = json!({ "app": "worker" });
        let pod = json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "w", "image": "w" }] } });
        let workers = json!({
            "metadata": { "name": WORKERS },
            "spec": { "replicas": 1, "selector": { "matchLabels": labels }, "template": pod },
        });
        cluster.api::<Deployment>().create(&PostParams::default(), &from(workers)).await.unwrap();
        let autoscaler = json!({
            "metadata": { "name": "theirs" },
            "spec": {
                "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": WORKERS },
                "maxReplicas": 3,
            },
        });
        let autoscalers: Api<HorizontalPodAutoscaler> = cluster.api();
        autoscalers.create(&PostParams::default(), &from(autoscaler)).await.unwrap();

        let scaler = Running::start(&cluster).await;
        let left = async || (scaler.decided("OtherOwner") >= 5.0).then_some(());
        eventually("five rounds leave it alone", left).await;
        assert_eq!(replicas(&cluster).await, Some(1));
        let note = event(&cluster, "OtherOwner").await;
        assert!(note.contains("theirs"), "{note}");
        told(&cluster, "reason", "OtherOwner").await;
        told(&cluster, "ScalingActive", "False").await;
        drop(scaler);

        autoscalers.delete("theirs", &DeleteParams::default()).await.unwrap();
        let scaler = Running::start(&cluster).await;
        eventually("the minimum is kept", async || (replicas(&cluster).await == Some(2)).then_some(())).await;
        let note = event(&cluster, "ValkeyUnreachable").await;
        assert!(note.contains('2') && note.contains("Valkey"), "{note}");
        told(&cluster, "replicas", "2").await;
        drop(scaler);
    })
    .await;
}
