//! Batches of events, made in memory, and how fast they are written.

use std::time::{Duration, Instant};

use anyhow::Result;
use flagmeter_core::event::{EventId, UsageEvent};
use flagmeter_core::packed::Batch;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::batch::{Counter, Entry};
use uuid::{NoContext, Uuid};

use crate::traffic::{FEATURES, TENANTS, feature, tenant};

/// Events of an entry: what a flush holds at some hundred connections.
const ENTRY: usize = 100;

/// Which ids the events bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ids {
    None,
    Seven,
    Random,
}

/// Counts batches of `size` events for `duration`, as a worker does: the entries are decoded on the way.
pub(super) async fn count(
    counter: &Counter,
    size: usize,
    ids: Ids,
    duration: Duration,
    clock: Clock,
) -> Result<(u64, Duration)> {
    let source = Source::new(clock)?;
    let (mut events, mut elapsed) = (0, Duration::ZERO);
    while elapsed < duration {
        let packed: Vec<Vec<u8>> = source.batches(size, ids)?.iter().map(Batch::encode).collect();
        let start = Instant::now();
        let entries: Vec<Entry> = packed
            .iter()
            .map(|bytes| Ok(Entry { entry_id: String::new(), batch: Batch::decode(bytes)? }))
            .collect::<Result<_>>()?;
        events += counter.apply(&entries).await?.counted;
        elapsed += start.elapsed();
    }
    Ok((events, elapsed))
}

/// Counts `size` events that came one by one, and says how long that took.
pub(super) async fn count_few(counter: &Counter, size: usize, clock: Clock) -> Result<Duration> {
    let source = Source::new(clock)?;
    let entry = |number| {
        let mut batch = source.batch(number, Ids::None)?;
        batch.events.truncate(1);
        Ok(Entry { entry_id: String::new(), batch })
    };
    let entries: Vec<Entry> = (0..size).map(entry).collect::<Result<_>>()?;
    let start = Instant::now();
    counter.apply(&entries).await?;
    Ok(start.elapsed())
}

/// Writes the same rows without counting them.
pub(super) async fn plain(
    pool: &PgPool,
    size: usize,
    duration: Duration,
    clock: Clock,
    write: impl AsyncFn(&PgPool, &[Batch]) -> Result<u64>,
) -> Result<(u64, Duration)> {
    let source = Source::new(clock)?;
    let (mut events, mut elapsed) = (0, Duration::ZERO);
    while elapsed < duration {
        let batches = source.batches(size, Ids::None)?;
        let start = Instant::now();
        events += write(pool, &batches).await?;
        elapsed += start.elapsed();
    }
    Ok((events, elapsed))
}

/// Where entries come from, at next to no cost beside what is measured.
struct Source {
    clock: Clock,
    /// Of every tenant and feature, and as many again as an entry has.
    events: Vec<UsageEvent>,
}

impl Source {
    fn new(clock: Clock) -> Result<Self> {
        let occurred_at = clock.now();
        let event = |number: usize| -> Result<UsageEvent> {
            Ok(UsageEvent {
                tenant: tenant(number).try_into()?,
                feature: feature(number / TENANTS).try_into()?,
                tokens: i64::try_from(100 + number % 900)?.try_into()?,
                id: None,
                occurred_at,
                reverses: None,
            })
        };
        Ok(Self { clock, events: (0..TENANTS * FEATURES + ENTRY).map(event).collect::<Result<_>>()? })
    }

    /// Entries of `size` events in all, received now; together they have every tenant and feature.
    fn batches(&self, size: usize, ids: Ids) -> Result<Vec<Batch>> {
        (0..size / ENTRY).map(|number| self.batch(number * ENTRY % (TENANTS * FEATURES), ids)).collect()
    }

    fn batch(&self, first: usize, ids: Ids) -> Result<Batch> {
        let now = self.clock.now();
        let received_at = jiff::Timestamp::from_microsecond(now.as_microsecond())?;
        let mut events = self.events[first..first + ENTRY].to_vec();
        for event in &mut events {
            event.occurred_at = received_at;
            event.id = match ids {
                Ids::None => None,
                Ids::Seven => Some(EventId::from_uuid(seven(now))),
                Ids::Random => Some(EventId::from_uuid(random(now))),
            };
        }
        Ok(Batch { batch_id: seven(now), received_at, events })
    }
}

fn seven(now: jiff::Timestamp) -> Uuid {
    let seconds = now.as_second().unsigned_abs();
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, now.subsec_nanosecond().unsigned_abs()))
}

/// The random half of a UUIDv7 first, and version 4.
fn random(now: jiff::Timestamp) -> Uuid {
    let bits = seven(now).as_u128().rotate_left(64);
    Uuid::from_u128((bits & !(0xf << 76)) | (0x4 << 76))
}
