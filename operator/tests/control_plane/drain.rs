//! What is done before FlagMeter is uninstalled.

use std::time::Duration;

use flagmeter_crds::Tenant;
use flagmeter_operator::drain::{self, drain};
use flagmeter_operator::metrics::Metrics;
use flagmeter_operator::tenant::FINALIZER;
use flagmeter_operator::{Error, lease};
use flagmeter_store::PgPool;
use flagmeter_store::postgres::tenants;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};
use prometheus::Registry;
use serde_json::json;

use crate::cluster::{Cluster, eventually, in_namespace};
use crate::lifecycle::through_a_wire;
use crate::running::{Running, context, sealer};

/// Drains as the chart's Job does, with the operator's rights, for at most `patience`.
async fn drained(cluster: &Cluster, db: &PgPool, patience: Duration) -> Result<(), drain::Error> {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let access = cluster.operator_config(&[]).await;
    drain(context(access, &[cluster], db, "drain-0", &metrics), patience).await
}

async fn apply(cluster: &Cluster, name: &str, policy: &str) {
    cluster.apply(name, json!({ "monthlyQuota": 1_000, "deletionPolicy": policy })).await;
    cluster.reported(name, "Synced").await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn after_a_drain_no_tenant_waits_for_an_operator_and_rows_are_kept(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        apply(&cluster, "kept", "Retain").await;
        assert!(drained(&cluster, &db, Duration::ZERO).await.is_ok(), "nothing has to be done");
        assert_eq!(operator.metrics.leader.get(), 1, "so nobody is disturbed");

        apply(&cluster, "acme", "Delete").await;
        drained(&cluster, &db, Duration::from_secs(10)).await.unwrap();
        let ended = operator.ended().await;
        assert!(matches!(ended, Err(Error::LeaseLost)), "{ended:?}");
        let tenants: Api<Tenant> = cluster.api();
        assert!(tenants.get("acme").await.unwrap().finalizers().is_empty());
        assert!(tenants::find(&db, &sealer(), "acme").await.unwrap().is_some(), "its rows stay");

        // The pod is started anew before it is removed: it does not put the finalizer back.
        let again = Running::start(&cluster, &db, "operator-0").await;
        again.is_ready().await;
        let lease = cluster.api::<Lease>().get(lease::NAME).await.unwrap().spec.unwrap();
        assert_eq!(
            (lease.holder_identity.as_deref(), lease.lease_duration_seconds),
            (Some("drain-0"), Some(60))
        );
        tenants.delete("acme", &DeleteParams::default()).await.unwrap();
        assert!(tenants.get_opt("acme").await.unwrap().is_none(), "it goes at once");
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_drain_finishes_what_is_being_deleted_and_says_what_it_could_not(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        apply(&cluster, "acme", "Delete").await;
        // Nobody is there when it is deleted.
        operator.stop().await;
        let tenants: Api<Tenant> = cluster.api();
        tenants.delete("acme", &DeleteParams::default()).await.unwrap();
        let (pool, wire) = through_a_wire(&db).await;
        wire.cut();
        let refused = drained(&cluster, &pool, Duration::from_secs(1)).await.unwrap_err().to_string();
        for part in ["1 Tenants", &format!("{}/acme", cluster.namespace), "PostgreSQL", "skip-cleanup=true"] {
            assert!(refused.contains(part), "{refused}");
        }
        assert_eq!(tenants.get("acme").await.unwrap().finalizers(), [FINALIZER]);

        wire.mend();
        drained(&cluster, &pool, Duration::from_secs(10)).await.unwrap();
        eventually("it is gone", async || tenants.get_opt("acme").await.unwrap().is_none().then_some(()))
            .await;
        assert!(tenants::find(&db, &sealer(), "acme").await.unwrap().is_none(), "with its rows");
    })
    .await;
}
