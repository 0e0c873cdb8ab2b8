//! The worker's transaction beside a ledger that has been filled for weeks: what a client's id costs then.

use std::time::Instant;

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
use crate::stores::{Forget, Stores};

/// What is written how, in events a transaction, in this order in every round.
const WAYS: [Way; 5] = [
    Way::Copy(5_000),
    Way::Count(5_000, Ids::Seven),
    Way::Copy(10_000),
    Way::Count(10_000, Ids::Seven),
    Way::Count(10_000, Ids::Random),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Copy(usize),
    Count(usize, Ids),
}

pub(super) async fn measure(stores: &Stores, extent: Extent, report: &mut Report) -> Result<()> {
    let counter = Counter::new(stores.counting.clone());
    let clock = Clock::system();
    counter.prepare(jiff::tz::TimeZone::UTC.to_datetime(clock.now()).date()).await?;
    fill(&stores.pool, extent.ledger_ids).await?;
    let mut rounds: Vec<[f64; WAYS.len()]> = Vec::new();
    for round in 1..=extent.rounds {
        println!("ledger of {}, round {round} of {}", figure(f64::from(extent.ledger_ids)), extent.rounds);
        let mut speeds = [0.0; WAYS.len()];
        for (way, speed) in WAYS.into_iter().zip(&mut speeds) {
            let (events, elapsed) = match way {
                Way::Copy(size) => plain(&stores.pool, size, extent.write_run, clock, heap::copy).await?,
                Way::Count(size, ids) => count(&counter, size, ids, extent.write_run, clock).await?,
            };
            if let Way::Count(..) = way {
                let mut books = Books::default();
                books.note_counted(events);
                report.balances.push(books.close_and(stores, Forget::AllButIds).await?);
            } else {
                heap::clear(&stores.pool).await?;
            }
            *speed = events as f64 / elapsed.as_secs_f64();
        }
        rounds.push(speeds);
    }
    stores.clear(Forget::All).await?;

    let ratio =
        |way: usize, to: usize| rounds.iter().map(|speeds| speeds[way] / speeds[to]).collect::<Vec<_>>();
    let beside = format!("ledger of {}", figure(f64::from(extent.ledger_ids)));
    let seven = |size| format!("worker, every event with a UUIDv7, {beside} ÷ raw COPY, {size} a batch");
    report.rows.extend([
        Goal::at_least("ledger_ids_5000", &seven("5,000"), 0.18, 0.30).row(ratio(1, 0)),
        Goal::at_least("ledger_ids_10000", &seven("10,000"), 0.20, 0.35).row(ratio(3, 2)),
        Goal::at_least(
            "ledger_random_10000",
            &format!("worker, random ids, {beside} ÷ raw COPY, 10,000 a batch"),
            0.03,
            0.12,
        )
        .row(ratio(4, 2)),
    ]);
    Ok(())
}

/// Puts `ids` UUIDv7 and as many random ids into the ledger. Both go in in their order, which takes minutes and not an
/// hour, and leaves the index of the random ones fuller than time would: the next ids split more of its pages.
async fn fill(pool: &PgPool, ids: u32) -> Result<()> {
    for (kind, statement) in [
        (
            "UUIDv7",
            "INSERT INTO event_ids (id, tenant, received_at, content)
             SELECT uuidv7(), 'bench-' || to_char(number % 50, 'FM00'), now(), 0
             FROM generate_series(1, $1::bigint) AS number",
        ),
        (
            // As the ledger keeps them: with a first byte that no UUIDv7 has.
            "random ids",
            "INSERT INTO event_ids (id, tenant, received_at, content)
             SELECT id, 'bench-' || to_char(number % 50, 'FM00'), now(), 0
             FROM (
                 SELECT overlay(gen_random_uuid()::text PLACING 'ff' FROM 1)::uuid AS id, number
                 FROM generate_series(1, $1::bigint) AS number
                 ORDER BY id
             ) AS random",
        ),
    ] {
        let start = Instant::now();
        let mut connection = pool.acquire().await?;
        sqlx::query(statement)
            .bind(i64::from(ids))
            .execute(&mut *connection)
            .await
            .with_context(|| format!("failed to fill the ledger with {kind}"))?;
        println!(
            "  {} {kind} are in the ledger after {} s",
            figure(f64::from(ids)),
            start.elapsed().as_secs()
        );
    }
    // Or the next minutes would measure how these gigabytes are written to disk.
    for statement in ["VACUUM ANALYZE event_ids", "CHECKPOINT"] {
        sqlx::query(statement)
            .execute(pool)
            .await
            .with_context(|| format!("failed to {statement} after the ledger was filled"))?;
    }
    Ok(())
}
