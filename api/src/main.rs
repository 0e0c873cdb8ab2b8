//! `flagmeter-api`: takes events in, answers usage, shows the dashboard.

use flagmeter_api::config::Config;
use flagmeter_runtime::env::Env;
use flagmeter_runtime::{install_tls_provider, shutdown, telemetry};

/// The C library's allocator keeps what thousands of connections once took; this one gives it back, at once
/// where `MIMALLOC_PURGE_DELAY` is 0, as in the chart.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// One thread that serves is faster than two on the box this is made for, where the other core is
// Valkey's, PostgreSQL's and the worker's (docs/architecture.md, "One thread").
#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    install_tls_provider();
    let config = Config::read(Env::process())?;
    telemetry::start(&config.log);
    let shutdown = shutdown::on_signal()?;
    Box::pin(flagmeter_api::run(config, shutdown)).await?;
    Ok(())
}
