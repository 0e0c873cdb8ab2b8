//! The page about a run of the profile.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::chart::{Line, draw};
use super::{Comparison, Report};

/// What was seen in one second of the profile.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) users: f64,
    pub(crate) requests: f64,
    pub(crate) p50_milliseconds: f64,
    pub(crate) p95_milliseconds: f64,
    pub(crate) p99_milliseconds: f64,
    /// Entries in the queue.
    pub(crate) depth: f64,
    /// Percent of one core.
    pub(crate) worker_cpu: f64,
    pub(crate) api_cpu: f64,
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
    table{border-collapse:collapse}td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}\
    figure{margin:2rem 0}figcaption{font-weight:600}svg{width:100%;height:auto}svg text{font:12px system-ui;fill:#555}\
    .grid{stroke:#e5e5e5}";

/// Writes the page beside the results.
pub(crate) fn write(folder: &Path, report: &Report, moments: &[Moment]) -> Result<()> {
    let line = |name, value: fn(&Moment) -> f64| Line { name, values: moments.iter().map(value).collect() };
    let charts = [
        draw("Users", "users", &[line("users", |moment| moment.users)]),
        draw("Requests a second", "req/s", &[line("requests", |moment| moment.requests)]),
        draw(
            "Latency",
            "ms",
            &[
                line("p50", |moment| moment.p50_milliseconds),
                line("p95", |moment| moment.p95_milliseconds),
                line("p99", |moment| moment.p99_milliseconds),
            ],
        ),
        draw("Entries in the queue", "entries", &[line("queue", |moment| moment.depth)]),
        draw(
            "CPU",
            "% of a core",
            &[line("api", |moment| moment.api_cpu), line("worker", |moment| moment.worker_cpu)],
        ),
    ]
    .concat();
    let rows: Vec<String> = report.comparisons.iter().map(row).collect();
    let rows = rows.concat();
    let text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>FlagMeter under load, {date}</title>\
         <style>{STYLE}</style><h1>FlagMeter under load</h1>\
         <p>{date}, {cores} {architecture} cores with everything on them, the load generator included.</p>\
         <table><tr><th></th><th>target</th><th>prototype</th><th>now</th></tr>{rows}</table>{charts}</html>\n",
        date = report.date,
        cores = report.cores,
        architecture = report.architecture,
    );
    let path = folder.join(format!("{}-{}.html", report.date, report.kind));
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    println!("page: {}", path.display());
    Ok(())
}

fn row(row: &Comparison) -> String {
    let mark = if row.good { "✓" } else { "✗" };
    let Comparison { what, target, prototype, now, .. } = row;
    format!("<tr><td>{what}</td><td>{target}</td><td>{prototype}</td><td>{now} {mark}</td></tr>")
}
