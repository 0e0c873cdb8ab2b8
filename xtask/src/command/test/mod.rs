//! `cargo xtask test`: all tests, layer by layer, each layer on what the ones before it have shown to work.

mod dependencies;
mod fuzz;
pub(crate) mod ground;
mod lint;
mod report;
mod suites;
mod workspace;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;

use crate::command::measure;
use crate::interrupt;
use crate::progress::Progress;
use ground::Ground;
use report::{Row, Tally};
use suites::Suites;

/// A group of tests that need the same ground.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Layer {
    /// Format, lints, dependencies, generated files.
    Lint,
    /// What needs no server.
    Rules,
    /// SQL, the queue, the API, the worker and the command line, on real servers.
    Store,
    /// Reconciliation, on a real Kubernetes API too.
    Operator,
    /// The system as `up` brings it up.
    System,
    /// The Helm chart, rendered and on a real Kubernetes API.
    Chart,
    /// The quick benchmark: no ratio is worse than half its floor.
    Speed,
}

impl Layer {
    pub(crate) const ALL: [Self; 7] =
        [Self::Lint, Self::Rules, Self::Store, Self::Operator, Self::System, Self::Chart, Self::Speed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Rules => "rules",
            Self::Store => "store",
            Self::Operator => "operator",
            Self::System => "system",
            Self::Chart => "chart",
            Self::Speed => "speed",
        }
    }

    /// The packages whose tests it runs.
    pub(crate) fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Lint | Self::Speed => &[],
            Self::Rules => &[
                "flagmeter-core",
                "flagmeter-runtime",
                "flagmeter-crds",
                "process-node",
                "loadtest",
                "xtask",
            ],
            Self::Store => &["flagmeter-store", "flagmeter-api", "flagmeter-worker", "flagmeter"],
            Self::Operator => &["flagmeter-operator"],
            Self::System => &["system-tests"],
            Self::Chart => &["chart-tests"],
        }
    }
}

pub(crate) fn run(layers: &[Layer], only: Option<&str>) -> Result<ExitCode> {
    let mut chosen = if layers.is_empty() { Layer::ALL.to_vec() } else { layers.to_vec() };
    chosen.sort();
    chosen.dedup();
    let progress = Progress::new();
    let mut ground = Ground::new(&progress)?;
    let mut rows = Vec::new();
    let outcome = run_layers(&chosen, only, &mut ground, &progress, &mut rows);
    let good = outcome.is_ok() && rows.iter().all(|row| row.tally.is_good());
    if good {
        ground.clear();
    } else {
        ground.stop();
        say!("\nthe servers' logs are in {}", ground.logs());
    }
    if let Err(error) = outcome {
        say!("\nerror: {error:#}");
        rows.push(Row {
            layer: *chosen.get(rows.len()).unwrap_or(&Layer::Lint),
            tally: Tally::FAILED,
            took: Duration::ZERO,
        });
    }
    let sum = report::close(&rows);
    Ok(if good && sum.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs them in order. One that fails does not keep the next from running; an interrupt does.
fn run_layers(
    chosen: &[Layer],
    only: Option<&str>,
    ground: &mut Ground<'_>,
    progress: &Progress,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let mut suites = None;
    for layer in chosen.iter().copied() {
        say!("\n{}", layer.name());
        let started = Instant::now();
        let tally = match run_layer(layer, only, ground, progress, &mut suites) {
            Ok(tally) => tally,
            Err(error) => {
                interrupt::check()?;
                say!("  FAILED  {}\n{error:#}\n", layer.name());
                Tally::FAILED
            }
        };
        rows.push(Row { layer, tally, took: started.elapsed() });
        interrupt::check()?;
    }
    Ok(())
}

fn run_layer(
    layer: Layer,
    only: Option<&str>,
    ground: &mut Ground<'_>,
    progress: &Progress,
    suites: &mut Option<Suites>,
) -> Result<Tally> {
    match layer {
        Layer::Lint => return Ok(lint::run_all(ground, progress)),
        Layer::Speed => {
            // What the other layers need would only be in the way.
            ground.stop();
            return Ok(speed());
        }
        _ => {}
    }
    let suites = match suites {
        Some(suites) => suites,
        None => suites.insert(Suites::build(progress)?),
    };
    match layer {
        Layer::Lint | Layer::Speed | Layer::Rules => {}
        Layer::Store => ground.clients()?,
        Layer::Operator | Layer::Chart => drop(ground.control_plane()?),
        Layer::System => drop(ground.release(&suites.executables)?),
    }
    let mut tally = suites.run(layer, only, ground, progress)?;
    if let Err(error) = ground.check() {
        say!("  FAILED  a server died\n{error:#}\n");
        tally += Tally::FAILED;
    }
    Ok(tally)
}

/// The benchmark counts as one test.
fn speed() -> Tally {
    match measure::quick_bench() {
        Ok(ExitCode::SUCCESS) => Tally::PASSED,
        Ok(_) => Tally::FAILED,
        Err(error) => {
            say!("  FAILED  the quick benchmark\n{error:#}\n");
            Tally::FAILED
        }
    }
}
