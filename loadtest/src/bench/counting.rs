//! The worker's transaction, fed from memory with packed entries, and plainer ways to write the same rows.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use flagmeter_runtime::clock::Clock;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::batch::Counter;

use super::Extent;
use super::writing::{Ids, count, plain};
use crate::baseline::heap;
use crate::books::Books;
use crate::report::Report;
use crate::row::{Goal, figure};
use crate::stores::Stores;

/// What is written how, in events a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Copy(usize),
    Unnest(usize),
    Count(usize, Ids),
    /// Two at once.
    Twice(usize),
}

/// In this order in every round.
const WAYS: [Way; 13] = [
    Way::Copy(1_000),
    Way::Count(1_000, Ids::None),
    Way::Copy(5_000),
    Way::Count(5_000, Ids::None),
    Way::Twice(5_000),
    Way::Count(5_000, Ids::None),
    Way::Count(5_000, Ids::Seven),
    Way::Unnest(5_000),
    Way::Copy(10_000),
    Way::Count(10_000, Ids::None),
    Way::Count(10_000, Ids::Seven),
    Way::Count(10_000, Ids::Random),
    Way::Copy(10_000),
];

pub(crate) async fn measure(stores: &Stores, extent: Extent, report: &mut Report) -> Result<()> {
    let counter = Arc::new(Counter::new(stores.counting.clone()));
    let clock = Clock::system();
    let mut rounds: Vec<Vec<(Way, f64)>> = Vec::new();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    warm_up(stores, &counter, extent.write_run / 2, clock).await?;
    for round in 1..=extent.rounds {
        println!("counting, round {round} of {}", extent.rounds);
        let mut speeds = Vec::new();
        for way in WAYS {
            let mut books = Books::default();
            let (events, elapsed) = match way {
                Way::Copy(size) => plain(&stores.pool, size, extent.write_run, clock, heap::copy).await?,
                Way::Unnest(size) => plain(&stores.pool, size, extent.write_run, clock, heap::unnest).await?,
                Way::Count(size, ids) => count(&counter, size, ids, extent.write_run, clock).await?,
                Way::Twice(size) => {
                    let other = Arc::clone(&counter);
                    let other =
                        tokio::spawn(
                            async move { count(&other, size, Ids::None, extent.write_run, clock).await },
                        );
                    let (events, elapsed) = count(&counter, size, Ids::None, extent.write_run, clock).await?;
                    let (others, longer) = other.await??;
                    (events + others, elapsed.max(longer))
                }
            };
            if let Way::Count(..) | Way::Twice(_) = way {
                books.note_counted(events);
                if way == Way::Count(10_000, Ids::None) {
                    without.push(bytes(&stores.pool).await? / events as f64);
                }
                if way == Way::Count(10_000, Ids::Seven) {
                    with.push(bytes(&stores.pool).await? / events as f64);
                }
                report.balances.push(books.close(stores).await?);
            } else {
                heap::clear(&stores.pool).await?;
            }
            speeds.push((way, events as f64 / elapsed.as_secs_f64()));
        }
        rounds.push(speeds);
    }

    let ratio = |way: Way, to: Way| -> Vec<f64> {
        rounds.iter().map(|speeds| mean(speeds, way) / mean(speeds, to)).collect()
    };
    let no_ids = |size, floor, aim| {
        let what = format!("worker, no client ids ÷ raw COPY, {} a batch", figure(size as f64));
        Goal::at_least(&format!("count_{size}"), &what, floor, aim)
            .row(ratio(Way::Count(size, Ids::None), Way::Copy(size)))
    };
    let seven = |size, floor, aim| {
        let what = format!("worker, every event with a UUIDv7 ÷ raw COPY, {} a batch", figure(size as f64));
        Goal::at_least(&format!("count_ids_{size}"), &what, floor, aim)
            .row(ratio(Way::Count(size, Ids::Seven), Way::Copy(size)))
    };
    report.rows.extend([
        no_ids(1_000, 0.30, 0.50),
        no_ids(5_000, 0.42, 0.65),
        no_ids(10_000, 0.50, 0.75),
        seven(5_000, 0.18, 0.30),
        seven(10_000, 0.20, 0.35),
        Goal::told("count_random_10000", "worker, random ids on an empty ledger ÷ raw COPY, 10,000 a batch")
            .row(ratio(Way::Count(10_000, Ids::Random), Way::Copy(10_000))),
        Goal::told(
            "unnest",
            "UNNEST … ON CONFLICT with a unique id, counting nothing ÷ raw COPY, 5,000 a batch",
        )
        .row(ratio(Way::Unnest(5_000), Way::Copy(5_000))),
        Goal::at_least("two_workers", "two workers ÷ one", 1.4, 1.9)
            .row(ratio(Way::Twice(5_000), Way::Count(5_000, Ids::None))),
        Goal::at_most("bytes", "disk bytes an event, without client id", 105.0, 98.0)
            .in_unit("B")
            .row(without),
        Goal::at_most("bytes_id", "disk bytes an event, with client id", 240.0, 185.0).in_unit("B").row(with),
        Goal::told("copy_10000", "for scale: raw COPY, 10,000 a batch")
            .in_unit("events/s")
            .row(rounds.iter().map(|speeds| mean(speeds, Way::Copy(10_000))).collect()),
    ]);
    Ok(())
}

/// Opens connections, makes partitions and plans: none of it is what a batch costs.
async fn warm_up(stores: &Stores, counter: &Counter, duration: Duration, clock: Clock) -> Result<()> {
    for ids in [Ids::None, Ids::Seven, Ids::Random] {
        let (events, _) = count(counter, 1_000, ids, duration, clock).await?;
        let mut books = Books::default();
        books.note_counted(events);
        let _ = books.close(stores).await?;
    }
    for write in [1_000, 10_000] {
        let _ = plain(&stores.pool, write, duration, clock, heap::copy).await?;
        heap::clear(&stores.pool).await?;
    }
    Ok(())
}

/// The mean speed of the runs of one way in one round.
fn mean(speeds: &[(Way, f64)], way: Way) -> f64 {
    let found: Vec<f64> = speeds.iter().filter(|(other, _)| *other == way).map(|(_, speed)| *speed).collect();
    found.iter().sum::<f64>() / found.len() as f64
}

/// Bytes of everything that grows with each event.
async fn bytes(pool: &PgPool) -> Result<f64> {
    let bytes: i64 = sqlx::query_scalar(
        "SELECT (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('events'))::bigint
              + (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('event_ids'))::bigint
              + pg_total_relation_size('applied_batches')",
    )
    .fetch_one(pool)
    .await
    .context("failed to measure the tables")?;
    Ok(bytes as f64)
}
