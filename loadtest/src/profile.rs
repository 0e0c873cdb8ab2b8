//! The prototype's five minutes, on the whole path: api, queue, worker, PostgreSQL; then constant rates and
//! saturation.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Measure;
use crate::books::{Balance, Books};
use crate::generator::{Load, Second, closed, open, users};
use crate::part::{self, Part};
use crate::report::page::{self, Moment};
use crate::report::{Comparison, Report};
use crate::row::figure;
use crate::stores::{Server, Stores};
use crate::traffic::Traffic;

/// How long each part of it takes.
struct Extent {
    profile: Duration,
    rate: Duration,
    saturation: Duration,
}

impl Extent {
    const FULL: Self = Self {
        profile: Duration::from_mins(5),
        rate: Duration::from_secs(30),
        saturation: Duration::from_secs(30),
    };
    const QUICK: Self = Self {
        profile: Duration::from_secs(20),
        rate: Duration::from_secs(4),
        saturation: Duration::from_secs(4),
    };
}

/// How often a line says how it goes.
const SAY_EVERY: usize = 5;

/// Runs all of it, and writes results and the page. Fails if the books do not balance or a target is missed.
pub(crate) async fn run(measure: &Measure) -> Result<ExitCode> {
    let extent = if measure.quick { Extent::QUICK } else { Extent::FULL };
    let stores = Stores::prepare(measure).await?;
    stores.durability("always").await?;
    let system = System {
        api: stores.start_api().await?,
        worker: stores.start_worker("worker").await?,
        stores: &stores,
    };
    let mut report = Report::new("profile", measure.quick);
    let mix = Arc::new(Traffic::mix());

    println!("0 → 100 → 500 → 1,000 → 0 users in {} s, 80 % POST, 20 % GET", extent.profile.as_secs());
    let (load, moments) = system.profile(&mix, extent.profile).await?;
    let memory = system.memory();
    let balance = system.close(&load, "profile", &mut report).await?;
    report.comparisons = compare(&load, &moments, memory, balance);

    let single = Arc::new(Traffic::single());
    for rate in [1_000, 10_000] {
        println!("{rate} POST/s, whatever the answers do, for {} s", extent.rate.as_secs());
        let load = open(system.api.address, &single, 64, rate, extent.rate).await?;
        system.close(&load, &format!("{rate} POST/s"), &mut report).await?;
    }
    for connections in [64, 1_000] {
        println!("{connections} connections, saturated, for {} s", extent.saturation.as_secs());
        let load = closed(system.api.address, &mix, connections, extent.saturation).await?;
        system.close(&load, &format!("80/20, {connections} connections"), &mut report).await?;
    }
    system.api.part.stop().await?;
    system.worker.stop().await?;

    report.save(&measure.results)?;
    page::write(&measure.results, &report, &moments)?;
    println!("\n{:<28} {:>12} {:>12} {:>14}", "", "target", "prototype", "now");
    for Comparison { what, target, prototype, now, good } in &report.comparisons {
        println!(
            "{what:<28} {target:>12} {prototype:>12} {now:>14} {}",
            if *good { "✓" } else { "✗ missed" }
        );
    }
    println!("all books balanced");
    let good = report.comparisons.iter().all(|comparison| comparison.good);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct System<'a> {
    stores: &'a Stores,
    api: Server,
    worker: Part,
}

impl System<'_> {
    async fn profile(&self, mix: &Arc<Traffic>, duration: Duration) -> Result<(Load, Vec<Moment>)> {
        let mut seen: Vec<Moment> = Vec::new();
        let mut last = (Instant::now(), part::cpu(self.api.part.pid), part::cpu(self.worker.pid));
        let look = async |second: usize, users: f64| {
            let now = (Instant::now(), part::cpu(self.api.part.pid), part::cpu(self.worker.pid));
            let percent = |from: Duration, to: Duration| {
                let elapsed = now.0.duration_since(last.0).as_secs_f64().max(0.01);
                to.saturating_sub(from).as_secs_f64() / elapsed * 100.0
            };
            let depth = self.stores.queue.depth().await.unwrap_or_default() as f64;
            let (api_cpu, worker_cpu) = (percent(last.1, now.1), percent(last.2, now.2));
            last = now;
            seen.push(Moment { users, depth, worker_cpu, api_cpu, ..Moment::default() });
            if second.is_multiple_of(SAY_EVERY) {
                println!(
                    "  {second:>3} s: {users:>4.0} users, {depth:.0} entries in the queue, api {api_cpu:.0} %, worker {worker_cpu:.0} %"
                );
            }
        };
        let (load, seconds) = users(self.api.address, mix, duration, look).await?;
        let moments = seconds
            .iter()
            .enumerate()
            .map(|(index, second)| moment(second, seen.get(index + 1).or(seen.last())));
        Ok((load, moments.collect()))
    }

    fn memory(&self) -> u64 {
        let pids = [self.api.part.pid, self.worker.pid, self.stores.valkey_pid, self.stores.postgres_pid];
        pids.into_iter().map(part::memory).sum()
    }

    /// Waits until all is counted, and checks the books.
    async fn close(&self, load: &Load, name: &str, report: &mut Report) -> Result<Balance> {
        report.note(name, load, Duration::ZERO);
        let mut books = Books::default();
        books.note(load);
        self.stores.drained().await?;
        let balance = books.close(self.stores).await?;
        println!("  the books balance: {} accepted, {} counted", balance.accepted, balance.counted);
        report.balances.push(balance);
        Ok(balance)
    }
}

fn moment(second: &Second, seen: Option<&Moment>) -> Moment {
    let quantile = |quantile| second.latencies.value_at_quantile(quantile) as f64 / 1_000.0;
    Moment {
        requests: second.requests as f64,
        p50_milliseconds: quantile(0.50),
        p95_milliseconds: quantile(0.95),
        p99_milliseconds: quantile(0.99),
        ..seen.copied().unwrap_or_default()
    }
}

/// What came of the profile, beside the prototype's.
fn compare(load: &Load, moments: &[Moment], memory: u64, balance: Balance) -> Vec<Comparison> {
    let peak = moments.iter().map(|moment| moment.requests).fold(0.0, f64::max);
    let answers = load.requests + load.refused + load.failed;
    let success = load.requests as f64 * 100.0 / answers.max(1) as f64;
    let [p50, p95, p99] = [0.50, 0.95, 0.99].map(|quantile| load.milliseconds(quantile));
    let gigabytes = memory as f64 / 1e9;
    let lost = balance.accepted.saturating_sub(balance.counted);
    let row = |what: &str, target: &str, prototype: &str, now, good| {
        let [what, target, prototype] = [what, target, prototype].map(str::to_owned);
        Comparison { what, target, prototype, now, good }
    };
    vec![
        row("requests a second, peak", "1,000", "338", figure(peak), peak >= 1_000.0),
        row("success", "100 %", "99.99 %", format!("{success:.3} %"), load.refused + load.failed == 0),
        row("p50", "≤ 200 ms", "1,760 ms", format!("{} ms", figure(p50)), p50 <= 200.0),
        row("p95", "≤ 200 ms", "3,220 ms", format!("{} ms", figure(p95)), p95 <= 200.0),
        row("p99", "≤ 200 ms", "3,220 ms", format!("{} ms", figure(p99)), p99 <= 200.0),
        row("memory (PSS)", "≤ 2 GB", "1.8 GB", format!("{} GB", figure(gigabytes)), gigabytes <= 2.0),
        row("events lost", "0", "0", lost.to_string(), lost == 0),
    ]
}
