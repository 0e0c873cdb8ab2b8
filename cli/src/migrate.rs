//! `flagmeter migrate`: brings the database's schema to this build's version.

use std::time::{Duration, Instant};

use flagmeter_runtime::telemetry::chain;
use flagmeter_store::{PgPool, postgres};
use serde_json::json;

use crate::database::failed;
use crate::output::{self, Form};

/// Migrate the database's schema to this version of FlagMeter
///
/// Safe to run again, and from several places at once. Each migration is applied as a whole or not at all. `DATABASE_URL`
/// needs the role that owns the tables.
#[derive(clap::Args)]
#[command(after_long_help = "Exit code 0: the schema is up to date. 1: it is not.")]
pub(crate) struct Arguments {
    /// How long to wait for a database that does not answer yet
    ///
    /// One that answers and refuses is not waited for.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait_for_database: u64,
    #[command(flatten)]
    form: Form,
}

/// The wait between two tries.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

pub(crate) async fn run(arguments: Arguments, pool: &PgPool) -> anyhow::Result<()> {
    let patience = Duration::from_secs(arguments.wait_for_database);
    let start = Instant::now();
    while let Err(error) = postgres::migrate(pool).await {
        if !error.is_unreachable() || start.elapsed() >= patience {
            let what = "the schema is as it was before the migration that failed";
            let advice = "the cause says why; DATABASE_URL needs the role that owns the tables";
            return Err(failed(pool, what, advice)(error));
        }
        output::note(&format!("waiting for the database: {}\n", chain(&error)));
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
    if let Some(statement) = postgres::revoke_temporary(pool).await? {
        output::note(&format!(
            "warning: every role may make temporary tables; as the owner of the database, run: {statement}\n"
        ));
    }
    if arguments.form.json {
        output::print_json(&json!({ "upToDate": true }))
    } else {
        output::print("the schema is up to date\n")
    }
}
