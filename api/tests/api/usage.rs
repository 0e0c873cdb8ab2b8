//! What was used when, over a real PostgreSQL and a real Valkey.

use std::time::Duration;

use flagmeter_core::event::UsageEvent;
use flagmeter_core::packed::Batch;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::postgres::batch::{Counter, Entry};
use flagmeter_store::queue::EventQueue;
use flagmeter_store::{PgPool, testing};
use serde_json::{Value, json};

use crate::server::{NOW, Server, until};

/// An event of `acme`.
pub(crate) fn event(feature: &str, tokens: i64, at: &str) -> UsageEvent {
    UsageEvent {
        feature: feature.try_into().unwrap(),
        occurred_at: at.parse().unwrap(),
        ..testing::event("acme", tokens)
    }
}

pub(crate) async fn count<const N: usize>(pool: &PgPool, events: [UsageEvent; N]) {
    let batch =
        Batch { batch_id: uuid::Uuid::now_v7(), received_at: NOW.parse().unwrap(), events: events.into() };
    Counter::new(pool.clone()).apply(&[Entry { entry_id: "1-0".to_owned(), batch }]).await.unwrap();
}

/// Each point's start and tokens.
fn points(series: &Value) -> Vec<(&str, i64)> {
    let point = |point: &'_ Value| point["totalTokens"].as_i64().unwrap();
    series["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["start"].as_str().unwrap(), point(one)))
        .collect()
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_series_has_a_point_for_each_window_of_the_range_and_no_token_from_outside(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme", "globex"]).await;
    let elsewhere = testing::event("globex", 1_000);
    let events = [
        event("gpt-4", 1, "2026-06-14T23:59:59Z"),
        event("gpt-4", 2, "2026-06-15T00:00:00Z"),
        event("claude", 4, "2026-06-15T00:59:59Z"),
        event("gpt-4", 8, "2026-06-15T02:00:00Z"),
        event("gpt-4", 16, "2026-06-15T03:00:00Z"),
        elsewhere,
    ];
    count(&pool, events).await;
    let range = "/usage/acme/series?window=hour&from=2026-06-15&to=2026-06-15T03:00:00Z";
    let series = server.get(range).await;
    let expected = json!({
        "tenant": "acme",
        "feature": null,
        "window": "hour",
        "timeZone": "UTC",
        "from": "2026-06-15T00:00:00Z",
        "to": "2026-06-15T03:00:00Z",
        "totalTokens": 14,
        "asOf": NOW,
        "lagMilliseconds": 0,
        "points": [
            { "start": "2026-06-15T00:00:00Z", "end": "2026-06-15T01:00:00Z", "totalTokens": 6 },
            { "start": "2026-06-15T01:00:00Z", "end": "2026-06-15T02:00:00Z", "totalTokens": 0 },
            { "start": "2026-06-15T02:00:00Z", "end": "2026-06-15T03:00:00Z", "totalTokens": 8 },
        ],
    });
    assert_eq!(series.json, expected, "{}", series.body);
    assert_eq!(series.headers["cache-control"], "no-store");
    let one = server.get(&format!("{range}&feature=gpt-4")).await.json;
    assert_eq!((&one["feature"], &one["totalTokens"]), (&json!("gpt-4"), &json!(10)));
    assert_eq!(points(&one).iter().map(|(_, tokens)| tokens).collect::<Vec<_>>(), [&2, &0, &8]);
    // Neighbours share nothing: together they are the day before and this one so far.
    let (before, after) = ("from=2026-06-14&to=2026-06-15", "from=2026-06-15&to=2026-06-16");
    let total = async |range: &str| {
        server.get(&format!("/usage/acme/series?window=minute&{range}")).await.json["totalTokens"].clone()
    };
    assert_eq!((total(before).await, total(after).await), (json!(1), json!(30)));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn days_follow_the_clock_of_the_zone_and_may_have_23_or_25_hours(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    sqlx::query("UPDATE tenants SET time_zone = 'Europe/Berlin'").execute(&pool).await.unwrap();
    let events = [
        // The clocks went forward on 29 March: the day is over an hour earlier.
        event("f", 1, "2026-03-28T22:59:59Z"),
        event("f", 2, "2026-03-28T23:00:00Z"),
        event("f", 4, "2026-03-29T21:59:59Z"),
        event("f", 8, "2026-03-29T22:00:00Z"),
        // And back on 26 October.
        event("f", 16, "2025-10-25T22:00:00Z"),
        event("f", 32, "2025-10-26T22:59:59Z"),
        event("f", 64, "2025-10-26T23:00:00Z"),
    ];
    count(&pool, events).await;
    let spring = until("the tenant's zone is known", async || {
        let series = server.get("/usage/acme/series?from=2026-03-28&to=2026-03-31").await.json;
        (series["timeZone"] == "Europe/Berlin").then_some(series)
    })
    .await;
    let expected = [
        ("2026-03-28T00:00:00+01:00", 1),
        ("2026-03-29T00:00:00+01:00", 6),
        ("2026-03-30T00:00:00+02:00", 8),
    ];
    assert_eq!(points(&spring), expected);
    let autumn = server.get("/usage/acme/series?from=2025-10-26&to=2025-10-28").await.json;
    assert_eq!(points(&autumn), [("2025-10-26T00:00:00+02:00", 48), ("2025-10-27T00:00:00+01:00", 64)]);
    let hours = async |range: &str| {
        points(&server.get(&format!("/usage/acme/series?window=hour&{range}")).await.json).len()
    };
    assert_eq!(hours("from=2026-03-29&to=2026-03-30").await, 23);
    assert_eq!(hours("from=2025-10-26&to=2025-10-27").await, 25);
    // Whoever asks may have another clock: there the whole of it is on one side of midnight.
    let elsewhere =
        server.get("/usage/acme/series?from=2026-03-28&to=2026-03-30&timeZone=America/New_York").await.json;
    assert_eq!(points(&elsewhere), [("2026-03-28T00:00:00-04:00", 3), ("2026-03-29T00:00:00-04:00", 12)]);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn without_a_range_a_series_is_of_the_window_that_is_open(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    count(&pool, [event("f", 1, "2026-06-01T00:00:00Z"), event("f", 2, NOW)]).await;
    let cases = [
        // query, points, from, to, tokens
        ("", 15, "2026-06-01T00:00:00Z", "2026-06-16T00:00:00Z", 3),
        ("?window=minute", 1_440, "2026-06-14T12:01:00Z", "2026-06-15T12:01:00Z", 2),
        ("?window=hour", 24, "2026-06-14T13:00:00Z", "2026-06-15T13:00:00Z", 2),
        ("?window=month", 12, "2025-07-01T00:00:00Z", "2026-07-01T00:00:00Z", 3),
        ("?to=2026-06-01T00:01:00Z", 1, "2026-06-01T00:00:00Z", "2026-06-01T00:01:00Z", 1),
    ];
    for (query, count, from, to, tokens) in cases {
        let series = server.get(&format!("/usage/acme/series{query}")).await.json;
        assert_eq!(points(&series).len(), count, "{query}");
        assert_eq!((&series["from"], &series["to"]), (&json!(from), &json!(to)), "{query}");
        assert_eq!(series["totalTokens"], tokens, "{query}");
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_parameter_that_is_not_what_it_must_be_is_refused_by_its_name(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    // Nothing of this needs the database.
    pool.close().await;
    let cases = [
        // call, parameter, part of the detail
        ("series?form=2026-06-01", "form", "is not known here, but from, to, window, feature, timeZone"),
        ("series?from=2026-06-01&from=2026-06-02", "from", "must come only once"),
        ("series?from=yesterday", "from", "must be a date or an RFC 3339 time"),
        ("series?from=", "from", "must be a date"),
        // `+` is a space in a query.
        ("series?to=2026-06-15T12:00:00+02:00", "to", "%2B"),
        ("series?from=2026-06-15T12:00:00", "from", "must be a date"),
        ("series?from=2026-06-15&to=2026-06-15", "from", "must lie before to"),
        ("series?from=2026-06-16&to=2026-06-15", "from", "must lie before to"),
        ("series?window=minute&from=2026-06-08T11:00:00Z", "from", "a series has at most 10080 points"),
        ("series?from=2024-01-01", "from", "must lie within 400 days of now"),
        ("series?to=2099-01-01", "to", "must lie within 400 days of now"),
        ("series?window=week", "window", "must be minute, hour, day or month"),
        ("series?feature=%20", "feature", "must be 1 to 128 printable ASCII characters"),
        ("series?timeZone=Berlin", "timeZone", "must be the name of a time zone, such as Europe/Berlin"),
        ("periods?limit=0", "limit", "must be a whole number from 1 to 120"),
        ("periods?limit=121", "limit", "must be a whole number from 1 to 120"),
        ("periods?from=2026-06-01", "from", "is not known here, but limit"),
    ];
    for (call, parameter, detail) in cases {
        let refused = server.get(&format!("/usage/acme/{call}")).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json["code"]),
            (422, &json!("invalid_parameter")),
            "{call}: {}",
            refused.body
        );
        let errors = refused.json["errors"].as_array().unwrap();
        assert_eq!((errors.len(), &errors[0]["field"]), (1, &json!(parameter)), "{call}");
        let said = refused.json["detail"].as_str().unwrap();
        assert!(said.starts_with(parameter) && said.contains(detail), "{call}: {said}");
    }
    let all = server.get("/usage/acme/series?window=week&timeZone=Mars&unit=1").await.json;
    let fields: Vec<_> = all["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["unit", "window", "timeZone"]);
    for call in ["series", "periods"] {
        let missing = server.get(&format!("/usage/globex/{call}")).await;
        assert_eq!(
            (missing.status.as_u16(), &missing.json["code"]),
            (404, &json!("tenant_not_found")),
            "{call}"
        );
        let away = server.get(&format!("/usage/acme/{call}")).await;
        assert_eq!((away.status.as_u16(), &away.json["code"]), (503, &json!("not_ready")), "{call}");
        assert_eq!(away.headers["retry-after"], "1");
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn periods_are_answered_newest_first_with_the_open_one_also_while_it_is_empty(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme", "globex"]).await;
    let events = [
        event("gpt-4", 1, "2026-04-30T23:59:59Z"),
        event("claude", 2, "2026-05-01T00:00:00Z"),
        event("gpt-4", 4, "2026-05-31T23:59:59Z"),
        event("gpt-4", 8, "2026-05-31T23:59:59Z"),
        testing::event("globex", 1_000),
    ];
    count(&pool, events).await;
    let may = json!({
        "periodStart": "2026-05-01T00:00:00Z", "periodEnd": "2026-06-01T00:00:00Z", "open": false,
        "totalTokens": 14, "events": 3,
        "features": [{ "feature": "claude", "totalTokens": 2 }, { "feature": "gpt-4", "totalTokens": 12 }],
    });
    let april = json!({
        "periodStart": "2026-04-01T00:00:00Z", "periodEnd": "2026-05-01T00:00:00Z", "open": false,
        "totalTokens": 1, "events": 1, "features": [{ "feature": "gpt-4", "totalTokens": 1 }],
    });
    let june = |tokens: i64, events: i64, features: Value| {
        json!({
            "periodStart": "2026-06-01T00:00:00Z", "periodEnd": "2026-07-01T00:00:00Z", "open": true,
            "totalTokens": tokens, "events": events, "features": features,
        })
    };
    let empty = june(0, 0, json!([]));
    let answer = server.get("/usage/acme/periods").await.json;
    let expected = json!({
        "tenant": "acme", "asOf": NOW, "lagMilliseconds": 0, "periods": [empty, may, april],
    });
    assert_eq!(answer, expected);
    assert_eq!(server.get("/usage/acme/periods?limit=2").await.json["periods"], json!([empty, may]));

    count(&pool, [event("gpt-4", 16, NOW)]).await;
    let open = june(16, 1, json!([{ "feature": "gpt-4", "totalTokens": 16 }]));
    assert_eq!(server.get("/usage/acme/periods?limit=2").await.json["periods"], json!([open, may]));
    assert_eq!(server.get("/usage/acme/periods?limit=1").await.json["periods"], json!([open]));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn both_are_csv_for_whoever_accepts_that_and_no_feature_is_a_formula(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    count(&pool, [event("=1+1", 1, NOW), event("a,\"b\"", 2, NOW)]).await;
    let csv = async |path: &str| {
        let answer = server.get_with(path, &[("accept", "text/csv")]).await;
        assert_eq!(
            answer.headers["content-type"], "text/csv; charset=utf-8; header=present",
            "{}",
            answer.body
        );
        assert_eq!(answer.headers["flagmeter-as-of"], NOW);
        assert_eq!(answer.headers["flagmeter-lag-milliseconds"], "0");
        assert_eq!(answer.headers["vary"], "accept");
        answer.body
    };
    let series = "/usage/acme/series?window=hour&from=2026-06-15T11:00:00Z&to=2026-06-15T13:00:00Z&feature=%3D1%2B1&timeZone=Europe/Berlin";
    assert_eq!(
        csv(series).await,
        "tenant,feature,start,end,totalTokens\r\n\
         acme,\"'=1+1\",2026-06-15T13:00:00+02:00,2026-06-15T14:00:00+02:00,0\r\n\
         acme,\"'=1+1\",2026-06-15T14:00:00+02:00,2026-06-15T15:00:00+02:00,1\r\n"
    );
    assert_eq!(
        csv("/usage/acme/periods").await,
        "tenant,periodStart,periodEnd,periodTokens,periodEvents,feature,featureTokens\r\n\
         acme,2026-06-01T00:00:00Z,2026-07-01T00:00:00Z,3,2,\"'=1+1\",1\r\n\
         acme,2026-06-01T00:00:00Z,2026-07-01T00:00:00Z,3,2,\"a,\"\"b\"\"\",2\r\n"
    );
    let names = server.get("/usage/acme/periods").await.json["periods"][0]["features"].clone();
    assert_eq!((&names[0]["feature"], &names[1]["feature"]), (&json!("=1+1"), &json!("a,\"b\"")));
    let refused = server.get_with("/usage/acme/series?from=x", &[("accept", "text/csv")]).await;
    assert_eq!(refused.headers["content-type"], "application/problem+json");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn the_lag_grows_while_no_worker_counts_and_is_none_once_all_is_counted(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let server = Server::at(Clock::system(), pool.clone(), testing::queue().unwrap()).await;
    let calls = ["/usage/acme", "/usage/acme/series", "/usage/acme/periods"];
    let lag = async |call: &str| server.get(call).await.json["lagMilliseconds"].as_i64();
    for call in calls {
        until("nothing waits", async || (lag(call).await == Some(0)).then_some(())).await;
    }
    server.post(r#"{"tenant":"acme","feature":"f","tokens":7}"#).await;
    for call in calls {
        for least in [1, 200] {
            until("the lag has grown", async || lag(call).await.filter(|lag| *lag > least)).await;
        }
    }
    // The numbers still tell of now, and not of when the last event was counted.
    let usage = server.get("/usage/acme").await.json;
    let of_event = server.queue.oldest().await.unwrap().unwrap();
    let as_of: jiff::Timestamp = usage["asOf"].as_str().unwrap().parse().unwrap();
    let lag_then = usage["lagMilliseconds"].as_i64().unwrap();
    assert_eq!(as_of.as_millisecond() - of_event.as_millisecond(), lag_then);

    server.queue.create_group().await.unwrap();
    let entries = server.queue.read("test", 10, Duration::from_millis(50)).await.unwrap();
    let batch = Batch::decode(entries[0].payload.as_ref().unwrap()).unwrap();
    let entry = Entry { entry_id: entries[0].entry_id.clone(), batch };
    Counter::new(pool).apply(std::slice::from_ref(&entry)).await.unwrap();
    server.queue.confirm(&[(&*entry.entry_id, 1)]).await.unwrap();
    for call in calls {
        // Whoever is told that nothing waits is told of all that was counted.
        let answer = until("nothing waits", async || {
            let answer = server.get(call).await.json;
            (answer["lagMilliseconds"] == 0).then_some(answer)
        })
        .await;
        let total = if call.ends_with("periods") { &answer["periods"][0] } else { &answer };
        assert_eq!(total["totalTokens"], 7, "{call}");
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn without_the_queue_usage_is_answered_and_its_lag_is_not_known(pool: PgPool) {
    let nowhere = EventQueue::new("redis://127.0.0.1:1").unwrap();
    let server = Server::with_queue(pool.clone(), &["acme"], nowhere).await;
    count(&pool, [event("f", 7, NOW)]).await;
    for call in ["/usage/acme", "/usage/acme/series"] {
        let answer = until("the usage is 7", async || {
            let answer = server.get(call).await.json;
            (answer["totalTokens"] == 7).then_some(answer)
        })
        .await;
        assert_eq!((&answer["asOf"], &answer["lagMilliseconds"]), (&json!(NOW), &Value::Null), "{call}");
    }
    let table = server.get_with("/usage/acme/periods", &[("accept", "text/csv")]).await;
    assert!(!table.headers.contains_key("flagmeter-lag-milliseconds"));
}

/// Keeps everybody from `table` until the transaction ends.
pub(crate) async fn lock(pool: &PgPool, table: &str) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut lock = testing::own_connection(pool).begin().await.unwrap();
    let statement = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *lock).await.unwrap();
    lock
}

/// Waits until exactly so many statements like `pattern` wait for a lock.
pub(crate) async fn wait_for_lock(pool: &PgPool, pattern: &str, statements: i64) {
    let pool = testing::own_connection(pool);
    until("they wait for the lock", async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1",
        )
        .bind(pattern)
        .fetch_one(&pool)
        .await
        .unwrap();
        (waiting == statements).then_some(())
    })
    .await;
}

/// The sums of one feature. The api's own are of all features.
const SUMS: &str = "%width_bucket%feature = $2%";

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_sum_that_takes_too_long_is_ended_and_those_who_waited_for_it_are_answered(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme", "globex", "initech"]).await;
    let lock = lock(&pool, "rollups").await;
    let sum = async |tenant: &str| server.get(&format!("/usage/{tenant}/series?feature=f")).await;
    let ended = async |tenant: &str| {
        let answer = sum(tenant).await;
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (503, &json!("overloaded")));
        assert!(answer.json["detail"].as_str().unwrap().contains("takes too long"), "{}", answer.body);
    };
    let meanwhile = async || {
        let taken = server.post(r#"{"tenant":"acme","feature":"f","tokens":7}"#).await;
        (taken.status.as_u16(), server.get("/usage/acme").await.status.as_u16())
    };
    let held = async {
        tokio::join!(ended("acme"), ended("globex"));
        lock.rollback().await.unwrap();
    };
    // Two tenants have both places; the third waits for one of them for as long as a sum may take.
    let (((), again), third, others) = tokio::join!(
        async {
            tokio::join!(held, async {
                wait_for_lock(&pool, SUMS, 2).await;
                sum("acme").await
            })
        },
        async {
            wait_for_lock(&pool, SUMS, 2).await;
            sum("initech").await
        },
        meanwhile()
    );
    assert_eq!((again.status.as_u16(), third.status.as_u16()), (200, 200), "{} {}", again.body, third.body);
    assert_eq!(others, (202, 200));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn one_who_asks_for_series_without_end_is_told_so_and_another_is_answered_in_the_time_of_one(
    pool: PgPool,
) {
    let server = Server::start(pool.clone(), &["acme", "globex"]).await;
    count(&pool, [testing::event("globex", 7)]).await;
    let lock = lock(&pool, "rollups").await;
    let answered = std::cell::Cell::new(0);
    let flood = futures::future::join_all((0..50).map(async |_| {
        let answer = server.get("/usage/acme/series?feature=gpt-4").await;
        answered.set(answered.get() + 1);
        answer
    }));
    let other = async {
        // One reads and eight wait; all others are refused while nothing moves.
        wait_for_lock(&pool, SUMS, 1).await;
        until("the others are refused", async || (answered.get() == 41).then_some(())).await;
        let (other, ()) = futures::join!(server.get("/usage/globex/series?feature=gpt-4"), async {
            wait_for_lock(&pool, SUMS, 2).await;
            lock.rollback().await.unwrap();
        });
        assert!(answered.get() < 45, "it waited for {} of the flood", answered.get() - 41);
        other
    };
    let (answers, other) = futures::join!(flood, other);
    assert_eq!((other.status.as_u16(), &other.json["totalTokens"]), (200, &json!(7)), "{}", other.body);
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status.as_u16() != 200).collect();
    assert_eq!(refused.len(), 41);
    for answer in refused {
        assert_eq!(
            (answer.status.as_u16(), &answer.json["code"]),
            (503, &json!("overloaded")),
            "{}",
            answer.body
        );
        assert_eq!(answer.headers["retry-after"], "1");
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn sums_that_json_numbers_cannot_hold_are_told_digit_by_digit(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    // As an earlier version could count: more than 2^53 - 1 in a period, and more in a day than 64 bits hold.
    sqlx::query(
        "WITH minutes AS (
             INSERT INTO rollups (tenant, feature, minute, total_tokens)
             SELECT 'acme', feature, minute::timestamptz, tokens
             FROM (VALUES ('f', '2026-06-13T12:00Z', 9223372036854775807), ('g', '2026-06-13T12:00Z', 9223372036854775807),
                          ('f', '2026-06-14T12:00Z', 9007199254740991), ('f', '2026-06-12T12:00Z', 9007199254740992))
                  AS row (feature, minute, tokens)
         ), shares AS (
             INSERT INTO usage_features (tenant, period_start, feature, total_tokens)
             VALUES ('acme', '2026-06-01T00:00Z', 'f', 9223372036854775807)
         )
         INSERT INTO usage_periods (tenant, period_start, period_end, total_tokens, events, last_minute)
         VALUES ('acme', '2026-06-01T00:00Z', '2026-07-01T00:00Z', 9223372036854775807, 4, '2026-06-14T12:00Z')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let range = "from=2026-06-12&to=2026-06-15";
    let series = server.get(&format!("/usage/acme/series?{range}")).await;
    assert_eq!(series.status.as_u16(), 200, "{}", series.body);
    let tokens: Vec<_> =
        series.json["points"].as_array().unwrap().iter().map(|point| &point["totalTokens"]).collect();
    let most = 9_007_199_254_740_991_i64;
    assert_eq!(tokens, [&json!("9007199254740992"), &json!("18446744073709551614"), &json!(most)]);
    assert_eq!(series.json["totalTokens"], "18464758472219033597");
    let one = server.get(&format!("/usage/acme/series?feature=f&window=month&{range}")).await.json;
    assert_eq!(one["points"][0]["totalTokens"], "9241386435364257790");
    let table = server.get_with(&format!("/usage/acme/series?{range}"), &[("accept", "text/csv")]).await;
    assert!(
        table.body.contains(",2026-06-13T00:00:00Z,2026-06-14T00:00:00Z,18446744073709551614\r\n"),
        "{}",
        table.body
    );

    let whole = json!("9223372036854775807");
    let period = &server.get("/usage/acme/periods").await.json["periods"][0];
    assert_eq!((&period["totalTokens"], &period["features"][0]["totalTokens"]), (&whole, &whole));
    let usage = until("the usage is seen", async || {
        let usage = server.get("/usage/acme").await.json;
        (usage["totalTokens"] != 0).then_some(usage)
    })
    .await;
    assert_eq!((&usage["totalTokens"], &usage["features"][0]["totalTokens"]), (&whole, &whole));
    assert_eq!(usage["remainingTokens"], 0);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_row_that_cannot_be_read_is_a_fault_of_ours_and_no_outage(pool: PgPool) {
    let server = Server::start(pool.clone(), &["acme"]).await;
    // Each of these tables now has rows that PostgreSQL cannot make (SQLSTATE 22012), and answers all the same.
    for (table, columns) in [
        (
            "rollups",
            "'acme' AS tenant, 'f' AS feature, '2026-06-14T12:00Z'::timestamptz AS minute, 1 / (random() * 0)::int AS total_tokens",
        ),
        (
            "event_ids",
            "1 / (random() * 0)::int AS one, 'acme' AS tenant, (1 / (random() * 0)::int)::text::uuid AS id, now() AS received_at",
        ),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(format!("ALTER TABLE {table} RENAME TO {table}_before")))
            .execute(&pool)
            .await
            .unwrap();
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE VIEW {table} AS SELECT {columns}")))
            .execute(&pool)
            .await
            .unwrap();
    }
    for call in ["/usage/acme/series", "/events/acme/order-7"] {
        let answer = server.get(call).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json["code"]),
            (500, &json!("internal")),
            "{call}: {}",
            answer.body
        );
    }
}
