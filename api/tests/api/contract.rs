//! What clients may rely on when they send events.

use axum::http::StatusCode;
use flagmeter_core::event::EventId;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::audit::books;
use serde_json::{Value, json};

use crate::server::{Answer, NOW, Server, until};
use crate::{EVENT, count_all, queued};

fn event(more: &str) -> String {
    format!(r#"{{"tenant":"acme","feature":"f","tokens":1{more}}}"#)
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_event_of_no_tokens_is_counted_found_and_taken_back_and_the_books_balance(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    let zero = r#"{"tenant":"acme","feature":"cached","tokens":0,"id":"hit-1"}"#;
    assert_eq!(server.post(zero).await.status, StatusCode::ACCEPTED);
    let list = format!("[{EVENT},{zero},{}]", zero.replace("hit-1", "hit-2"));
    let answer = server.post(&list).await;
    assert_eq!(
        (answer.status, &answer.json["accepted"]),
        (StatusCode::ACCEPTED, &json!(3)),
        "{}",
        answer.body
    );
    for written in ["1.0", "1e3", "0.0"] {
        let answer = server.post(&zero.replace(":0", &format!(":{written}")).replace("hit-1", written)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{written}: {}", answer.body);
    }
    count_all(&server, &pool).await;

    let found = server.get("/events/acme/hit-1").await.json;
    assert_eq!((&found["state"], &found["tokens"]), (&json!("counted"), &json!(0)));
    assert_eq!(server.get("/events/acme/1e3").await.json["tokens"], 1_000);
    for _ in 0..2 {
        assert_eq!(server.delete("/events/acme/hit-1").await.status, StatusCode::ACCEPTED);
    }
    count_all(&server, &pool).await;
    assert_eq!(server.get("/events/acme/hit-1").await.json["state"], "reversed");

    let periods = server.get("/usage/acme/periods").await.json;
    // Six events, and one that takes another back.
    assert_eq!(
        (&periods["periods"][0]["totalTokens"], &periods["periods"][0]["events"]),
        (&json!(2_501), &json!(7))
    );
    assert_eq!(periods["periods"][0]["features"][0], json!({ "feature": "cached", "totalTokens": 1_001 }));
    let series = server.get("/usage/acme/series?window=day&feature=cached").await.json;
    assert_eq!(series["totalTokens"], 1_001);
    let book = books(&pool).await.unwrap().remove(0);
    assert!(book.balances() && book.events == 7 && book.dead_letters == 0, "{book:?}");
    until("the usage is what is counted", async || {
        (server.get("/usage/acme").await.json["totalTokens"] == 2_501).then_some(())
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_tenant_whose_events_used_no_tokens_has_used_none(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    let zero = r#"{"tenant":"acme","feature":"cached","tokens":0}"#;
    assert_eq!(server.post(zero).await.status, StatusCode::ACCEPTED);
    count_all(&server, &pool).await;
    let usage = until("it is counted", async || {
        let usage = server.get("/usage/acme").await.json;
        (usage["minute"] == NOW).then_some(usage)
    })
    .await;
    assert_eq!((&usage["totalTokens"], &usage["quotaPercent"]), (&json!(0), &json!(0)));
    assert_eq!(usage["features"], json!([{ "feature": "cached", "totalTokens": 0 }]));
    let alerts: i64 = sqlx::query_scalar("SELECT count(*) FROM alerts").fetch_one(&pool).await.unwrap();
    assert_eq!(alerts, 0);
    assert_eq!(server.get("/check/acme").await.json["allowed"], true);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_answer_names_the_fields_that_nobody_looked_at_and_what_was_meant_by_them(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    for known in [event(""), event(r#","id":"1","timestamp":null"#), format!("[{}]", event(""))] {
        let answer = server.post(&known).await;
        assert_eq!(
            (answer.status, answer.json.get("ignored")),
            (StatusCode::ACCEPTED, None),
            "{}",
            answer.body
        );
    }
    let misspelt =
        event(r#","ID":"order-1","idempotencyKey":"order-1","time":"2026-06-01T00:00:00Z","user":7"#);
    let ignored = json!([
        { "field": "ID", "didYouMean": "id" },
        { "field": "idempotencyKey", "didYouMean": "id" },
        { "field": "time", "didYouMean": "timestamp" },
        { "field": "user" },
    ]);
    let list = format!("[{},{misspelt},{misspelt}]", event(""));
    let lines = format!("{misspelt}\n{}", event(""));
    let answers = [
        server.post(&misspelt).await,
        server.post(&list).await,
        server.post_as(&lines, "application/x-ndjson").await,
    ];
    for answer in answers {
        assert_eq!(
            (answer.status, &answer.json["ignored"]),
            (StatusCode::ACCEPTED, &ignored),
            "{}",
            answer.body
        );
    }
    let long = "n".repeat(200_000);
    let names =
        (0..4).map(|number| format!("{number}{long}")).chain((0..50).map(|number| format!("f{number}")));
    let many: Vec<String> = names.map(|name| format!(r#","{name}":1"#)).collect();
    let many = server.post(&event(&many.concat())).await;
    assert_eq!(many.json["ignored"].as_array().unwrap().len(), 8, "{}", many.body);
    assert!(many.body.len() < 2_048, "{} bytes", many.body.len());
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn strict_handling_refuses_a_field_that_no_event_has(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let strict = [("prefer", "handling=strict")];
    let misspelt = event(r#","ID":"order-1""#);
    let single = server.post_with(&misspelt, &strict).await;
    assert_eq!((single.status.as_u16(), &single.json["code"]), (422, &json!("invalid_event")));
    assert_eq!(single.json["detail"], "ID is not a field of an event; did you mean `id`?");
    let list = server.post_with(&format!("[{},{misspelt}]", event("")), &strict).await;
    let error = json!([{
        "index": 1, "code": "invalid_event", "field": "ID",
        "detail": "is not a field of an event; did you mean `id`?",
    }]);
    assert_eq!((list.status.as_u16(), &list.json["errors"]), (422, &error), "{}", list.body);
    assert_eq!(queued(&server).await, []);

    for good in [event(r#","id":"order-1""#), format!("[{}]", event(""))] {
        let answer = server.post_with(&good, &strict).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        assert_eq!(answer.headers["preference-applied"], "handling=strict");
        assert_eq!(answer.json.get("ignored"), None);
    }
    // The first of two holds.
    for (prefer, status) in
        [("handling=lenient, handling=strict", 202), ("handling=\"strict\"", 422), ("strict", 202)]
    {
        assert_eq!(
            server.post_with(&misspelt, &[("prefer", prefer)]).await.status.as_u16(),
            status,
            "{prefer}"
        );
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_lists_answer_has_the_ids_under_which_its_events_are_found_if_that_is_asked_for(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    let list = format!("[{},{},7,{}]", event(""), event(r#","id":"order/7""#), event(""));
    assert_eq!(server.post(&format!("[{}]", event(""))).await.json.get("ids"), None);
    let wanted = [("prefer", "return=representation, handling=lenient")];
    let answer = server.post_with(&list, &wanted).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    let applied: Vec<_> = answer.headers.get_all("preference-applied").iter().collect();
    assert_eq!(applied, ["handling=lenient", "return=representation"]);
    let ids = answer.json["ids"].as_array().unwrap().clone();
    assert_eq!((ids.len(), &ids[1], &ids[2]), (4, &json!("order/7"), &Value::Null));

    let keyed = server.post_with(&list, &[wanted[0], ("idempotency-key", "request-1")]).await.json;
    let again = server.post_with(&list, &[wanted[0], ("idempotency-key", "request-1")]).await.json;
    assert_eq!(keyed["ids"], again["ids"]);
    assert_eq!(keyed["ids"][3], EventId::of("request-1#3").uuid().to_string());

    let cloud = r#"[{"specversion":"1.0","type":"t","source":"/gw","id":"1","subject":"acme","data":{"feature":"f","tokens":1}}]"#;
    let request =
        [("prefer", "return=representation"), ("content-type", "application/cloudevents-batch+json")];
    let cloud = server.post_of(cloud, &request).await;
    assert_eq!(cloud.json["ids"], json!(["/gw 1"]), "{}", cloud.body);

    count_all(&server, &pool).await;
    for id in [&ids[0], &ids[1], &ids[3], &keyed["ids"][0], &keyed["ids"][3]] {
        let path = format!("/events/acme/{}", id.as_str().unwrap());
        assert_eq!(server.get(&path).await.json["state"], "counted", "{path}");
    }
    assert_eq!(server.get("/events/acme/%2Fgw%201").await.json["state"], "counted");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_timestamp_is_what_rfc_3339_says_and_nothing_else(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let sent = async |timestamp: &str| server.post(&event(&format!(r#","timestamp":"{timestamp}""#))).await;
    for timestamp in [
        "2026-06-15T12:00:00Z",
        "2026-06-15t12:00:00z",
        "2026-06-15T12:00:00.123456789123456789Z",
        "2026-06-15T14:00:00.5+02:00",
        "2026-06-15T12:00:00-00:00",
        "2026-05-31T23:59:60Z",
        "2026-05-31T15:59:60-08:00",
    ] {
        let answer = sent(timestamp).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{timestamp}: {}", answer.body);
    }
    let minutes: Vec<_> = queued(&server).await.iter().flat_map(|batch| batch.events.clone()).collect();
    assert_eq!(minutes[2].occurred_at.to_string(), "2026-06-15T12:00:00.123456Z");
    for leap in &minutes[5..] {
        assert_eq!(
            flagmeter_core::minute::Minute::of(leap.occurred_at).start().to_string(),
            "2026-05-31T23:59:00Z"
        );
    }
    for timestamp in [
        "20260615T120000Z",
        "2026-06-15T12Z",
        "2026-06-15T12:00Z",
        "2026-06-15T14:00:00+02:00[Europe/Berlin]",
        "2026-06-15T12:00:00,5Z",
        "2026-06-15T12:00:00+24:00",
        "2026-06-15T14:00:00+02",
        "2026-06-15T14:00:00+0200",
        "2026-06-15T12:00:00",
        "2026-06-15",
    ] {
        let answer = sent(timestamp).await;
        assert_eq!(answer.status.as_u16(), 422, "{timestamp}: {}", answer.body);
        let detail = "must be an RFC 3339 time, such as 2026-01-31T12:00:00Z";
        assert_eq!(answer.json["errors"][0]["detail"], detail, "{timestamp}");
    }
    // A series has the same instants for its bounds.
    let from = |text: &str| format!("/usage/acme/series?from={text}&to=2026-06-15T12:00:00Z");
    assert_eq!(server.get(&from("2026-06-15T11:00:00.12345678912Z")).await.status, StatusCode::OK);
    assert_eq!(server.get(&from("20260615T110000Z")).await.json["errors"][0]["field"], "from");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_query_is_refused_where_there_are_no_parameters(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    server.post(&event(r#","id":"order-7""#)).await;
    count_all(&server, &pool).await;
    let refused = |answer: &Answer| {
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (422, &json!("invalid_parameter")));
        assert_eq!(answer.json["errors"][0]["detail"], "is not known here; this path has no parameters");
    };
    refused(&server.get("/usage/acme?window=day").await);
    refused(&server.get("/usage/acme?a=1&b=2").await);
    refused(&server.get("/events/acme/order-7?state=counted").await);
    refused(&server.delete("/events/acme/order-7?dryRun=true").await);
    assert_eq!(server.get("/events/acme/order-7").await.json["state"], "counted");
    assert_eq!(server.get("/usage/acme?").await.status, StatusCode::OK);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_cloudevent_in_headers_without_a_content_type_has_json_for_its_data(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let cloud = [
        ("ce-specversion", "1.0"),
        ("ce-type", "used"),
        ("ce-source", "/gw"),
        ("ce-id", "1"),
        ("ce-subject", "acme"),
        ("ce-traceparent", "00-1-1-00"),
    ];
    let data = r#"{"feature":"f","tokens":10}"#;
    let with_type = |media_type| [&cloud[..], &[("content-type", media_type)]].concat();
    for headers in
        [cloud.to_vec(), with_type("application/json"), with_type("application/vnd.acme.usage+json")]
    {
        let answer = server.post_of(data, &headers).await;
        assert_eq!(
            (answer.status, &answer.json["id"]),
            (StatusCode::ACCEPTED, &json!("/gw 1")),
            "{}",
            answer.body
        );
        assert_eq!(answer.json.get("ignored"), None);
    }
    for headers in [with_type("text/plain"), with_type("application/octet-stream"), vec![]] {
        assert_eq!(
            server.post_of(data, &headers).await.json["code"],
            "unsupported_media_type",
            "{headers:?}"
        );
    }
    let empty = server.post_as("[]", "application/cloudevents-batch+json").await;
    assert_eq!(empty.status, StatusCode::ACCEPTED, "{}", empty.body);
    assert_eq!(empty.json, json!({ "accepted": 0, "status": "accepted", "durability": "fsync" }));
    assert_eq!(queued(&server).await.len(), 3, "an empty batch is no entry of the queue");
}
