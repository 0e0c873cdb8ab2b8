//! `process-node`: a Kubernetes node for development, whose pods are local processes.

use clap::Parser;
use flagmeter_runtime::env::Env;
use flagmeter_runtime::telemetry::{self, LogSettings};
use process_node::Config;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    flagmeter_runtime::install_tls_provider();
    let config = Config::parse();
    let mut env = Env::process();
    let logs = LogSettings::read(&mut env);
    telemetry::start(&env.finish(|| logs)?);

    let shutdown = flagmeter_runtime::shutdown::on_signal()?;
    process_node::run(config, shutdown).await
}
