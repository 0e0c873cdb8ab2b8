use flagmeter_core::event::{EventId, UsageEvent};

use super::*;
use crate::postgres::audit::books;
use crate::postgres::batch::{Applied, Counter, Entry};
use crate::postgres::lookup::{self, Found};
use crate::testing::{NOON, add_tenant, entry, event, reversal_of, with_id};

/// A UUIDv7 made on the first day.
const SEVEN: &str = "019eca0c-5d1a-7000-8000-0123456789ab";

/// An entry received `days` days after noon of the tests.
fn received(number: u128, days: i64, events: [UsageEvent; 1]) -> Entry {
    let mut entry = entry(number, events);
    entry.batch.received_at = at(days);
    let milliseconds = u128::try_from(entry.batch.received_at.as_millisecond()).unwrap();
    entry.batch.batch_id = Uuid::from_u128((milliseconds << 80) | number);
    entry
}

fn at(days: i64) -> Timestamp {
    NOON.parse::<Timestamp>().unwrap() + SignedDuration::from_hours(days * 24)
}

/// Forgets what `limits` allow, every api having been told before.
async fn forget_all(pool: &PgPool, limits: Limits, now: Timestamp, oldest_queued: Option<Timestamp>) -> Kept {
    let since = ids_since(pool, &limits, now, oldest_queued).await.unwrap();
    forget(pool, &limits, now, oldest_queued, since).await.unwrap();
    kept(pool, since).await.unwrap()
}

async fn count(pool: &PgPool, table: &str) -> i64 {
    let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_old_is_forgotten_and_the_books_balance_all_the_same(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    let old = [
        received(1, 0, [with_id(event("acme", 1), SEVEN)]),
        received(2, 0, [with_id(event("acme", 2), "order-7")]),
    ];
    counter.apply(&old).await.unwrap();
    counter.apply(&[received(3, 40, [event("acme", 4)])]).await.unwrap();

    // While the queue may still bring what was received then, its ids are known.
    let kept = forget_all(&pool, Limits::default(), at(40), Some(at(1))).await;
    assert_eq!(kept.events.since.unwrap().to_string(), "2026-07-25T00:00:00Z");
    let again = [
        received(4, 40, [with_id(event("acme", 1), SEVEN)]),
        received(5, 40, [with_id(event("acme", 2), "order-7")]),
    ];
    assert_eq!(counter.apply(&again).await.unwrap(), Applied { repeated: 2, ..Applied::default() });
    assert_eq!(counter.apply(&old).await.unwrap().entries_seen_before, 2);

    forget_all(&pool, Limits { rollups_days: 35, ..Limits::default() }, at(40), None).await;
    // What happened on the first day is gone in detail: the minute, the ids, the batches.
    let left = (count(&pool, "events").await, count(&pool, "event_ids").await, count(&pool, "rollups").await);
    assert_eq!(left, (1, 0, 0));
    assert_eq!(count(&pool, "applied_batches").await, 3);
    let book = books(&pool).await.unwrap().remove(0);
    assert!(book.balances(), "{book:?}");
    assert_eq!((book.events, book.event_tokens, book.period_tokens), (3, 7, 7));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn where_the_disk_is_too_small_the_oldest_day_goes_first(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    for day in 0..3 {
        let number = u128::try_from(day).unwrap() + 1;
        counter.apply(&[received(number, day, [event("acme", 1)])]).await.unwrap();
    }
    let all = forget_all(&pool, Limits::default(), at(2), None).await;
    assert_eq!(all.events.since.unwrap().to_string(), "2026-06-15T00:00:00Z");
    let limits = Limits { events_bytes: all.events.bytes.unsigned_abs() - 1, ..Limits::default() };
    let less = forget_all(&pool, limits, at(2), None).await;
    assert_eq!(less.events.since.unwrap().to_string(), "2026-06-16T00:00:00Z");
    assert!(less.events.bytes < all.events.bytes);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn ids_of_any_kind_have_one_budget_and_one_window(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    for day in 0..4 {
        let mut batch = received(u128::try_from(day).unwrap() + 1, day, [event("acme", 1)]);
        batch.batch.events =
            (0..5_000).map(|number| with_id(event("acme", 1), &format!("order-{day}-{number}"))).collect();
        counter.apply(&[batch]).await.unwrap();
    }
    // As autovacuum does by itself, some time after that.
    sqlx::query("ANALYZE event_ids_others").execute(&pool).await.unwrap();
    let all = forget_all(&pool, Limits::default(), at(3), None).await;
    assert_eq!(all.event_ids.since.unwrap().to_string(), "2026-06-15T00:00:00Z");
    let real: i64 = sqlx::query_scalar("SELECT pg_total_relation_size('event_ids_others')")
        .fetch_one(&pool)
        .await
        .unwrap();
    let estimate = all.event_ids.bytes;
    assert!((real / 2..real * 2).contains(&estimate), "{estimate} of really {real}");

    // Room for a little more than two of the four days.
    let limits = Limits { event_ids_bytes: estimate.unsigned_abs() * 5 / 8, ..Limits::default() };
    let since = ids_since(&pool, &limits, at(3), None).await.unwrap();
    assert_eq!(since, "2026-06-17T00:00:00Z".parse().unwrap());
    forget_all(&pool, limits, at(3), None).await;
    assert_eq!(count(&pool, "event_ids").await, 10_000);
    // What is within the window is known, and what is not counts again.
    let again = |number, text: &str| [received(number, 3, [with_id(event("acme", 1), text)])];
    assert_eq!(counter.apply(&again(10, "order-2-7")).await.unwrap().repeated, 1);
    assert_eq!(counter.apply(&again(11, "order-1-7")).await.unwrap().counted, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_uuidv7_is_forgotten_only_when_it_is_refused(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    counter.apply(&[received(1, 0, [with_id(event("acme", 1), SEVEN)])]).await.unwrap();
    // The apis have not been told yet, so that they may bring it again.
    forget(&pool, &Limits::default(), at(40), None, at(-35)).await.unwrap();
    let kept = kept(&pool, at(-35)).await.unwrap();
    assert_eq!(kept.event_ids.since.unwrap().to_string(), "2026-06-15T00:00:00Z");
    let again = [received(2, 40, [with_id(event("acme", 1), SEVEN)])];
    assert_eq!(counter.apply(&again).await.unwrap().repeated, 1);
    forget_all(&pool, Limits::default(), at(40), None).await;
    assert_eq!(count(&pool, "event_ids").await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_event_stays_taken_back_for_as_long_as_it_is_found(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    let used = with_id(event("acme", 900), "order-7");
    counter.apply(&[received(1, 0, [used.clone()])]).await.unwrap();
    counter.apply(&[received(2, 1, [reversal_of(&used)])]).await.unwrap();
    let limits = Limits { event_ids_days: const { NonZero::new(7).unwrap() }, ..Limits::default() };
    forget_all(&pool, limits, at(10), None).await;
    assert_eq!(count(&pool, "event_ids_others").await, 0);
    let again = [received(3, 10, [reversal_of(&used)])];
    assert_eq!(counter.apply(&again).await.unwrap(), Applied { repeated: 1, ..Applied::default() });
    assert_eq!(books(&pool).await.unwrap()[0].period_tokens, 0);
    forget_all(&pool, limits, at(40), None).await;
    assert_eq!(count(&pool, "event_ids").await, 0);
    assert_eq!(lookup::find(&pool, "acme", EventId::of("order-7")).await.unwrap(), None::<Found>);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn workers_that_forget_at_once_do_not_wait_for_each_other(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    for (number, day) in [(1, 0), (2, 1), (3, 40)] {
        counter.apply(&[received(number, day, [event("acme", 1)])]).await.unwrap();
    }
    // Another is at it, as far as the sum of a day.
    let mut slow = pool.begin().await.unwrap();
    for statement in [
        "SELECT pg_advisory_xact_lock(hashtext('flagmeter.forget_events'))",
        "LOCK TABLE events_20260615 IN SHARE MODE",
    ] {
        sqlx::query(statement).execute(&mut *slow).await.unwrap();
    }
    let kept = forget_all(&pool, Limits::default(), at(40), None);
    let kept = tokio::time::timeout(std::time::Duration::from_secs(20), kept).await.unwrap();
    assert_eq!(kept.events.since.unwrap().to_string(), "2026-06-15T00:00:00Z");
    slow.commit().await.unwrap();
    let kept = forget_all(&pool, Limits::default(), at(40), None).await;
    assert_eq!(kept.events.since.unwrap().to_string(), "2026-07-25T00:00:00Z");
    assert!(books(&pool).await.unwrap()[0].balances());
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_long_reader_keeps_partitions_from_coming_and_nobody_from_counting(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    counter.apply(&[received(1, 0, [event("acme", 1)])]).await.unwrap();
    let mut dump = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE events IN ACCESS SHARE MODE").execute(&mut *dump).await.unwrap();
    let batch = [received(2, 0, [event("acme", 2)])];
    let (prepared, applied) = tokio::join!(counter.prepare(day(at(1))), counter.apply(&batch));
    assert_eq!(applied.unwrap().counted, 1);
    // It gave up, and is tried again.
    prepared.unwrap_err();
    dump.commit().await.unwrap();
    counter.prepare(day(at(1))).await.unwrap();
    assert_eq!(count(&pool, "pg_class WHERE relname IN ('events_20260616', 'events_20260617')").await, 2);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn dead_letters_are_kept_for_their_days_and_within_their_bytes_and_then_as_a_number(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    let mut gone = received(1, 0, [event("gone", 9)]);
    gone.batch.events = vec![event("gone", 9); 3_000];
    counter.apply(&[gone]).await.unwrap();
    sqlx::raw_sql(
        "UPDATE dead_letters SET tenant = 'acme' WHERE id % 3 = 0;
         UPDATE dead_letters SET created_at = '2026-03-01T00:00:00Z' WHERE id <= 30;",
    )
    .execute(&pool)
    .await
    .unwrap();
    // What is old goes; nothing is remembered of tenants that are gone themselves.
    let kept = forget_all(&pool, Limits::default(), at(0), None).await;
    assert_eq!(count(&pool, "dead_letters").await, 2_970);
    let remembered: Vec<(String, i64)> =
        sqlx::query_as("SELECT tenant, events FROM forgotten WHERE source = 'dead_letters'")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(remembered, [("acme".to_owned(), 10)]);
    assert!(kept.dead_letters.since.unwrap() > at(0), "{kept:?}");

    // Of what takes too much the oldest goes.
    forget_all(&pool, Limits { dead_letters_bytes: 100_000, ..Limits::default() }, at(0), None).await;
    let left = count(&pool, "dead_letters").await;
    assert!((100..300).contains(&left), "{left}");
    let (first, last): (i64, i64) =
        sqlx::query_as("SELECT min(id), max(id) FROM dead_letters").fetch_one(&pool).await.unwrap();
    assert_eq!((last, last - first + 1), (3_000, left));
    let book = books(&pool).await.unwrap().into_iter().find(|book| book.tenant == "acme").unwrap();
    assert_eq!(book.dead_letters, 1_000);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_cannot_be_forgotten_keeps_nothing_else_from_being_forgotten(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    counter.apply(&[received(1, 0, [event("acme", 1)])]).await.unwrap();
    let refuse = "ALTER TABLE forgotten ADD CHECK (source <> 'events')";
    sqlx::query(refuse).execute(&pool).await.unwrap();
    let (limits, now) = (Limits { rollups_days: 35, ..Limits::default() }, at(100));
    let failed = forget(&pool, &limits, now, None, now).await.unwrap_err();
    assert!(failed.to_string().contains("forget events"), "{failed}");
    let left = (count(&pool, "events").await, count(&pool, "rollups").await);
    assert_eq!((left, count(&pool, "applied_batches").await), ((1, 0), 0));
}
