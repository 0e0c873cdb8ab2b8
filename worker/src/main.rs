//! `flagmeter-worker`: drains the queue into PostgreSQL.

use flagmeter_runtime::{install_tls_provider, shutdown, telemetry};
use flagmeter_worker::config::Config;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    install_tls_provider();
    let config = Config::read()?;
    telemetry::start(&config.log);
    let shutdown = shutdown::on_signal()?;
    flagmeter_worker::run(config, shutdown).await?;
    Ok(())
}
