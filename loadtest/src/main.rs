//! `loadtest`: how fast FlagMeter is, and whether it loses nothing meanwhile.
//!
//! - [`generator`] sends [`traffic`]; [`stores`], [`part`] and [`books`] are what it is sent to, and the check after it.
//! - [`bench`] takes the ratios to [`baseline`]s; [`profile`] is the prototype's five minutes.
//! - [`report`] writes results, the table in README.md and the page with charts.
//!
//! `cargo xtask bench` and `cargo xtask loadtest` start the servers and call it.
#![expect(clippy::cast_precision_loss, reason = "no figure of a report needs more than an f64's 53 bits")]

mod baseline;
mod bench;
mod books;
mod generator;
mod part;
mod profile;
mod report;
mod row;
mod stores;
mod traffic;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures FlagMeter on servers that run already; `cargo xtask bench` and `cargo xtask loadtest` start them.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Takes the ratios to the baselines, in interleaved rounds.
    Bench(Measure),
    /// The prototype's five-minute profile, two constant rates, and saturation.
    Profile(Measure),
    /// Serves a baseline.
    Baseline {
        /// Which one.
        kind: baseline::Kind,
        /// Where.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Writes README.md's tables from the newest full results.
    Readme {
        /// README.md
        #[arg(long)]
        readme: PathBuf,
        /// The folder of results.
        #[arg(long)]
        results: PathBuf,
    },
}

/// What is measured, and where the results go. The environment's `DATABASE_URL` and `VALKEY_URL` name the stores,
/// which are emptied.
#[derive(clap::Args)]
struct Measure {
    /// Few short rounds, for gross regressions only.
    #[arg(long)]
    quick: bool,
    /// Only this part of the bench; its result is not kept as that of a full run.
    #[arg(long)]
    only: Option<bench::Part>,
    /// PostgreSQL's first process, for its CPU time and memory.
    #[arg(long)]
    postgres_pid: u32,
    /// Valkey's process.
    #[arg(long)]
    valkey_pid: u32,
    /// The folder of the logs of the api and the workers.
    #[arg(long)]
    logs: PathBuf,
    /// The folder of results.
    #[arg(long)]
    results: PathBuf,
}

// One thread for all connections of the generator, so that at most one of the cores is its own; the
// main thread drives the second worker where two are compared with one.
#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Baseline { kind, listen } => {
            baseline::serve(kind, listen).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench(measure) => until_signal(bench::run(&measure)).await,
        Command::Profile(measure) => until_signal(profile::run(&measure)).await,
        Command::Readme { readme, results } => {
            report::readme::write(&readme, &results)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs `work` unless somebody asks this program to end; then the parts that it started end with it.
async fn until_signal(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let shutdown = flagmeter_runtime::shutdown::on_signal()?;
    tokio::select! {
        outcome = Box::pin(work) => outcome,
        () = shutdown.cancelled() => anyhow::bail!("interrupted"),
    }
}
