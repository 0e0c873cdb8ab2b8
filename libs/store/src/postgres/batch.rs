//! The one transaction that counts.
//!
//! ids first (`applied_batches`, `event_ids`), then `events`, then the totals, each written in key order, so that two
//! workers never deadlock. What comes a second time finds its id and changes nothing. Thresholds that the periods
//! reached come last.

use std::collections::BTreeSet;
use std::ops::AddAssign;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flagmeter_core::event::UsageEvent;
use flagmeter_core::packed::Batch;
use flagmeter_core::rollup::RollupBatch;
use foldhash::HashSet;
use jiff::civil::Date;
use jiff::{Timestamp, tz::TimeZone};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::event_ids::Expected;
use super::{alerts, billing, dead_letters, event_ids, events, period_totals, totals};
use crate::{PgPool, StoreError};

/// How long one attempt may take. A batch takes milliseconds, an entry of which every event is refused some seconds.
const ATTEMPT_LIMIT: Duration = Duration::from_mins(5);

/// How often a batch is begun again because of what other workers did at the same moment, before the caller waits.
const ATTEMPTS: u32 = 8;

/// An entry of the queue, read.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The queue's id for it.
    pub entry_id: String,
    /// Its events.
    pub batch: Batch,
}

/// What became of the events of some entries.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Counted, each for the first time.
    pub counted: u64,
    /// Not counted, because their id had been.
    pub repeated: u64,
    /// Those of the repeated that say something else than what was counted.
    pub conflicting: u64,
    /// Kept in `dead_letters` with the reason.
    pub dead_lettered: u64,
    /// Entries that had been applied before, with whatever was in them.
    pub entries_seen_before: u64,
}

impl AddAssign for Applied {
    fn add_assign(&mut self, other: Self) {
        self.counted += other.counted;
        self.repeated += other.repeated;
        self.conflicting += other.conflicting;
        self.dead_lettered += other.dead_lettered;
        self.entries_seen_before += other.entries_seen_before;
    }
}

/// An event on its way into the tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) event: &'a UsageEvent,
    pub(super) id: Uuid,
    pub(super) received_at: Timestamp,
    pub(super) batch_id: Uuid,
    pub(super) entry_id: &'a str,
}

impl Row<'_> {
    /// A checksum of what the event says was used. Its time is no part of it: a client that leaves that to
    /// the api sends the same event with another time.
    pub(super) fn content(&self) -> i32 {
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(self.event.feature.as_str().as_bytes());
        checksum.update(&self.event.signed_tokens().to_be_bytes());
        checksum.finalize().cast_signed()
    }
}

/// Counts entries. Remembers which days have a partition, and how much care the last batch took.
pub struct Counter {
    pool: PgPool,
    days: Mutex<Days>,
    /// What the last batch brought, the next may bring too.
    care: Mutex<Care>,
}

/// The days that have a partition.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Days {
    /// Of `events`: those on which something was received.
    events: BTreeSet<Date>,
    /// Of `event_ids`: those on which a UUIDv7 was made.
    ids: BTreeSet<Date>,
}

/// What a batch is expected to bring. What is not expected fails the whole transaction, which is then begun again with
/// care; care costs time.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Care {
    /// Ids that were counted before.
    repeats: bool,
    /// Events that their billing period has no room for.
    full_periods: bool,
}

/// How to go about events that PostgreSQL refuses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// All events at once; any fault fails all.
    Whole(Care),
    /// Inside savepoints, halving what fails until the bad events are alone.
    Isolating,
}

impl Counter {
    /// A counter over `pool`.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool, days: Mutex::default(), care: Mutex::default() }
    }

    /// Makes the partitions for `day` and the one after it, ahead of time.
    ///
    /// # Errors
    ///
    /// [`StoreError::Postgres`]; the same call may be made again.
    pub async fn prepare(&self, day: Date) -> Result<(), StoreError> {
        let days = BTreeSet::from([day, day.tomorrow().unwrap_or(day)]);
        self.ensure(Days { events: days.clone(), ids: days }).await
    }

    /// Counts the events of `entries`, each exactly once.
    ///
    /// One transaction, whose statements do not grow in number with the batch. The api made each
    /// `batch_id`, so an entry that comes again (a crash, a claim from a worker that was only slow,
    /// an `XADD` sent twice) adds nothing. A client's event id counts once, whichever entry brings it.
    ///
    /// An event that its billing period has no room for goes to `dead_letters` in the same transaction. If PostgreSQL
    /// refuses an event for another reason, entries are counted in transactions of their own: the good ones first,
    /// then the others, whose bad events go to `dead_letters`. What is committed stays so, whatever comes after it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Postgres`]; some entries may have been counted. Either way the same call may be made again.
    pub async fn apply(&self, entries: &[Entry]) -> Result<Applied, StoreError> {
        let events = || entries.iter().flat_map(|entry| &entry.batch.events);
        self.ensure(Days {
            events: entries.iter().map(|entry| day_of(entry.batch.received_at)).collect(),
            ids: event_ids::days(events().filter_map(UsageEvent::ledger_key)),
        })
        .await?;
        match self.count_whole(entries).await {
            Err(error) if error.is_missing_partition() => {
                // Somebody dropped it. The next call makes it again.
                *lock(&self.days) = Days::default();
                Err(error)
            }
            Err(error) if error.is_in_the_data() => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "isolating the events that PostgreSQL refuses"
                );
                self.isolate(entries).await
            }
            outcome => outcome,
        }
    }

    /// Counts `entries` by one transaction, begun again with more care where that is what it takes.
    async fn count_whole(&self, entries: &[Entry]) -> Result<Applied, StoreError> {
        let mut care = *lock(&self.care);
        let mut attempt = 1;
        loop {
            match self.attempt(entries, Attempt::Whole(care)).await {
                // An id that was counted before, or a total that another worker began at the same moment.
                Err(error) if error.is_duplicate_key() && attempt < ATTEMPTS => care.repeats = true,
                // A period is full, or another worker filled it at the same moment.
                Err(error) if error.is_too_large_a_sum() && attempt < ATTEMPTS => care.full_periods = true,
                outcome => return outcome,
            }
            attempt += 1;
        }
    }

    /// Counts the entries that PostgreSQL takes, halving those that it does not take together, then the others event by
    /// event. Each step commits by itself.
    async fn isolate(&self, entries: &[Entry]) -> Result<Applied, StoreError> {
        let mut applied = Applied::default();
        let mut refused = Vec::new();
        let mut parts = vec![entries];
        while let Some(part) = parts.pop() {
            match self.count_whole(part).await {
                Ok(counted) => applied += counted,
                Err(error) if error.is_in_the_data() => {
                    if part.len() == 1 {
                        refused.push(part);
                    } else {
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        for entry in refused {
            applied += self.attempt(entry, Attempt::Isolating).await?;
        }
        Ok(applied)
    }

    /// One attempt, which ends: if PostgreSQL's machine vanished without a word, no answer ever comes, and the
    /// connection is given up.
    async fn attempt(&self, entries: &[Entry], attempt: Attempt) -> Result<Applied, StoreError> {
        let failed = StoreError::postgres("count a batch");
        let mut connection = self.pool.acquire().await.map_err(&failed)?;
        let ending = Box::pin(self.attempt_on(&mut connection, entries, attempt));
        tokio::time::timeout(ATTEMPT_LIMIT, ending).await.unwrap_or_else(|_| {
            connection.close_on_drop();
            Err(failed(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
        })
    }

    async fn attempt_on(
        &self,
        connection: &mut PgConnection,
        entries: &[Entry],
        attempt: Attempt,
    ) -> Result<Applied, StoreError> {
        let failed = StoreError::postgres("count a batch");
        let mut tx = connection.begin().await.map_err(&failed)?;
        let new = claim(&mut tx, entries).await?;
        let mut applied =
            Applied { entries_seen_before: (entries.len() - new.len()) as u64, ..Applied::default() };
        let rows: Vec<Row<'_>> = new.into_iter().flat_map(rows_of).collect();

        // Until the commit no setting of these tenants changes, and none is deleted.
        let settings = billing::lock(&mut tx, &rows).await?;
        let (rows, homeless) = settings.split(rows);
        dead_letters::add(&mut tx, &homeless, "tenant_deleted").await?;

        let care = attempt.care();
        let expected = if care.repeats { Expected::Repeats } else { Expected::New };
        let event_ids::Claimed { rows, repeated, conflicting } =
            event_ids::claim(&mut tx, rows, expected).await?;
        (applied.repeated, applied.conflicting) = (repeated, conflicting);

        let (rows, too_many) = if care.full_periods {
            period_totals::split(&mut tx, &settings, rows).await?
        } else {
            (rows, Vec::new())
        };
        dead_letters::add(&mut tx, &too_many, "period_full").await?;

        let refused = match attempt {
            Attempt::Whole(_) => count(&mut tx, &settings, &rows).await.map(|()| 0)?,
            Attempt::Isolating => isolate(&mut tx, &settings, &rows).await?,
        };
        applied.dead_lettered = (homeless.len() + too_many.len()) as u64 + refused;
        applied.counted = rows.len() as u64 - refused;
        tx.commit().await.map_err(&failed)?;
        *lock(&self.care) = Care { repeats: repeated > 0, full_periods: !too_many.is_empty() };
        Ok(applied)
    }

    async fn ensure(&self, wanted: Days) -> Result<(), StoreError> {
        let known = lock(&self.days).clone();
        for day in wanted.events.difference(&known.events) {
            events::ensure_partition(&self.pool, *day).await?;
            lock(&self.days).events.insert(*day);
        }
        for day in wanted.ids.difference(&known.ids) {
            event_ids::ensure_partition(&self.pool, *day).await?;
            lock(&self.days).ids.insert(*day);
        }
        Ok(())
    }
}

impl Attempt {
    fn care(self) -> Care {
        match self {
            Self::Whole(care) => care,
            Self::Isolating => Care { repeats: true, full_periods: true },
        }
    }
}

/// What a lock guards is whole at any moment, so a panic while it was held spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The UTC day that `instant` lies in: partitions follow it.
pub(super) fn day_of(instant: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(instant).date()
}

/// The number of that day since 1970: the same, sooner.
pub(super) fn unix_day(instant: Timestamp) -> i64 {
    instant.as_second().div_euclid(24 * 60 * 60)
}

fn rows_of(entry: &Entry) -> impl Iterator<Item = Row<'_>> {
    let row = |(index, event)| Row {
        event,
        id: entry.batch.event_id(index),
        received_at: entry.batch.received_at,
        batch_id: entry.batch.batch_id,
        entry_id: &entry.entry_id,
    };
    entry.batch.events.iter().enumerate().map(row)
}

/// The entries that were never applied, each once.
///
/// The claim comes first. An insert waits for another transaction that holds the same key, so a
/// second delivery waits for the first to end, and claims nothing if that one committed.
async fn claim<'a>(tx: &mut PgConnection, entries: &'a [Entry]) -> Result<Vec<&'a Entry>, StoreError> {
    let batch_ids: Vec<Uuid> = entries.iter().map(|entry| entry.batch.batch_id).collect();
    let mut claimed: HashSet<Uuid> = sqlx::query_scalar!(
        "INSERT INTO applied_batches (batch_id)
         SELECT DISTINCT batch_id
         FROM UNNEST($1::uuid[]) AS entry (batch_id)
         ORDER BY batch_id
         ON CONFLICT DO NOTHING
         RETURNING batch_id",
        &batch_ids,
    )
    .fetch_all(tx)
    .await
    .map_err(StoreError::postgres("claim batches"))?
    .into_iter()
    .collect();
    // `remove` is true once an id: both copies of an XADD sent twice may be in one read.
    Ok(entries.iter().filter(|entry| claimed.remove(&entry.batch.batch_id)).collect())
}

/// Writes `rows` to every table they count in.
async fn count(
    tx: &mut PgConnection,
    settings: &billing::Settings,
    rows: &[Row<'_>],
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let fold = || {
        let batch = RollupBatch::of(rows.iter().map(|row| row.event))?;
        let (periods, features) = batch.periods(|tenant, minute| settings.period(tenant, minute.start()))?;
        Ok::<_, StoreError>((batch, periods, features))
    };
    let (batch, periods, features) = events::add(tx, rows, fold).await??;
    let totals = totals::add(tx, &batch, &periods, &features).await?;
    period_totals::check(&periods, &totals)?;
    alerts::watch(tx, settings, &periods, &totals).await
}

/// Counts what can be counted of an entry, and puts the rest into `dead_letters`; answers how many that were. Each
/// tenant's events by themselves, so that those of one are never held against another.
async fn isolate(
    tx: &mut PgConnection,
    settings: &billing::Settings,
    rows: &[Row<'_>],
) -> Result<u64, StoreError> {
    let failed = StoreError::postgres("isolate a bad event");
    let mut refused = 0;
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| row.event.tenant.as_str());
    let mut parts: Vec<&[Row<'_>]> =
        rows.chunk_by(|one, next| one.event.tenant == next.event.tenant).rev().collect();
    while let Some(part) = parts.pop() {
        let mut savepoint = tx.begin().await.map_err(&failed)?;
        match count(&mut savepoint, settings, part).await {
            Ok(()) => savepoint.commit().await.map_err(&failed)?,
            Err(error) if error.is_in_the_data() => {
                savepoint.rollback().await.map_err(&failed)?;
                if let [_] = part {
                    dead_letters::add(tx, part, "refused_by_database").await?;
                    refused += 1;
                } else {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

#[cfg(test)]
mod tests;
