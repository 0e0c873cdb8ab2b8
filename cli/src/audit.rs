//! `flagmeter audit`: whether the books balance.

use std::process::ExitCode;

use flagmeter_store::PgPool;
use flagmeter_store::postgres::audit::{Book, books};

use crate::database::{READS, failed};
use crate::output::{self, Form};

/// Check that the books of every tenant balance
///
/// Compares what each tenant used in events, rollups, periods and features: all must be equal. It reads whole tables, so
/// it takes as long as they are large.
#[derive(clap::Args)]
#[command(after_long_help = "Exit code 0: all books balance. 1: some do not, or they could not be read.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    form: Form,
}

pub(crate) async fn run(arguments: Arguments, pool: &PgPool) -> anyhow::Result<ExitCode> {
    let books = books(pool).await.map_err(failed(pool, "the books could not be read", READS))?;
    if arguments.form.json {
        output::print_json(&books)?;
    } else {
        output::print(&table(&books))?;
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
    let torn = books.iter().filter(|book| !book.balances()).count();
    let sum = match (books.len(), torn) {
        (1, 0) => "1 tenant: its books balance\n".to_owned(),
        (tenants, 0) => format!("{tenants} tenants: all books balance\n"),
        (tenants, torn) => format!("{tenants} tenants: the books of {torn} do NOT balance\n"),
    };
    std::iter::once(line(HEADER)).chain(books.iter().map(row)).chain([sum]).collect()
}

fn line([tenant, events, event, rollup, period, feature, letters, balanced]: [&str; 8]) -> String {
    format!(
        "{tenant:<24} {events:>10} {event:>17} {rollup:>17} {period:>17} {feature:>17} {letters:>12}  {balanced}\n"
    )
}
