//! `cargo xtask sqlx`: writes .sqlx anew.

use std::process::ExitCode;

use anyhow::Result;

use super::test::ground::Ground;
use crate::progress::Progress;
use crate::query_data;

pub(crate) fn run() -> Result<ExitCode> {
    let progress = Progress::new();
    let mut ground = Ground::new(&progress)?;
    let outcome = (|| {
        let system = ground.stores()?;
        progress.expect(1);
        let step = progress.step("compiling the queries of flagmeter-store against a database");
        let current = query_data::describe(system, &|line| step.note(line))?;
        let changed = query_data::replace(&current)?;
        step.done(&format!("{} queries, {changed} files changed", current.len()));
        Ok(ExitCode::SUCCESS)
    })();
    ground.clear();
    outcome
}
