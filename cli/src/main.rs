//! `flagmeter`: the command for people who run FlagMeter.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod alerts;
mod audit;
mod completions;
mod crd;
mod database;
mod explain_scale;
mod lint;
mod migrate;
mod output;
mod tenants;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use flagmeter_runtime::env::{Env, Secret};
use flagmeter_store::{PgPool, postgres};

/// Operate a FlagMeter installation
///
/// Commands that look at what is stored read the environment's `DATABASE_URL`, `explain-scale` reads `VALKEY_URL`; `lint`,
/// `crd` and `completions` need neither.
#[derive(Parser)]
#[command(
    name = "flagmeter",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_long_help = "Exit code 0: done, and all is well. 1: not done, or something is not well. 2: the command line is \
    wrong.\n\n\
    Examples:\n  \
    export DATABASE_URL=postgres://user:password@host:5432/flagmeter\n  \
    flagmeter usage acme-corp             # what a tenant has used\n  \
    flagmeter tenants list --json         # every command that prints something takes --json\n  \
    flagmeter alerts test acme-corp       # send a test to the tenant's channels\n  \
    flagmeter lint tenants/               # check Tenants in files\n  \
    kubectl exec -n flagmeter deploy/flagmeter-worker -- flagmeter audit"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Migrate(migrate::Arguments),
    Audit(audit::Arguments),
    Usage(usage::Arguments),
    Alerts(alerts::Arguments),
    ExplainScale(explain_scale::Arguments),
    Tenants(tenants::Arguments),
    Lint(lint::Arguments),
    Crd(crd::Arguments),
    Completions(completions::Arguments),
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
        Command::Usage(arguments) => usage::run(arguments, &database()?).await,
        Command::Crd(arguments) => crd::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    }
}

fn no_tenant(tenant: &str) -> String {
    format!("there is no tenant {tenant:?}; `flagmeter tenants list` lists those there are")
}

fn database() -> anyhow::Result<PgPool> {
    let mut env = Env::process();
    let url: Option<Secret<String>> = env.required("DATABASE_URL");
    let url = env.finish(|| url)?;
    Ok(postgres::pool(url.expose(), "flagmeter", 1)?)
}
