//! The number of workers: written where it is the operator's, left alone where it is somebody else's, and said why.

use std::time::Duration;

use flagmeter_core::scaling::Limits;
use flagmeter_operator::scaler::{Metrics, Scaler, Settings};
use flagmeter_runtime::clock::Clock;
use flagmeter_runtime::env::Env;
use flagmeter_store::queue::EventQueue;
use flagmeter_store::testing;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use prometheus::Registry;
use prometheus::proto::MetricFamily;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, eventually, from, in_namespace};

/// The workers' Deployment, as the chart names it.
pub(crate) const WORKERS: &str = "flagmeter-worker";

/// Nobody listens there.
const NOWHERE: &str = "redis://127.0.0.1:1";

/// A scaler that runs with the operator's rights.
struct Running {
    registry: Registry,
    task: JoinHandle<()>,
}

/// A scaler that wants `min` workers at least, and hears of no load: nobody listens where its queue should be.
pub(crate) fn deaf(client: Client, cluster: &Cluster, registry: &Registry, min: u32) -> Scaler {
    scaler(client, cluster, EventQueue::new(NOWHERE).unwrap(), registry, min)
}

fn scaler(client: Client, cluster: &Cluster, queue: EventQueue, registry: &Registry, min: u32) -> Scaler {
    let mut env = Env::of([("FLAGMETER_SCALE_DEPLOYMENT", WORKERS), ("VALKEY_URL", NOWHERE)]);
    let settings = Settings {
        interval: Duration::from_millis(200),
        limits: Limits { min, max: 4, ..Limits::default() },
        ..Settings::read(&mut env).unwrap().unwrap()
    };
    let (metrics, namespace) = (Metrics::register(registry).unwrap(), cluster.namespace.clone());
    Scaler::new(client, queue, metrics, Clock::system(), namespace, "operator-0".to_owned(), settings)
}

/// The workers' Deployment, of so many.
pub(crate) async fn deploy(cluster: &Cluster, replicas: i32) {
    let labels = json!({ "app": "worker" });
    let pod = json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "w", "image": "w" }] } });
    let workers = json!({
        "metadata": { "name": WORKERS },
        "spec": { "replicas": replicas, "selector": { "matchLabels": labels }, "template": pod },
    });
    cluster.api::<Deployment>().create(&PostParams::default(), &from(workers)).await.unwrap();
}

impl Running {
    /// One that wants two workers at least.
    async fn start(cluster: &Cluster) -> Self {
        Self::sampling(cluster, EventQueue::new(NOWHERE).unwrap()).await
    }

    async fn sampling(cluster: &Cluster, queue: EventQueue) -> Self {
        let registry = Registry::new();
        let scaler = scaler(cluster.as_operator().await, cluster, queue, &registry, 2);
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

pub(crate) async fn replicas(cluster: &Cluster) -> Option<i32> {
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
        deploy(&cluster, 1).await;
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

#[tokio::test]
async fn a_scale_by_hand_is_left_for_a_while_and_the_annotation_leaves_all_to_others() {
    in_namespace(async |cluster| {
        deploy(&cluster, 1).await;
        let scaler = Running::start(&cluster).await;
        eventually("the minimum is kept", async || (replicas(&cluster).await == Some(2)).then_some(())).await;

        let by_hand = Patch::Merge(json!({ "spec": { "replicas": 3 } }));
        let workers: Api<Deployment> = cluster.api();
        workers.patch_scale(WORKERS, &PatchParams::default(), &by_hand).await.unwrap();
        let note = event(&cluster, "ManualScale").await;
        assert!(note.contains("somebody scaled it from 2"), "{note}");
        let paused = async || (scaler.decided("Paused") >= 10.0).then_some(());
        eventually("ten rounds leave it alone", paused).await;
        assert_eq!((replicas(&cluster).await, scaler.decided("ManualScale")), (Some(3), 1.0));

        // Fewer than the minimum, even.
        let theirs = json!({
            "metadata": { "annotations": { "flagmeter.dev/autoscale": "false" } },
            "spec": { "replicas": 1 },
        });
        workers.patch(WORKERS, &PatchParams::default(), &Patch::Merge(theirs)).await.unwrap();
        let left = async || (scaler.decided("OtherOwner") >= 10.0).then_some(());
        eventually("ten rounds leave it to others", left).await;
        assert_eq!(replicas(&cluster).await, Some(1));
        let note = event(&cluster, "OtherOwner").await;
        assert!(note.contains("annotation"), "{note}");
        told(&cluster, "ScalingActive", "False").await;
        drop(scaler);
    })
    .await;
}

/// Says that all the workers' pods are ready, as a kubelet would, until all of so many are.
async fn ready(cluster: &Cluster, workers: i32) {
    let pods: Api<Pod> = cluster.api();
    eventually("the workers are ready", async || {
        for pod in pods.list(&ListParams::default()).await.unwrap() {
            let status = json!({ "status": {
                "phase": "Running",
                "conditions": [{ "type": "Ready", "status": "True" }],
            } });
            let name = pod.metadata.name.unwrap();
            let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
        }
        let status = cluster.api::<Deployment>().get(WORKERS).await.unwrap().status?;
        (status.ready_replicas == Some(workers)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_queue_whose_counters_go_back_takes_no_worker_away_and_is_believed_again() {
    in_namespace(async |cluster| {
        deploy(&cluster, 3).await;
        ready(&cluster, 3).await;
        let stream = format!("flagmeter:test:{}", cluster.namespace);
        let queue = testing::queue_named(&stream).unwrap();
        queue.create_group().await.unwrap();
        for _ in 0..10 {
            queue.push(b"entry", 10).await.unwrap();
        }
        let read = queue.read("w", 10, Duration::from_secs(1)).await.unwrap();
        let all: Vec<_> = read.iter().map(|entry| (entry.entry_id.as_str(), 10)).collect();
        queue.confirm(&all).await.unwrap();

        let scaler = Running::sampling(&cluster, testing::queue_named(&stream).unwrap()).await;
        // What the last three minutes needed is not known yet, so none is taken away.
        let trusts = async |rounds: f64| {
            eventually("the samples are believed", async || {
                assert_eq!(replicas(&cluster).await, Some(3));
                (scaler.decided("Waits") >= rounds).then_some(())
            })
            .await;
        };
        trusts(3.0).await;
        testing::lose_queue(&stream).await.unwrap();
        queue.create_group().await.unwrap();
        eventually("it is noticed", async || {
            assert_eq!(replicas(&cluster).await, Some(3));
            (scaler.decided("CountersRestarted") >= 1.0).then_some(())
        })
        .await;
        trusts(scaler.decided("Waits") + 3.0).await;
        drop(scaler);
        testing::lose_queue(&stream).await.unwrap();
    })
    .await;
}
