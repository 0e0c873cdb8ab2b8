//! The rows follow the resources, and the status follows the rows.

use flagmeter_crds::{Tenant, UsageStatus};
use flagmeter_store::PgPool;
use flagmeter_store::postgres::tenants::{self, TenantRow};
use flagmeter_store::sealed::Column;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually, in_namespace};
use crate::running::{Running, sealer};

const URL: &str = "https://hooks.slack.com/services/T0/B0/x";
const OTHER_URL: &str = "https://hooks.slack.com/services/T0/B0/y";

/// The tenant's row, once it is as `right` says.
async fn row(db: &PgPool, what: &str, right: impl Fn(&TenantRow) -> bool) -> TenantRow {
    eventually(what, async || {
        let found = tenants::find(db, &sealer(), "acme").await.unwrap();
        found.map(|found| found.row).filter(|row| right(row))
    })
    .await
}

/// The tenant's usage in its status, once it is `total`.
async fn used(cluster: &Cluster, total: i64) -> UsageStatus {
    let tenants: Api<Tenant> = cluster.api();
    eventually(&format!("the status says {total}"), async || {
        let usage = tenants.get("acme").await.unwrap().status?.usage?;
        (usage.total_tokens == total).then_some(usage)
    })
    .await
}

/// Waits for an event of this reason.
async fn event(cluster: &Cluster, reason: &str) -> Event {
    let events: Api<Event> = cluster.api();
    eventually(&format!("an event {reason}"), async || {
        let events = events.list(&ListParams::default()).await.unwrap();
        events.into_iter().find(|event| event.reason.as_deref() == Some(reason))
    })
    .await
}

/// The URL that is stored in `table`, opened.
async fn stored_url(db: &PgPool, table: &str) -> Option<String> {
    let query = sqlx::AssertSqlSafe(format!("SELECT url FROM {table} WHERE tenant = 'acme'"));
    let sealed: Option<Vec<u8>> = sqlx::query_scalar(query).fetch_optional(db).await.unwrap();
    let column = if table == "webhooks" { Column::WebhookUrl } else { Column::SlackUrl };
    sealer().open("acme", column, &sealed?)
}

async fn kinds(db: &PgPool) -> Vec<String> {
    sqlx::query_scalar("SELECT kind FROM tenant_changes ORDER BY id").fetch_all(db).await.unwrap()
}

async fn delete(cluster: &Cluster) {
    cluster.api::<Tenant>().delete("acme", &DeleteParams::default()).await.unwrap();
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_tenant_is_followed_from_its_creation_through_deletion_to_its_return(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster
            .apply("acme", json!({ "displayName": "Acme Corp", "monthlyQuota": 1_000, "billingDay": 15 }))
            .await;
        let tenant = cluster.reported("acme", "Synced").await;
        let usage = tenant.status.unwrap().usage.unwrap();
        assert_eq!((usage.total_tokens, usage.percent), (0, 0));
        let row = row(&db, "the row is written", |_| true).await;
        assert_eq!((row.name.as_str(), row.monthly_quota, row.billing_day), ("Acme Corp", 1_000, 15));
        event(&cluster, "Synced").await;

        // The worker counts.
        sqlx::query(
            "INSERT INTO usage_periods (tenant, period_start, period_end, total_tokens, events, last_minute)
             VALUES ('acme', $1::text::timestamptz, $2::text::timestamptz, 500, 1, $1::text::timestamptz)",
        )
        .bind(usage.period_start.0.to_string())
        .bind(usage.period_end.0.to_string())
        .execute(&db)
        .await
        .unwrap();
        assert_eq!(used(&cluster, 500).await.percent, 50);

        cluster
            .apply("acme", json!({ "displayName": "Acme Corp", "monthlyQuota": 2_000, "billingDay": 15 }))
            .await;
        let tenant = cluster.reported("acme", "Synced").await;
        assert_eq!(tenant.status.unwrap().usage.unwrap().percent, 25);
        self::row(&db, "the quota is followed", |row| row.monthly_quota == 2_000).await;

        delete(&cluster).await;
        self::row(&db, "the row is detached", |row| row.detached_at.is_some()).await;
        cluster.apply("acme", json!({ "monthlyQuota": 2_000, "billingDay": 15 })).await;
        let tenant = cluster.reported("acme", "Synced").await;
        assert_eq!(tenant.status.unwrap().usage.unwrap().total_tokens, 500, "usage was kept");
        event(&cluster, "Adopted").await;
        assert_eq!(kinds(&db).await, ["created", "changed", "detached", "adopted"]);
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_row_that_somebody_edited_is_put_back_and_a_resync_writes_nothing(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000, "alerts": { "slack": { "url": URL } } })).await;
        let tenant = cluster.reported("acme", "Synced").await;

        let reconciles = operator.metrics.reconciles.with_label_values(&["in_force"]);
        let before = reconciles.get();
        eventually("three resyncs", async || (reconciles.get() >= before + 3).then_some(())).await;
        let later = cluster.api::<Tenant>().get("acme").await.unwrap();
        assert_eq!(later.metadata.resource_version, tenant.metadata.resource_version);
        assert_eq!(kinds(&db).await, ["created"]);

        // At once, so that it is one repair.
        sqlx::query(
            "WITH slack AS (UPDATE slack_webhooks SET enabled = false)
             UPDATE tenants SET monthly_quota = 9, time_zone = 'Asia/Tokyo'",
        )
        .execute(&db)
        .await
        .unwrap();
        row(&db, "the row is put back", |row| {
            let enabled = row.slack.as_ref().is_some_and(|slack| slack.enabled);
            (row.monthly_quota, row.time_zone.as_str(), enabled) == (1_000, "UTC", true)
        })
        .await;
        event(&cluster, "DriftRepaired").await;
        eventually("it is counted", async || (operator.metrics.drift_repairs.get() == 1).then_some(())).await;
        let trail: Vec<(String, String, Option<String>, Option<String>)> = sqlx::query_as(
            "SELECT actor, kind, before ->> 'monthlyQuota', after ->> 'monthlyQuota' FROM tenant_changes ORDER BY id",
        )
        .fetch_all(&db)
        .await
        .unwrap();
        let line = |kind: &str, before: Option<&str>, after: &str| {
            let by = "flagmeter-operator".to_owned();
            (by, kind.to_owned(), before.map(str::to_owned), Some(after.to_owned()))
        };
        assert_eq!(trail, [line("created", None, "1000"), line("drift_repaired", Some("9"), "1000")]);
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_webhook_follows_its_secret(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        let slack = json!({ "secretRef": { "name": "acme-slack" } });
        cluster.apply("acme", json!({ "monthlyQuota": 1_000, "alerts": { "slack": slack } })).await;
        cluster.reported("acme", "SecretUnavailable").await;
        event(&cluster, "SecretUnavailable").await;
        row(&db, "it counts all the same", |row| row.slack.is_none()).await;

        cluster.apply_secret_for("acme", "acme-slack", json!({ "token": "x" })).await;
        cluster.reported("acme", "SecretUnavailable").await;
        cluster
            .apply_secret_for("acme", "acme-slack", json!({ "url": "http://hooks.slack.com/services" }))
            .await;
        cluster.reported("acme", "InvalidSlackUrl").await;
        cluster.apply_secret_for("acme", "acme-slack", json!({ "url": URL })).await;
        cluster.reported("acme", "Synced").await;
        assert_eq!(stored_url(&db, "slack_webhooks").await.as_deref(), Some(URL));

        cluster.apply_secret_for("acme", "acme-slack", json!({ "url": OTHER_URL })).await;
        let follows = async || stored_url(&db, "slack_webhooks").await.filter(|url| url == OTHER_URL);
        eventually("the webhook follows", follows).await;
        assert!(kinds(&db).await.iter().all(|kind| kind != "drift_repaired"));
        operator.stop().await;
    })
    .await;
}

/// Someone who may write Tenants, but not read Secrets, names another team's.
#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_secret_is_used_for_no_tenant_that_it_does_not_name_and_nobody_learns_that_it_is_there(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        let theirs = json!({ "url": URL, "secret": "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX" });
        cluster.apply_secret("bare", theirs.clone()).await;
        cluster.apply_secret_for("acme", "labelled", theirs.clone()).await;
        cluster.apply_secret_for("mallory", "keyless", json!({ "token": "x" })).await;
        let listed = json!({ "name": "listed", "annotations": { "flagmeter.dev/used-by": "globex, acme" } });
        cluster.apply_secret_with(listed, theirs.clone()).await;

        let mut told = Vec::new();
        let webhook =
            |url: &Value, secret: &str| json!({ "webhook": { "url": url, "secretRef": { "name": secret } } });
        for secret in ["bare", "labelled", "keyless", "listed", "absent"] {
            let slack = json!({ "slack": { "secretRef": { "name": secret } } });
            for alerts in [slack, webhook(&json!(OTHER_URL), secret)] {
                cluster.apply("mallory", json!({ "monthlyQuota": 1_000, "alerts": alerts })).await;
                let tenant = cluster.reported("mallory", "SecretUnavailable").await;
                let message = tenant.status.unwrap().conditions.swap_remove(0).message;
                let key = if alerts["slack"].is_null() { "secret" } else { "url" };
                let command = format!(
                    "`kubectl label secret {secret} -n {} flagmeter.dev/used-by=mallory`",
                    cluster.namespace
                );
                assert!(message.contains(&command), "{message}");
                told.push(
                    message
                        .replace(&command, "")
                        .replace(&format!("{secret:?}"), "")
                        .replace(&format!("{key:?}"), ""),
                );
                let stored = "SELECT (SELECT count(*) FROM slack_webhooks) + (SELECT count(*) FROM webhooks)";
                assert_eq!(sqlx::query_scalar::<_, i64>(stored).fetch_one(&db).await.unwrap(), 0, "{secret}");
            }
        }
        told.dedup();
        assert_eq!(told.len(), 1, "all are told the same: {told:?}");

        // Allowed by label, by list, and for all.
        cluster.apply_secret_for("mallory", "labelled", theirs.clone()).await;
        for (secret, used_by) in [("labelled", None), ("listed", Some("acme,mallory")), ("bare", Some("*"))] {
            if let Some(tenants) = used_by {
                let metadata = json!({ "name": secret, "annotations": { "flagmeter.dev/used-by": tenants } });
                cluster.apply_secret_with(metadata, theirs.clone()).await;
            }
            let alerts = webhook(&json!(OTHER_URL), secret);
            cluster.apply("mallory", json!({ "monthlyQuota": 1_000, "alerts": alerts })).await;
            cluster.reported("mallory", "Synced").await;
        }
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_receivers_url_and_what_signs_its_messages_may_be_in_secrets_of_their_own(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        let webhook = json!({ "urlSecretRef": { "name": "acme-url" }, "secretRef": { "name": "acme-key" } });
        cluster.apply("acme", json!({ "monthlyQuota": 1_000, "alerts": { "webhook": webhook } })).await;
        cluster.reported("acme", "SecretUnavailable").await;
        let secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
        cluster.apply_secret_for("acme", "acme-key", json!({ "secret": secret })).await;
        cluster.apply_secret_for("acme", "acme-url", json!({ "url": "http://example.com/s3cret" })).await;
        cluster.reported("acme", "InvalidWebhookUrl").await;
        for url in ["https://example.com/one", "https://example.com/another"] {
            cluster.apply_secret_for("acme", "acme-url", json!({ "url": url })).await;
            let follows = async || stored_url(&db, "webhooks").await.filter(|stored| stored == url);
            eventually("the webhook follows", follows).await;
        }
        cluster.reported("acme", "Synced").await;
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn of_two_that_claim_one_id_the_older_holds_it(db: PgPool) {
    in_namespace(async move |cluster| {
        flagmeter_store::testing::add_tenant(&db, "acme").await;
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 5 })).await;
        let tenant = cluster.reported("acme", "TenantIdTaken").await;
        let status = tenant.status.unwrap();
        let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap();
        assert_eq!(stalled.status, "True");
        assert!(stalled.message.contains("namespace \"default\""), "{}", stalled.message);
        assert_eq!(status.usage, None);

        // Nor does its end touch what was never its own.
        delete(&cluster).await;
        cluster.apply("globex", json!({ "monthlyQuota": 5 })).await;
        cluster.reported("globex", "Synced").await;
        let row = row(&db, "the row stands", |_| true).await;
        assert_eq!((row.monthly_quota, row.detached_at), (1_000_000, None));
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_tenant_that_went_while_no_operator_looked_is_detached(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        cluster.reported("acme", "Synced").await;
        operator.stop().await;

        delete(&cluster).await;
        let operator = Running::start(&cluster, &db, "operator-1").await;
        row(&db, "the row is detached", |row| row.detached_at.is_some()).await;
        operator.stop().await;
    })
    .await;
}

/// An alert of acme's that could not be delivered.
async fn fail_to_alert(db: &PgPool) {
    sqlx::query(
        "WITH alert AS (
             INSERT INTO alerts (tenant, period_start, period_end, threshold, monthly_quota, total_tokens, kind)
             VALUES ('acme', '2026-06-01T00:00:00Z', '2026-07-01T00:00:00Z', 80, 1000, 800, 'crossed')
             RETURNING id
         )
         INSERT INTO alert_deliveries (alert, channel, state, last_error)
         SELECT id, 'slack', 'failed', 'Slack answered 404' FROM alert",
    )
    .execute(db)
    .await
    .unwrap();
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn what_became_of_anothers_alerts_is_not_shown_and_what_was_shown_goes(db: PgPool) {
    in_namespace(async move |cluster| {
        flagmeter_store::testing::add_tenant(&db, "acme").await;
        fail_to_alert(&db).await;
        cluster.apply("acme", json!({ "monthlyQuota": 5 })).await;
        // As if it had been shown before the operator knew whose the id is.
        let shown = json!({
            "apiVersion": "flagmeter.dev/v1alpha1",
            "kind": "Tenant",
            "status": { "conditions": [{
                "type": "AlertDelivered",
                "status": "False",
                "reason": "DeliveryFailed",
                "message": "Slack answered 404",
                "lastTransitionTime": "2026-06-01T00:00:00Z",
            }] },
        });
        let params = PatchParams::apply("flagmeter-operator-alerts").force();
        let tenants: Api<Tenant> = cluster.api();
        tenants.patch_status("acme", &params, &Patch::Apply(shown)).await.unwrap();

        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.reported("acme", "TenantIdTaken").await;
        eventually("it is not shown any more", async || {
            let conditions = tenants.get("acme").await.unwrap().status?.conditions;
            conditions.iter().all(|one| one.type_ != "AlertDelivered").then_some(())
        })
        .await;
        let events = cluster.api::<Event>().list(&ListParams::default()).await.unwrap();
        assert!(events.iter().all(|event| event.reason.as_deref() != Some("DeliveryFailed")));
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn whether_an_alert_arrived_is_a_condition_and_a_failure_an_event(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        cluster.apply("acme", json!({ "monthlyQuota": 1_000 })).await;
        cluster.reported("acme", "Synced").await;
        fail_to_alert(&db).await;
        let tenants: Api<Tenant> = cluster.api();
        let condition = async |status: &str| {
            eventually(&format!("AlertDelivered is {status}"), async || {
                let conditions = tenants.get("acme").await.unwrap().status?.conditions;
                conditions.into_iter().find(|one| one.type_ == "AlertDelivered" && one.status == status)
            })
            .await
        };
        let failed = condition("False").await;
        assert_eq!(failed.reason, "DeliveryFailed");
        assert!(failed.message.contains("Slack answered 404"), "{}", failed.message);
        event(&cluster, "DeliveryFailed").await;
        sqlx::query("UPDATE alert_deliveries SET state = 'delivered', last_error = NULL")
            .execute(&db)
            .await
            .unwrap();
        condition("True").await;
        // The other conditions are another manager's, and stay.
        let tenant = cluster.reported("acme", "Synced").await;
        assert!(tenant.status.unwrap().conditions.len() >= 4);
        operator.stop().await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_boost_may_end_at_any_instant_that_the_api_server_takes(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        for (from, until, last) in [
            ("2026-03-10T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-30T22:00:00Z"),
            ("0000-01-01T00:00:00Z", "2126-03-20T00:00:00.0123456789Z", "2126-03-20T00:00:00.012345678Z"),
            ("0000-01-01T00:00:00-24:00", "2126-03-20T00:00:00,5+24:60", "2126-03-18T23:00:00.5Z"),
        ] {
            let boosts = json!([{ "tokens": 500, "from": from, "until": until }]);
            cluster.apply("acme", json!({ "monthlyQuota": 1_000, "quotaBoosts": boosts })).await;
            let tenant = cluster.reported("acme", "Synced").await;
            let row =
                row(&db, "the boost is in the row", |row| row.boosts[0].until.to_string() == last).await;
            assert_eq!(row.boosts.len(), 1, "{until}");
            assert_eq!(tenant.status.unwrap().usage.unwrap().effective_quota, Some(1_500), "{until}");
        }
        operator.stop().await;
    })
    .await;
}

/// The columns of `kubectl get tenants.flagmeter.dev`, by name.
async fn columns(cluster: &Cluster) -> Value {
    let path = <Tenant as kube::Resource>::url_path(&(), Some(&cluster.namespace));
    let request = http::Request::get(format!("{path}/acme"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = cluster.client.request(request).await.unwrap();
    let names = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap().to_owned());
    names
        .zip(table["rows"][0]["cells"].as_array().unwrap().iter().cloned())
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn kubectl_shows_the_tokens_of_a_minute_ago_and_the_quota_with_its_boosts(db: PgPool) {
    in_namespace(async move |cluster| {
        let operator = Running::start(&cluster, &db, "operator-0").await;
        let boosts = json!([{ "tokens": 500_000, "from": "2026-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z" }]);
        cluster.apply("acme", json!({ "monthlyQuota": 500_000, "quotaBoosts": boosts })).await;
        cluster.reported("acme", "Synced").await;
        let usage = used(&cluster, 0).await;
        let count = async |tokens: i64| {
            sqlx::query(
                "INSERT INTO usage_periods (tenant, period_start, period_end, total_tokens, events, last_minute)
                 VALUES ('acme', $1::text::timestamptz, $2::text::timestamptz, $3, 1, $1::text::timestamptz)
                 ON CONFLICT (tenant, period_start) DO UPDATE SET total_tokens = EXCLUDED.total_tokens",
            )
            .bind(usage.period_start.0.to_string())
            .bind(usage.period_end.0.to_string())
            .bind(tokens)
            .execute(&db)
            .await
            .unwrap();
        };
        count(600_000).await;
        used(&cluster, 600_000).await;
        // Less than a percent more, and the minute is over.
        count(600_007).await;
        let long_ago = json!({ "status": { "usage": { "updatedAt": "2026-01-01T00:00:00Z" } } });
        let tenants: Api<Tenant> = cluster.api();
        tenants.patch_status("acme", &PatchParams::default(), &Patch::Merge(long_ago)).await.unwrap();
        used(&cluster, 600_007).await;
        let columns = columns(&cluster).await;
        let shown = ["Quota", "Used", "Used%", "Base"].map(|name| columns[name].clone());
        assert_eq!(shown, [json!(1_000_000), json!(600_007), json!(60), json!(500_000)], "{columns}");
        operator.stop().await;
    })
    .await;
}
