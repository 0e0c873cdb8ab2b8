//! The whole HTTP API over a real PostgreSQL and a real Valkey.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

mod auth;
mod bounds;
mod check;
mod contract;
mod door;
mod mistakes;
mod ready;
mod sdks;
mod server;
mod usage;

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::http::StatusCode;
use flagmeter_api::config::Limits;
use flagmeter_core::packed::Batch;
use flagmeter_store::postgres::batch::{Counter, Entry};
use flagmeter_store::queue::EventQueue;
use flagmeter_store::{PgPool, testing};
use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use server::{NOW, Server, until};

use crate::door::{Door, Doorway};

const EVENT: &str = r#"{"tenant":"acme","feature":"gpt-4","tokens":1500}"#;

/// The events that wait in the queue, in order.
async fn queued(server: &Server) -> Vec<Batch> {
    server.queue.create_group().await.unwrap();
    let entries = server.queue.read("test", 100, Duration::from_millis(50)).await.unwrap();
    entries.into_iter().map(|entry| Batch::decode(&entry.payload.unwrap()).unwrap()).collect()
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_event_answered_202_is_in_the_queue_under_the_id_of_the_answer(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let answer = server.post(EVENT).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    assert_eq!(answer.json["status"], "accepted");
    assert_eq!(answer.json["durability"], "fsync");

    let own = r#"{"tenant":"acme","feature":"gpt-4","tokens":1,"id":"019eca0c-5d1a-7000-8000-0123456789ab"}"#;
    assert_eq!(server.post(own).await.json["id"], "019eca0c-5d1a-7000-8000-0123456789ab");

    let batches = queued(&server).await;
    assert_eq!(batches.len(), 2);
    assert_eq!(batches[0].event_id(0).to_string(), answer.json["id"]);
    assert_eq!(batches[0].events[0].tokens.get(), 1_500);
    assert_eq!(batches[0].received_at, NOW.parse().unwrap());
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn what_is_no_event_is_refused_with_a_code_and_what_to_do_and_is_not_queued(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let event =
        |tenant: &str, tokens: &str| format!(r#"{{"tenant":"{tenant}","feature":"f","tokens":{tokens}}}"#);
    let large = format!(r#"{{"tenant":"acme","feature":"f","tokens":1,"note":"{}"}}"#, "x".repeat(1 << 20));
    let json_type = "application/json";
    let cases = [
        // body, content type, status, code, part of the detail
        ("{".to_owned(), json_type, 400, "invalid_json", "not JSON"),
        ("7".to_owned(), json_type, 422, "invalid_event", "must be a JSON object"),
        ("[]".to_owned(), json_type, 422, "invalid_event", "at least one event"),
        (
            event("acme", "-1"),
            json_type,
            422,
            "invalid_event",
            "tokens must be a whole number from 0 to 9007199254740991",
        ),
        (event("acme", "1.5"), json_type, 422, "invalid_event", "tokens must be"),
        (event("acme", "9007199254740992"), json_type, 422, "invalid_event", "tokens must be"),
        (event("acme", "1,\"tokens\":1"), json_type, 422, "invalid_event", "tokens must come only once"),
        (r#"{"tenant":"acme","tokens":1}"#.to_owned(), json_type, 422, "invalid_event", "feature is missing"),
        (event("globex", "1"), json_type, 422, "unknown_tenant", "tenant `globex` is not known"),
        (large, json_type, 413, "body_too_large", "at most 1048576 bytes"),
        (EVENT.to_owned(), "text/plain", 415, "unsupported_media_type", "application/json"),
        (EVENT.to_owned(), "", 415, "unsupported_media_type", "application/json"),
    ];
    for (body, content_type, status, code, detail) in cases {
        let shown = &body[..body.len().min(80)];
        let answer = server.post_as(&body, content_type).await;
        assert_eq!(answer.status.as_u16(), status, "{shown}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{shown}");
        assert_eq!(answer.json["code"], code, "{shown}");
        assert_eq!(answer.json["status"], status, "{shown}");
        assert!(answer.json["detail"].as_str().unwrap().contains(detail), "{shown}: {}", answer.body);
    }
    assert_eq!(server.post(&event("acme", "-1")).await.json["errors"][0]["field"], "tokens");
    assert_eq!(queued(&server).await, []);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn no_answer_may_be_kept_but_for_what_the_page_is_made_of(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let mut answers = vec![server.post(EVENT).await, server.post("[]").await, server.post("{").await];
    for path in [
        "/usage/acme",
        "/usage/acme/series",
        "/usage/acme/periods",
        "/usage/none",
        "/check/acme",
        "/check/acme?tokens=0",
        "/events/acme/none",
        "/events",
        "/",
        "/none",
    ] {
        answers.push(server.get(path).await);
    }
    for answer in answers {
        assert_eq!(answer.headers["cache-control"], "no-store", "{}", answer.body);
    }
    assert_eq!(server.get("/static/live.js").await.headers["cache-control"], "max-age=300");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_body_of_exactly_1_mib_is_taken(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let frame = r#"{"tenant":"acme","feature":"f","tokens":1,"note":""}"#.len();
    let body =
        format!(r#"{{"tenant":"acme","feature":"f","tokens":1,"note":"{}"}}"#, "x".repeat((1 << 20) - frame));
    assert_eq!(body.len(), 1 << 20);
    assert_eq!(server.post(&body).await.status, StatusCode::ACCEPTED);
    assert_eq!(server.post(&format!("{body} ")).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_queue_that_is_down_is_503_and_its_address_stays_inside(pool: PgPool) {
    let nowhere = EventQueue::new("redis://:hunter2@127.0.0.1:1").unwrap();
    let server = Server::with_queue(pool, &["acme"], nowhere).await;
    let answer = server.post(EVENT).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers["retry-after"], "1");
    let expected = json!({
        "type": "https://flagmeter.dev/problems/queue_unavailable",
        "title": "The queue is unavailable",
        "status": 503,
        "detail": "it is not known whether what was sent is counted; send it again after a second, with the same ids if it has any",
        "code": "queue_unavailable",
    });
    assert_eq!(answer.json, expected);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn events_that_wait_for_the_flush_in_flight_are_counted(pool: PgPool) {
    let valkey = Doorway::new(Door::Open).await;
    let server = Server::with_queue(pool, &["acme"], EventQueue::new(&valkey.url).unwrap()).await;
    valkey.set(Door::Silent);
    let list = format!("[{}]", vec![EVENT; 1_000].join(","));
    let posts = futures::future::join_all((0..3).map(|_| server.post(&list)));
    let seen = until("two of three lists wait", async || {
        (server.metric("flagmeter_api_events_waiting") == 2_000).then_some(())
    });
    futures::join!(posts, seen);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn events_that_arrive_together_share_an_entry_and_each_gets_its_own_id(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let posts = (0..200).map(|_| server.post(EVENT));
    let answers = futures::future::join_all(posts).await;
    let mut ids: Vec<_> =
        answers.iter().map(|answer| answer.json["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    let batches = queued(&server).await;
    assert_eq!(batches.iter().map(|batch| batch.events.len()).sum::<usize>(), 200);
    assert!(batches.len() < 50, "{} entries", batches.len());
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn usage_follows_what_is_counted_and_the_quota_follows_the_tenant(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    let empty = server.get("/usage/acme").await;
    assert_eq!(empty.status, StatusCode::OK);
    assert_eq!((&empty.json["totalTokens"], &empty.json["minute"]), (&json!(0), &Value::Null));

    let events = [testing::event("acme", 810_000), testing::event("acme", 9_999)];
    let received_at: Timestamp = NOW.parse().unwrap();
    let batch = Batch { batch_id: uuid::Uuid::from_u128(7 << 64), received_at, events: events.into() };
    Counter::new(pool.clone()).apply(&[Entry { entry_id: "1-0".to_owned(), batch }]).await.unwrap();

    let mut seen = until("the usage is 819,999", async || {
        let answer = server.get("/usage/acme").await.json;
        (answer["totalTokens"] == 819_999).then_some(answer)
    })
    .await;
    seen["asOf"].take();
    seen["projection"].take();
    let expected = json!({
        "tenant": "acme",
        "minute": "2026-06-15T12:00:00Z",
        "totalTokens": 819_999,
        "quotaPercent": 81,
        "monthlyQuota": 1_000_000,
        "baseQuota": 1_000_000,
        "boosts": [],
        "remainingTokens": 180_001,
        "periodStart": "2026-06-01T00:00:00Z",
        "periodEnd": "2026-07-01T00:00:00Z",
        "projectedExhaustion": null,
        "projection": null,
        "asOf": null,
        "lagMilliseconds": 0,
        "features": [{ "feature": "gpt-4", "totalTokens": 819_999 }],
    });
    assert_eq!(seen, expected);

    sqlx::query("UPDATE tenants SET monthly_quota = 500000").execute(&pool).await.unwrap();
    until("the quota is the new one", async || {
        let answer = server.get("/usage/acme").await.json;
        (answer["quotaPercent"] == 163 && answer["remainingTokens"] == 0).then_some(())
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_boost_that_holds_is_in_the_quota_and_named(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let boost = |from: &str, until: &str| json!({ "tokens": 500_000, "from": from, "until": until, "reason": "launch" });
    let (over, holds, to_come, later) = (
        boost("2026-06-01T00:00:00Z", "2026-06-15T12:00:00Z"),
        boost("2026-06-15T12:00:00Z", "2026-06-20T00:00:00Z"),
        boost("2026-06-30T23:59:59Z", "2026-07-20T00:00:00Z"),
        boost("2026-07-01T00:00:00Z", "2026-07-20T00:00:00Z"),
    );
    sqlx::query("UPDATE tenants SET quota_boosts = $1")
        .bind(json!([over, holds, to_come, later]))
        .execute(&pool)
        .await
        .unwrap();
    usage::count(&pool, [testing::event("acme", 750_000)]).await;
    let server = Server::start(pool, &[]).await;
    let seen = until("the usage is counted", async || {
        let answer = server.get("/usage/acme").await.json;
        (answer["totalTokens"] == 750_000).then_some(answer)
    })
    .await;
    assert_eq!((&seen["monthlyQuota"], &seen["baseQuota"]), (&json!(1_500_000), &json!(1_000_000)));
    assert_eq!((&seen["quotaPercent"], &seen["remainingTokens"]), (&json!(50), &json!(750_000)));
    assert_eq!(seen["boosts"], json!([holds, to_come]), "those of now, and of this period");
    let check = server.get("/check/acme?tokens=750000").await.json;
    assert_eq!((&check["allowed"], &check["monthlyQuota"]), (&json!(true), &json!(1_500_000)));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn usage_follows_what_is_counted_whatever_the_clock_of_this_machine_says(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let ahead: Timestamp = "2099-06-15T12:00:00Z".parse().unwrap();
    let clock = flagmeter_runtime::clock::Clock::fixed(ahead);
    let server = Server::at(clock, pool.clone(), testing::queue().unwrap()).await;
    let total = async |tokens: i64| {
        until("the total is right", async || {
            (server.get("/usage/acme").await.json["totalTokens"] == tokens).then_some(())
        })
        .await;
    };
    total(0).await;
    let event = flagmeter_core::event::UsageEvent { occurred_at: ahead, ..testing::event("acme", 7) };
    Counter::new(pool.clone()).apply(&[testing::entry(1, [event])]).await.unwrap();
    total(7).await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_tenant_that_is_created_or_detached_is_known_at_once(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    let missing = server.get("/usage/globex").await;
    assert_eq!((missing.status, &missing.json["code"]), (StatusCode::NOT_FOUND, &json!("tenant_not_found")));
    testing::add_tenant(&pool, "globex").await;
    until("globex is known", async || {
        (server.get("/usage/globex").await.status == StatusCode::OK).then_some(())
    })
    .await;
    sqlx::query("UPDATE tenants SET detached_at = now() WHERE id = 'globex'").execute(&pool).await.unwrap();
    until("globex is gone", async || {
        (server.get("/usage/globex").await.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_suspended_tenant_s_events_are_refused_and_its_usage_can_be_read(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme", "globex"]).await;
    sqlx::query("UPDATE tenants SET suspended = true WHERE id = 'acme'").execute(&pool).await.unwrap();
    let one = json!({ "tenant": "acme", "feature": "chat", "tokens": 1 });
    let refused = until("it is suspended", async || {
        let answer = server.post(&one.to_string()).await;
        (answer.status == StatusCode::FORBIDDEN).then_some(answer)
    })
    .await;
    assert_eq!(refused.json["code"], "tenant_suspended");
    assert!(refused.json["detail"].as_str().unwrap().contains("`acme` is suspended"), "{}", refused.body);
    assert_eq!(server.get("/usage/acme").await.status, StatusCode::OK);
    let check = server.get("/check/acme?tokens=1").await.json;
    assert_eq!((&check["allowed"], &check["reason"]), (&json!(false), &json!("suspended")), "{check}");

    // Among others it is one of the faults, and those that can be taken are, if that is asked for.
    let other = json!({ "tenant": "globex", "feature": "chat", "tokens": 1 });
    let mixed = server.post(&json!([one, { "tenant": "globex" }]).to_string()).await;
    assert_eq!(mixed.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(mixed.json["errors"][0]["code"], "tenant_suspended");
    assert_eq!(server.post(&other.to_string()).await.status, StatusCode::ACCEPTED);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn the_page_shows_every_tenant_and_what_a_tenant_chose_is_only_text(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    sqlx::query("UPDATE tenants SET name = '<b>Acme</b> & \"Söhne\"'").execute(&pool).await.unwrap();
    let page = until("the name is on the page", async || {
        let page = server.get("/").await;
        page.body.contains("Söhne").then_some(page)
    })
    .await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("script-src 'self'"));
    let document = scraper::Html::parse_document(&page.body);
    let text = |selector: &str| {
        let selector = scraper::Selector::parse(selector).unwrap();
        document.select(&selector).next().map(|element| element.text().collect::<String>())
    };
    assert_eq!(text("tr[data-tenant=acme] [data-field=name]").unwrap(), "<b>Acme</b> & \"Söhne\"");
    assert_eq!(text("tr[data-tenant=acme] [data-field=quota]").unwrap(), "1,000,000");
    assert_eq!(text("tr[data-tenant=acme] [data-field=resets]").unwrap(), "2026-07-01");
    assert_eq!(text("b"), None);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn every_page_is_told_which_rows_changed_and_no_others(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme", "globex"]).await;
    let mut pages = [server.open("/live").await, server.open("/live").await];
    let said = async |page: &mut BodyDataStream| {
        let piece = page.next().await.unwrap().unwrap();
        let text = std::str::from_utf8(&piece).unwrap().to_owned();
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let message: Value = serde_json::from_str(data).unwrap();
        assert_eq!(message["tenants"], json!(["acme", "globex"]));
        let rows = message["rows"].as_array().unwrap().iter();
        rows.map(|row| (row["tenant"].clone(), row["used"].clone())).collect::<Vec<_>>()
    };
    let row = |tenant: &str, used: &str| (json!(tenant), json!(used));
    for page in &mut pages {
        assert_eq!(said(page).await, [row("acme", "0"), row("globex", "0")]);
    }
    testing_counted(&pool, "globex").await;
    for page in &mut pages {
        assert_eq!(said(page).await, [row("globex", "1")]);
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_path_or_method_that_is_not_there_is_a_problem_too(pool: PgPool) {
    let server = Server::start(pool, &[]).await;
    let answer = server.get("/nothing").await;
    assert_eq!((answer.status, &answer.json["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
    let answer = server.get("/events").await;
    assert_eq!(
        (answer.status, &answer.json["code"]),
        (StatusCode::METHOD_NOT_ALLOWED, &json!("method_not_allowed"))
    );
    assert_eq!(answer.headers["allow"], "POST");
    for path in ["/events/acme/%FF", "/usage/%FF", "/usage/%FF/series", "/usage/%FF/periods", "/check/%FF"] {
        let answer = server.get(path).await;
        let said = (answer.status.as_u16(), &answer.json["code"]);
        assert_eq!(said, (404, &json!("not_found")), "{path}: {}", answer.body);
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_list_is_taken_whole_or_not_at_all_unless_the_client_prefers_otherwise(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let event =
        |tenant: &str, tokens: i32| format!(r#"{{"tenant":"{tenant}","feature":"f","tokens":{tokens}}}"#);
    let good = format!("[{},{}]", event("acme", 1), event("acme", 2));
    let answer = server.post(&good).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.json, json!({ "accepted": 2, "status": "accepted", "durability": "fsync" }));
    let lines = format!("{}\n{}\n", event("acme", 3), event("acme", 4));
    assert_eq!(server.post_as(&lines, "application/x-ndjson").await.json["accepted"], 2);

    let mixed = format!("[{},{},{},7]", event("acme", 5), event("acme", -1), event("globex", 6));
    let errors = json!([
        { "index": 1, "code": "invalid_event", "field": "tokens", "detail": "must be a whole number from 0 to 9007199254740991" },
        { "index": 2, "code": "unknown_tenant", "field": "tenant",
          "detail": "`globex` is not known; create its Tenant resource, or correct the name" },
        { "index": 3, "code": "invalid_event", "detail": "the event must be a JSON object" },
    ]);
    let refused = server.post(&mixed).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json["code"]),
        (422, &json!("invalid_event")),
        "{}",
        refused.body
    );
    assert_eq!(refused.json["errors"], errors);
    assert!(refused.json["detail"].as_str().unwrap().starts_with("3 of the events"), "{}", refused.body);

    let advice = "`Prefer: handling=lenient`";
    assert!(refused.json["detail"].as_str().unwrap().contains(advice), "{}", refused.body);
    // Where no event is valid, there is nothing that it would have taken.
    for headers in [&[][..], &[("prefer", "handling=lenient")]] {
        for (bad, detail) in [
            ("[7]", "the event is invalid, and nothing was stored; fix what `errors` names"),
            (
                "[7, 8]",
                "2 of the events are invalid, and there are no others, so nothing was stored; fix those that `errors` names",
            ),
        ] {
            let refused = server.post_with(bad, headers).await;
            assert_eq!((refused.status.as_u16(), &refused.json["detail"]), (422, &json!(detail)), "{bad}");
        }
    }

    let taken = server.post_with(&mixed, &[("prefer", "respond-async, handling=lenient")]).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{}", taken.body);
    assert_eq!(taken.headers["preference-applied"], "handling=lenient");
    assert_eq!((&taken.json["accepted"], &taken.json["errors"]), (&json!(1), &errors));

    let tokens: Vec<i64> = queued(&server)
        .await
        .iter()
        .flat_map(|batch| &batch.events)
        .map(|event| event.tokens.get())
        .collect();
    assert_eq!(tokens, [1, 2, 3, 4, 5]);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_list_may_hold_a_thousand_events_and_no_more(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let list = |events: usize| format!("[{}]", vec![EVENT; events].join(","));
    assert_eq!(server.post(&list(1_000)).await.json["accepted"], 1_000);
    let refused = server.post(&list(1_001)).await;
    assert_eq!((refused.status.as_u16(), &refused.json["code"]), (413, &json!("too_many_events")));
    assert_eq!(queued(&server).await.iter().map(|batch| batch.events.len()).sum::<usize>(), 1_000);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn how_much_a_request_may_hold_is_a_setting(pool: PgPool) {
    let limits = Limits { events: 3, body_bytes: 64 << 10, ..server::LIMITS };
    let server = Server::limited(limits, pool, &["acme"]).await;
    let list = |events: usize| format!("[{}]", vec![EVENT; events].join(","));
    let padded = |bytes: usize| format!("{EVENT}{}", " ".repeat(bytes - EVENT.len()));
    assert_eq!(server.post(&list(3)).await.json["accepted"], 3);
    assert_eq!(server.post(&list(4)).await.json["code"], "too_many_events");
    assert_eq!(server.post(&padded(64 << 10)).await.status, StatusCode::ACCEPTED);
    let refused = server.post(&padded((64 << 10) + 1)).await;
    assert_eq!(refused.json["code"], "body_too_large");
    assert!(refused.json["detail"].as_str().unwrap().contains("at most 65536 bytes"), "{}", refused.body);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn cloudevents_are_taken_single_in_a_batch_and_in_headers(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let cloud = |id: u32, tokens: u32| {
        format!(
            r#"{{"specversion":"1.0","type":"used","source":"/gw","id":"{id}","subject":"acme","data":{{"feature":"f","tokens":{tokens}}}}}"#
        )
    };
    let single = server.post_as(&cloud(1, 10), "application/cloudevents+json").await;
    assert_eq!(single.status, StatusCode::ACCEPTED, "{}", single.body);
    let batch = format!("[{},{}]", cloud(2, 20), cloud(3, 30));
    assert_eq!(server.post_as(&batch, "application/cloudevents-batch+json").await.json["accepted"], 2);
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-type", "used"),
        ("ce-source", "/gw"),
        ("ce-id", "1"),
        ("ce-subject", "acme"),
    ];
    let binary = server.post_with(r#"{"feature":"f","tokens":10}"#, &headers).await;
    // The same source and id, and so the same event.
    assert_eq!((binary.status, &binary.json["id"]), (StatusCode::ACCEPTED, &single.json["id"]));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_cloudevent_in_headers_has_the_id_that_it_has_in_a_body(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let sent = async |id: &[u8]| {
        let headers = [
            ("ce-specversion", &b"1.0"[..]),
            ("ce-type", b"used"),
            ("ce-source", b"/gw"),
            ("ce-id", id),
            ("ce-subject", b"acme"),
        ];
        server.post_with_bytes(r#"{"feature":"f","tokens":10}"#, &headers).await
    };
    let whole = r#"{"specversion":"1.0","type":"used","source":"/gw","id":"50% \"ö\"","subject":"acme","data":{"feature":"f","tokens":10}}"#;
    let single = server.post_as(whole, "application/cloudevents+json").await;
    assert_eq!(single.json["id"], "/gw 50% \"ö\"", "{}", single.body);
    for id in [&b"50%25%20%22%C3%B6%22"[..], b"\"50%25 \\\"%C3%B6\\\"\"", "50%25 %22ö%22".as_bytes()] {
        let binary = sent(id).await;
        assert_eq!(binary.json["id"], single.json["id"], "{}: {}", String::from_utf8_lossy(id), binary.body);
    }
    let refused = sent(b"%FF").await;
    assert_eq!((refused.status.as_u16(), &refused.json["code"]), (400, &json!("invalid_header")));
    assert!(refused.json["detail"].as_str().unwrap().starts_with("ce-id must be UTF-8"), "{}", refused.body);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_header_that_says_two_things_or_that_the_body_is_compressed_is_refused(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let keys = [("idempotency-key", "one"), ("idempotency-key", "other")];
    let types = [("content-type", "application/x-ndjson")];
    let ids = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-id", "2")];
    for headers in [&keys[..], &types, &ids] {
        let refused = server.post_with(EVENT, headers).await;
        let said = (refused.status.as_u16(), &refused.json["code"]);
        assert_eq!(said, (400, &json!("invalid_header")), "{headers:?}: {}", refused.body);
        assert!(
            refused.json["detail"].as_str().unwrap().ends_with("must come only once"),
            "{}",
            refused.body
        );
    }
    let compressed = server.post_with(EVENT, &[("content-encoding", "gzip")]).await;
    let said = (compressed.status.as_u16(), &compressed.json["code"]);
    assert_eq!(said, (415, &json!("unsupported_media_type")), "{}", compressed.body);
    assert_eq!(compressed.headers["accept-encoding"], "identity");
    assert_eq!(
        server.post_with(EVENT, &[("content-encoding", "identity")]).await.status,
        StatusCode::ACCEPTED
    );
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_preference_for_lenient_handling_is_understood_however_it_is_written(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let mixed = format!("[{EVENT},7]");
    let cases = [
        ("handling=lenient", 202),
        ("handling=\"lenient\"", 202),
        ("respond-async, Handling = Lenient; x=y", 202),
        ("handling=strict, handling=lenient", 422),
        ("handling=lenient\"", 422),
        ("lenient", 422),
    ];
    for (preference, status) in cases {
        let answer = server.post_with(&mixed, &[("prefer", preference)]).await;
        assert_eq!(answer.status.as_u16(), status, "{preference}: {}", answer.body);
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_idempotency_key_gives_every_event_without_an_id_the_same_id_again(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let list = format!(r#"[{EVENT},{{"tenant":"acme","feature":"f","tokens":1,"id":"own"}},{EVENT}]"#);
    for _ in 0..2 {
        assert_eq!(
            server.post_with(&list, &[("idempotency-key", "\"request-1\"")]).await.json["accepted"],
            3
        );
    }
    let batches = queued(&server).await;
    let ids = |batch: &Batch| batch.events.iter().map(|event| event.id.unwrap()).collect::<Vec<_>>();
    assert_eq!(
        ids(&batches[0]),
        ["request-1#0", "own", "request-1#2"].map(flagmeter_core::event::EventId::of)
    );
    assert_eq!(ids(&batches[0]), ids(&batches[1]));
    let refused = server.post_with(EVENT, &[("idempotency-key", "")]).await;
    assert_eq!((refused.status.as_u16(), &refused.json["code"]), (400, &json!("invalid_header")));
}

/// Counts what is in the server's queue, as a worker does.
async fn count_all(server: &Server, pool: &PgPool) {
    count(server, pool, 100).await;
}

/// Counts so many entries at most.
async fn count(server: &Server, pool: &PgPool, entries: usize) {
    server.queue.create_group().await.unwrap();
    let entries = server.queue.read("test", entries, Duration::from_millis(50)).await.unwrap();
    let read = |entry: &flagmeter_store::queue::RawEntry| Entry {
        entry_id: entry.entry_id.clone(),
        batch: Batch::decode(entry.payload.as_ref().unwrap()).unwrap(),
    };
    Counter::new(pool.clone()).apply(&entries.iter().map(&read).collect::<Vec<_>>()).await.unwrap();
    let done: Vec<_> =
        entries.iter().map(|entry| (entry.entry_id.as_str(), read(entry).batch.events.len())).collect();
    server.queue.confirm(&done).await.unwrap();
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_uuidv7_of_a_day_that_the_ledger_is_about_to_forget_is_refused(pool: PgPool) {
    // A worker says so, here that of a box whose disk has room for the ids of a day.
    let queue = testing::queue().unwrap();
    let (since, now) = ("2026-06-15T00:00:00Z".parse().unwrap(), NOW.parse().unwrap());
    queue.refuse_ids_before(since, now).await.unwrap();
    let server = Server::with_queue(pool, &["acme"], queue).await;
    let made_at = |hour: &str| {
        let made_at: jiff::Timestamp = format!("{hour}:00:00Z").parse().unwrap();
        let seconds = made_at.as_second().unsigned_abs();
        uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0))
    };
    let post = async |id: uuid::Uuid| {
        server.post(&format!(r#"{{"tenant":"acme","feature":"f","tokens":1,"id":"{id}"}}"#)).await
    };
    assert_eq!(post(made_at("2026-06-15T00")).await.status, StatusCode::ACCEPTED);
    let refused = post(made_at("2026-06-14T23")).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let detail = "is a UUIDv7 made at 2026-06-14T23:00:00Z; it must be made after 2026-06-15T00:00:00Z, since when ids \
                  are known, and not be ahead";
    assert_eq!(refused.json["errors"][0]["detail"], detail);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_event_is_found_under_its_id_and_can_be_taken_back_once(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    let event =
        |tokens: u32| format!(r#"{{"tenant":"acme","feature":"f","tokens":{tokens},"id":"order/7"}}"#);
    assert_eq!(server.post(&event(10)).await.json["id"], "order/7");
    let code = async |path: &str| {
        let answer = server.get(path).await;
        (answer.status.as_u16(), answer.json["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(code("/events/acme/order/7").await, (503, "still_counting".to_owned()));
    server.post(&event(11)).await;
    count_all(&server, &pool).await;
    assert_eq!(code("/events/acme/order/8").await, (404, "event_not_found".to_owned()));
    assert_eq!(code("/events/globex/order/7").await, (404, "tenant_not_found".to_owned()));
    let counted = json!({
        "tenant": "acme", "id": "order/7", "state": "counted", "feature": "f", "tokens": 10,
        "timestamp": NOW, "receivedAt": NOW, "conflict": { "feature": "f", "tokens": 11, "receivedAt": NOW },
    });
    assert_eq!(server.get("/events/acme/order/7").await.json, counted);

    for _ in 0..2 {
        let taken = server.delete("/events/acme/order/7").await;
        assert_eq!(
            (taken.status, &taken.json["id"]),
            (StatusCode::ACCEPTED, &json!("order/7")),
            "{}",
            taken.body
        );
    }
    count_all(&server, &pool).await;
    let reversed = server.get("/events/acme/order/7").await.json;
    assert_eq!(
        (&reversed["state"], &reversed["tokens"], &reversed["reversedAt"]),
        (&json!("reversed"), &json!(10), &json!(NOW))
    );
    until("the usage is none, of two events in a minute", async || {
        let usage = server.get("/usage/acme").await.json;
        (usage["totalTokens"] == 0 && usage["minute"] == NOW).then_some(())
    })
    .await;
    let again = server.delete("/events/acme/order/7").await;
    assert_eq!((again.status, &again.json["durability"]), (StatusCode::ACCEPTED, &json!("fsync")));
    assert_eq!(server.queue.depth().await.unwrap(), 0, "it is taken back already");
    assert_eq!(server.metric("flagmeter_api_events_accepted_total"), 4, "two events, taken back twice");
    let missing = server.delete("/events/acme/order/8").await;
    assert_eq!((missing.status.as_u16(), &missing.json["code"]), (404, &json!("event_not_found")));

    // The same under the id that the api gave.
    let given = server.post(EVENT).await.json["id"].as_str().unwrap().to_owned();
    count_all(&server, &pool).await;
    assert_eq!(server.get(&format!("/events/acme/{given}")).await.json["tokens"], 1_500);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn that_there_is_no_such_event_is_said_while_others_keep_coming(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    for _ in 0..4 {
        server.post(EVENT).await;
    }
    // A worker that keeps up, and a queue that is never empty.
    let load = async {
        loop {
            server.post(EVENT).await;
            server.post(EVENT).await;
            count(&server, &pool, 2).await;
        }
    };
    let asked = async { (server.delete("/events/acme/never").await, server.get("/events/acme/never").await) };
    let (deleted, got) = tokio::select! {
        answers = asked => answers,
        () = load => unreachable!("it has no end"),
    };
    assert_ne!(server.queue.depth().await.unwrap(), 0);
    for answer in [deleted, got] {
        let said = (answer.status.as_u16(), &answer.json["code"]);
        assert_eq!(said, (404, &json!("event_not_found")), "{}", answer.body);
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_event_that_is_counted_while_it_is_asked_for_is_found(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    let id = server.post(EVENT).await.json["id"].as_str().unwrap().to_owned();
    let path = format!("/events/acme/{id}");
    let (answer, ()) = futures::join!(server.get(&path), count_all(&server, &pool));
    assert_eq!(answer.json["state"], "counted", "{}", answer.body);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn one_who_looks_for_events_without_end_keeps_no_snapshot_from_being_read(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme", "globex"]).await;
    let mut held = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE event_ids IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let looks = futures::future::join_all((0..32).map(|_| server.get("/events/acme/order-7")));
    let counted = async {
        testing_counted(&pool, "globex").await;
        let seen = async || (server.get("/usage/globex").await.json["totalTokens"] == 1).then_some(());
        until("what another used is seen", seen).await;
    };
    let (answers, ()) = futures::join!(looks, counted);
    drop(held);
    for answer in answers {
        let code = answer.json["code"].as_str().unwrap_or_default();
        assert!(["not_ready", "overloaded"].contains(&code), "{}", answer.body);
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn one_who_looks_for_events_without_end_is_told_so_and_another_s_are_found(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme", "globex"]).await;
    let held = usage::lock(&pool, "event_ids").await;
    let flood = futures::future::join_all((0..50).map(|_| server.get("/events/acme/order-7")));
    let other = async {
        usage::wait_for_lock(&pool, "%event_ids%", 1).await;
        let look = server.get("/events/globex/order-7");
        let (look, ()) = futures::join!(look, async {
            usage::wait_for_lock(&pool, "%event_ids%", 2).await;
            held.rollback().await.unwrap();
        });
        look
    };
    let (answers, other) = futures::join!(flood, other);
    assert_eq!(other.json["code"], "event_not_found", "{}", other.body);
    let refused: Vec<_> = answers.iter().filter(|answer| answer.json["code"] == "overloaded").collect();
    // One is looked for, and eight wait.
    assert_eq!(refused.len(), 41);
    assert!(refused.iter().all(|answer| answer.status == 503 && answer.headers["retry-after"] == "1"));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_answer_that_takes_too_long_is_a_fault_of_ours(pool: PgPool) {
    let limits = Limits { answer: Duration::from_millis(200), ..server::LIMITS };
    let server = Server::limited(limits, pool.clone(), &["acme"]).await;
    let mut held = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE rollups IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let answer = server.get("/usage/acme/series").await;
    drop(held);
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (503, &json!("not_ready")), "{}", answer.body);
    assert_eq!(answer.headers["retry-after"], "1");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_full_queue_takes_nothing_more_until_it_is_drained_and_what_it_took_counts(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    let list = format!("[{}]", vec![EVENT; 1_000].join(","));
    for _ in 0..3 {
        // The limit is looked at now and then: what comes in between is taken.
        server.post(&list).await;
    }
    let refused = until("the queue is full", async || {
        let answer = server.post(EVENT).await;
        (answer.status != StatusCode::ACCEPTED).then_some(answer)
    })
    .await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json["code"]),
        (503, &json!("queue_full")),
        "{}",
        refused.body
    );
    assert_eq!(refused.headers["retry-after"], "5");
    assert_eq!(server.delete("/events/acme/some").await.json["code"], "queue_full");
    let taken = server.queue.load().await.unwrap().events;
    count_all(&server, &pool).await;
    until("the queue has room", async || {
        (server.post(EVENT).await.status == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    let counted: i64 = sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&pool).await.unwrap();
    assert_eq!(u64::try_from(counted).unwrap(), taken);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_api_that_starts_while_postgresql_is_away_takes_events_for_the_tenants_it_remembers(pool: PgPool) {
    let stream = format!("flagmeter:test:{}", uuid::Uuid::now_v7());
    let before = Server::with_queue(pool, &["acme"], testing::queue_named(&stream).unwrap()).await;
    drop(before);
    let away = sqlx::PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
    let server = Server::without_database(away, testing::queue_named(&stream).unwrap()).await;
    until("the tenant is remembered", async || {
        (server.post(EVENT).await.status == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    let unknown = server.post(&EVENT.replace("acme", "globex")).await;
    assert_eq!(unknown.json["code"], "unknown_tenant");
    // What was used cannot be said.
    let usage = server.get("/usage/acme").await;
    assert_eq!((usage.status.as_u16(), &usage.json["code"]), (503, &json!("not_ready")));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_body_that_does_not_say_how_long_it_is_is_cut_off_at_the_limit(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let chunks = |count: usize| {
        let first = r#"{"tenant":"acme","feature":"f","tokens":1,"note":""#.to_owned();
        let rest = (0..count).map(|_| "x".repeat(1 << 10)).chain(["\"}".to_owned()]);
        std::iter::once(first).chain(rest).collect::<Vec<_>>()
    };
    assert_eq!(server.post_in_chunks(chunks(1_000)).await.status, StatusCode::ACCEPTED);
    let refused = server.post_in_chunks(chunks(1_024)).await;
    assert_eq!((refused.status.as_u16(), &refused.json["code"]), (413, &json!("body_too_large")));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_tenant_has_only_so_many_features_and_those_it_has_go_on(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme", "globex"]).await;
    let event = |tenant: &str, feature: usize| {
        format!(r#"{{"tenant":"{tenant}","feature":"f{feature}","tokens":1}}"#)
    };
    // One is counted already when the first is asked for, and nine more make ten.
    testing_counted(&pool, "acme").await;
    until("it is known", async || (server.get("/usage/acme").await.json["totalTokens"] == 1).then_some(()))
        .await;
    let list: Vec<String> = (1..=10).map(|feature| event("acme", feature)).collect();
    let refused = server.post(&format!("[{}]", list.join(","))).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json["code"]),
        (422, &json!("too_many_features")),
        "{}",
        refused.body
    );
    let expected = json!([{
        "index": 9, "code": "too_many_features", "field": "feature",
        "detail": "must be one of the 10 that the tenant has in this billing period; use fewer names",
    }]);
    assert_eq!(refused.json["errors"], expected);
    assert_eq!(server.post(&format!("[{}]", list[..9].join(","))).await.json["accepted"], 9);
    assert_eq!(server.post(&event("acme", 9)).await.status, StatusCode::ACCEPTED);
    assert_eq!(server.post(EVENT).await.status, StatusCode::ACCEPTED);
    assert_eq!(server.post(&event("acme", 11)).await.json["code"], "too_many_features");
    assert_eq!(server.post(&event("globex", 11)).await.status, StatusCode::ACCEPTED);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_tenant_s_period_never_has_more_tokens_than_a_program_can_read_from_json(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme", "globex", "initech"]).await;
    let event =
        |tenant: &str, tokens: i64| format!(r#"{{"tenant":"{tenant}","feature":"f","tokens":{tokens}}}"#);
    let status = async |event: &str| server.post(event).await.status.as_u16();
    let most = (1_i64 << 53) - 1;

    // What is queued, what is in the same request, also if it is a list of several tenants, and what is counted.
    assert_eq!(status(&event("acme", most - 3)).await, 202);
    let list = [event("acme", 2), event("globex", most), event("acme", 1), event("acme", 1)].join(",");
    let refused = server.post(&format!("[{list}]")).await;
    let expected = json!([{
        "index": 3, "code": "invalid_event", "field": "tokens",
        "detail": "would bring the tenant's billing period beyond 9007199254740991 tokens, the most that can be counted",
    }]);
    assert_eq!((refused.status.as_u16(), &refused.json["errors"]), (422, &expected), "{}", refused.body);
    count_all(&server, &pool).await;
    // To one whose clock stands still, all that it took in waits for ever.
    let other = Server::without_database(pool, testing::queue().unwrap()).await;
    until("it is counted", async || {
        (other.get("/usage/acme").await.json["totalTokens"] == most - 3).then_some(())
    })
    .await;
    assert_eq!(other.post(&event("acme", 4)).await.json["errors"][0]["field"], "tokens");
    assert_eq!(other.post(&event("acme", 3)).await.status, StatusCode::ACCEPTED);
    // Late events are of another period, and what was refused took nothing of another tenant's.
    let late = event("acme", 5).replace("\"tokens\"", "\"timestamp\":\"2026-05-20T00:00:00Z\",\"tokens\"");
    assert_eq!((status(&late).await, status(&event("globex", most)).await), (202, 202));

    // And what comes at the same time.
    let large = event("initech", most / 2);
    let answers = futures::future::join_all((0..16).map(|_| status(&large))).await;
    assert_eq!(answers.iter().filter(|status| **status == 202).count(), 2, "{answers:?}");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_period_that_is_over_has_no_more_tokens_than_that_either(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    sqlx::query("UPDATE tenants SET billing_day = 14").execute(&pool).await.unwrap();
    let server = Server::start(pool.clone(), &["globex"]).await;
    let event = |tenant: &str, day: &str, tokens: i64| {
        format!(
            r#"{{"tenant":"{tenant}","feature":"f","tokens":{tokens},"timestamp":"2026-{day}T00:00:00Z"}}"#
        )
    };
    let most = (1_i64 << 53) - 1;
    // The open period, the one before it, and the one before that, whose last days are within 35 days.
    let days = ["06-14", "05-20", "05-12"];
    for day in days {
        assert_eq!(server.post(&event("acme", day, most - 3)).await.status, StatusCode::ACCEPTED, "{day}");
    }
    let lists = |tokens: [i64; 3]| {
        let of = |tokens: i64| days.map(|day| event("acme", day, tokens)).join(",");
        format!("[{},{}]", tokens.map(of).join(","), event("globex", "05-20", most))
    };
    // What is queued, and what is in the same request, whichever period is asked about in between.
    let refused = server.post(&lists([2, 1, 1])).await;
    let places: Vec<_> =
        refused.json["errors"].as_array().unwrap().iter().map(|error| &error["index"]).collect();
    assert_eq!(
        (refused.status.as_u16(), places),
        (422, vec![&json!(6), &json!(7), &json!(8)]),
        "{}",
        refused.body
    );
    let detail = "would bring the tenant's billing period beyond 9007199254740991 tokens, the most that can be counted";
    assert_eq!(
        (&refused.json["errors"][0]["code"], &refused.json["errors"][0]["detail"]),
        (&json!("invalid_event"), &json!(detail))
    );
    // A batch of the largest events there may be is refused as a whole.
    let poison = format!("[{}]", vec![event("globex", "05-20", most); 1_000].join(","));
    assert_eq!(server.post(&poison).await.json["errors"].as_array().unwrap()[0]["index"], 1);
    assert_eq!(server.post(&event("globex", "05-20", most)).await.status, StatusCode::ACCEPTED);
    assert_eq!(server.post(&poison).await.json["errors"].as_array().unwrap()[0]["index"], 0);

    // And what is counted, to an api that took none of it in.
    count_all(&server, &pool).await;
    let other = Server::without_database(pool, testing::queue().unwrap()).await;
    until("it is counted", async || {
        (other.get("/usage/acme").await.json["totalTokens"] == most - 3).then_some(())
    })
    .await;
    for day in days {
        assert_eq!(other.post(&event("acme", day, 4)).await.json["errors"][0]["field"], "tokens", "{day}");
        assert_eq!(other.post(&event("acme", day, 3)).await.status, StatusCode::ACCEPTED, "{day}");
        assert_eq!(
            other.post(&event("acme", day, 1)).await.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{day}"
        );
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_request_that_is_refused_uses_up_none_of_a_tenant_s_features(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let list = |prefix: &str, last: &str| {
        let event =
            |feature: usize| format!(r#"{{"tenant":"acme","feature":"{prefix}{feature}","tokens":1}}"#);
        format!("[{}{last}]", (0..server::LIMITS.features).map(event).collect::<Vec<_>>().join(","))
    };
    let refused = server.post(&list("mistaken", r#",{"tenant":"acme"}"#)).await;
    assert_eq!(refused.json["code"], "invalid_event", "{}", refused.body);
    let taken = server.post(&list("real", "")).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{}", taken.body);
    assert_eq!(server.post(EVENT).await.json["code"], "too_many_features");
}

/// Counts one event of the feature that [`EVENT`] has.
async fn testing_counted(pool: &PgPool, tenant: &str) {
    Counter::new(pool.clone()).apply(&[testing::entry(1, [testing::event(tenant, 1)])]).await.unwrap();
}
