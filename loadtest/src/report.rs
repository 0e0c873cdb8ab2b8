//! What was found: as JSON, as a table, as a page with charts.

mod chart;
pub(crate) mod page;
pub(crate) mod readme;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use flagmeter_runtime::clock::Clock;
use serde::{Deserialize, Serialize};

use crate::books::Balance;
use crate::generator::Load;
use crate::row::{Better, Row, figure};

/// The results of one command, as they are kept.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// `bench` or `profile`.
    pub(crate) kind: String,
    pub(crate) quick: bool,
    /// The UTC day.
    pub(crate) date: String,
    pub(crate) cores: usize,
    /// `x86_64`, `aarch64`.
    pub(crate) architecture: String,
    /// What is held to something.
    pub(crate) rows: Vec<Row>,
    /// Every run, in order.
    pub(crate) runs: Vec<Run>,
    /// The check after each of them.
    pub(crate) balances: Vec<Balance>,
    /// What the prototype was held to, of `profile`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) comparisons: Vec<Comparison>,
}

/// What the prototype was held to, what it reached, and what was reached now.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) what: String,
    pub(crate) target: String,
    pub(crate) prototype: String,
    pub(crate) now: String,
    pub(crate) good: bool,
}

/// One run, as it was.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) requests_per_second: f64,
    pub(crate) events_per_second: f64,
    pub(crate) p50_milliseconds: f64,
    pub(crate) p95_milliseconds: f64,
    pub(crate) p99_milliseconds: f64,
    /// Cores that the generator was busy on.
    pub(crate) generator_cores: f64,
    /// Cores that the server and Valkey were busy on, where that was measured.
    pub(crate) server_cores: f64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
}

impl Report {
    pub(crate) fn new(kind: &str, quick: bool) -> Self {
        Self {
            kind: kind.to_owned(),
            quick,
            date: Clock::system().now().strftime("%Y-%m-%d").to_string(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            architecture: std::env::consts::ARCH.to_owned(),
            rows: Vec::new(),
            runs: Vec::new(),
            balances: Vec::new(),
            comparisons: Vec::new(),
        }
    }

    /// Notes a run, and says a line about it.
    pub(crate) fn note(&mut self, name: &str, load: &Load, server: Duration) {
        let cores = |cpu: Duration| cpu.as_secs_f64() / load.elapsed.as_secs_f64();
        let run = Run {
            name: name.to_owned(),
            requests_per_second: load.per_second(),
            events_per_second: load.events_per_second(),
            p50_milliseconds: load.milliseconds(0.50),
            p95_milliseconds: load.milliseconds(0.95),
            p99_milliseconds: load.milliseconds(0.99),
            generator_cores: cores(load.generator_cpu),
            server_cores: cores(server),
            refused: load.refused,
            failed: load.failed,
        };
        println!(
            "  {name:<26} {:>9} req/s {:>11} events/s   p50 {:>7} ms   p99 {:>7} ms   generator {} cores",
            figure(run.requests_per_second),
            figure(run.events_per_second),
            figure(run.p50_milliseconds),
            figure(run.p99_milliseconds),
            figure(run.generator_cores),
        );
        self.runs.push(run);
    }

    /// Keeps it in `folder`, under its day and kind.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
        let path = folder.join(format!("{}-{}.json", self.date, self.kind));
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        println!("results: {}", path.display());
        Ok(())
    }
}

/// The rows as a table in Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = "| what | median | least – most | floor | aim | |\n| --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    std::iter::once(head).chain(rows.iter().map(line)).collect()
}

fn line(row: &Row) -> String {
    let unit = &row.goal.unit;
    let space = if unit.is_empty() { "" } else { " " };
    let sign = if row.goal.better == Better::Lower { "≤ " } else { "" };
    let bound =
        |bound: Option<f64>| bound.map_or("–".to_owned(), |bound| format!("{sign}{}", figure(bound)));
    let (least, most) = row.spread();
    let [median, least, most] = [row.median(), least, most].map(figure);
    let (floor, aim, verdict) = (bound(row.goal.floor), bound(row.goal.aim), row.verdict().words());
    format!(
        "| {} | {median}{space}{unit} | {least} – {most} | {floor} | {aim} | {verdict} |\n",
        row.goal.what
    )
}
