//! `cargo xtask tools`: what is needed that is not Rust, and where it is.

use std::process::ExitCode;

use anyhow::Result;

use crate::cache::Cache;
use crate::progress::Progress;
use crate::tools::{Search, Tool};

pub(crate) fn run() -> Result<ExitCode> {
    let progress = Progress::new();
    let cache = Cache::open()?;
    let wanted = [&Tool::SYSTEM[..], &Tool::CLIENTS].concat();
    let search = Search::new(&cache, &wanted)?;
    progress.expect(search.steps());
    let tools = search.fetch(&progress)?;
    for (tool, path, origin) in tools.rows() {
        say!("{:<24} {origin:<10} {}", tool.title(), path.display());
    }
    Ok(ExitCode::SUCCESS)
}
