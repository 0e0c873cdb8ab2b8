//! The layer that runs no test: format, lints, dependencies, generated files. Each check counts as one.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::dependencies;
use super::ground::Ground;
use super::report::Tally;
use crate::binaries::cargo;
use crate::checkout;
use crate::execution::Execution;
use crate::progress::Progress;
use crate::query_data;
use crate::tools::cargo_deny;

/// How long one check may take; clippy may have everything to compile.
const LIMIT: Duration = Duration::from_mins(40);

type Check = fn(&mut Ground<'_>, &dyn Fn(&str), &Progress) -> Result<()>;

const CHECKS: [(&str, Check); 6] = [
    ("format (cargo fmt)", |_, note, _| {
        run(cargo(&["fmt", "--all", "--check", "--", "--color", "never"]), note)
    }),
    ("core has no I/O", |_, _, _| dependencies::core_is_pure()),
    ("SQL, Valkey and Kubernetes are where they belong", |_, _, _| dependencies::are_where_they_belong()),
    ("lints (cargo clippy)", |_, note, _| {
        run(cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]), note)
    }),
    (".sqlx is current", |ground, note, _| {
        query_data::compare(&query_data::committed()?, &query_data::describe(ground.stores()?, note)?)
    }),
    ("licenses, sources and duplicates (cargo deny)", |ground, note, progress| {
        let mut deny = Command::new(cargo_deny::provide(ground.cache(), progress)?);
        deny.current_dir(checkout::root()).args(["--color", "never", "check", "bans", "licenses", "sources"]);
        run(deny, note)
    }),
];

pub(crate) fn run_all(ground: &mut Ground<'_>, progress: &Progress) -> Tally {
    let mut tally = Tally::default();
    for (name, check) in CHECKS {
        tally += one(name, progress, |note| check(ground, note, progress));
    }
    tally
}

/// Runs one check and prints how it went. It counts as one.
pub(super) fn one(name: &str, progress: &Progress, check: impl FnOnce(&dyn Fn(&str)) -> Result<()>) -> Tally {
    let started = Instant::now();
    let step = progress.silent(name);
    let outcome = check(&|line| step.note(line));
    step.done("");
    let seconds = started.elapsed().as_secs_f32();
    match outcome {
        Ok(()) => {
            say!("  ok      {name} ({seconds:.1} s)");
            Tally::PASSED
        }
        Err(error) => {
            say!("  FAILED  {name} ({seconds:.1} s)\n{error:#}\n");
            Tally::FAILED
        }
    }
}

pub(super) fn run(command: Command, note: &dyn Fn(&str)) -> Result<()> {
    Execution::new(command, LIMIT).on_line(note).all_lines().run().map(drop)
}
