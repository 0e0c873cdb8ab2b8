//! Latency at a constant rate, the longest queue of connections, and memory under load.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Extent;
use super::freshness::Freshness;
use crate::books::Books;
use crate::generator::{Load, closed, open};
use crate::part::{self, Part};
use crate::report::Report;
use crate::row::Goal;
use crate::stores::{Server, Stores};
use crate::traffic::Traffic;

pub(crate) async fn measure(stores: &Stores, extent: Extent, report: &mut Report) -> Result<()> {
    stores.durability("always").await?;
    let api = stores.start_api().await?;
    let worker = stores.start_worker("worker").await?;
    let system = System { stores, api, worker };
    let (mut slow, mut fast, mut many, mut memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut cores = Vec::new();
    let single = Arc::new(Traffic::single());
    let mix = Arc::new(Traffic::mix());
    let mut freshness = Freshness::default();
    for round in 1..=extent.rate_runs {
        println!("constant rates, round {round} of {}", extent.rate_runs);
        let cpu = system.cpu();
        let load = open(system.api.address, &single, 64, 1_000, extent.rate_run).await?;
        cores.push(system.cpu().saturating_sub(cpu).as_secs_f64() / load.elapsed.as_secs_f64());
        slow.push(load.milliseconds(0.99));
        system.close(load, "1,000 POST/s", report).await?;
        let load = open(system.api.address, &single, 64, 10_000, extent.rate_run).await?;
        fast.push(load.milliseconds(0.99));
        system.close(load, "10,000 POST/s", report).await?;
        let load = closed(system.api.address, &mix, 64, extent.run).await?;
        memory.push(system.memory() as f64 / f64::from(1 << 20));
        system.close(load, "80/20, 64 connections", report).await?;
        let load = closed(system.api.address, &mix, 1_000, extent.run).await?;
        many.push(load.milliseconds(0.99));
        system.close(load, "80/20, 1,000 connections", report).await?;
        let (loads, probes) = freshness.measure(system.api.address, &stores.pool, extent.rate_run).await?;
        system.close_all(loads, probes, "10, 200 and 2,000 POST/s", report).await?;
    }
    system.api.part.stop().await?;
    system.worker.stop().await?;
    report.rows.extend([
        Goal::at_most("p99_1000", "p99 at 1,000 POST/s, open loop, always", 10.0, 2.0)
            .in_unit("ms")
            .row(slow),
        Goal::at_most("p99_10000", "p99 at 10,000 POST/s, open loop, always", 25.0, 5.0)
            .in_unit("ms")
            .row(fast),
        Goal::at_most("p99_connections", "p99 of 80/20, 1,000 connections, saturated", 200.0, 100.0)
            .in_unit("ms")
            .row(many),
        Goal::at_most(
            "memory",
            "PSS of api + worker + Valkey + PostgreSQL, saturated, 64 connections",
            256.0,
            128.0,
        )
        .in_unit("MiB")
        .row(memory),
        Goal::told("cores_1000", "cores that all servers take at 1,000 POST/s").row(cores),
    ]);
    report.rows.extend(freshness.rows());
    Ok(())
}

struct System<'a> {
    stores: &'a Stores,
    api: Server,
    worker: Part,
}

impl System<'_> {
    fn pids(&self) -> [u32; 4] {
        [self.api.part.pid, self.worker.pid, self.stores.valkey_pid, self.stores.postgres_pid]
    }

    fn memory(&self) -> u64 {
        self.pids().into_iter().map(part::memory).sum()
    }

    fn cpu(&self) -> Duration {
        self.pids().into_iter().map(part::tree_cpu).sum()
    }

    /// Notes a run and checks its books.
    async fn close(&self, load: Load, name: &str, report: &mut Report) -> Result<()> {
        self.close_all(vec![load], 0, name, report).await
    }

    /// The same for several runs at once, and for so many events that were sent besides.
    async fn close_all(&self, loads: Vec<Load>, besides: u64, name: &str, report: &mut Report) -> Result<()> {
        let mut books = Books::default();
        books.note_counted(besides);
        for load in loads {
            report.note(name, &load, Duration::ZERO);
            if load.refused + load.failed > 0 {
                bail!("{name}: {} requests were refused and {} failed", load.refused, load.failed);
            }
            books.note(&load);
        }
        self.stores.drained().await?;
        report.balances.push(books.close(self.stores).await?);
        Ok(())
    }
}
