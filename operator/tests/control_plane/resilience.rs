//! What holds while servers are away.

use flagmeter_crds::Tenant;
use flagmeter_operator::Error;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::{sweeps, tenants};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Config};
use serde_json::json;

use crate::cluster::{Cluster, eventually, in_namespace};
use crate::lifecycle::through_a_wire;
use crate::proxy::Proxy;
use crate::running::{Running, sealer};

/// The operator's way to the API server, over a wire that can be cut.
pub(crate) async fn over_a_wire(cluster: &Cluster) -> (Config, Proxy) {
    let mut config = cluster.operator_config(&[]).await;
    let host = config.cluster_url.host().unwrap().to_owned();
    let proxy = Proxy::to(&format!("{host}:{}", config.cluster_url.port_u16().unwrap_or(443))).await;
    config.tls_server_name = Some(host);
    config.cluster_url = format!("https://{}/", proxy.address).parse().unwrap();
    (config, proxy)
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_api_server_that_was_away_for_a_moment_is_followed_again(db: PgPool) {
    in_namespace(async move |cluster| {
        let (access, wire) = over_a_wire(&cluster).await;
        let operator = Running::reaching(access, &[&cluster], &db, "operator-0");
        operator.leads().await;
        wire.cut();
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        tokio::task::yield_now().await;
        assert!(tenants::find(&db, &sealer(), "acme").await.unwrap().is_none());
        wire.mend();
        cluster.reported("acme", "Synced").await;
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_leader_that_cannot_renew_its_lease_ends_before_another_leads(db: PgPool) {
    in_namespace(async move |cluster| {
        let (access, wire) = over_a_wire(&cluster).await;
        let first = Running::reaching(access, &[&cluster], &db, "operator-0");
        first.leads().await;
        let second = Running::start(&cluster, &db, "operator-1").await;
        second.is_ready().await;
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
        second.stop().await;
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

        assert_eq!(sweeps::confirm(&db, &cluster.namespace, "tests").await.unwrap(), Some(6));
        eventually("they are detached", async || (attached().await == 0).then_some(())).await;
        assert_eq!(sweeps::refused(&db).await.unwrap(), []);
        operator.stop().await;
    })
    .await;
}
