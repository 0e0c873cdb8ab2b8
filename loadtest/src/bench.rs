//! The ratios, in rounds that take turns: what is compared was measured within seconds of each other, since
//! absolute speed on a shared machine drifts by a factor of two within an hour.

mod counting;
mod freshness;
mod latency;
mod ledger;
mod requests;
mod small;
mod writing;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::Measure;
use crate::baseline::heap;
use crate::report::{self, Report};
use crate::stores::Stores;

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Requests at saturation.
    Requests,
    /// The worker's transaction.
    Counting,
    /// The same beside a ledger of many ids.
    Ledger,
    /// Constant rates, many connections, memory.
    Latency,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) rounds: usize,
    /// Of one run at saturation.
    pub(crate) run: Duration,
    /// Of one run of lists, which bring a hundred times as many events.
    pub(crate) list_run: Duration,
    /// Of one way to write into PostgreSQL.
    pub(crate) write_run: Duration,
    /// Of one run at a constant rate.
    pub(crate) rate_run: Duration,
    /// How often that is done.
    pub(crate) rate_runs: usize,
    /// Ids of each kind, UUIDv7 and random, that the ledger is filled with.
    pub(crate) ledger_ids: u32,
}

impl Extent {
    const FULL: Self = Self {
        rounds: 5,
        run: Duration::from_secs(3),
        list_run: Duration::from_millis(1_500),
        write_run: Duration::from_secs(2),
        rate_run: Duration::from_secs(15),
        rate_runs: 3,
        ledger_ids: 20_000_000,
    };

    const QUICK: Self = Self {
        rounds: 2,
        run: Duration::from_millis(700),
        list_run: Duration::from_millis(300),
        write_run: Duration::from_millis(400),
        rate_run: Duration::from_secs(3),
        rate_runs: 1,
        ledger_ids: 200_000,
    };
}

/// Takes all ratios, prints them, and writes the results. A quick run fails on a gross regression, a full one on
/// a missed floor, and both on books that do not balance.
pub(crate) async fn run(measure: &Measure) -> Result<ExitCode> {
    let extent = if measure.quick { Extent::QUICK } else { Extent::FULL };
    let stores = Stores::prepare(measure).await?;
    heap::prepare(&stores.pool).await?;
    let mut report = Report::new("bench", measure.quick);
    let wanted = |part| measure.only.is_none_or(|only| only == part);
    if wanted(Part::Requests) {
        requests::measure(&stores, extent, &mut report).await?;
    }
    if wanted(Part::Counting) {
        counting::measure(&stores, extent, &mut report).await?;
        small::measure(&stores, extent, &mut report).await?;
    }
    if wanted(Part::Latency) {
        latency::measure(&stores, extent, &mut report).await?;
    }
    // Last: it leaves gigabytes to be written at the next checkpoint.
    if wanted(Part::Ledger) {
        ledger::measure(&stores, extent, &mut report).await?;
    }
    heap::remove(&stores.pool).await?;
    report.save(&measure.results)?;
    println!("\n{}", report::table(&report.rows));
    let bad = |row: &&crate::row::Row| {
        if measure.quick { row.is_gross_regression() } else { row.verdict() == crate::row::Verdict::Missed }
    };
    let faults: Vec<&str> = report.rows.iter().filter(bad).map(|row| row.goal.what.as_str()).collect();
    if faults.is_empty() {
        println!(
            "all books balanced; {}",
            if measure.quick { "no gross regression" } else { "all floors hold" }
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("missed:\n  {}", faults.join("\n  "));
    Ok(ExitCode::FAILURE)
}
