//! What many Tenants cost the API server.

use flagmeter_crds::Tenant;
use flagmeter_operator::metrics::Metrics;
use flagmeter_store::PgPool;
use futures::{StreamExt as _, stream};
use kube::Api;
use kube::api::ListParams;
use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use serde_json::json;

use crate::cluster::{eventually, in_namespace};
use crate::running::Running;

const TENANTS: u64 = 200;

/// What the operator asked for so far, beside its lease and the watches, which begin with a list: how much does not
/// depend on the Tenants.
fn calls(metrics: &Metrics) -> f64 {
    let families = metrics.api_calls.collect();
    let counted = families.iter().flat_map(MetricFamily::get_metric).filter(|metric| {
        let is =
            |name, value| metric.get_label().iter().any(|pair| pair.name() == name && pair.value() == value);
        !is("resource", "leases") && !is("verb", "watch") && !is("verb", "list")
    });
    counted.map(|metric| metric.get_counter().get_value()).sum()
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn two_hundred_tenants_at_once_are_all_ready_and_then_looked_at_without_a_call(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        let metadata = json!({ "name": "hook", "annotations": { "flagmeter.dev/used-by": "*" } });
        cluster.apply_secret_with(metadata, json!({ "url": "https://hooks.slack.com/services/T0/B0/x" })).await;
        let applies = (0..TENANTS).map(|number| {
            // Every other one names a Secret.
            let alerts = match number % 2 {
                0 => json!({ "slack": { "secretRef": { "name": "hook" } } }),
                _ => json!({}),
            };
            let (cluster, name) = (cluster.clone(), format!("t{number}"));
            async move { drop(cluster.apply(&name, json!({ "monthlyQuota": 1_000, "alerts": alerts })).await) }
        });
        stream::iter(applies).buffer_unordered(16).collect::<()>().await;
        let tenants: Api<Tenant> = cluster.api();
        eventually("all are Ready", async || {
            let listed = tenants.list(&ListParams::default()).await.unwrap();
            let is_ready = |tenant: &&Tenant| {
                let conditions = tenant.status.iter().flat_map(|status| &status.conditions);
                conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
            };
            (listed.iter().filter(is_ready).count() == 200).then_some(())
        })
        .await;

        // What was written comes back from the watches, and is looked at once more.
        let reconciles = operator.metrics.reconciles.with_label_values(&["in_force"]);
        let mut quiet = (calls(&operator.metrics), reconciles.get());
        eventually("nothing is asked for any more", async || {
            let now = calls(&operator.metrics);
            if now.total_cmp(&quiet.0).is_ne() {
                quiet = (now, reconciles.get());
            }
            (reconciles.get() >= quiet.1 + 50).then_some(())
        })
        .await;
        let (before, looked) = (calls(&operator.metrics), reconciles.get());
        // They come in turn, so that all of them are among these.
        let all = looked + TENANTS * 6 / 5;
        eventually("all are looked at again", async || (reconciles.get() >= all).then_some(())).await;
        let more = calls(&operator.metrics) - before;
        assert!(more.abs() < 0.5, "{more} calls for tenants in which nothing happened");
        operator.stop().await;
    })
    .await;
}
