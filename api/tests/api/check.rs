//! Whether a tenant may use more, over a real PostgreSQL and a real Valkey.

use std::time::Duration;

use axum::http::StatusCode;
use flagmeter_core::packed::Batch;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::postgres::batch::{Counter, Entry};
use flagmeter_store::{PgPool, testing};
use serde_json::json;

use crate::EVENT;
use crate::server::{NOW, Server, until};
use crate::usage::{count, event};

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_check_says_whether_what_is_asked_for_is_left_and_takes_off_what_waits_in_the_queue(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    count(&pool, [event("gpt-4", 800_000, NOW)]).await;
    until("it is counted", async || {
        (server.get("/usage/acme").await.json["totalTokens"] == 800_000).then_some(())
    })
    .await;
    assert_eq!(server.post(EVENT).await.status, StatusCode::ACCEPTED);
    // Of another period, and so of no room in this one.
    let may = r#"{"tenant":"acme","feature":"gpt-4","tokens":7,"timestamp":"2026-05-31T23:59:59Z"}"#;
    assert_eq!(server.post(may).await.status, StatusCode::ACCEPTED);

    let answer = server.get("/check/acme?tokens=198500").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let expected = json!({
        "tenant": "acme",
        "allowed": true,
        "reason": null,
        "tokens": 198_500,
        "remainingTokens": 198_500,
        "queuedTokens": 1_500,
        "monthlyQuota": 1_000_000,
        "resetsAt": "2026-07-01T00:00:00Z",
        "asOf": NOW,
    });
    let mut found = answer.json;
    // The clock stands still, but that of the queue does not.
    found.as_object_mut().unwrap().remove("lagMilliseconds").unwrap();
    assert_eq!(found, expected);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["ratelimit-policy"], r#""quota";q=1000000;qu="tokens";w=2592000"#);
    assert_eq!(answer.headers["ratelimit"], r#""quota";r=198500;t=1339200"#);

    let more = server.get("/check/acme?tokens=198501").await;
    assert_eq!(more.status, StatusCode::OK);
    assert_eq!((&more.json["allowed"], &more.json["reason"]), (&json!(false), &json!("quota_exceeded")));
    assert_eq!(more.headers["ratelimit"], r#""quota";r=198500;t=1339200"#);
    // Without a number it asks whether anything is left.
    assert_eq!(server.get("/check/acme").await.json["tokens"], 1);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn what_waits_is_taken_off_once_and_only_until_it_is_counted(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let server = Server::at(Clock::system(), pool.clone(), testing::queue().unwrap()).await;
    until("the api knows its tenant", async || {
        (server.get("/check/acme").await.status == StatusCode::OK).then_some(())
    })
    .await;
    server.queue.create_group().await.unwrap();
    assert_eq!(server.post(EVENT).await.status, StatusCode::ACCEPTED);
    let waiting = server.get("/check/acme").await.json;
    assert_eq!((&waiting["queuedTokens"], &waiting["remainingTokens"]), (&json!(1_500), &json!(998_500)));

    let entries = server.queue.read("test", 10, Duration::from_millis(500)).await.unwrap();
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    let batch = Batch::decode(entry.payload.as_ref().unwrap()).unwrap();
    Counter::new(pool).apply(&[Entry { entry_id: entry.entry_id.clone(), batch }]).await.unwrap();
    server.queue.confirm(&[(entry.entry_id.as_str(), 1)]).await.unwrap();
    until("it no longer waits", async || {
        let left = server.get("/check/acme").await.json;
        // Between the two it may be taken off twice, but never not at all.
        assert!(left["remainingTokens"].as_i64().unwrap() <= 998_500, "{left}");
        (left["queuedTokens"] == 0 && left["remainingTokens"] == 998_500).then_some(())
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_check_that_asks_for_no_number_of_tokens_or_of_no_tenant_is_refused(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let cases = [
        // query, parameter, part of the detail
        ("tokens=0", "tokens", "must be a whole number from 1 to 9007199254740991"),
        ("tokens=-1", "tokens", "must be a whole number"),
        ("tokens=1.5", "tokens", "must be a whole number"),
        ("tokens=", "tokens", "must be a whole number"),
        ("tokens=9007199254740992", "tokens", "must be a whole number"),
        ("tokens=99999999999999999999", "tokens", "must be a whole number"),
        ("tokens=1&tokens=2", "tokens", "must come only once"),
        ("token=1", "token", "is not known here, but tokens"),
    ];
    for (query, field, detail) in cases {
        let answer = server.get(&format!("/check/acme?{query}")).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}: {}", answer.body);
        assert_eq!(answer.json["code"], "invalid_parameter", "{query}");
        assert_eq!(answer.json["errors"][0]["field"], field, "{query}");
        assert!(answer.json["detail"].as_str().unwrap().contains(detail), "{query}: {}", answer.body);
    }
    let missing = server.get("/check/globex").await;
    assert_eq!((missing.status, &missing.json["code"]), (StatusCode::NOT_FOUND, &json!("tenant_not_found")));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_quota_larger_than_a_header_can_say_is_cut_off_there_and_whole_in_the_body(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    sqlx::query("UPDATE tenants SET monthly_quota = 9007199254740991").execute(&pool).await.unwrap();
    let server = Server::start(pool, &[]).await;
    let answer = until("the api knows its tenant", async || {
        let answer = server.get("/check/acme").await;
        (answer.status == StatusCode::OK).then_some(answer)
    })
    .await;
    assert_eq!(answer.json["remainingTokens"], 9_007_199_254_740_991_i64);
    assert_eq!(answer.headers["ratelimit-policy"], r#""quota";q=999999999999999;qu="tokens";w=2592000"#);
    assert_eq!(answer.headers["ratelimit"], r#""quota";r=999999999999999;t=1339200"#);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn steady_usage_projects_the_day_on_which_the_quota_is_used_up(pool: PgPool) {
    testing::add_tenant(&pool, "globex").await;
    testing::add_tenant(&pool, "acme").await;
    // 50,000 a day for a week: 650,000 of a million are left, which is thirteen days.
    let days =
        [8, 9, 10, 11, 12, 13, 14].map(|day| event("gpt-4", 50_000, &format!("2026-06-{day:02}T12:30:00Z")));
    count(&pool, days).await;
    let server = Server::start(pool, &[]).await;
    let usage = until("the last days are known", async || {
        let usage = server.get("/usage/acme").await.json;
        (usage["projection"] == "projected").then_some(usage)
    })
    .await;
    assert_eq!(usage["projectedExhaustion"], "2026-06-28T12:01:00Z", "{usage}");
    let unused = until("the last days of the other are known", async || {
        let usage = server.get("/usage/globex").await.json;
        (usage["projection"] == "no_usage").then_some(usage)
    })
    .await;
    assert_eq!(unused["projectedExhaustion"], json!(null));
    let page = scraper::Html::parse_document(&server.get("/").await.body);
    let runs_out = |tenant: &str| {
        let selector = format!("tr[data-tenant={tenant}] [data-field=runs_out]");
        let selector = scraper::Selector::parse(&selector).unwrap();
        page.select(&selector).next().unwrap().text().collect::<String>()
    };
    assert_eq!((runs_out("acme").as_str(), runs_out("globex").as_str()), ("2026-06-28", "–"));
}
