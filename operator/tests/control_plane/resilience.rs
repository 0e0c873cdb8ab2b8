//! What holds while servers are away.

use std::sync::{Arc, Mutex};

use flagmeter_crds::Tenant;
use flagmeter_operator::Error;
use flagmeter_operator::metrics::Metrics;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::{sweeps, tenants};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config};
use prometheus::Registry;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, eventually, in_namespace};
use crate::lifecycle::through_a_wire;
use crate::proxy::Proxy;
use crate::running::{Running, context, sealer};
use crate::scaling;

/// The operator's way to the API server, over a wire that can be cut.
pub(crate) async fn over_a_wire(cluster: &Cluster) -> (Config, Proxy) {
    let mut config = cluster.operator_config(&[]).await;
    let host = config.cluster_url.host().unwrap().to_owned();
    let proxy = Proxy::to(&format!("{host}:{}", config.cluster_url.port_u16().unwrap_or(443))).await;
    config.tls_server_name = Some(host);
    config.cluster_url = format!("https://{}/", proxy.address).parse().unwrap();
    (config, proxy)
}

/// An operator that scales, and wants `min` workers at least.
fn with_scaler(cluster: &Cluster, access: Config, db: &PgPool, identity: &str, min: u32) -> Running {
    let registry = Registry::new();
    let scaler = scaling::deaf(Client::try_from(access.clone()).unwrap(), cluster, &registry, min);
    let metrics = Metrics::register(&registry).unwrap();
    Running::of(context(access, &[cluster], db, identity, &metrics), Some(scaler))
}

/// How many workers there were to be, one number after the other.
struct Numbers {
    seen: Arc<Mutex<Vec<i32>>>,
    task: JoinHandle<()>,
}

impl Numbers {
    fn of(cluster: &Cluster) -> Self {
        let (seen, workers) = (Arc::new(Mutex::new(Vec::new())), cluster.api::<Deployment>());
        let record = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let config = watcher::Config::default().fields(&format!("metadata.name={}", scaling::WORKERS));
            let mut changes = Box::pin(watcher(workers, config).default_backoff().applied_objects());
            while let Some(change) = changes.next().await {
                let number = change.ok().and_then(|workers| workers.spec?.replicas);
                let mut seen = record.lock().unwrap();
                if let Some(number) = number.filter(|number| seen.last() != Some(number)) {
                    seen.push(number);
                }
            }
        });
        Self { seen, task }
    }

    /// Waits until these were the numbers; others before them would fail the test.
    async fn are(&self, expected: &[i32]) {
        eventually(&format!("the numbers are {expected:?}"), async || {
            let seen = self.seen.lock().unwrap().clone();
            assert!(expected.starts_with(&seen), "{seen:?}, not {expected:?}");
            (seen == expected).then_some(())
        })
        .await;
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_api_server_that_was_away_for_a_moment_is_followed_again(db: PgPool) {
    in_namespace(async move |cluster| {
        let (access, wire) = over_a_wire(&cluster).await;
        let operator = with_scaler(&cluster, access, &db, "operator-0", 2);
        operator.leads().await;
        wire.cut();
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        scaling::deploy(&cluster, 1).await;
        tokio::task::yield_now().await;
        assert!(tenants::find(&db, &sealer(), "acme").await.unwrap().is_none());
        wire.mend();
        cluster.reported("acme", "Synced").await;
        let scaled = async || (scaling::replicas(&cluster).await == Some(2)).then_some(());
        eventually("the workers are scaled again", scaled).await;
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_leader_that_cannot_renew_its_lease_ends_before_another_leads(db: PgPool) {
    in_namespace(async move |cluster| {
        let (access, wire) = over_a_wire(&cluster).await;
        scaling::deploy(&cluster, 1).await;
        let numbers = Numbers::of(&cluster);
        // Each would have another number of workers: two that write it would show.
        let first = with_scaler(&cluster, access, &db, "operator-0", 2);
        first.leads().await;
        let second = with_scaler(&cluster, cluster.operator_config(&[]).await, &db, "operator-1", 3);
        second.is_ready().await;
        numbers.are(&[1, 2]).await;
        wire.cut();
        eventually("the second leads", async || {
            let (one, other) = (first.metrics.leader.get(), second.metrics.leader.get());
            assert!(one + other <= 1, "never two");
            (other == 1).then_some(())
        })
        .await;
        let ended = first.ended().await;
        assert!(matches!(ended, Err(Error::LeaseLost)), "{ended:?}");
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        cluster.reported("acme", "Synced").await;
        wire.mend();
        numbers.are(&[1, 2, 3]).await;
        second.stop().await;
        numbers.are(&[1, 2, 3]).await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_database_that_was_away_is_followed_again_and_said_to_be_away(db: PgPool) {
    in_namespace(async move |cluster| {
        let (pool, wire) = through_a_wire(&db).await;
        let operator = Running::start(&cluster, &pool, "operator-0").await;
        operator.leads().await;
        wire.cut();
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        cluster.reported("acme", "DatabaseUnavailable").await;
        wire.mend();
        cluster.reported("acme", "Synced").await;
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_namespace_whose_tenants_are_kept_ends_whatever_is_away(db: PgPool) {
    in_namespace(async move |cluster| {
        let (pool, wire) = through_a_wire(&db).await;
        let operator = Running::start(&cluster, &pool, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        cluster.reported("acme", "Synced").await;
        wire.cut();
        // Nobody is left to take a finalizer away.
        drop(operator);
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        namespaces.delete(&cluster.namespace, &DeleteParams::default()).await.unwrap();
        eventually("the namespace is gone", async || {
            namespaces.get_opt(&cluster.namespace).await.unwrap().is_none().then_some(())
        })
        .await;
        assert!(tenants::find(&db, &sealer(), "acme").await.unwrap().is_some(), "usage is kept");
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_namespace_whose_tenants_go_with_all_that_was_counted_waits_for_postgresql_and_says_so(db: PgPool) {
    in_namespace(async move |cluster| {
        // One that is followed beside the operator's own: its Role there goes with the namespace.
        let other = cluster.beside().await;
        let access = cluster.operator_config(&[&other]).await;
        let (pool, wire) = through_a_wire(&db).await;
        let operator = Running::reaching(access, &[&cluster, &other], &pool, "operator-0");
        other.apply("acme", json!({ "monthlyQuota": 1_000, "deletionPolicy": "Delete" })).await;
        other.reported("acme", "Synced").await;
        wire.cut();
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        namespaces.delete(&other.namespace, &DeleteParams::default()).await.unwrap();
        let roles: Api<RoleBinding> = other.api();
        eventually("the operator's rights there are gone", async || {
            roles.list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
        })
        .await;
        other.reported("acme", "DatabaseUnavailable").await;
        assert!(namespaces.get_opt(&other.namespace).await.unwrap().is_some(), "it waits");
        assert!(tenants::find(&db, &sealer(), "acme").await.unwrap().is_some());

        wire.mend();
        eventually("the namespace is gone", async || {
            namespaces.get_opt(&other.namespace).await.unwrap().is_none().then_some(())
        })
        .await;
        assert!(tenants::find(&db, &sealer(), "acme").await.unwrap().is_none(), "nothing is kept");
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn tenants_that_all_went_at_once_are_detached_when_a_person_says_so(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        for number in 0..6 {
            cluster.apply(&format!("t{number}"), json!({ "monthlyQuota": 1_000 })).await;
        }
        for number in 0..6 {
            cluster.reported(&format!("t{number}"), "Synced").await;
        }
        // As after a restore of an older etcd: gone, and nobody saw them go.
        operator.stop().await;
        let all: Api<Tenant> = cluster.api();
        all.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
        eventually("all are gone", async || {
            all.list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
        })
        .await;
        let operator = Running::start(&cluster, &db, "operator-1").await;
        let attached = async || tenants::attached(&db, Some(&cluster.namespace)).await.unwrap().len();
        eventually("the sweep is refused", async || {
            let refused = sweeps::refused(&db).await.unwrap();
            refused.into_iter().find(|sweep| (sweep.gone, sweep.known) == (6, 6))
        })
        .await;
        eventually("it is counted", async || (operator.metrics.sweeps_refused.get() == 1).then_some(()))
            .await;
        assert_eq!(attached().await, 6);

        assert!(sweeps::confirm(&db, &cluster.namespace, 6, "tests").await.unwrap());
        eventually("they are detached", async || (attached().await == 0).then_some(())).await;
        assert_eq!(sweeps::refused(&db).await.unwrap(), []);
        operator.stop().await;
    })
    .await;
}
