//! The definition of Tenants is taken away, with all of them, and comes back.

use std::time::{Duration, Instant};

use flagmeter_crds::Tenant;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::{sweeps, tenants};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::cluster::{Cluster, alone_in_namespace, eventually};
use crate::running::{Running, sealer};

/// More than may be detached at once.
const TENANTS: usize = 6;

/// Deletes the definition, and waits until it is gone. Tenants that another test left, whose finalizer nobody serves
/// any more, would hold it up.
async fn delete_definition(cluster: &Cluster) {
    let all: Api<Tenant> = Api::all(cluster.client.clone());
    for tenant in all.list(&ListParams::default()).await.unwrap() {
        if tenant.namespace().as_ref() != Some(&cluster.namespace) && !tenant.finalizers().is_empty() {
            let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
            let left: Api<Tenant> = Api::namespaced(cluster.client.clone(), &tenant.namespace().unwrap());
            // One that has gone meanwhile is as good.
            let _ = left.patch(&tenant.name_any(), &PatchParams::default(), &free).await;
        }
    }
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let name = "tenants.flagmeter.dev";
    definitions.delete(name, &DeleteParams::default()).await.unwrap();
    eventually("the definition is gone", async || {
        definitions.get_opt(name).await.unwrap().is_none().then_some(())
    })
    .await;
}

async fn apply_all(cluster: &Cluster) {
    for number in 0..TENANTS {
        cluster.apply(&format!("t{number}"), json!({ "monthlyQuota": 1_000, "billingDay": 15 })).await;
    }
    for number in 0..TENANTS {
        cluster.reported(&format!("t{number}"), "Synced").await;
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_definition_that_was_deleted_and_applied_again_costs_nobody_a_row(db: PgPool) {
    alone_in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        apply_all(&cluster).await;
        let usage = cluster.api::<Tenant>().get("t0").await.unwrap().status.unwrap().usage.unwrap();
        sqlx::query(
            "INSERT INTO usage_periods (tenant, period_start, period_end, total_tokens, events, last_minute)
             VALUES ('t0', $1::text::timestamptz, $2::text::timestamptz, 500, 1, $1::text::timestamptz)",
        )
        .bind(usage.period_start.0.to_string())
        .bind(usage.period_end.0.to_string())
        .execute(&db)
        .await
        .unwrap();
        let failing = operator.metrics.watches_failing.with_label_values(&["tenants"]);
        assert_eq!((failing.get(), operator.is_ready_now()), (0, true));

        delete_definition(&cluster).await;
        eventually("it is said in a metric", async || (failing.get() == 1).then_some(())).await;
        eventually("it is not ready", async || (!operator.is_ready_now()).then_some(())).await;
        eventually("the sweep is refused", async || {
            let refused = sweeps::refused(&db).await.unwrap();
            refused.into_iter().find(|sweep| sweep.gone == i64::try_from(TENANTS).unwrap())
        })
        .await;
        assert!(!operator.has_ended() && operator.metrics.leader.get() == 1, "it works on");
        assert_eq!(tenants::attached(&db, Some(&cluster.namespace)).await.unwrap().len(), TENANTS);

        cluster.install_definition().await;
        operator.leads().await;
        eventually("the metric says so", async || (failing.get() == 0).then_some(())).await;
        apply_all(&cluster).await;
        let told = cluster.api::<Tenant>().get("t0").await.unwrap().status.unwrap().usage.unwrap();
        assert_eq!(told.total_tokens, 500, "usage was kept");
        let found = tenants::find(&db, &sealer(), "t0").await.unwrap().unwrap();
        assert_eq!(found.row.detached_at, None);
        let kinds: Vec<String> =
            sqlx::query_scalar("SELECT kind FROM tenant_changes WHERE tenant = 't0' ORDER BY id")
                .fetch_all(&db)
                .await
                .unwrap();
        assert_eq!(kinds, ["created", "adopted"]);
        eventually("the sweep is settled", async || {
            sweeps::refused(&db).await.unwrap().is_empty().then_some(())
        })
        .await;
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_operator_that_starts_without_the_definition_waits_for_it_and_asks_ever_less_often(db: PgPool) {
    alone_in_namespace(async move |cluster| {
        let access = cluster.operator_config(&[]).await;
        delete_definition(&cluster).await;
        let operator = Running::reaching(access, &[&cluster], &db, "operator-0");
        let failing = operator.metrics.watches_failing.with_label_values(&["tenants"]);
        eventually("it is said in a metric", async || (failing.get() == 1).then_some(())).await;
        let lists = operator.metrics.api_calls.with_label_values(&["list", "tenants"]);
        let (before, since) = (lists.get(), Instant::now());
        eventually("it is tried four times more", async || {
            assert!(failing.get() == 1 && !operator.is_ready_now(), "nothing has changed");
            (lists.get() >= before + 4).then_some(())
        })
        .await;
        // Pauses of 0.8 s at least, and of twice as much each time.
        assert!(since.elapsed() > Duration::from_secs(10), "{:?}", since.elapsed());

        cluster.install_definition().await;
        operator.leads().await;
        apply_all(&cluster).await;
        assert_eq!(failing.get(), 0);
        operator.stop().await;
    })
    .await;
}
