//! The flow: a played API server, and a real database.

use std::time::Duration;

use flagmeter_crds::TenantStatus;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::tenants;
use http::{Method, Request, Response};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use kube::Client;
use kube::client::Body;
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower_test::mock::{Handle, SendResponse};

use super::*;
use crate::metrics::Metrics;

const URL: &str = "https://hooks.slack.com/services/T0/B0/x";
const NOW: &str = "2026-03-20T12:00:00Z";
const RESYNC: Duration = Duration::from_mins(5);

/// A tenant as the API server would give it, with defaults filled in.
fn acme(slack: &Value, status: Option<TenantStatus>) -> Arc<DeserializeGuard<Tenant>> {
    let mut tenant: Tenant = serde_json::from_value(json!({
        "apiVersion": "flagmeter.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": { "name": "acme", "namespace": "shop", "uid": "uid-1", "generation": 1 },
        "spec": { "monthlyQuota": 1_000, "billingDay": 15, "timeZone": "UTC", "alerts": { "slack": slack } },
    }))
    .unwrap();
    tenant.status = status;
    Arc::new(DeserializeGuard(Ok(tenant)))
}

fn plain() -> Arc<DeserializeGuard<Tenant>> {
    acme(&json!({ "url": URL }), None)
}

type Call = (Request<Body>, SendResponse<Response<Body>>);

/// The played API server. It answers in order, and remembers what it was told. Beside it, [`keep_key`] answers what
/// concerns the Secret with the tenant's key.
struct Server(mpsc::UnboundedReceiver<Call>);

impl Server {
    /// The next call: its method, path and body. `answer` makes the response's status and body.
    async fn next(&mut self, answer: impl FnOnce(&Value) -> (u16, Value)) -> (Method, String, Value) {
        let (request, respond) = self.0.recv().await.expect("a call");
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        let (status, answer) = answer(&body);
        let answer = Body::from(serde_json::to_vec(&answer).unwrap());
        respond.send_response(Response::builder().status(status).body(answer).unwrap());
        (parts.method, parts.uri.to_string(), body)
    }

    /// A write of the status: what it says.
    async fn status(&mut self) -> TenantStatus {
        self.status_by("flagmeter-operator").await
    }

    async fn status_by(&mut self, manager: &str) -> TenantStatus {
        let echo = |body: &Value| {
            let mut tenant = body.clone();
            tenant["spec"] = json!({ "monthlyQuota": 1 });
            (200, tenant)
        };
        let (method, uri, body) = self.next(echo).await;
        let status = "/apis/flagmeter.dev/v1alpha1/namespaces/shop/tenants/acme/status";
        assert_eq!(method, Method::PATCH);
        assert_eq!(uri, format!("{status}?&force=true&fieldManager={manager}"));
        serde_json::from_value(body["status"].clone()).unwrap()
    }

    /// An event: its type and reason.
    async fn event(&mut self) -> (String, String) {
        let (method, uri, body) = self.next(|body| (201, body.clone())).await;
        assert_eq!(method, Method::POST);
        assert!(uri.starts_with("/apis/events.k8s.io/v1/namespaces/shop/events"), "{uri}");
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        (text("type"), text("reason"))
    }

    /// Everything was said.
    async fn has_no_more(mut self) {
        assert!(self.0.recv().await.is_none(), "a call too many");
    }
}

/// Plays the Secret with the tenant's key, which is made once, and passes on every other call.
async fn keep_key(mut calls: Handle<Request<Body>, Response<Body>>, others: mpsc::UnboundedSender<Call>) {
    let mut secret = None;
    while let Some((request, respond)) = calls.next_request().await {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = match (method, path.as_str()) {
            (Method::GET, "/api/v1/namespaces/shop/secrets/acme-flagmeter-key") => match &secret {
                Some(secret) => (200, Value::clone(secret)),
                None => (404, json!({ "kind": "Status", "reason": "NotFound", "code": 404 })),
            },
            (Method::POST, "/api/v1/namespaces/shop/secrets") => {
                let body = request.into_body().collect_bytes().await.unwrap();
                let mut made: Value = serde_json::from_slice(&body).unwrap();
                let key = made["stringData"]["key"].as_str().unwrap().as_bytes().to_vec();
                made["data"] = json!({ "key": ByteString(key) });
                (201, secret.insert(made).clone())
            }
            _ => {
                let _ = others.send((request, respond));
                continue;
            }
        };
        let body = Body::from(serde_json::to_vec(&answer.1).unwrap());
        respond.send_response(Response::builder().status(answer.0).body(body).unwrap());
    }
}

fn context(db: PgPool) -> (Arc<Context>, Server) {
    let (service, handle) = tower_test::mock::pair();
    let (others, calls) = mpsc::unbounded_channel();
    tokio::spawn(keep_key(handle, others));
    let context = Context::new(
        Client::new(service, "shop"),
        db,
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().unwrap(),
        Metrics::register(&Registry::new()).unwrap(),
        Clock::fixed(NOW.parse().unwrap()),
        Settings {
            namespace: "shop".into(),
            scopes: vec![Scope::Namespace("shop".into())],
            identity: "operator-0".into(),
            resync: RESYNC,
            key_overlap: SignedDuration::from_hours(24),
            unseen: Duration::from_mins(1),
            allow_http: false,
            patience: Duration::from_secs(30),
        },
    );
    (Arc::new(context), Server(calls))
}

/// Status and events of one reconcile that should write both.
async fn told(
    server: &mut Server,
    tenant: Arc<DeserializeGuard<Tenant>>,
    ctx: &Arc<Context>,
    events: usize,
) -> (TenantStatus, Vec<(String, String)>) {
    let play = async {
        let status = server.status().await;
        let mut told = Vec::new();
        for _ in 0..events {
            told.push(server.event().await);
        }
        (status, told)
    };
    let (outcome, told) = tokio::join!(reconcile(tenant, Arc::clone(ctx)), play);
    outcome.unwrap();
    told
}

fn ready(status: &TenantStatus) -> (&str, &str) {
    (&status.conditions[0].status, &status.conditions[0].reason)
}

fn event(type_: &str, reason: &str) -> (String, String) {
    (type_.to_owned(), reason.to_owned())
}

async fn kinds(db: &PgPool) -> Vec<String> {
    sqlx::query_scalar("SELECT kind FROM tenant_changes ORDER BY id").fetch_all(db).await.unwrap()
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_new_tenant_is_written_and_reported_and_a_resync_of_it_says_nothing(db: PgPool) {
    let (ctx, mut server) = context(db.clone());
    let (status, events) = told(&mut server, plain(), &ctx, 1).await;
    assert_eq!(ready(&status), ("True", "Synced"));
    assert_eq!(events, [event("Normal", "Synced")]);
    let usage = status.usage.as_ref().unwrap();
    assert_eq!((usage.total_tokens, usage.percent), (0, 0));
    assert_eq!(usage.period_end.0, "2026-04-15T00:00:00Z".parse::<Timestamp>().unwrap());
    let row = tenants::find(&db, &ctx.sealer, "acme").await.unwrap().unwrap().row;
    assert_eq!((row.monthly_quota, row.name.as_str(), row.slack.is_some()), (1_000, "acme", true));
    assert_eq!(status.api_key_secret.as_deref(), Some("acme-flagmeter-key"));

    // No call at all: the server is not played, so one would hang.
    let again = reconcile(acme(&json!({ "url": URL }), Some(status)), Arc::clone(&ctx)).await;
    assert_ne!(again.unwrap(), Action::await_change());
    assert_eq!(kinds(&db).await, ["created"]);
    assert_eq!(ctx.metrics.reconciles.with_label_values(&["in_force"]).get(), 2);
    drop(ctx);
    server.has_no_more().await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_row_that_somebody_edited_is_put_back_and_said_so(db: PgPool) {
    let (ctx, mut server) = context(db.clone());
    let (status, _) = told(&mut server, plain(), &ctx, 1).await;
    sqlx::query("UPDATE tenants SET monthly_quota = 7").execute(&db).await.unwrap();
    sqlx::query("DELETE FROM slack_webhooks").execute(&db).await.unwrap();

    // The status does not change, so the event is all that is said.
    let tenant = acme(&json!({ "url": URL }), Some(status));
    let (outcome, event) = tokio::join!(reconcile(tenant, Arc::clone(&ctx)), server.event());
    outcome.unwrap();
    assert_eq!(event, self::event("Warning", "DriftRepaired"));
    let row = tenants::find(&db, &ctx.sealer, "acme").await.unwrap().unwrap().row;
    assert_eq!((row.monthly_quota, row.slack.is_some()), (1_000, true));
    assert_eq!(kinds(&db).await, ["created", "drift_repaired"]);
    assert_eq!(ctx.metrics.drift_repairs.get(), 1);
    drop(ctx);
    server.has_no_more().await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_missing_secret_stalls_the_tenant_and_is_said_once(db: PgPool) {
    let (ctx, mut server) = context(db.clone());
    let slack = json!({ "secretRef": { "name": "acme-slack" } });
    let absent = |_: &Value| {
        (404, json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 }))
    };
    let path = "/api/v1/namespaces/shop/secrets/acme-slack";

    let play = async {
        let (_, uri, _) = server.next(absent).await;
        assert_eq!(uri, path);
        (server.status().await, server.event().await, server.event().await)
    };
    let (outcome, (status, first, second)) =
        tokio::join!(reconcile(acme(&slack, None), Arc::clone(&ctx)), play);
    outcome.unwrap();
    assert_eq!(ready(&status), ("False", "SecretUnavailable"));
    assert_eq!(status.conditions[2].status, "True", "Stalled");
    assert_eq!([first, second], [event("Normal", "Synced"), event("Warning", "SecretUnavailable")]);

    // The next time, only the Secret is asked for.
    let tenant = acme(&slack, Some(status));
    let (outcome, _) = tokio::join!(reconcile(tenant, Arc::clone(&ctx)), server.next(absent));
    outcome.unwrap();
    assert_eq!(kinds(&db).await, ["created"]);
    assert_eq!(ctx.metrics.reconciles.with_label_values(&["stalled"]).get(), 2);
    drop(ctx);
    server.has_no_more().await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_database_that_is_away_is_reported_and_tried_again_with_growing_pauses(db: PgPool) {
    let (ctx, mut server) = context(db.clone());
    db.close().await;
    let (outcome, status) = tokio::join!(reconcile(plain(), Arc::clone(&ctx)), server.status());
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Observe(_)), "{error}");
    assert_eq!(ready(&status), ("False", "DatabaseUnavailable"));
    assert_eq!(status.conditions[1].status, "True", "Reconciling");
    assert_eq!(status.conditions[2].status, "False", "Stalled");

    let first = error_policy(plain(), &error, Arc::clone(&ctx));
    let second = error_policy(plain(), &error, Arc::clone(&ctx));
    assert_ne!(first, Action::await_change());
    assert_ne!(first, second);

    // What was said already is not said again.
    let tenant = acme(&json!({ "url": URL }), Some(status));
    reconcile(tenant, Arc::clone(&ctx)).await.unwrap_err();
    assert_eq!(ctx.metrics.reconciles.with_label_values(&["observe"]).get(), 2);
    drop(ctx);
    server.has_no_more().await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_tenant_that_was_changed_since_it_was_read_is_tried_again_without_a_word(db: PgPool) {
    let (ctx, mut server) = context(db.clone());
    let mut tenant = acme(&json!({ "url": URL }), None).0.clone().unwrap();
    tenant.spec.deletion_policy = flagmeter_crds::DeletionPolicy::Delete;
    let conflict = |_: &Value| (409, json!({ "kind": "Status", "reason": "Conflict", "code": 409 }));
    let tenant = Arc::new(DeserializeGuard(Ok(tenant)));
    let (outcome, (method, uri, _)) =
        tokio::join!(reconcile(tenant, Arc::clone(&ctx)), server.next(conflict));
    assert_eq!((method, outcome.unwrap()), (Method::PATCH, Action::requeue(CONFLICT_PAUSE)));
    assert!(uri.contains("/tenants/acme?"), "{uri}");
    assert_eq!(ctx.metrics.reconciles.with_label_values(&["overtaken"]).get(), 1);
    drop(ctx);
    server.has_no_more().await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_resource_that_does_not_parse_says_so_once_and_waits_for_an_edit(db: PgPool) {
    let (ctx, mut server) = context(db.clone());
    let tenant: DeserializeGuard<Tenant> = serde_json::from_value(json!({
        "metadata": { "name": "acme", "namespace": "shop", "uid": "uid-1", "generation": 2 },
        "spec": { "monthlyQuota": "many" },
    }))
    .unwrap();
    let tenant = Arc::new(tenant);
    let play = async { (server.status_by("flagmeter-operator-unparsed").await, server.event().await) };
    let (outcome, (status, told)) = tokio::join!(reconcile(Arc::clone(&tenant), Arc::clone(&ctx)), play);
    let error = outcome.unwrap_err();
    assert_eq!(ready(&status), ("False", "InvalidSpec"));
    assert_eq!((status.conditions[2].status.as_str(), status.observed_generation), ("True", Some(2)));
    assert_eq!(told, event("Warning", "InvalidSpec"));
    assert_eq!(error_policy(Arc::clone(&tenant), &error, Arc::clone(&ctx)), Action::await_change());
    // The write comes back from the watch.
    reconcile(tenant, Arc::clone(&ctx)).await.unwrap_err();
    assert!(kinds(&db).await.is_empty());
    drop(ctx);
    server.has_no_more().await;
}

/// As it was stored before the API server refused such texts.
#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_name_with_a_nul_is_no_outage_and_the_settings_are_in_force(db: PgPool) {
    let (ctx, mut server) = context(db.clone());
    let mut tenant = acme(&json!({ "url": URL }), None).0.clone().unwrap();
    tenant.spec.display_name = Some("Ac\0me\u{202e} Corp".to_owned());
    let boost = json!([{ "tokens": 1, "from": "2026-03-01T00:00:00Z", "until": "9999-12-31T23:59:59Z", "reason": "a\0b" }]);
    tenant.spec.quota_boosts = serde_json::from_value(boost).unwrap();
    let (status, _) = told(&mut server, Arc::new(DeserializeGuard(Ok(tenant))), &ctx, 1).await;
    assert_eq!(ready(&status), ("True", "Synced"));
    let row = tenants::find(&db, &ctx.sealer, "acme").await.unwrap().unwrap().row;
    assert_eq!(
        (row.name.as_str(), row.boosts[0].reason.as_str()),
        ("Ac\u{fffd}me\u{fffd} Corp", "a\u{fffd}b")
    );
    drop(ctx);
    server.has_no_more().await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn settings_that_postgresql_refuses_stall_the_tenant_and_are_not_tried_again_and_again(db: PgPool) {
    let (ctx, mut server) = context(db.clone());
    sqlx::query("ALTER TABLE tenants ADD CHECK (monthly_quota <> 1000)").execute(&db).await.unwrap();
    let play = async { (server.status().await, server.event().await) };
    let (outcome, (status, said)) = tokio::join!(reconcile(plain(), Arc::clone(&ctx)), play);
    let error = outcome.unwrap_err();
    assert_eq!(ready(&status), ("False", "SettingsRefused"));
    assert_eq!(status.conditions[2].status, "True", "Stalled");
    assert!(status.conditions[2].message.contains("SQLSTATE 23514"), "{}", status.conditions[2].message);
    assert_eq!(said, event("Warning", "SettingsRefused"));
    assert_ne!(error_policy(plain(), &error, Arc::clone(&ctx)), Action::await_change());
    let next = ctx.failures.delay(Some("shop"), "acme");
    assert!(next >= Duration::from_mins(3), "{next:?}");
    assert!(ctx.failures.is_failing(Some("shop"), "acme"), "nor for the sake of its usage");

    // What was said already is not said again.
    let tenant = acme(&json!({ "url": URL }), Some(status));
    reconcile(tenant, Arc::clone(&ctx)).await.unwrap_err();
    sqlx::query("ALTER TABLE tenants DROP CONSTRAINT tenants_monthly_quota_check1")
        .execute(&db)
        .await
        .unwrap();
    let (status, _) = told(&mut server, plain(), &ctx, 1).await;
    assert_eq!(ready(&status), ("True", "Synced"));
    drop(ctx);
    server.has_no_more().await;
}
