//! Forgets what is kept long enough, by age and by bytes. Periods, and sums of everything, stay for ever.

use std::collections::BTreeMap;
use std::num::NonZero;

use flagmeter_core::event::MAX_AGE;
use flagmeter_core::retention::first_day_kept;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::dead_letters;
use super::turns::Turns;
use crate::{PgPool, StoreError};

/// For how long an entry that is counted is remembered after it has left the queue: nothing can deliver it
/// again after that.
const APPLIED_BATCHES: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Rows that one statement forgets: it is done in a fraction of a second.
pub(super) const ROWS_AT_ONCE: i64 = 20_000;

/// Statements a round. What is left waits for the next one.
pub(super) const STATEMENTS_AT_ONCE: u32 = 50;

/// How long what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Days that raw events are kept.
    pub events_days: u16,
    /// Bytes on disk that they may take; the oldest day goes first.
    pub events_bytes: u64,
    /// Days that clients' ids are known: the window in which a repeat counts once.
    pub event_ids_days: NonZero<u16>,
    /// Bytes on disk that they may take; the oldest day goes first.
    pub event_ids_bytes: u64,
    /// Days that minutes are kept.
    pub rollups_days: u16,
    /// Days that events are kept which could not be counted.
    pub dead_letters_days: u16,
    /// Bytes that they may take; the oldest go first.
    pub dead_letters_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            events_days: 35,
            events_bytes: 8 << 30,
            event_ids_days: const { NonZero::new(35).unwrap() },
            event_ids_bytes: 4 << 30,
            rollups_days: 400,
            dead_letters_days: 90,
            dead_letters_bytes: 256 << 20,
        }
    }
}

impl Limits {
    /// The fewest days that minutes must be kept: an event that is found may be taken back, from a minute that is up to
    /// [`MAX_AGE`] before the day on which it was received. A day more for each of the two that are not over.
    #[must_use]
    pub fn least_rollups_days(&self) -> u16 {
        let age = u16::try_from(MAX_AGE.as_hours() / 24).unwrap_or(u16::MAX);
        self.events_days.saturating_add(age).saturating_add(2)
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
    /// Clients' ids: since when a repeat is found.
    pub event_ids: Window,
    /// Events that could not be counted: since the oldest was put there.
    pub dead_letters: Window,
}

/// Since when clients' ids are to be known: as `limits` allow at `now`, and never later than whatever the queue may still
/// deliver needs, of which the oldest entry was added at `oldest_queued`.
///
/// # Errors
///
/// [`StoreError::Postgres`].
pub async fn ids_since(
    pool: &PgPool,
    limits: &Limits,
    now: Timestamp,
    oldest_queued: Option<Timestamp>,
) -> Result<Timestamp, StoreError> {
    let days = ids_by_day(pool).await?;
    let today = day(reach(now, oldest_queued));
    Ok(start(first_day_kept(&days, today, limits.event_ids_days.get(), limits.event_ids_bytes)))
}

/// Forgets what is older than `limits` allow at `now`. `oldest_queued` is when the oldest entry was
/// added that the queue may still deliver: ids and batches that it could bring again are kept, however old.
///
/// UUIDv7 are forgotten that were made before `refused_before`, since when every api refuses them: it takes none whose
/// repeat would not be found. Other ids do not say when they were made, and go by when they were received.
///
/// # Errors
///
/// [`StoreError::Postgres`]: the first of the parts that failed; the others had their turn unless PostgreSQL is away. The
/// same call may be made again.
pub async fn forget(
    pool: &PgPool,
    limits: &Limits,
    now: Timestamp,
    oldest_queued: Option<Timestamp>,
    refused_before: Timestamp,
) -> Result<(), StoreError> {
    let reach = reach(now, oldest_queued);
    let mut turns = Turns::default();
    turns.took(forget_days_of_events(pool, limits, now).await)?;
    turns.took(forget_days_of_ids(pool, day(refused_before)).await)?;
    if let Some(since) = turns.took(ids_since(pool, limits, now, oldest_queued).await)? {
        let since = since.max(reach - days(limits.event_ids_days.get()));
        turns.took(forget_rows(pool, "event_ids_others", since).await)?;
    }
    // An event is found to the end of its last day, and may be taken back as late as that.
    let found_since = reach - days(limits.events_days) - days(1);
    turns.took(forget_rows(pool, "event_ids_reversals", found_since).await)?;
    turns.took(forget_rows(pool, "event_conflicts", found_since).await)?;
    turns.took(forget_batches(pool, reach - APPLIED_BATCHES).await)?;
    turns.took(forget_rollups(pool, now - days(limits.rollups_days)).await)?;
    let oldest_dead = now - days(limits.dead_letters_days);
    turns.took(dead_letters::forget(pool, oldest_dead, limits.dead_letters_bytes).await)?;
    turns.end()
}

/// What is there, whether or not all was forgotten that may be. Apis refuse UUIDv7 from before `refused_before`.
///
/// # Errors
///
/// [`StoreError::Postgres`].
pub async fn kept(pool: &PgPool, refused_before: Timestamp) -> Result<Kept, StoreError> {
    let mut event_ids = window(&ids_by_day(pool).await?);
    event_ids.since = event_ids.since.map(|since| since.max(refused_before));
    let events = window(&partitions(pool, "events").await?);
    Ok(Kept { events, event_ids, dead_letters: dead_letters::window(pool).await? })
}

/// The oldest instant of which the queue may still bring something.
fn reach(now: Timestamp, oldest_queued: Option<Timestamp>) -> Timestamp {
    oldest_queued.map_or(now, |oldest| oldest.min(now))
}

/// Forgets the days of events that `limits` do not allow.
async fn forget_days_of_events(pool: &PgPool, limits: &Limits, now: Timestamp) -> Result<(), StoreError> {
    let events = partitions(pool, "events").await?;
    let first = first_day_kept(&events, day(now), limits.events_days, limits.events_bytes);
    while forget_events(pool, first).await? {}
    Ok(())
}

/// Forgets the days of UUIDv7 before `first`.
async fn forget_days_of_ids(pool: &PgPool, first: Date) -> Result<(), StoreError> {
    while forget_event_ids(pool, first).await? {}
    Ok(())
}

/// Forgets the oldest day of events before `first`; answers whether there was one.
async fn forget_events(pool: &PgPool, first: Date) -> Result<bool, StoreError> {
    let forgotten = sqlx::query_scalar!(
        r#"SELECT forget_events($1::date) AS "days!""#,
        first.to_sqlx() as jiff_sqlx::Date
    )
    .fetch_one(pool)
    .await
    .map_err(StoreError::postgres("forget events"))?;
    Ok(forgotten > 0)
}

/// Forgets the oldest day of UUIDv7 before `first`; answers whether there was one.
async fn forget_event_ids(pool: &PgPool, first: Date) -> Result<bool, StoreError> {
    let forgotten = sqlx::query_scalar!(
        r#"SELECT forget_event_ids($1::date) AS "days!""#,
        first.to_sqlx() as jiff_sqlx::Date
    )
    .fetch_one(pool)
    .await
    .map_err(StoreError::postgres("forget ids of events"))?;
    Ok(forgotten > 0)
}

fn days(days: u16) -> SignedDuration {
    SignedDuration::from_hours(i64::from(days) * 24)
}

fn day(instant: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(instant).date()
}

/// The first instant of a UTC day.
fn start(day: Date) -> Timestamp {
    TimeZone::UTC.to_timestamp(day.to_datetime(Time::midnight())).unwrap_or(Timestamp::MIN)
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

/// The bytes of clients' ids by their day: of UUIDv7 the one on which they were made, of others the one on which they
/// were received.
async fn ids_by_day(pool: &PgPool) -> Result<Vec<(Date, u64)>, StoreError> {
    let mut days: BTreeMap<Date, u64> = partitions(pool, "event_ids").await?.into_iter().collect();
    let others =
        sqlx::query!(r#"SELECT day AS "day!: jiff_sqlx::Date", bytes AS "bytes!" FROM other_ids_by_day()"#)
            .fetch_all(pool)
            .await
            .map_err(StoreError::postgres("look at the ids of events"))?;
    for row in others {
        *days.entry(row.day.to_jiff()).or_default() += row.bytes.unsigned_abs();
    }
    Ok(days.into_iter().collect())
}

fn window(days: &[(Date, u64)]) -> Window {
    let bytes: u64 = days.iter().map(|(_, bytes)| bytes).sum();
    Window {
        since: days.first().map(|(day, _)| start(*day)),
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
    }
}

/// Forgets rows of `table` that were received before `before`, some at a time.
async fn forget_rows(pool: &PgPool, table: &'static str, before: Timestamp) -> Result<(), StoreError> {
    // By the places of the rows: no index has to be looked at again, and no other partition.
    let statement = format!(
        "DELETE FROM {table}
         WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE received_at < $1 LIMIT $2))"
    );
    for _ in 0..STATEMENTS_AT_ONCE {
        let gone = sqlx::query(AssertSqlSafe(statement.as_str()))
            .bind(before.to_sqlx())
            .bind(ROWS_AT_ONCE)
            .execute(pool)
            .await
            .map_err(StoreError::postgres("forget what was received long ago"))?;
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

/// Minutes before `before`, but for their sums, some at a time.
async fn forget_rollups(pool: &PgPool, before: Timestamp) -> Result<(), StoreError> {
    for _ in 0..STATEMENTS_AT_ONCE {
        let gone = sqlx::query_scalar!(
            r#"WITH gone AS (
                   DELETE FROM rollups
                   WHERE ctid = ANY (ARRAY(SELECT ctid FROM rollups WHERE minute < $1::timestamptz LIMIT $2 FOR UPDATE))
                   RETURNING tenant, total_tokens
               ), summed AS (
                   INSERT INTO forgotten (tenant, source, events, tokens)
                   SELECT tenant, 'rollups', 0, sum(total_tokens) FROM gone GROUP BY tenant ORDER BY tenant
                   ON CONFLICT (tenant, source) DO UPDATE SET tokens = forgotten.tokens + EXCLUDED.tokens
               )
               SELECT count(*) AS "gone!" FROM gone"#,
            before.to_sqlx() as jiff_sqlx::Timestamp,
            ROWS_AT_ONCE,
        )
        .fetch_one(pool)
        .await
        .map_err(StoreError::postgres("forget minutes"))?;
        if gone < ROWS_AT_ONCE {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
