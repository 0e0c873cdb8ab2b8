//! `cargo xtask status`: every part, where it listens, since when it runs, its memory, its health.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Result;

use crate::environment::Environment;
use crate::process::Table;
use crate::registry::{Entry, POD, SUPERVISOR};
use crate::release::NAMESPACE;
use crate::servers::Name;
use crate::state::State;
use crate::system::System;

/// The exit status of a system that does not run, or not wholly, as of `service NAME status`.
const NOT_RUNNING: u8 = 3;

struct Row {
    part: String,
    entry: Option<Entry>,
    address: String,
    /// What is wrong; empty if nothing is.
    trouble: String,
}

pub(crate) fn run(folder: &Path) -> Result<ExitCode> {
    let state = State::at(folder);
    let registry = state.registry();
    let supervisor = registry.running(SUPERVISOR);
    if registry.entries().iter().all(|entry| !entry.is_running()) {
        say!("Nothing is running in {}.", state.shown());
        if let Ok(reason) = fs::read_to_string(state.ended()) {
            say!("The last system ended because {reason}");
        }
        return Ok(ExitCode::from(NOT_RUNNING));
    }
    let system = System::attach(state.clone())?;
    let mut rows: Vec<Row> = Name::ALL.iter().map(|name| server_row(&system, *name)).collect();
    rows.extend(pod_rows(&system));
    rows.push(Row {
        part: "supervisor".to_owned(),
        address: "-".to_owned(),
        trouble: supervisor.as_ref().map_or("nobody keeps watch".to_owned(), |_| String::new()),
        entry: supervisor,
    });
    print(&state, &rows);
    if let Ok(environment) = Environment::read(&state) {
        say!("\nAPI and dashboard: {}", environment.api_url);
    }
    let healthy = rows.iter().all(|row| row.trouble.is_empty());
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(NOT_RUNNING) })
}

fn server_row(system: &System, name: Name) -> Row {
    let entry = system.state.registry().running(name.as_str());
    let trouble = match &entry {
        None => "not running".to_owned(),
        Some(_) => name
            .server()
            .probe(system)
            .err()
            .map(|error| first_line(&format!("{error:#}")))
            .unwrap_or_default(),
    };
    Row { part: name.as_str().to_owned(), entry, address: name.server().address(system), trouble }
}

/// A row for each container, with what the Kubernetes API says about its pod.
fn pod_rows(system: &System) -> Vec<Row> {
    let pods = pods(system).unwrap_or_default();
    let entries = system.state.registry().entries().into_iter();
    let containers = entries.filter(|entry| entry.name.starts_with(POD) && entry.is_running());
    let row = |entry: Entry| {
        let part = entry.name.trim_start_matches(POD).to_owned();
        let pod = pods.iter().find(|(name, _)| part.starts_with(name.as_str())).map(|(_, pod)| pod);
        let trouble = match pod {
            Some((_, true)) => String::new(),
            Some((_, false)) => "not ready".to_owned(),
            None => "unknown to Kubernetes".to_owned(),
        };
        let address = pod.map_or("-".to_owned(), |(address, _)| address.clone());
        Row { part, entry: Some(entry), address, trouble }
    };
    containers.map(row).collect()
}

/// Each pod's address, and whether it is ready.
fn pods(system: &System) -> Result<BTreeMap<String, (String, bool)>> {
    let list = system.kubectl()?.json(&["get", "pods", "--namespace", NAMESPACE, "--output", "json"])?;
    let pods = list["items"].as_array().into_iter().flatten().map(|pod| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        let address = pod["status"]["podIP"].as_str().unwrap_or("-").to_owned();
        (pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(), (address, ready))
    });
    Ok(pods.collect())
}

fn print(state: &State, rows: &[Row]) {
    let table = Table::read();
    let registry = state.registry();
    let width = rows.iter().map(|row| row.part.len()).max().unwrap_or_default();
    say!("{:width$}  {:>7}  {:>9}  {:<21}  {:>9}  HEALTH", "PART", "PID", "UP", "ADDRESS", "MEMORY");
    let mut total = 0;
    for row in rows {
        let (mut pid, mut up, mut memory) = ("-".to_owned(), "-".to_owned(), "-".to_owned());
        if let Some(entry) = &row.entry {
            let kibibytes = table.kibibytes(entry.pid, &pids(rows));
            total += kibibytes;
            pid = entry.pid.to_string();
            up = registry.since(&entry.name).map(age).unwrap_or_default();
            memory = mebibytes(kibibytes);
        }
        let health = if row.trouble.is_empty() { "healthy" } else { &row.trouble };
        say!("{:width$}  {pid:>7}  {up:>9}  {:<21}  {memory:>9}  {health}", row.part, row.address);
    }
    say!("{:width$}  {:>7}  {:>9}  {:<21}  {:>9}", "together", "", "", "", mebibytes(total));
}

/// Processes with a row of their own: they are not counted again in that of the one that started them.
fn pids(rows: &[Row]) -> Vec<i32> {
    rows.iter().filter_map(|row| row.entry.as_ref()).map(|entry| entry.pid).collect()
}

fn age(since: SystemTime) -> String {
    let seconds = since.elapsed().unwrap_or(Duration::ZERO).as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h {minutes:02}m"),
    }
}

fn mebibytes(kibibytes: u64) -> String {
    format!("{} MiB", kibibytes.div_ceil(1024))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
