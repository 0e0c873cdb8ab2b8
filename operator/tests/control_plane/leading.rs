//! Of several operators one works, and the next takes over.

use std::time::{Duration, Instant};

use flagmeter_operator::{Error, lease};
use flagmeter_store::PgPool;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::{eventually, in_namespace};
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
async fn a_leader_that_is_killed_is_replaced_within_twenty_seconds(db: PgPool) {
    in_namespace(async move |cluster| {
        let first = Running::start(&cluster, &db, "operator-0").await;
        first.leads().await;
        let second = Running::start(&cluster, &db, "operator-1").await;
        second.is_ready().await;

        let killed = Instant::now();
        // It gives nothing back.
        drop(first);
        second.leads().await;
        let took = killed.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
        second.stop().await;
    })
    .await;
}
