//! `flagmeter audit`: whether the books balance.

use std::process::ExitCode;

use flagmeter_store::PgPool;
use flagmeter_store::postgres::audit::{Book, books};

use crate::database::failed;

/// Compare what each tenant used in events, rollups, periods and features: all must be equal.
/// Exit code 0 if they are, 1 if they are not.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print one JSON array instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments, pool: &PgPool) -> anyhow::Result<ExitCode> {
    let books = books(pool).await.map_err(failed(
        "the books could not be read",
        "is DATABASE_URL right, and the database migrated?",
    ))?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&books)?);
    } else {
        print!("{}", table(&books));
    }
    let balanced = books.iter().all(Book::balances);
    Ok(if balanced { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The table's columns: tenant, events, tokens by source, dead letters, verdict.
const HEADER: [&str; 8] = [
    "TENANT",
    "EVENTS",
    "EVENT TOKENS",
    "ROLLUP TOKENS",
    "PERIOD TOKENS",
    "FEATURE TOKENS",
    "DEAD LETTERS",
    "BALANCED",
];

fn table(books: &[Book]) -> String {
    let row = |book: &Book| {
        let balanced = if book.balances() { "yes" } else { "NO" };
        line([
            &book.tenant,
            &book.events.to_string(),
            &book.event_tokens.to_string(),
            &book.rollup_tokens.to_string(),
            &book.period_tokens.to_string(),
            &book.feature_tokens.to_string(),
            &book.dead_letters.to_string(),
            balanced,
        ])
    };
    std::iter::once(line(HEADER)).chain(books.iter().map(row)).collect()
}

fn line([tenant, events, event, rollup, period, feature, letters, balanced]: [&str; 8]) -> String {
    format!(
        "{tenant:<24} {events:>10} {event:>17} {rollup:>17} {period:>17} {feature:>17} {letters:>12}  {balanced}\n"
    )
}
