//! `flagmeter-worker`: drains the queue into PostgreSQL, and sends alerts.

use flagmeter_runtime::env::Env;
use flagmeter_runtime::{install_tls_provider, shutdown, telemetry};
use flagmeter_worker::config::Config;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    install_tls_provider();
    let config = Config::read(Env::process())?;
    telemetry::start(&config.log);
    let shutdown = shutdown::on_signal()?;
    flagmeter_worker::run(config, shutdown).await?;
    Ok(())
}
