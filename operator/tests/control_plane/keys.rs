//! Each tenant's API key: a Secret that is its own, and a hash that is good.

use flagmeter_crds::Tenant;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::PgPool;
use flagmeter_store::api_key::ApiKey;
use flagmeter_store::postgres::api_keys::{self, TenantKey};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, eventually, from, in_namespace};
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

/// Looks at the keys again and again, and fails if one of these does not open the api at any moment.
struct Vigil {
    stop: CancellationToken,
    task: JoinHandle<u32>,
}

impl Vigil {
    fn over(db: &PgPool, keys: Vec<(String, ApiKey)>) -> Self {
        let (db, stop) = (db.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut looks = 0;
            while !stopped.is_cancelled() {
                let known = api_keys::load(&db).await.unwrap();
                let now = Clock::system().now();
                for (tenant, key) in &keys {
                    let works = known.iter().any(|known| {
                        known.tenant.as_str() == tenant
                            && known.hash == key.hash()
                            && known.expires_at.is_none_or(|at| at > now)
                    });
                    assert!(works, "the key of {tenant} does not work at look {looks}");
                }
                looks += 1;
                tokio::task::yield_now().await;
            }
            looks
        });
        Self { stop, task }
    }

    async fn ends(self) {
        self.stop.cancel();
        let looks = self.task.await.unwrap();
        assert!(looks > 10, "only {looks} looks");
    }
}

/// Waits until the Secret is the Tenant's own.
async fn owned(cluster: &Cluster, tenant: &str) -> Secret {
    let secrets: Api<Secret> = cluster.api();
    eventually(&format!("the Secret of {tenant} is its own"), async || {
        let uid = cluster.api::<Tenant>().get(tenant).await.unwrap().metadata.uid;
        let secret = secrets.get_opt(&format!("{tenant}-flagmeter-key")).await.unwrap()?;
        let owner = secret.owner_references().iter().find(|owner| owner.controller == Some(true))?;
        (Some(&owner.uid) == uid.as_ref()).then(|| secret.clone())
    })
    .await
}

/// Waits until there is an event of this reason about the tenant.
async fn told(cluster: &Cluster, reason: &str, part: &str) {
    let events: Api<Event> = cluster.api();
    eventually(&format!("an event {reason}"), async || {
        let told = events.list(&ListParams::default()).await.unwrap();
        let is_it = |event: &Event| {
            event.reason.as_deref() == Some(reason)
                && event.note.as_deref().is_some_and(|note| note.contains(part))
        };
        told.iter().any(is_it).then_some(())
    })
    .await;
}

/// The Secret as `velero` and most exports keep it: without anything that the API server or a controller put there.
fn exported(secret: &Secret) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": secret.name_any(), "labels": secret.labels(), "annotations": secret.annotations() },
        "data": secret.data,
    })
}

async fn create(cluster: &Cluster, secret: &Value) {
    cluster.api::<Secret>().create(&PostParams::default(), &from(secret.clone())).await.unwrap();
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
async fn a_tenant_that_is_deleted_and_applied_again_is_ready_with_the_key_in_its_secret_alone(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        let spec = json!({ "monthlyQuota": 1_000 });
        cluster.apply("acme", spec.clone()).await;
        cluster.reported("acme", "Synced").await;
        key(&cluster, "the Secret is made", |_| true).await;
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
            let current = key(&cluster, "it holds a key", |_| true).await;
            assert!(only(&current)(&api_keys::of_tenant(&db, "acme").await.unwrap()), "it alone is good");
        }
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_restore_of_secrets_and_tenants_brings_every_clients_key_back(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        let (secrets, tenants): (Api<Secret>, Api<Tenant>) = (cluster.api(), cluster.api());
        let names = ["acme", "globex", "initech"];
        for name in names {
            cluster.apply(name, json!({ "monthlyQuota": 1_000 })).await;
            cluster.reported(name, "Synced").await;
        }
        // One has asked for a rotation: it is not asked for again by what comes back.
        let first = key(&cluster, "the Secret is made", |_| true).await;
        annotate(&cluster, "once").await;
        key(&cluster, "the key is new", |key| *key != first).await;
        let (mut backup, mut keys) = (Vec::new(), Vec::new());
        for name in names {
            let tenant = tenants.get(name).await.unwrap();
            let secret = owned(&cluster, name).await;
            let text = secret.data.as_ref().unwrap()["key"].0.clone();
            keys.push((name.to_owned(), std::str::from_utf8(&text).unwrap().parse::<ApiKey>().unwrap()));
            let tenant = json!({
                "apiVersion": "flagmeter.dev/v1alpha1",
                "kind": "Tenant",
                "metadata": { "name": name, "annotations": tenant.annotations() },
                "spec": tenant.spec,
            });
            backup.push((exported(&secret), tenant));
        }

        for name in names {
            tenants.delete(name, &DeleteParams::default()).await.unwrap();
        }
        eventually("all is gone, and no key works", async || {
            let left = secrets.list(&ListParams::default()).await.unwrap();
            let works = api_keys::load(&db).await.unwrap();
            (left.items.is_empty() && works.is_empty()).then_some(())
        })
        .await;

        // Secrets before Tenants, as velero does by itself.
        for (secret, _) in &backup {
            create(&cluster, secret).await;
        }
        for (_, tenant) in &backup {
            tenants.create(&PostParams::default(), &from(tenant.clone())).await.unwrap();
        }
        for name in names {
            cluster.reported(name, "Synced").await;
        }
        let vigil = Vigil::over(&db, keys.clone());
        for (name, key) in &keys {
            let secret = owned(&cluster, name).await;
            assert_eq!(secret.data.unwrap()["key"].0, key.expose().as_bytes(), "{name}");
        }
        told(&cluster, "KeyAdopted", "belongs to").await;
        let reconciles = operator.metrics.reconciles.with_label_values(&["in_force"]);
        let before = reconciles.get();
        eventually("two resyncs each", async || (reconciles.get() >= before + 6).then_some(())).await;
        vigil.ends().await;
        assert_eq!(operator.metrics.drift_repairs.get(), 0, "nothing has drifted");
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_secret_that_comes_back_after_its_tenant_makes_its_key_work_again(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        let spec = json!({ "monthlyQuota": 1_000 });
        cluster.apply("acme", spec.clone()).await;
        let former = key(&cluster, "the Secret is made", |_| true).await;
        let backup = exported(&owned(&cluster, "acme").await);
        cluster.api::<Tenant>().delete("acme", &DeleteParams::default()).await.unwrap();
        rows(&db, "no key works", <[TenantKey]>::is_empty).await;
        cluster.apply("acme", spec).await;
        cluster.reported("acme", "Synced").await;
        key(&cluster, "there is another key", |key| *key != former).await;

        let params = PatchParams::apply("owner").force();
        cluster.api::<Secret>().patch(NAME, &params, &Patch::Apply(backup)).await.unwrap();
        rows(&db, "the former key works again", only(&former)).await;
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_key_works_at_every_moment_while_its_secret_loses_its_metadata(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        let secrets: Api<Secret> = cluster.api();
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        let current = key(&cluster, "the Secret is made", |_| true).await;
        rows(&db, "its hash is kept", only(&current)).await;
        let vigil = Vigil::over(&db, vec![("acme".to_owned(), current.clone())]);
        let bare = |owners: Value| {
            json!({ "metadata": { "name": NAME, "ownerReferences": owners }, "stringData": { "key": current.expose() } })
        };
        // The version is one that the API server does not have, so that its garbage collector leaves it alone.
        let stale = json!([{ "apiVersion": "flagmeter.dev/v1", "kind": "Tenant", "name": "acme",
            "uid": "00000000-0000-4000-8000-000000000000", "controller": true }]);
        for owners in [json!([]), stale] {
            secrets.replace(NAME, &PostParams::default(), &from(bare(owners))).await.unwrap();
            let secret = owned(&cluster, "acme").await;
            assert_eq!(secret.owner_references().len(), 1);
            assert_eq!(secret.labels()["flagmeter.dev/tenant"], "acme");
        }
        told(&cluster, "KeyAdopted", "had lost its owner").await;
        vigil.ends().await;

        let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
        let tenants: Api<Tenant> = cluster.api();
        tenants.delete("acme", &orphan).await.unwrap();
        // The Tenant goes a moment after its Secret has lost its owner. What is applied until then goes with it.
        eventually("the Tenant is gone", async || tenants.get_opt("acme").await.unwrap().is_none().then_some(())).await;
        assert!(secrets.get(NAME).await.unwrap().owner_references().is_empty());
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        cluster.reported("acme", "Synced").await;
        let vigil = Vigil::over(&db, vec![("acme".to_owned(), current.clone())]);
        assert_eq!(owned(&cluster, "acme").await.data.unwrap()["key"].0, current.expose().as_bytes());
        rows(&db, "it alone works", only(&current)).await;
        let reconciles = operator.metrics.reconciles.with_label_values(&["in_force"]);
        let before = reconciles.get();
        eventually("two resyncs", async || (reconciles.get() >= before + 2).then_some(())).await;
        vigil.ends().await;
        assert_eq!(operator.metrics.drift_repairs.get(), 0, "nothing has drifted");
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_secret_that_was_there_before_its_tenant_gives_it_its_key(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        operator.leads().await;
        let given = ApiKey::random().unwrap();
        cluster.apply_secret(NAME, json!({ "key": given.expose() })).await;
        let tenant = json!({
            "apiVersion": "flagmeter.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": { "name": "acme", "annotations": { "flagmeter.dev/rotate-key": "once" } },
            "spec": { "monthlyQuota": 1_000 },
        });
        let tenants: Api<Tenant> = cluster.api();
        tenants.create(&PostParams::default(), &from(tenant)).await.unwrap();
        cluster.reported("acme", "Synced").await;
        rows(&db, "it is the tenant's key", only(&given)).await;
        assert_eq!(owned(&cluster, "acme").await.annotations()["flagmeter.dev/rotate-key"], "once");
        told(&cluster, "KeyAdopted", "was not known").await;
        annotate(&cluster, "twice").await;
        key(&cluster, "it can be rotated", |key| *key != given).await;
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_secret_that_something_else_takes_over_ends_no_key(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        cluster.reported("acme", "Synced").await;
        let current = key(&cluster, "the Secret is made", |_| true).await;
        rows(&db, "its hash is kept", only(&current)).await;
        let vigil = Vigil::over(&db, vec![("acme".to_owned(), current.clone())]);
        let controller: ConfigMap = from(json!({ "metadata": { "name": "theirs" } }));
        let controller = cluster.api::<ConfigMap>().create(&PostParams::default(), &controller).await.unwrap();
        let owner = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "theirs",
            "uid": controller.metadata.uid, "controller": true });
        let taken = json!({ "metadata": { "name": NAME, "ownerReferences": [owner] }, "stringData": { "key": "s3cret" } });
        cluster.api::<Secret>().replace(NAME, &PostParams::default(), &from(taken)).await.unwrap();
        let tenant = cluster.reported("acme", "KeySecretTaken").await;
        let message = &tenant.status.unwrap().conditions[0].message;
        assert!(message.contains("keys that worked before go on working"), "{message}");
        let stalled = operator.metrics.reconciles.with_label_values(&["stalled"]);
        let before = stalled.get();
        eventually("two resyncs", async || (stalled.get() >= before + 2).then_some(())).await;
        vigil.ends().await;
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
