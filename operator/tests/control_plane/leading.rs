//! Of several operators one works, and the next takes over.

use std::time::{Duration, Instant};

use flagmeter_operator::{Error, lease};
use flagmeter_store::PgPool;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::{eventually, in_namespace};
use crate::process::Process;
use crate::running::Running;

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_standby_is_ready_and_takes_over_when_the_leader_ends(db: PgPool) {
    in_namespace(async move |cluster| {
        let first = Running::start(&cluster, &db, "operator-0").await;
        first.leads().await;
        let second = Running::start(&cluster, &db, "operator-1").await;
        second.is_ready().await;
        assert_eq!((first.metrics.leader.get(), second.metrics.leader.get()), (1, 0));

        first.stop().await;
        second.leads().await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        cluster.reported("acme", "Synced").await;
        second.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_leader_whose_lease_is_another_s_ends(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        operator.leads().await;
        let leases: Api<Lease> = cluster.api();
        let held = async || leases.get(lease::NAME).await.ok()?.spec?.holder_identity;
        assert_eq!(eventually("the lease is held", held).await, "operator-0");

        let robbed = Patch::Merge(json!({ "spec": { "holderIdentity": "somebody" } }));
        leases.patch(lease::NAME, &PatchParams::default(), &robbed).await.unwrap();
        let leader = operator.metrics.leader.clone();
        let ended = operator.ended().await;
        assert!(matches!(ended, Err(Error::LeaseLost)), "{ended:?}");
        assert_eq!(leader.get(), 0);
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_leader_that_is_killed_is_replaced_when_its_lease_has_run_out_within_twenty_seconds(db: PgPool) {
    in_namespace(async move |cluster| {
        let kubeconfig = cluster.operator_kubeconfig().await;
        let first = Process::start(&cluster, &kubeconfig, &db, "operator-0").await;
        first.leads().await;
        let second = Process::start(&cluster, &kubeconfig, &db, "operator-1").await;
        second.is_ready().await;
        let leases: Api<Lease> = cluster.api();
        let lease = async || leases.get(lease::NAME).await.unwrap().spec.unwrap();

        first.kill().await;
        let killed = Instant::now();
        let left = lease().await;
        assert_eq!(left.holder_identity.as_deref(), Some("operator-0"), "it gives nothing back");
        second.leads().await;
        let took = killed.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
        let taken = lease().await;
        assert_eq!(taken.holder_identity.as_deref(), Some("operator-1"));
        let held = taken.acquire_time.unwrap().0.duration_since(left.renew_time.unwrap().0);
        assert!(held.as_secs() >= 15, "the lease was taken after {held}, before its end");
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        cluster.reported("acme", "Synced").await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_leader_that_is_dropped_gives_nothing_back_behind_ones_back(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        operator.leads().await;
        let second = Running::start(&cluster, &db, "operator-1").await;
        second.is_ready().await;
        let leases: Api<Lease> = cluster.api();
        let renewed = leases.get(lease::NAME).await.unwrap().spec.unwrap().renew_time.unwrap().0;
        drop(operator);
        second.leads().await;
        let taken = leases.get(lease::NAME).await.unwrap().spec.unwrap().acquire_time.unwrap().0;
        assert!(taken.duration_since(renewed).as_secs() >= 15, "{renewed}, {taken}");
        second.stop().await;
    })
    .await;
}
