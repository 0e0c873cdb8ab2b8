//! What was found: printed for people, and kept as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use flagmeter_runtime::clock::Clock;
use serde::Serialize;

use crate::Arguments;
use crate::memory::Memory;
use crate::wave::Times;

/// Requests to the API server by `verb resource`.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Calls(pub(crate) BTreeMap<String, u64>);

impl Calls {
    /// Those that came after `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let more =
            self.0.iter().map(|(name, count)| (name.clone(), count - before.0.get(name).unwrap_or(&0)));
        Self(more.filter(|(_, count)| *count > 0).collect())
    }

    /// All but what keeps the lease.
    pub(crate) fn beside_leases(&self) -> u64 {
        self.0.iter().filter(|(name, _)| !name.ends_with(" leases")).map(|(_, count)| count).sum()
    }

    fn all(&self) -> u64 {
        self.0.values().sum()
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(name, count)| format!("{count} {name}")).collect();
        formatter.write_str(&parts.join(", "))
    }
}

/// In milliseconds: what half, and what 99 of 100, took at most, and the longest.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    p50: f64,
    p99: f64,
    most: f64,
}

impl Latency {
    /// Of times in ascending order.
    fn of(times: &[Duration]) -> Self {
        let at = |percent: usize| {
            let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(place).map_or(0.0, |time| milliseconds(*time))
        };
        Self { p50: at(50), p99: at(99), most: at(100) }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p99, most } = self;
        write!(formatter, "p50 {p50:.0} ms, p99 {p99:.0} ms, at most {most:.0} ms")
    }
}

/// What happens when nothing happens.
#[derive(Debug, Serialize)]
pub(crate) struct Steady {
    pub(crate) seconds: f64,
    pub(crate) reconciles: u64,
    /// By the operator's account.
    pub(crate) calls: Calls,
    /// By the API server's account, whoever asked.
    pub(crate) served: Calls,
    /// PostgreSQL's.
    pub(crate) transactions: i64,
    pub(crate) memory: Memory,
}

/// What was found, before figures are made of it.
pub(crate) struct Found {
    pub(crate) wave: Times,
    pub(crate) edits: Times,
    /// By the operator's account.
    pub(crate) wave_calls: Calls,
    /// By the API server's, whoever asked.
    pub(crate) wave_served: Calls,
    /// The operator's processor time, from its start to the end of the wave.
    pub(crate) wave_cpu_seconds: f64,
    pub(crate) memory_idle: Memory,
    pub(crate) memory_peak: Memory,
    pub(crate) memory_after: Memory,
    pub(crate) steady: Steady,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    kind: &'static str,
    date: String,
    /// `release`, or `debug`, which is slower.
    build: &'static str,
    cores: usize,
    architecture: &'static str,
    tenants: usize,
    applies_in_flight: usize,
    resync_seconds: u64,
    applied_seconds: f64,
    all_ready_seconds: f64,
    /// From the answer to an apply, while all are applied at once.
    apply_to_row_milliseconds: Latency,
    apply_to_ready_milliseconds: Latency,
    /// The same for single edits.
    edit_to_row_milliseconds: Latency,
    wave_calls: Calls,
    wave_served: Calls,
    wave_cpu_seconds: f64,
    memory_idle: Memory,
    memory_peak: Memory,
    memory_after: Memory,
    steady: Steady,
    steady_calls_a_minute: f64,
    steady_transactions_a_minute: f64,
}

impl Results {
    #[expect(clippy::cast_precision_loss, reason = "no figure needs more than an f64's 53 bits")]
    pub(crate) fn new(arguments: &Arguments, found: Found) -> Self {
        let a_minute = |count: f64| count * 60.0 / found.steady.seconds;
        Self {
            kind: "tenants",
            date: Clock::system().now().strftime("%Y-%m-%d").to_string(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            architecture: std::env::consts::ARCH,
            tenants: arguments.tenants,
            applies_in_flight: arguments.at_once,
            resync_seconds: arguments.resync_seconds,
            applied_seconds: found.wave.applied.as_secs_f64(),
            all_ready_seconds: found.wave.all.as_secs_f64(),
            apply_to_row_milliseconds: Latency::of(&found.wave.row),
            apply_to_ready_milliseconds: Latency::of(&found.wave.ready),
            edit_to_row_milliseconds: Latency::of(&found.edits.row),
            wave_calls: found.wave_calls,
            wave_served: found.wave_served,
            wave_cpu_seconds: found.wave_cpu_seconds,
            memory_idle: found.memory_idle,
            memory_peak: found.memory_peak,
            memory_after: found.memory_after,
            steady_calls_a_minute: a_minute(found.steady.calls.all() as f64),
            steady_transactions_a_minute: a_minute(found.steady.transactions as f64),
            steady: found.steady,
        }
    }

    /// Keeps it in `folder`, under its day.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
        let path = folder.join(format!("{}-{}.json", self.date, self.kind));
        fs::write(&path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("failed to write {}", path.display()))?;
        println!("results: {}", path.display());
        Ok(())
    }
}

impl fmt::Display for Results {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mega = |bytes: u64| bytes.div_ceil(1 << 20);
        let memory = |memory: Memory| format!("{} MiB RSS, {} MiB PSS", mega(memory.rss), mega(memory.pss));
        writeln!(formatter, "{} Tenants ({} build, {} cores)", self.tenants, self.build, self.cores)?;
        writeln!(formatter, "  all applied            {:.1} s", self.applied_seconds)?;
        writeln!(formatter, "  all Ready              {:.1} s", self.all_ready_seconds)?;
        writeln!(formatter, "  apply to row, at once  {}", self.apply_to_row_milliseconds)?;
        writeln!(formatter, "  apply to Ready         {}", self.apply_to_ready_milliseconds)?;
        writeln!(formatter, "  edit to row, single    {}", self.edit_to_row_milliseconds)?;
        writeln!(formatter, "  calls of the wave      {}", self.wave_calls)?;
        writeln!(formatter, "  the server's account   {}", self.wave_served)?;
        writeln!(formatter, "  processor time         {:.1} s", self.wave_cpu_seconds)?;
        writeln!(formatter, "  memory, no Tenant      {}", memory(self.memory_idle))?;
        writeln!(formatter, "  memory, peak           {}", memory(self.memory_peak))?;
        writeln!(formatter, "  memory, after          {}", memory(self.memory_after))?;
        writeln!(
            formatter,
            "  nothing happens        {:.0} calls a minute, {:.0} transactions a minute, {} reconciles in {:.0} s",
            self.steady_calls_a_minute,
            self.steady_transactions_a_minute,
            self.steady.reconciles,
            self.steady.seconds
        )?;
        writeln!(formatter, "  of these               {}", self.steady.calls)?;
        write!(formatter, "  the server's account   {}", self.steady.served)
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
