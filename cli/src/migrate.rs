//! `flagmeter migrate`: brings the database's schema to this build's version.

use std::time::{Duration, Instant};

use anyhow::Context;
use flagmeter_runtime::telemetry::chain;
use flagmeter_store::{PgPool, postgres};

/// Bring the database's schema to this version of FlagMeter. Safe to run again, and from several places at once.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long to wait for a database that does not answer yet
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait_for_database: u64,
}

/// The wait between two tries.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

pub(crate) async fn run(arguments: Arguments, pool: &PgPool) -> anyhow::Result<()> {
    let patience = Duration::from_secs(arguments.wait_for_database);
    let start = Instant::now();
    while let Err(error) = postgres::migrate(pool).await {
        if !error.is_unreachable() || start.elapsed() >= patience {
            return Err(error).context("the schema is as it was before the migration that failed");
        }
        eprintln!("waiting for the database: {}", chain(&error));
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
    if let Some(statement) = postgres::revoke_temporary(pool).await? {
        eprintln!(
            "warning: every role may make temporary tables; as the owner of the database, run: {statement}"
        );
    }
    println!("the schema is up to date");
    Ok(())
}
