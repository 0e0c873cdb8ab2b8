//! `flagmeter`: the command for people who run FlagMeter.

mod alerts;
mod audit;
mod crd;
mod database;
mod explain_scale;
mod lint;
mod migrate;
mod output;
mod tenants;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use flagmeter_runtime::env::{Env, Secret};
use flagmeter_store::{PgPool, postgres};

/// For people who run FlagMeter. The database is the one that the environment's `DATABASE_URL` names, the queue
/// the one that `VALKEY_URL` does.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Migrate(migrate::Arguments),
    Audit(audit::Arguments),
    Alerts(alerts::Arguments),
    ExplainScale(explain_scale::Arguments),
    Tenants(tenants::Arguments),
    Lint(lint::Arguments),
    Crd(crd::Arguments),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    flagmeter_runtime::install_tls_provider();
    match Arguments::parse().command {
        Command::Migrate(arguments) => {
            migrate::run(arguments, &database()?).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Audit(arguments) => audit::run(arguments, &database()?).await,
        Command::Alerts(arguments) => alerts::run(arguments, &database()?).await,
        Command::ExplainScale(arguments) => explain_scale::run(arguments).await.map(|()| ExitCode::SUCCESS),
        Command::Tenants(arguments) => tenants::run(arguments, &database()?).await,
        Command::Lint(arguments) => lint::run(&arguments),
        Command::Crd(crd::Arguments {}) => crd::run(),
    }
}

fn database() -> anyhow::Result<PgPool> {
    let mut env = Env::process();
    let url: Option<Secret<String>> = env.required("DATABASE_URL");
    let url = env.finish(|| url)?;
    Ok(postgres::pool(url.expose(), "flagmeter", 1)?)
}
