//! How a tenant is suspended, uses up its quota, ends, and comes back.

use std::time::Duration;

use flagmeter_crds::Tenant;
use flagmeter_operator::metrics::Metrics;
use flagmeter_operator::tenant::{FINALIZER, SKIP_CLEANUP, Scope};
use flagmeter_store::PgPool;
use flagmeter_store::postgres::{self, tenants};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use prometheus::Registry;
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;

use crate::cluster::{Cluster, alone_in_namespace, eventually, in_namespace};
use crate::proxy::Proxy;
use crate::running::{Running, context, sealer};

/// The tenant's condition, once it has `status` and `reason`.
async fn condition(cluster: &Cluster, type_: &str, status: &str, reason: &str) -> Condition {
    let tenants: Api<Tenant> = cluster.api();
    eventually(&format!("{type_} is {status}, {reason}"), async || {
        let conditions = tenants.get("acme").await.unwrap().status?.conditions;
        conditions.into_iter().find(|condition| {
            (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_str())
                == (type_, status, reason)
        })
    })
    .await
}

/// Waits until the tenant says that its deletion waits for PostgreSQL. A resync just before the deletion may have said
/// something else of PostgreSQL.
async fn says_that_it_waits(cluster: &Cluster) {
    eventually("the deletion waits, and says so", async || {
        let waits = condition(cluster, "Reconciling", "True", "DatabaseUnavailable").await;
        waits.message.contains("failed to delete the tenant's rows").then_some(())
    })
    .await;
}

/// What the worker would have counted.
async fn use_tokens(cluster: &Cluster, db: &PgPool, tokens: i64) {
    let usage = cluster.api::<Tenant>().get("acme").await.unwrap().status.unwrap().usage.unwrap();
    sqlx::query(
        "INSERT INTO usage_periods (tenant, period_start, period_end, total_tokens, events, last_minute)
         VALUES ('acme', $1::text::timestamptz, $2::text::timestamptz, $3, 1, $1::text::timestamptz)
         ON CONFLICT (tenant, period_start) DO UPDATE SET total_tokens = EXCLUDED.total_tokens",
    )
    .bind(usage.period_start.0.to_string())
    .bind(usage.period_end.0.to_string())
    .bind(tokens)
    .execute(db)
    .await
    .unwrap();
}

async fn delete(cluster: &Cluster) {
    cluster.api::<Tenant>().delete("acme", &DeleteParams::default()).await.unwrap();
}

async fn gone(cluster: &Cluster) {
    let tenants: Api<Tenant> = cluster.api();
    eventually("the Tenant is gone", async || tenants.get_opt("acme").await.unwrap().is_none().then_some(()))
        .await;
}

async fn merge(cluster: &Cluster, patch: Value) {
    let tenants: Api<Tenant> = cluster.api();
    tenants.patch("acme", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

async fn rows(db: &PgPool, table: &str) -> i64 {
    let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    sqlx::query_scalar(count).fetch_one(db).await.unwrap()
}

/// A pool whose server can be away, and the wire to it.
pub(crate) async fn through_a_wire(db: &PgPool) -> (PgPool, Proxy) {
    let options = (*db.connect_options()).clone();
    let proxy = Proxy::to(&format!("{}:{}", options.get_host(), options.get_port())).await;
    let options = options.host("127.0.0.1").port(proxy.address.port());
    let pool = postgres::pool(options.to_url_lossy().as_str(), "flagmeter-operator", 6).unwrap();
    (pool, proxy)
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_quota_that_is_used_up_shows_at_once_and_so_does_its_raise(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        condition(&cluster, "QuotaAvailable", "True", "WithinQuota").await;
        use_tokens(&cluster, &db, 999).await;
        let tenants: Api<Tenant> = cluster.api();
        eventually("99 %", async || {
            (tenants.get("acme").await.unwrap().status?.usage?.percent == 99).then_some(())
        })
        .await;
        // Less than a minute later.
        use_tokens(&cluster, &db, 1_000).await;
        let used_up = condition(&cluster, "QuotaAvailable", "False", "QuotaExhausted").await;
        assert!(used_up.message.contains("1000 tokens"), "{}", used_up.message);
        condition(&cluster, "Ready", "True", "Synced").await;

        cluster.apply("acme", json!({ "monthlyQuota": 2_000 })).await;
        condition(&cluster, "QuotaAvailable", "True", "WithinQuota").await;
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_suspended_tenant_is_marked_in_its_row_and_said_to_be(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000, "suspended": true })).await;
        cluster.reported("acme", "Suspended").await;
        let found = tenants::find(&db, &sealer(), "acme").await.unwrap().unwrap();
        assert!(found.row.suspended);
        merge(&cluster, json!({ "spec": { "suspended": false } })).await;
        cluster.reported("acme", "Synced").await;
        let found = tenants::find(&db, &sealer(), "acme").await.unwrap().unwrap();
        assert!(!found.row.suspended);
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_tenant_that_is_deleted_with_all_that_was_counted_leaves_nothing(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000, "deletionPolicy": "Delete" })).await;
        let tenant = cluster.reported("acme", "Synced").await;
        assert_eq!(tenant.finalizers(), [FINALIZER]);
        use_tokens(&cluster, &db, 10).await;
        delete(&cluster).await;
        gone(&cluster).await;
        assert_eq!((rows(&db, "tenants").await, rows(&db, "usage_periods").await), (0, 0));
        let kinds: Vec<String> =
            sqlx::query_scalar("SELECT kind FROM tenant_changes ORDER BY id").fetch_all(&db).await.unwrap();
        assert_eq!(kinds, ["created", "deletion_started", "deleted"]);

        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        let tenant = cluster.reported("acme", "Synced").await;
        assert_eq!(tenant.status.unwrap().usage.unwrap().total_tokens, 0);
        assert!(tenant.metadata.finalizers.is_none(), "Retain has no finalizer");
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_policy_that_is_changed_to_retain_takes_the_finalizer_away(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000, "deletionPolicy": "Delete" })).await;
        cluster.reported("acme", "Synced").await;
        use_tokens(&cluster, &db, 10).await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000, "deletionPolicy": "Retain" })).await;
        let tenants: Api<Tenant> = cluster.api();
        eventually("the finalizer is gone", async || {
            tenants.get("acme").await.unwrap().finalizers().is_empty().then_some(())
        })
        .await;
        delete(&cluster).await;
        gone(&cluster).await;
        assert_eq!(rows(&db, "usage_periods").await, 1);
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn while_postgresql_is_away_a_deletion_waits_and_says_so_and_then_ends(db: PgPool) {
    in_namespace(async move |cluster| {
        let (pool, wire) = through_a_wire(&db).await;
        let operator = Running::start(&cluster, &pool, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000, "deletionPolicy": "Delete" })).await;
        cluster.reported("acme", "Synced").await;
        wire.cut();
        delete(&cluster).await;
        says_that_it_waits(&cluster).await;
        assert_eq!(rows(&db, "tenants").await, 1);
        wire.mend();
        gone(&cluster).await;
        assert_eq!(rows(&db, "tenants").await, 0);
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn the_annotation_lets_a_tenant_go_whatever_is_away(db: PgPool) {
    in_namespace(async move |cluster| {
        let (pool, wire) = through_a_wire(&db).await;
        let operator = Running::start(&cluster, &pool, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000, "deletionPolicy": "Delete" })).await;
        cluster.reported("acme", "Synced").await;
        wire.cut();
        delete(&cluster).await;
        condition(&cluster, "Reconciling", "True", "DatabaseUnavailable").await;
        merge(&cluster, json!({ "metadata": { "annotations": { SKIP_CLEANUP: "true" } } })).await;
        gone(&cluster).await;
        wire.mend();
        eventually("the row is detached", async || {
            let found = tenants::find(&db, &sealer(), "acme").await.unwrap()?;
            found.row.detached_at.map(drop)
        })
        .await;
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_database_that_is_frozen_is_said_to_be_away_and_the_annotation_lets_go(db: PgPool) {
    in_namespace(async move |cluster| {
        let (pool, wire) = through_a_wire(&db).await;
        let operator = Running::start(&cluster, &pool, "operator-0").await;
        // More than are worked on at once.
        let others = ["t0", "t1", "t2", "t3", "t4", "t5"];
        for name in others.into_iter().chain(["acme"]) {
            cluster.apply(name, json!({ "monthlyQuota": 1_000, "deletionPolicy": "Delete" })).await;
        }
        for name in others.into_iter().chain(["acme"]) {
            cluster.reported(name, "Synced").await;
        }
        wire.freeze();
        for name in others {
            cluster.apply(name, json!({ "monthlyQuota": 2_000, "deletionPolicy": "Delete" })).await;
        }
        delete(&cluster).await;
        says_that_it_waits(&cluster).await;
        for name in others {
            cluster.reported(name, "DatabaseUnavailable").await;
        }
        merge(&cluster, json!({ "metadata": { "annotations": { SKIP_CLEANUP: "true" } } })).await;
        gone(&cluster).await;
        assert_eq!(rows(&db, "tenants").await, 7);

        wire.mend();
        for name in others {
            cluster.reported(name, "Synced").await;
        }
        eventually("the row is detached", async || {
            let found = tenants::find(&db, &sealer(), "acme").await.unwrap()?;
            found.row.detached_at.map(drop)
        })
        .await;
        // Whoever has a finalizer needs the operator to go, and the definition waits for it.
        let left: Api<Tenant> = cluster.api();
        left.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
        eventually("the others are gone", async || {
            left.list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
        })
        .await;
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn what_an_earlier_deletion_left_is_deleted_before_a_new_tenant_begins(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        cluster.reported("acme", "Synced").await;
        use_tokens(&cluster, &db, 10).await;
        operator.stop().await;
        delete(&cluster).await;
        gone(&cluster).await;
        sqlx::query("UPDATE tenants SET deletion_started_at = now()").execute(&db).await.unwrap();

        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        let tenant = cluster.reported("acme", "Synced").await;
        assert_eq!(tenant.status.unwrap().usage.unwrap().total_tokens, 0);
        assert_eq!(rows(&db, "usage_periods").await, 0);
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_id_that_becomes_free_goes_to_whoever_waits_for_it_in_another_namespace(db: PgPool) {
    in_namespace(async move |cluster| {
        let other = cluster.beside().await;
        let access = cluster.operator_config(&[&other]).await;
        let operator = Running::reaching(access, &[&cluster, &other], &db, "operator-0");
        cluster.apply("acme", json!({ "monthlyQuota": 1_000, "deletionPolicy": "Delete" })).await;
        cluster.reported("acme", "Synced").await;
        other.apply("acme", json!({ "monthlyQuota": 5 })).await;
        other.reported("acme", "TenantIdTaken").await;

        delete(&cluster).await;
        other.reported("acme", "Synced").await;
        let found = tenants::find(&db, &sealer(), "acme").await.unwrap().unwrap();
        assert_eq!((found.row.owner.namespace, found.row.monthly_quota), (other.namespace.clone(), 5));
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_operator_of_all_namespaces_follows_each_and_knows_whose_an_id_is(db: PgPool) {
    // It sees the Tenants of all other tests, so no other is to run, and what those that have ended left is to be gone.
    alone_in_namespace(async move |cluster| {
        let all: Api<Tenant> = Api::all(cluster.client.clone());
        eventually("no other test's Tenants are left", async || {
            let left = all.list(&ListParams::default()).await.unwrap();
            // Those wait for an operator, which this one is.
            left.iter().all(|tenant| !tenant.finalizers().is_empty()).then_some(())
        })
        .await;
        let other = cluster.beside().await;
        let access = cluster.cluster_wide_config(&other).await;
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let mut context = context(access, &[&cluster], &db, "operator-0", &metrics);
        context.settings.scopes = vec![Scope::Cluster];
        let operator = Running::of(context, None);
        let slack = json!({ "secretRef": { "name": "hook" } });
        other.apply("elsewhere", json!({ "monthlyQuota": 5, "alerts": { "slack": slack } })).await;
        other.reported("elsewhere", "SecretUnavailable").await;
        other
            .apply_secret_for(
                "elsewhere",
                "hook",
                json!({ "url": "https://hooks.slack.com/services/T0/B0/x" }),
            )
            .await;
        other.reported("elsewhere", "Synced").await;
        cluster.apply("everywhere", json!({ "monthlyQuota": 1_000 })).await;
        cluster.reported("everywhere", "Synced").await;
        other.apply("everywhere", json!({ "monthlyQuota": 5 })).await;
        other.reported("everywhere", "TenantIdTaken").await;

        cluster.api::<Tenant>().delete("everywhere", &DeleteParams::default()).await.unwrap();
        eventually("the row is detached", async || {
            let found = tenants::find(&db, &sealer(), "everywhere").await.unwrap()?;
            found.row.detached_at.map(drop)
        })
        .await;
        let found = tenants::find(&db, &sealer(), "elsewhere").await.unwrap().unwrap();
        assert_eq!((found.row.owner.namespace, found.row.detached_at), (other.namespace.clone(), None));
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_tenant_of_a_namespace_that_nobody_follows_says_so_where_the_operator_may_and_is_taken_up_later(
    db: PgPool,
) {
    alone_in_namespace(async move |cluster| {
        let other = cluster.beside().await;
        let access = cluster.reporting_config().await;
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let mut context = context(access, &[&cluster], &db, "operator-0", &metrics);
        context.settings.unseen = Duration::from_secs(1);
        let operator = Running::of(context, None);
        other.apply("acme", json!({ "monthlyQuota": 5 })).await;
        let tenant = other.reported("acme", "NamespaceNotFollowed").await;
        let stalled =
            tenant.status.unwrap().conditions.into_iter().find(|one| one.type_ == "Stalled").unwrap();
        assert_eq!(stalled.status, "True");
        let parts = [other.namespace.as_str(), "operator.watchNamespaces", cluster.namespace.as_str()];
        assert!(parts.iter().all(|part| stalled.message.contains(part)), "{}", stalled.message);
        assert_eq!(rows(&db, "tenants").await, 0);
        operator.stop().await;

        let access = cluster.operator_config(&[&other]).await;
        let operator = Running::reaching(access, &[&cluster, &other], &db, "operator-1");
        let tenant = other.reported("acme", "Synced").await;
        let stalled =
            tenant.status.unwrap().conditions.into_iter().find(|one| one.type_ == "Stalled").unwrap();
        assert_eq!(stalled.status, "False");
        operator.stop().await;
    })
    .await;
}
