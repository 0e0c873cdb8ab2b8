//! Who may ask for what, over a real PostgreSQL and a real Valkey.
use std::time::{Duration, Instant};

use flagmeter_store::api_key::ApiKey;
use flagmeter_store::postgres::api_keys::{self, TenantKey};
use flagmeter_store::queue::EventQueue;
use flagmeter_store::{PgPool, testing};
use serde_json::{Value, json};

use crate::server::{Answer, NOW, Server, until};

const TOKEN: &str = "the-admin-token-of-these-tests";
const EVENT: &str = r#"{"tenant":"acme","feature":"gpt-4","tokens":1500}"#;

/// Tenants of these names, each with a key.
async fn tenants<const N: usize>(pool: &PgPool, names: [&str; N]) -> [ApiKey; N] {
    let keys = names.map(|_| ApiKey::random().unwrap());
    for (name, key) in names.iter().zip(&keys) {
        testing::add_tenant(pool, name).await;
        give(pool, name, &[(key, None)]).await;
    }
    keys
}

/// From now on these are the tenant's keys, each until then.
async fn give(pool: &PgPool, tenant: &str, keys: &[(&ApiKey, Option<&str>)]) {
    let key = |(key, until): &(&ApiKey, Option<&str>)| TenantKey {
        hash: key.hash(),
        expires_at: until.map(|until| until.parse().unwrap()),
    };
    let keys: Vec<_> = keys.iter().map(key).collect();
    assert!(api_keys::replace(pool, tenant, &keys).await.unwrap());
}

/// An api that asks for keys, once it knows them.
async fn start(pool: &PgPool) -> Server {
    let server = Server::with_token(TOKEN, pool.clone(), testing::queue().unwrap()).await;
    let token = authorization(TOKEN);
    until("the api knows its tenants and what was used", async || {
        let page = server.get_with("/", &[token.borrowed()]).await;
        let tenant = server.get_with("/usage/none", &[token.borrowed()]).await;
        (page.status == 200 && tenant.status == 404).then_some(())
    })
    .await;
    server
}

struct Header(String);

impl Header {
    fn borrowed(&self) -> (&str, &str) {
        ("authorization", &self.0)
    }
}

fn authorization(secret: &str) -> Header {
    Header(format!("Bearer {secret}"))
}

fn with(key: &ApiKey) -> Header {
    authorization(key.expose())
}

/// Status and code.
fn refusal(answer: &Answer) -> (u16, &Value) {
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{}", answer.body);
    (answer.status.as_u16(), &answer.json["code"])
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn without_a_good_key_nothing_is_answered_and_the_answer_says_how_to_ask(pool: PgPool) {
    let [_] = tenants(&pool, ["acme"]).await;
    let server = start(&pool).await;
    let stranger = with(&ApiKey::random().unwrap());
    let bearer = r#"Bearer realm="FlagMeter""#;
    let again = r#"Bearer realm="FlagMeter", error="invalid_token""#;
    let paths = [
        "/usage/acme",
        "/usage/acme/series",
        "/usage/acme/periods",
        "/events/acme/x",
        "/check/acme",
        "/usage/nobody",
    ];
    for path in paths {
        let (without, bad) = (server.get(path).await, server.get_with(path, &[stranger.borrowed()]).await);
        assert_eq!(refusal(&without), (401, &json!("missing_key")), "{path}");
        assert_eq!(without.headers["www-authenticate"], bearer, "{path}");
        assert_eq!(refusal(&bad), (401, &json!("invalid_key")), "{path}");
        assert_eq!(bad.headers["www-authenticate"], again, "{path}");
        assert!(!bad.body.contains(stranger.0.trim_start_matches("Bearer ")), "{}", bad.body);
    }
    assert_eq!(refusal(&server.post(EVENT).await), (401, &json!("missing_key")));
    let bad = server.post_with(EVENT, &[stranger.borrowed()]).await;
    assert_eq!(refusal(&bad), (401, &json!("invalid_key")));
    assert_eq!(refusal(&server.delete("/events/acme/x").await), (401, &json!("missing_key")));
    for path in ["/", "/live", "/static/style.css"] {
        let page = server.get(path).await;
        assert_eq!(refusal(&page), (401, &json!("missing_key")), "{path}");
        assert!(page.headers["www-authenticate"].to_str().unwrap().starts_with("Basic "), "{path}");
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_key_reads_and_sends_for_its_tenant_and_for_no_other(pool: PgPool) {
    let [acme, _] = tenants(&pool, ["acme", "globex"]).await;
    let server = start(&pool).await;
    let key = with(&acme);
    assert_eq!(server.post_with(EVENT, &[key.borrowed()]).await.status, 202);
    for path in ["/usage/acme", "/usage/acme/series", "/usage/acme/periods", "/check/acme?tokens=1"] {
        assert_eq!(server.get_with(path, &[key.borrowed()]).await.status, 200, "{path}");
    }
    // A tenant that does not exist is like any other that is not the key's.
    for tenant in ["globex", "nobody"] {
        let theirs = EVENT.replace("acme", tenant);
        let single = server.post_with(&theirs, &[key.borrowed()]).await;
        assert_eq!(refusal(&single), (403, &json!("wrong_tenant")), "{tenant}");
        let list = server.post_with(&format!("[{EVENT},{theirs}]"), &[key.borrowed()]).await;
        assert_eq!(refusal(&list), (403, &json!("wrong_tenant")), "{tenant}");
        assert_eq!(list.json["errors"][0]["index"], 1, "{}", list.body);
        let lenient = [key.borrowed(), ("prefer", "handling=lenient")];
        let lenient = server.post_with(&format!("[{EVENT},{theirs}]"), &lenient).await;
        assert_eq!((lenient.status.as_u16(), &lenient.json["accepted"]), (202, &json!(1)));
        assert_eq!(lenient.json["errors"][0]["code"], "wrong_tenant");
        for path in ["/usage/T", "/usage/T/series", "/usage/T/periods", "/check/T", "/events/T/x"] {
            let answer = server.get_with(&path.replace('T', tenant), &[key.borrowed()]).await;
            assert_eq!(refusal(&answer), (403, &json!("wrong_tenant")), "{path}");
        }
        let gone = server.delete_with(&format!("/events/{tenant}/x"), &[key.borrowed()]).await;
        assert_eq!(refusal(&gone), (403, &json!("wrong_tenant")));
    }
    assert_eq!(refusal(&server.get_with("/", &[key.borrowed()]).await), (403, &json!("admin_only")));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn the_admin_token_opens_everything_and_as_a_password_the_page(pool: PgPool) {
    let [_, _] = tenants(&pool, ["acme", "globex"]).await;
    let server = start(&pool).await;
    let token = authorization(TOKEN);
    let both = format!("[{EVENT},{}]", EVENT.replace("acme", "globex"));
    assert_eq!(server.post_with(&both, &[token.borrowed()]).await.json["accepted"], 2);
    for path in ["/usage/acme", "/usage/globex", "/", "/static/live.js"] {
        assert_eq!(server.get_with(path, &[token.borrowed()]).await.status, 200, "{path}");
    }
    // printf admin:the-admin-token-of-these-tests | base64
    let basic = ("authorization", "Basic YWRtaW46dGhlLWFkbWluLXRva2VuLW9mLXRoZXNlLXRlc3Rz");
    let page = server.get_with("/", &[basic]).await;
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("Authentication is disabled"));
    // A browser would send it wherever another site's page asks it to.
    assert_eq!(refusal(&server.post_with(EVENT, &[basic]).await), (401, &json!("invalid_key")));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn where_nothing_is_checked_the_page_says_so(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    assert!(server.get("/").await.body.contains("Authentication is disabled"));
    assert_eq!(server.post(EVENT).await.status, 202);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn while_keys_overlap_both_are_good_until_the_former_ends(pool: PgPool) {
    let [former] = tenants(&pool, ["acme"]).await;
    let server = start(&pool).await;
    let current = ApiKey::random().unwrap();
    give(&pool, "acme", &[(&current, None), (&former, Some("2026-06-15T12:00:01Z"))]).await;
    until("the new key is good", async || {
        (server.post_with(EVENT, &[with(&current).borrowed()]).await.status == 202).then_some(())
    })
    .await;
    assert_eq!(server.post_with(EVENT, &[with(&former).borrowed()]).await.status, 202);
    give(&pool, "acme", &[(&current, None), (&former, Some(NOW))]).await;
    let refused = until("the former has ended", async || {
        let answer = server.post_with(EVENT, &[with(&former).borrowed()]).await;
        (answer.status == 401).then_some(answer)
    })
    .await;
    assert_eq!(refusal(&refused), (401, &json!("invalid_key")));
    assert_eq!(server.post_with(EVENT, &[with(&current).borrowed()]).await.status, 202);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_key_ends_within_a_second_of_its_row_and_of_its_tenants_detachment(pool: PgPool) {
    let [acme, globex] = tenants(&pool, ["acme", "globex"]).await;
    let server = start(&pool).await;
    let ends = [
        ("/usage/acme", &acme, "DELETE FROM api_keys WHERE tenant = 'acme'"),
        ("/usage/globex", &globex, "UPDATE tenants SET detached_at = now() WHERE id = 'globex'"),
    ];
    for (path, key, end) in ends {
        let answer = async || server.get_with(path, &[with(key).borrowed()]).await;
        assert_eq!(answer().await.status, 200);
        sqlx::query(end).execute(&pool).await.unwrap();
        let ended = Instant::now();
        until("the key is refused", async || (answer().await.status == 401).then_some(())).await;
        assert!(ended.elapsed() < Duration::from_secs(1), "{path}: {:?}", ended.elapsed());
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_key_ends_as_soon_while_valkey_does_not_answer(pool: PgPool) {
    let [acme] = tenants(&pool, ["acme"]).await;
    // Whoever connects is never answered.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let queue = EventQueue::new(&format!("redis://{}", silent.local_addr().unwrap())).unwrap();
    let server = Server::with_token(TOKEN, pool.clone(), queue).await;
    let answer = async || server.get_with("/usage/acme", &[with(&acme).borrowed()]).await;
    until("the key is known", async || (answer().await.status == 200).then_some(())).await;
    give(&pool, "acme", &[]).await;
    let ended = Instant::now();
    until("the key is refused", async || (answer().await.status == 401).then_some(())).await;
    assert!(ended.elapsed() < Duration::from_secs(1), "{:?}", ended.elapsed());
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_api_that_starts_while_postgresql_is_away_knows_the_keys(pool: PgPool) {
    let [key] = tenants(&pool, ["acme"]).await;
    let stream = format!("flagmeter:test:{}", uuid::Uuid::now_v7());
    let before = Server::with_token(TOKEN, pool, testing::queue_named(&stream).unwrap()).await;
    until("the keys are kept", async || {
        (before.post_with(EVENT, &[with(&key).borrowed()]).await.status == 202).then_some(())
    })
    .await;
    drop(before);
    let away = PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
    let server = Server::with_token(TOKEN, away, testing::queue_named(&stream).unwrap()).await;
    until("the key is remembered", async || {
        let answer = server.post_with(EVENT, &[with(&key).borrowed()]).await;
        if answer.status != 202 {
            assert_eq!(refusal(&answer), (503, &json!("not_ready")), "nobody is told that the key is bad");
        }
        (answer.status == 202).then_some(())
    })
    .await;
    let stranger = server.post_with(EVENT, &[with(&ApiKey::random().unwrap()).borrowed()]).await;
    assert_eq!(refusal(&stranger), (401, &json!("invalid_key")));
    // What is kept are hashes.
    let kept = server.queue.kept_tenants().await.unwrap().unwrap();
    assert!(!String::from_utf8(kept).unwrap().contains(key.expose()));
}
