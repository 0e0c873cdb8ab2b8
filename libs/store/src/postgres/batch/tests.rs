//! Counting, on a real PostgreSQL.

use std::sync::Arc;

use flagmeter_core::quota::MAX_TOKENS;

use flagmeter_core::event::EventId;

use super::*;
use crate::postgres::audit::{Book, books};
use crate::postgres::lookup::{self, Found};
use crate::testing::{add_tenant, entry, event, reversal_of, with_id};

/// The tenant's book, which must balance.
async fn book(pool: &PgPool, tenant: &str) -> Book {
    let book = books(pool).await.unwrap().into_iter().find(|book| book.tenant == tenant).unwrap();
    assert!(book.balances(), "{book:?}");
    book
}

async fn reasons(pool: &PgPool) -> Vec<(String, String)> {
    let rows = sqlx::query!(
        "SELECT reason, COALESCE(event ->> 'tokens', '') AS \"tokens!\" FROM dead_letters ORDER BY id"
    );
    rows.fetch_all(pool).await.unwrap().into_iter().map(|row| (row.reason, row.tokens)).collect()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_entry_delivered_twice_counts_once(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    let delivered = entry(1, [event("acme", 100)]);
    // Both copies in one read, and a third later.
    let applied = counter.apply(&[delivered.clone(), delivered.clone()]).await.unwrap();
    assert_eq!(applied, Applied { counted: 1, entries_seen_before: 1, ..Applied::default() });
    let applied = counter.apply(&[delivered]).await.unwrap();
    assert_eq!(applied, Applied { entries_seen_before: 1, ..Applied::default() });
    assert_eq!(book(&pool, "acme").await.event_tokens, 100);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_client_that_sends_an_id_again_counts_once_and_another_tenant_may_use_it_too(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    add_tenant(&pool, "globex").await;
    let counter = Counter::new(pool.clone());
    let first = entry(1, [with_id(event("acme", 100), "order-7"), event("acme", 1)]);
    let again = entry(2, [with_id(event("acme", 100), "order-7"), with_id(event("globex", 7), "order-7")]);
    let applied = counter.apply(&[first, again]).await.unwrap();
    assert_eq!(applied, Applied { counted: 3, repeated: 1, ..Applied::default() });
    let later = entry(3, [with_id(event("acme", 100), "order-7")]);
    assert_eq!(counter.apply(&[later]).await.unwrap().repeated, 1);
    assert_eq!(book(&pool, "acme").await.event_tokens, 101);
    assert_eq!(book(&pool, "globex").await.event_tokens, 7);
}

/// Lets PostgreSQL refuse every event of the feature `bad`, as it refuses none that the api accepts.
async fn refuse_bad_features(pool: &PgPool) {
    let statement = "ALTER TABLE events ADD CONSTRAINT no_bad_feature CHECK (feature <> 'bad')";
    sqlx::query(statement).execute(pool).await.unwrap();
}

fn bad(event: UsageEvent) -> UsageEvent {
    UsageEvent { feature: "bad".try_into().unwrap(), ..event }
}

/// `events` times the largest event there is, 30 days before noon of the tests: in the billing period before.
fn largest(number: u128, events: usize) -> Entry {
    let occurred_at = "2026-05-16T12:00:00Z".parse().unwrap();
    let mut entry = entry(number, []);
    entry.batch.events = vec![UsageEvent { occurred_at, ..event("poisonous", MAX_TOKENS) }; events];
    entry
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_event_that_postgresql_refuses_is_isolated_and_the_others_count(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    refuse_bad_features(&pool).await;
    let counter = Counter::new(pool.clone());
    let mixed = entry(2, [event("acme", 5), event("acme", 40), bad(event("acme", 3)), event("acme", 6)]);
    let applied = counter.apply(std::slice::from_ref(&mixed)).await.unwrap();
    assert_eq!(applied, Applied { counted: 3, dead_lettered: 1, ..Applied::default() });
    assert_eq!(reasons(&pool).await, [("refused_by_database".to_owned(), "3".to_owned())]);
    assert_eq!(book(&pool, "acme").await.events, 3);
    assert_eq!(counter.apply(&[mixed]).await.unwrap().entries_seen_before, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn good_entries_are_counted_whatever_becomes_of_a_bad_one_beside_them(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    refuse_bad_features(&pool).await;
    // What is isolated cannot be kept, as on a full disk.
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON dead_letters EXECUTE FUNCTION refuse();",
    )
    .execute(&pool)
    .await
    .unwrap();
    let counter = Counter::new(pool.clone());
    let entries = [
        entry(1, [event("acme", 1)]),
        entry(2, [event("acme", 2), bad(event("acme", 4))]),
        entry(3, [event("acme", 8)]),
    ];
    assert!(counter.apply(&entries).await.is_err());
    assert_eq!(book(&pool, "acme").await.event_tokens, 9);
    sqlx::query("DROP TRIGGER refuse ON dead_letters").execute(&pool).await.unwrap();
    let applied = counter.apply(&entries).await.unwrap();
    assert_eq!(
        applied,
        Applied { counted: 1, dead_lettered: 1, entries_seen_before: 2, ..Applied::default() }
    );
    assert_eq!(book(&pool, "acme").await.event_tokens, 11);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn events_that_no_period_has_room_for_cost_the_other_tenants_nothing(pool: PgPool) {
    for tenant in ["acme", "poisonous"] {
        add_tenant(&pool, tenant).await;
    }
    let counter = Counter::new(pool.clone());
    let mut kept = 0;
    for (number, events) in [(1, 1_000), (2, 24), (3, 1_000), (4, 6_000)] {
        let other = entry(100 + number, [event("acme", 1)]);
        let applied = counter.apply(&[largest(number, events), other]).await.unwrap();
        kept += applied.dead_lettered;
        assert_eq!(applied.counted + applied.dead_lettered, events as u64 + 1);
    }
    assert_eq!(kept, 8_023);
    assert_eq!(book(&pool, "acme").await.event_tokens, 4);
    let poisonous = book(&pool, "poisonous").await;
    assert_eq!((poisonous.event_tokens, poisonous.dead_letters), (MAX_TOKENS.into(), 8_023));
    let reasons: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT reason FROM dead_letters").fetch_all(&pool).await.unwrap();
    assert_eq!(reasons, ["period_full"]);
    // No savepoint and no halving: two transactions of the first batch were begun in vain, none of the others.
    let applied = counter.apply(&[largest(5, 1), entry(200, [event("poisonous", 7)])]).await.unwrap();
    assert_eq!(applied, Applied { counted: 1, dead_lettered: 1, ..Applied::default() });
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn two_workers_that_fill_one_period_never_exceed_it(pool: PgPool) {
    add_tenant(&pool, "poisonous").await;
    let half = |number| {
        let mut entry = largest(number, 1);
        entry.batch.events[0].tokens = (MAX_TOKENS / 3).try_into().unwrap();
        entry
    };
    let workers = (0..4_u128).map(|worker| {
        let counter = Counter::new(pool.clone());
        tokio::spawn(async move {
            let mut applied = Applied::default();
            for number in 1..=5 {
                applied += counter.apply(&[half(worker * 100 + number)]).await.unwrap();
            }
            applied
        })
    });
    let mut all = Applied::default();
    for worker in workers.collect::<Vec<_>>() {
        all += worker.await.unwrap();
    }
    assert_eq!(all, Applied { counted: 3, dead_lettered: 17, ..Applied::default() });
    assert_eq!(book(&pool, "poisonous").await.event_tokens, (MAX_TOKENS / 3 * 3).into());
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_reversal_makes_room_in_a_period_that_is_full(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    let large = with_id(event("acme", MAX_TOKENS), "large");
    counter.apply(&[entry(1, [large.clone()])]).await.unwrap();
    let applied = counter.apply(&[entry(2, [event("acme", 1)])]).await.unwrap();
    assert_eq!(applied, Applied { dead_lettered: 1, ..Applied::default() });
    counter.apply(&[entry(3, [reversal_of(&large), event("acme", 1)])]).await.unwrap();
    assert_eq!(book(&pool, "acme").await.event_tokens, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn one_tenants_sums_are_never_too_large_for_the_books_of_all(pool: PgPool) {
    for tenant in ["acme", "huge"] {
        add_tenant(&pool, tenant).await;
    }
    let counter = Counter::new(pool.clone());
    counter.apply(&[entry(1, [event("acme", 7), event("huge", 1)])]).await.unwrap();
    // As an earlier version could count it.
    for table in ["events", "rollups", "usage_periods", "usage_features"] {
        let column = if table == "events" { "tokens" } else { "total_tokens" };
        let largest = format!("UPDATE {table} SET {column} = {} WHERE tenant = 'huge'", i64::MAX);
        sqlx::query(sqlx::AssertSqlSafe(largest)).execute(&pool).await.unwrap();
    }
    sqlx::query(
        "INSERT INTO forgotten (tenant, source, events, tokens)
         SELECT 'huge', source, 1, 9223372036854775807 FROM UNNEST('{events,rollups}'::text[]) AS source",
    )
    .execute(&pool)
    .await
    .unwrap();
    let books = books(&pool).await.unwrap();
    let tokens: Vec<(&str, i128)> =
        books.iter().map(|book| (book.tenant.as_str(), book.event_tokens)).collect();
    assert_eq!(tokens, [("acme", 7), ("huge", 2 * i128::from(i64::MAX))]);
    assert_eq!(books.iter().map(Book::balances).collect::<Vec<_>>(), [true, false]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_event_of_a_tenant_that_is_gone_is_kept_with_the_reason(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    let mixed = entry(1, [event("gone", 9), event("acme", 1)]);
    let applied = counter.apply(&[mixed]).await.unwrap();
    assert_eq!(applied, Applied { counted: 1, dead_lettered: 1, ..Applied::default() });
    assert_eq!(reasons(&pool).await, [("tenant_deleted".to_owned(), "9".to_owned())]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn minutes_and_periods_follow_the_events_time_and_the_tenants_calendar(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    sqlx::query("UPDATE tenants SET billing_day = 31, time_zone = 'America/New_York'")
        .execute(&pool)
        .await
        .unwrap();
    let counter = Counter::new(pool.clone());
    let at = |tokens, at: &str| UsageEvent { occurred_at: at.parse().unwrap(), ..event("acme", tokens) };
    // The 31st of May starts at 04:00 UTC in New York; June has no 31st, so the next is the 30th.
    let late = entry(
        1,
        [at(1, "2026-05-31T03:59:59Z"), at(2, "2026-05-31T04:00:00Z"), at(4, "2026-06-15T12:00:59Z")],
    );
    counter.apply(&[late]).await.unwrap();
    let periods = sqlx::query!(
        r#"SELECT period_start::text AS "start!", period_end::text AS "end!", total_tokens, events, last_minute::text AS "last!"
           FROM usage_periods ORDER BY period_start"#
    );
    let periods: Vec<_> = periods
        .fetch_all(&pool)
        .await
        .unwrap()
        .into_iter()
        .map(|row| (row.start, row.end, row.total_tokens, row.events, row.last))
        .collect();
    let row = |start: &str, end: &str, tokens, events, last: &str| {
        (start.to_owned(), end.to_owned(), tokens, events, last.to_owned())
    };
    assert_eq!(
        periods,
        [
            row("2026-04-30 04:00:00+00", "2026-05-31 04:00:00+00", 1, 1, "2026-05-31 03:59:00+00"),
            row("2026-05-31 04:00:00+00", "2026-06-30 04:00:00+00", 6, 2, "2026-06-15 12:00:00+00"),
        ]
    );
    book(&pool, "acme").await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn four_workers_with_the_same_entries_at_once_count_each_once(pool: PgPool) {
    for tenant in ["a", "b", "c"] {
        add_tenant(&pool, tenant).await;
    }
    let entries: Vec<Entry> = (1..=40_u128)
        .map(|number| {
            let id = format!("id-{}", number % 25);
            entry(number, [event("c", 1), with_id(event("a", 10), &id), event("b", 100)])
        })
        .collect();
    let counter = Arc::new(Counter::new(pool.clone()));
    let workers = (0..4).map(|worker| {
        let (counter, mut entries) = (Arc::clone(&counter), entries.clone());
        // Each begins elsewhere, so that they meet with different rows in hand.
        entries.rotate_left(worker * 10);
        tokio::spawn(async move {
            let mut counted = 0;
            for part in entries.chunks(5) {
                counted += counter.apply(part).await.unwrap().counted;
            }
            counted
        })
    });
    let mut counted = 0;
    for worker in workers.collect::<Vec<_>>() {
        counted += worker.await.unwrap();
    }
    assert_eq!(counted, 40 + 25 + 40);
    assert_eq!(book(&pool, "a").await.event_tokens, 250);
    assert_eq!(book(&pool, "b").await.event_tokens, 4_000);
    assert_eq!(book(&pool, "c").await.event_tokens, 40);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_minute_that_another_worker_begins_at_the_same_moment_counts_for_both(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let mut other = pool.begin().await.unwrap();
    sqlx::raw_sql(
        "INSERT INTO rollups (tenant, feature, minute, total_tokens)
         VALUES ('acme', 'gpt-4', '2026-06-15T12:00:00Z', 5)",
    )
    .execute(&mut *other)
    .await
    .unwrap();
    let counter = Counter::new(pool.clone());
    let counting = tokio::spawn(async move { counter.apply(&[entry(1, [event("acme", 100)])]).await });
    until_one_waits_for_another(&pool).await;
    other.commit().await.unwrap();
    let applied = counting.await.unwrap().unwrap();
    assert_eq!(applied, Applied { counted: 1, ..Applied::default() });
    let tokens: i64 = sqlx::query_scalar("SELECT total_tokens FROM rollups").fetch_one(&pool).await.unwrap();
    assert_eq!(tokens, 105);
}

/// Waits until a transaction waits for what another has written.
async fn until_one_waits_for_another(pool: &PgPool) {
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')";
    let found = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(pool).await.unwrap() {
            tokio::task::yield_now().await;
        }
    });
    found.await.expect("nobody waits");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_partition_that_somebody_dropped_is_made_again_and_nothing_is_dead_lettered(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    counter.apply(&[entry(1, [event("acme", 1)])]).await.unwrap();
    sqlx::query("DROP TABLE events_20260615").execute(&pool).await.unwrap();
    let second = [entry(2, [event("acme", 2)])];
    assert!(counter.apply(&second).await.is_err());
    assert_eq!(counter.apply(&second).await.unwrap(), Applied { counted: 1, ..Applied::default() });
    assert_eq!(reasons(&pool).await, []);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn ids_of_every_kind_count_once_and_a_uuidv7_lies_in_the_partition_of_its_day(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    let ids = ["order-7", "0b934f6e-7d1a-4000-8000-0123456789ab", "019eca0c-5d1a-7000-8000-0123456789ab"];
    let events = || ids.map(|id| with_id(event("acme", 1), id));
    let applied = counter.apply(&[entry(1, events()), entry(2, events())]).await.unwrap();
    assert_eq!(applied, Applied { counted: 3, repeated: 3, ..Applied::default() });
    let partitions: Vec<(String, i64)> =
        sqlx::query_as("SELECT tableoid::regclass::text, count(*) FROM event_ids GROUP BY 1 ORDER BY 1")
            .fetch_all(&pool)
            .await
            .unwrap();
    let day = day_of(EventId::of(ids[2]).made_at().unwrap()).strftime("event_ids_%Y%m%d").to_string();
    assert_eq!(partitions, [(day, 1), ("event_ids_others".to_owned(), 2)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn uuids_that_are_alike_but_for_a_byte_are_two_events(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    // UUIDv1 of one machine, 2^24 of their ticks apart.
    let ids = ["0c934f6e-7d1a-11f1-8000-0123456789ab", "0d934f6e-7d1a-11f1-8000-0123456789ab"];
    let events = ids.map(|id| with_id(event("acme", 1), id));
    let applied = Counter::new(pool).apply(&[entry(1, events)]).await.unwrap();
    assert_eq!(applied, Applied { counted: 2, ..Applied::default() });
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_two_events_with_one_id_the_first_counts_and_what_the_other_said_is_kept(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    let first = with_id(event("acme", 100), "order-7");
    // The same with a later time is a repeat and no conflict: the api gave it that time.
    let later = UsageEvent { occurred_at: "2026-06-15T12:07:00Z".parse().unwrap(), ..first.clone() };
    let other = with_id(event("acme", 999), "order-7");
    let applied = counter.apply(&[entry(1, [first, later, other])]).await.unwrap();
    assert_eq!(applied, Applied { counted: 1, repeated: 2, conflicting: 1, ..Applied::default() });
    let Some(Found::Counted(found)) = lookup::find(&pool, "acme", EventId::of("order-7")).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((found.tokens, found.conflict.map(|other| other.tokens)), (100, Some(999)));
    assert_eq!(book(&pool, "acme").await.event_tokens, 100);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn one_repeat_among_thousands_of_new_ids_is_found_and_the_others_count(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    let named = |numbers: std::ops::Range<usize>, batch: u128| {
        let mut entry = entry(batch, []);
        entry.batch.events =
            numbers.map(|number| with_id(event("acme", 1), &format!("order-{number}"))).collect();
        entry
    };
    counter.apply(&[named(0..1, 1)]).await.unwrap();
    // Copied as new, found out, done again with care; and the next are as new as they seem.
    let applied = counter.apply(&[named(0..3_000, 2)]).await.unwrap();
    assert_eq!(applied, Applied { counted: 2_999, repeated: 1, ..Applied::default() });
    for (numbers, batch) in [(3_000..6_000, 3), (6_000..9_000, 4)] {
        let applied = counter.apply(&[named(numbers, batch)]).await.unwrap();
        assert_eq!(applied, Applied { counted: 3_000, ..Applied::default() });
    }
    assert_eq!(book(&pool, "acme").await.event_tokens, 9_000);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_event_that_is_taken_back_twice_is_taken_back_once(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    let wrong = with_id(event("acme", 100), "order-7");
    counter.apply(&[entry(1, [wrong.clone(), event("acme", 5)])]).await.unwrap();
    let back = reversal_of(&wrong);
    let applied = counter.apply(&[entry(2, [back.clone()]), entry(3, [back])]).await.unwrap();
    assert_eq!(applied, Applied { counted: 1, repeated: 1, ..Applied::default() });
    let book = book(&pool, "acme").await;
    assert_eq!((book.events, book.event_tokens), (3, 5));
    let Some(Found::Counted(found)) = lookup::find(&pool, "acme", EventId::of("order-7")).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((found.tokens, found.reversed_at), (100, Some(crate::testing::NOON.parse().unwrap())));
    // It is still known under its id: sent once more, it does not count.
    assert_eq!(counter.apply(&[entry(4, [wrong])]).await.unwrap().repeated, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_event_without_a_clients_id_is_found_under_the_one_it_was_given(pool: PgPool) {
    add_tenant(&pool, "acme").await;
    let counter = Counter::new(pool.clone());
    let mut delivered = entry(1, [event("acme", 1), event("acme", 2), event("gone", 3)]);
    let milliseconds = u128::try_from(delivered.batch.received_at.as_millisecond()).unwrap();
    delivered.batch.batch_id = Uuid::from_u128(milliseconds << 80 | 7 << 76 | 2 << 62);
    counter.apply(std::slice::from_ref(&delivered)).await.unwrap();
    let id = |index| EventId::from_uuid(delivered.batch.event_id(index));
    let Some(Found::Counted(found)) = lookup::find(&pool, "acme", id(1)).await.unwrap() else { panic!() };
    assert_eq!(found.tokens, 2);
    assert_eq!(lookup::find(&pool, "globex", id(1)).await.unwrap(), None);
    assert_eq!(lookup::find(&pool, "acme", EventId::of("never")).await.unwrap(), None);
    let lost = lookup::find(&pool, "gone", id(2)).await.unwrap();
    assert!(matches!(lost, Some(Found::DeadLettered { reason, .. }) if reason == "tenant_deleted"));
}
