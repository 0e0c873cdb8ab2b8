//! Each tenant's API key: a Secret that is its own, and a hash that is good.

use flagmeter_crds::Tenant;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::PgPool;
use flagmeter_store::api_key::ApiKey;
use flagmeter_store::postgres::api_keys::{self, TenantKey};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::cluster::{Cluster, eventually, in_namespace};
use crate::running::Running;

const NAME: &str = "acme-flagmeter-key";

/// The key in the Secret, once it is one that `right` takes.
async fn key(cluster: &Cluster, what: &str, right: impl Fn(&ApiKey) -> bool) -> ApiKey {
    let secrets: Api<Secret> = cluster.api();
    eventually(what, async || {
        let secret = secrets.get_opt(NAME).await.unwrap()?;
        let key: ApiKey = std::str::from_utf8(&secret.data?.get("key")?.0).ok()?.parse().ok()?;
        right(&key).then_some(key)
    })
    .await
}

/// The tenant's keys, once they are as `right` says.
async fn rows(db: &PgPool, what: &str, right: impl Fn(&[TenantKey]) -> bool) -> Vec<TenantKey> {
    eventually(what, async || Some(api_keys::of_tenant(db, "acme").await.unwrap()).filter(|rows| right(rows)))
        .await
}

fn only(key: &ApiKey) -> impl Fn(&[TenantKey]) -> bool + use<> {
    let expected = [TenantKey { hash: key.hash(), expires_at: None }];
    move |rows| rows == expected
}

async fn annotate(cluster: &Cluster, value: &str) {
    let patch = json!({ "metadata": { "annotations": { "flagmeter.dev/rotate-key": value } } });
    let tenants: Api<Tenant> = cluster.api();
    tenants.patch("acme", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_tenant_gets_one_key_in_a_secret_of_its_own_and_another_when_that_is_deleted(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        let tenant = cluster.reported("acme", "Synced").await;
        assert_eq!(tenant.status.as_ref().unwrap().api_key_secret.as_deref(), Some(NAME));
        let first = key(&cluster, "the Secret is made", |_| true).await;
        let secrets: Api<Secret> = cluster.api();
        let secret = secrets.get(NAME).await.unwrap();
        assert_eq!(Some(&secret.owner_references()[0].uid), tenant.metadata.uid.as_ref());
        assert_eq!(secret.labels()["flagmeter.dev/tenant"], "acme");
        rows(&db, "its hash is kept", only(&first)).await;

        // Neither another look nor another operator makes another.
        let reconciles = operator.metrics.reconciles.with_label_values(&["in_force"]);
        let before = reconciles.get();
        eventually("two resyncs", async || (reconciles.get() >= before + 2).then_some(())).await;
        operator.stop().await;
        let operator = Running::start(&cluster, &db, "operator-1").await;
        operator.leads().await;
        let reconciles = operator.metrics.reconciles.with_label_values(&["in_force"]);
        eventually("two more", async || (reconciles.get() >= 2).then_some(())).await;
        let later = secrets.get(NAME).await.unwrap();
        assert_eq!(later.metadata.resource_version, secret.metadata.resource_version);

        secrets.delete(NAME, &DeleteParams::default()).await.unwrap();
        let second = key(&cluster, "another key is made", |key| *key != first).await;
        rows(&db, "the first has ended", only(&second)).await;

        // One by hand counts; what is none is replaced.
        let by_hand = ApiKey::random().unwrap();
        for (text, is_key) in [(by_hand.expose(), true), ("s3cret", false)] {
            let patch = json!({ "stringData": { "key": text } });
            secrets.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
            let now =
                key(&cluster, "there is a key", |key| *key != second && (*key == by_hand) == is_key).await;
            rows(&db, "it is the only one", only(&now)).await;
        }
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn after_a_rotation_the_former_key_works_on_for_a_day(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        let former = key(&cluster, "the Secret is made", |_| true).await;
        annotate(&cluster, "once").await;
        let current = key(&cluster, "the key is new", |key| *key != former).await;
        let kept = rows(&db, "both are good", |rows| rows.len() == 2).await;
        let of = |key: &ApiKey| kept.iter().find(|row| row.hash == key.hash()).unwrap().expires_at;
        assert_eq!(of(&current), None);
        let left = of(&former).unwrap().duration_since(Clock::system().now());
        assert_eq!(left.as_hours(), 23, "{left}");

        // Once for each value.
        let reconciles = operator.metrics.reconciles.with_label_values(&["in_force"]);
        let before = reconciles.get();
        eventually("two resyncs", async || (reconciles.get() >= before + 2).then_some(())).await;
        assert_eq!(key(&cluster, "the key stays", |_| true).await, current);
        annotate(&cluster, "twice").await;
        key(&cluster, "the key is new again", |key| *key != current).await;
        rows(&db, "all three are good", |rows| rows.len() == 3).await;
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_tenant_that_is_deleted_and_applied_again_is_ready_with_a_key_of_its_own_alone(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        let spec = json!({ "monthlyQuota": 1_000 });
        cluster.apply("acme", spec.clone()).await;
        cluster.reported("acme", "Synced").await;
        let mut former = key(&cluster, "the Secret is made", |_| true).await;
        for _ in 0..3 {
            cluster.api::<Tenant>().delete("acme", &DeleteParams::default()).await.unwrap();
            let tenant = cluster.apply("acme", spec.clone()).await;
            // The moment it is Ready, what is in the Secret is good.
            let reported = eventually("it is Ready", async || {
                let tenant = cluster.api::<Tenant>().get("acme").await.unwrap();
                let conditions = tenant.status.iter().flat_map(|status| &status.conditions);
                let mut ready = conditions.filter(|one| one.type_ == "Ready" && one.status == "True");
                ready.next().is_some().then_some(tenant)
            })
            .await;
            assert_eq!(reported.metadata.uid, tenant.metadata.uid);
            let secret = cluster.api::<Secret>().get(NAME).await.unwrap();
            assert_eq!(Some(&secret.owner_references()[0].uid), tenant.metadata.uid.as_ref());
            let current = key(&cluster, "it holds another key", |_| true).await;
            assert_ne!(current, former);
            assert!(only(&current)(&api_keys::of_tenant(&db, "acme").await.unwrap()), "it alone is good");
            former = current;
        }
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn keys_that_somebody_changed_in_postgresql_are_put_back_and_said_so(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        cluster.reported("acme", "Synced").await;
        let current = key(&cluster, "the Secret is made", |_| true).await;
        rows(&db, "its hash is kept", only(&current)).await;
        sqlx::query(
            "WITH added AS (INSERT INTO api_keys (hash, tenant) VALUES (sha256('theirs'), 'acme'), (sha256('too'), 'acme'))
             DELETE FROM api_keys WHERE tenant = 'acme'",
        )
        .execute(&db)
        .await
        .unwrap();
        rows(&db, "the keys are put back", only(&current)).await;
        eventually("it is counted", async || (operator.metrics.drift_repairs.get() == 1).then_some(())).await;
        let trail: Vec<(String, String, Option<String>, Option<String>)> = sqlx::query_as(
            "SELECT actor, kind, before ->> 'keys', after ->> 'keys' FROM tenant_changes ORDER BY id DESC LIMIT 1",
        )
        .fetch_all(&db)
        .await
        .unwrap();
        let [actor, kind] = ["flagmeter-operator", "keys_repaired"].map(str::to_owned);
        assert_eq!(trail, [(actor, kind, Some("2".to_owned()), Some("1".to_owned()))]);

        // It is no word on the row, which is as it was last written.
        let reconciles = operator.metrics.reconciles.with_label_values(&["in_force"]);
        let before = reconciles.get();
        eventually("two resyncs", async || (reconciles.get() >= before + 2).then_some(())).await;
        sqlx::query("UPDATE tenants SET monthly_quota = 9").execute(&db).await.unwrap();
        let kinds = async || {
            let kinds: Vec<String> =
                sqlx::query_scalar("SELECT kind FROM tenant_changes ORDER BY id").fetch_all(&db).await.unwrap();
            (kinds == ["created", "keys_repaired", "drift_repaired"]).then_some(())
        };
        eventually("drift of the row is told from an edit", kinds).await;
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_secret_that_is_somebody_elses_is_left_alone_and_said_so(db: PgPool) {
    in_namespace(async move |cluster| {
        cluster.apply_secret(NAME, json!({ "password": "theirs" })).await;
        let secrets: Api<Secret> = cluster.api();
        let before = secrets.get(NAME).await.unwrap();
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        let tenant = cluster.reported("acme", "KeySecretTaken").await;
        assert_eq!(tenant.status.unwrap().api_key_secret, None);
        assert_eq!(secrets.get(NAME).await.unwrap(), before);
        assert_eq!(api_keys::of_tenant(&db, "acme").await.unwrap(), []);

        secrets.delete(NAME, &DeleteParams::default()).await.unwrap();
        cluster.reported("acme", "Synced").await;
        let made = key(&cluster, "the Secret is made", |_| true).await;
        rows(&db, "its hash is kept", only(&made)).await;
        operator.stop().await;
    })
    .await;
}
