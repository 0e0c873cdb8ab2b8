//! Many Tenants applied at once: how soon each is in PostgreSQL and Ready, what the operator asks the API server for,
//! and how much memory it takes, then and when nothing happens any more.
//!
//! It runs the real operator as a process of its own against a real API server (`KUBECONFIG`, the administrator's) and
//! PostgreSQL (`DATABASE_URL`, a superuser's); `cargo xtask bench --only tenants` starts both and calls it.

mod cluster;
mod memory;
mod operator;
mod results;
mod rows;
mod wave;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::operator::Operator;
use crate::results::{Found, Results, Steady};
use crate::rows::Rows;

/// Measures the operator with many Tenants.
#[derive(Parser)]
struct Arguments {
    /// The administrator's way to the API server.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: PathBuf,
    /// PostgreSQL, as its superuser.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: String,
    /// Tenants that are applied at once.
    #[arg(long, default_value_t = 2_000)]
    tenants: usize,
    /// Applies that wait for an answer at the same time.
    #[arg(long, default_value_t = 32)]
    at_once: usize,
    /// Edits of a single Tenant each, one after the other, once all are Ready.
    #[arg(long, default_value_t = 200)]
    edits: usize,
    /// The operator's `FLAGMETER_RESYNC_SECONDS`: how often each tenant is looked at when nothing happens.
    #[arg(long, default_value_t = 300)]
    resync_seconds: u64,
    /// The folder of results.
    #[arg(long)]
    results: PathBuf,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long nothing may be asked for before the wave is over.
const QUIET: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    flagmeter_runtime::install_tls_provider();
    let cluster = Cluster::prepare(&arguments.kubeconfig).await?;
    let rows = Rows::prepare(&arguments.database_url).await?;
    let interrupted = flagmeter_runtime::shutdown::on_signal()?;
    let outcome = tokio::select! {
        outcome = measure(&arguments, &cluster, &rows) => outcome,
        () = interrupted.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    cluster.remove().await;
    rows.remove().await?;
    let results = outcome?;
    println!("{results}");
    results.save(&arguments.results)
}

async fn measure(arguments: &Arguments, cluster: &Cluster, rows: &Rows) -> Result<Results> {
    let operator = Operator::start(cluster, rows, arguments.resync_seconds).await?;
    let memory_idle = operator.memory()?;
    println!("{} Tenants at once, {} applies in flight", arguments.tenants, arguments.at_once);
    let calls = operator.calls().await?;
    let served = cluster.served().await?;
    let peak = operator.watch_memory();
    let wave = wave::run(cluster, rows, arguments.tenants, arguments.at_once).await?;
    quiet(&operator).await?;
    let wave_calls = operator.calls().await?.since(&calls);
    let wave_served = cluster.served().await?.since(&served);
    let (memory_peak, memory_after) = (peak.end().await?, operator.memory()?);
    let wave_cpu_seconds = operator.cpu_seconds()?;
    println!("all are Ready; {} edits, one after the other", arguments.edits);
    let edits = wave::edit(cluster, rows, arguments.tenants, arguments.edits).await?;
    quiet(&operator).await?;

    // Long enough that each tenant is looked at once more, whenever it was looked at last.
    let longest = arguments.resync_seconds.max(u64::try_from(arguments.tenants)? / 20);
    let period = Duration::from_secs(longest + longest / 10 + 5);
    println!("nothing happens for {} s, in which each tenant is looked at again", period.as_secs());
    let (calls, served, statements) =
        (operator.calls().await?, cluster.served().await?, rows.transactions().await?);
    let reconciles = operator.reconciles().await?;
    sleep(period).await;
    let steady = Steady {
        seconds: period.as_secs_f64(),
        reconciles: operator.reconciles().await? - reconciles,
        calls: operator.calls().await?.since(&calls),
        served: cluster.served().await?.since(&served),
        transactions: rows.transactions().await? - statements,
        memory: operator.memory()?,
    };
    operator.stop().await.context("the operator did not end as it should")?;
    let found = Found {
        wave,
        edits,
        wave_calls,
        wave_served,
        wave_cpu_seconds,
        memory_idle,
        memory_peak,
        memory_after,
        steady,
    };
    Ok(Results::new(arguments, found))
}

/// Waits until the operator asks the API server for nothing but its lease.
async fn quiet(operator: &Operator) -> Result<()> {
    let mut before = operator.calls().await?;
    loop {
        sleep(QUIET).await;
        let now = operator.calls().await?;
        if now.since(&before).beside_leases() == 0 {
            return Ok(());
        }
        before = now;
    }
}
