//! Forgets what is kept long enough, by age and by bytes. Periods, and sums of everything, stay for ever.

use std::num::NonZero;

use flagmeter_core::retention::first_day_kept;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use uuid::Uuid;

use crate::{PgPool, StoreError};

/// For how long an entry that is counted is remembered after it has left the queue: nothing can deliver it
/// again after that.
const APPLIED_BATCHES: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Rows that one statement forgets: it is done in a fraction of a second.
const ROWS_AT_ONCE: i64 = 20_000;

/// Statements a round. What is left waits for the next one.
const STATEMENTS_AT_ONCE: u32 = 50;

/// How long what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Days that raw events are kept.
    pub events_days: u16,
    /// Bytes on disk that they may take; the oldest day goes first.
    pub events_bytes: u64,
    /// Days that clients' ids are known: the window in which a repeat counts once.
    pub event_ids_days: NonZero<u16>,
    /// Bytes on disk that those of UUIDv7 may take; the oldest day goes first.
    pub event_ids_bytes: u64,
    /// Days that minutes are kept.
    pub rollups_days: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            events_days: 35,
            events_bytes: 8 << 30,
            event_ids_days: const { NonZero::new(35).unwrap() },
            event_ids_bytes: 4 << 30,
            rollups_days: 400,
        }
    }
}

/// How far back something reaches, and how large it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// The start of its first day; `None` if there is nothing.
    pub since: Option<Timestamp>,
    /// Its bytes on disk, indexes among them.
    pub bytes: i64,
}

/// What is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Raw events.
    pub events: Window,
    /// Clients' ids that are UUIDv7.
    pub event_ids: Window,
}

/// Forgets what is older than `limits` allow at `now`. `oldest_queued` is when the oldest entry was
/// added that the queue may still deliver: ids and batches that it could bring again are kept, however old.
///
/// # Errors
///
/// [`StoreError::Postgres`]; what was forgotten by then is, and the same call may be made again.
pub async fn forget(
    pool: &PgPool,
    limits: &Limits,
    now: Timestamp,
    oldest_queued: Option<Timestamp>,
) -> Result<Kept, StoreError> {
    let reach = oldest_queued.map_or(now, |oldest| oldest.min(now));
    let events = partitions(pool, "events").await?;
    let first = first_day_kept(&events, day(now), limits.events_days, limits.events_bytes);
    sqlx::query_scalar!("SELECT forget_events($1::date)", first.to_sqlx() as jiff_sqlx::Date)
        .fetch_one(pool)
        .await
        .map_err(StoreError::postgres("forget events"))?;

    let ids = partitions(pool, "event_ids").await?;
    let first_id = first_day_kept(&ids, day(reach), limits.event_ids_days.get(), limits.event_ids_bytes);
    sqlx::query_scalar!("SELECT forget_event_ids($1::date)", first_id.to_sqlx() as jiff_sqlx::Date)
        .fetch_one(pool)
        .await
        .map_err(StoreError::postgres("forget ids of events"))?;
    forget_other_ids(pool, reach - days(limits.event_ids_days.get())).await?;
    forget_batches(pool, reach - APPLIED_BATCHES).await?;
    forget_rollups(pool, now - days(limits.rollups_days)).await?;
    Ok(Kept {
        events: window(&partitions(pool, "events").await?),
        event_ids: window(&partitions(pool, "event_ids").await?),
    })
}

fn days(days: u16) -> SignedDuration {
    SignedDuration::from_hours(i64::from(days) * 24)
}

fn day(instant: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(instant).date()
}

/// The days that a table has a partition of, oldest first, each with its bytes.
async fn partitions(pool: &PgPool, table: &str) -> Result<Vec<(Date, u64)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT day AS "day!: jiff_sqlx::Date", bytes AS "bytes!" FROM partitions_by_day($1::text::regclass)"#,
        table,
    )
    .fetch_all(pool)
    .await
    .map_err(StoreError::postgres("look at the partitions"))?;
    Ok(rows.into_iter().map(|row| (row.day.to_jiff(), row.bytes.unsigned_abs())).collect())
}

fn window(partitions: &[(Date, u64)]) -> Window {
    let first = partitions.first().and_then(|(day, _)| day.to_zoned(TimeZone::UTC).ok());
    let bytes: u64 = partitions.iter().map(|(_, bytes)| bytes).sum();
    Window { since: first.map(|day| day.timestamp()), bytes: i64::try_from(bytes).unwrap_or(i64::MAX) }
}

/// Ids that are no UUIDv7, received before `before`. They lie in one partition, so they go row by row, and
/// by age alone.
async fn forget_other_ids(pool: &PgPool, before: Timestamp) -> Result<(), StoreError> {
    for _ in 0..STATEMENTS_AT_ONCE {
        let gone = sqlx::query!(
            "DELETE FROM event_ids
             WHERE (id, tenant) IN (
                 SELECT id, tenant FROM event_ids_others WHERE received_at < $1::timestamptz LIMIT $2
             )",
            before.to_sqlx() as jiff_sqlx::Timestamp,
            ROWS_AT_ONCE,
        )
        .execute(pool)
        .await
        .map_err(StoreError::postgres("forget ids of events"))?;
        if gone.rows_affected() < ROWS_AT_ONCE.unsigned_abs() {
            break;
        }
    }
    Ok(())
}

/// Batches that were made before `before`: a batch's id starts with its milliseconds since 1970.
async fn forget_batches(pool: &PgPool, before: Timestamp) -> Result<(), StoreError> {
    let milliseconds = u128::try_from(before.as_millisecond()).unwrap_or(0);
    let first_kept = Uuid::from_u128(milliseconds << 80);
    for _ in 0..STATEMENTS_AT_ONCE {
        let gone = sqlx::query!(
            "DELETE FROM applied_batches
             WHERE batch_id IN (SELECT batch_id FROM applied_batches WHERE batch_id < $1 ORDER BY batch_id LIMIT $2)",
            first_kept,
            ROWS_AT_ONCE,
        )
        .execute(pool)
        .await
        .map_err(StoreError::postgres("forget applied batches"))?;
        if gone.rows_affected() < ROWS_AT_ONCE.unsigned_abs() {
            break;
        }
    }
    Ok(())
}

/// Minutes before `before`, but for their sums.
async fn forget_rollups(pool: &PgPool, before: Timestamp) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH gone AS (DELETE FROM rollups WHERE minute < $1::timestamptz RETURNING tenant, total_tokens)
         INSERT INTO forgotten (tenant, source, events, tokens)
         SELECT tenant, 'rollups', 0, sum(total_tokens) FROM gone GROUP BY tenant ORDER BY tenant
         ON CONFLICT (tenant, source) DO UPDATE SET tokens = forgotten.tokens + EXCLUDED.tokens",
        before.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .execute(pool)
    .await
    .map(drop)
    .map_err(StoreError::postgres("forget minutes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::audit::books;
    use crate::postgres::batch::{Applied, Counter, Entry};
    use crate::testing::{NOON, add_tenant, entry, event, with_id};

    /// An entry received `days` days after noon of the tests.
    fn received(number: u128, days: i64, events: [flagmeter_core::event::UsageEvent; 1]) -> Entry {
        let mut entry = entry(number, events);
        entry.batch.received_at = at(days);
        let milliseconds = u128::try_from(entry.batch.received_at.as_millisecond()).unwrap();
        entry.batch.batch_id = Uuid::from_u128((milliseconds << 80) | number);
        entry
    }

    fn at(days: i64) -> Timestamp {
        NOON.parse::<Timestamp>().unwrap() + SignedDuration::from_hours(days * 24)
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn what_is_old_is_forgotten_and_the_books_balance_all_the_same(pool: PgPool) {
        add_tenant(&pool, "acme").await;
        let counter = Counter::new(pool.clone());
        let seven = "019eca0c-5d1a-7000-8000-0123456789ab";
        let old = [
            received(1, 0, [with_id(event("acme", 1), seven)]),
            received(2, 0, [with_id(event("acme", 2), "order-7")]),
        ];
        counter.apply(&old).await.unwrap();
        counter.apply(&[received(3, 40, [event("acme", 4)])]).await.unwrap();

        // While the queue may still bring what was received then, its ids are known.
        let kept = forget(&pool, &Limits::default(), at(40), Some(at(1))).await.unwrap();
        assert_eq!(kept.events.since.unwrap().to_string(), "2026-07-25T00:00:00Z");
        let again = [
            received(4, 40, [with_id(event("acme", 1), seven)]),
            received(5, 40, [with_id(event("acme", 2), "order-7")]),
        ];
        assert_eq!(counter.apply(&again).await.unwrap(), Applied { repeated: 2, ..Applied::default() });
        assert_eq!(counter.apply(&old).await.unwrap().entries_seen_before, 2);

        forget(&pool, &Limits { rollups_days: 35, ..Limits::default() }, at(40), None).await.unwrap();
        let count = async |table: &str| {
            let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
            sqlx::query_scalar::<_, i64>(query).fetch_one(&pool).await.unwrap()
        };
        // What happened on the first day is gone in detail: the minute, the ids, the batches.
        assert_eq!((count("events").await, count("event_ids").await, count("rollups").await), (1, 0, 0));
        assert_eq!(count("applied_batches").await, 3);
        let book = books(&pool).await.unwrap().remove(0);
        assert!(book.balances(), "{book:?}");
        assert_eq!((book.events, book.event_tokens, book.period_tokens), (3, 7, 7));
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn where_the_disk_is_too_small_the_oldest_day_goes_first(pool: PgPool) {
        add_tenant(&pool, "acme").await;
        let counter = Counter::new(pool.clone());
        for day in 0..3 {
            counter
                .apply(&[received(u128::try_from(day).unwrap() + 1, day, [event("acme", 1)])])
                .await
                .unwrap();
        }
        let all = forget(&pool, &Limits::default(), at(2), None).await.unwrap();
        assert_eq!(all.events.since.unwrap().to_string(), "2026-06-15T00:00:00Z");
        let limits = Limits { events_bytes: all.events.bytes.unsigned_abs() - 1, ..Limits::default() };
        let less = forget(&pool, &limits, at(2), None).await.unwrap();
        assert_eq!(less.events.since.unwrap().to_string(), "2026-06-16T00:00:00Z");
        assert!(less.events.bytes < all.events.bytes);
    }
}
