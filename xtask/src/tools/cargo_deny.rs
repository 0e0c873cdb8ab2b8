//! cargo-deny, which judges the dependencies; needed by the lint layer alone.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::cache::{self, Cache};
use crate::execution::Execution;
use crate::progress::Progress;

const VERSION: &str = "0.20.2";
const INSTALL_LIMIT: Duration = Duration::from_mins(30);

/// Where it is; built into the cache if it is not there yet.
pub(crate) fn provide(cache: &Cache, progress: &Progress) -> Result<PathBuf> {
    let folder = cache.platform_path(&format!("cargo-deny-{VERSION}"));
    let program = folder.join("bin/cargo-deny");
    if program.exists() {
        return Ok(program);
    }
    let _lock = cache.lock(progress)?;
    if !program.exists() {
        progress.expect(1);
        let step = progress.step("cargo-deny (judges licenses, sources and duplicates of dependencies)");
        cache::install(&folder, |target| {
            let mut install = Command::new("cargo");
            // A debug build: it runs for a second, and takes a third of the time to compile.
            install
                .args([
                    "install",
                    "--locked",
                    "--debug",
                    "--no-default-features",
                    "--version",
                    VERSION,
                    "--root",
                ])
                .args([target.as_os_str(), "cargo-deny".as_ref()])
                .env_remove("CARGO_TARGET_DIR");
            Execution::new(install, INSTALL_LIMIT).on_line(&|line| step.note(line)).run()?;
            Ok(())
        })?;
        step.done(VERSION);
    }
    Ok(program)
}
