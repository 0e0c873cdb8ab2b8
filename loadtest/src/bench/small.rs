//! A small batch, as a quiet system counts many of: what its transaction takes beside one that only commits.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use flagmeter_runtime::clock::Clock;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::batch::Counter;
use sqlx::postgres::PgPoolOptions;

use super::Extent;
use super::writing::count_few;
use crate::books::Books;
use crate::report::Report;
use crate::row::{Goal, median};
use crate::stores::Stores;

/// Events of the batch.
const EVENTS: usize = 10;

pub(crate) async fn measure(stores: &Stores, extent: Extent, report: &mut Report) -> Result<()> {
    let options = stores.counting.connect_options().as_ref().clone();
    let connection = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    let counter = Counter::new(connection.clone());
    let clock = Clock::system();
    let (mut ratios, mut times) = (Vec::new(), Vec::new());
    let mut books = Books::default();
    for round in 0..=extent.rounds {
        let (mut empty, mut counting) = (Vec::new(), Vec::new());
        let start = Instant::now();
        while start.elapsed() < extent.write_run {
            empty.push(milliseconds(commit(&connection).await?));
            counting.push(milliseconds(count_few(&counter, EVENTS, clock).await?));
            books.note_counted(EVENTS as u64);
        }
        // The first round opens the connection, and makes partitions and plans.
        if round > 0 {
            ratios.push(median(&counting) / median(&empty));
            times.push(median(&counting));
        }
    }
    report.balances.push(books.close(stores).await?);
    report.rows.extend([
        Goal::at_most(
            "small_batch",
            "transaction of a batch of 10 events ÷ one that only commits, same connection",
            3.0,
            2.0,
        )
        .row(ratios),
        Goal::told("small_batch_ms", "for scale: transaction of a batch of 10 events")
            .in_unit("ms")
            .row(times),
    ]);
    Ok(())
}

/// A transaction of as little as has to reach the disk.
async fn commit(pool: &PgPool) -> Result<Duration> {
    let start = Instant::now();
    let mut tx = pool.begin().await?;
    sqlx::query("SELECT pg_logical_emit_message(true, 'flagmeter', '')")
        .execute(&mut *tx)
        .await
        .context("failed to write a message")?;
    tx.commit().await?;
    Ok(start.elapsed())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
