//! `cargo xtask down`: stops everything, also what a killed `up` left behind.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::progress::Progress;
use crate::registry::SUPERVISOR;
use crate::state::State;
use crate::supervision;
use crate::waiting::comes_true;

/// How long the supervisor may take to stop everything: every part's grace period, one after the other.
const SUPERVISOR_LIMIT: Duration = Duration::from_mins(3);

pub(crate) fn run(folder: &Path, purge: bool) -> Result<ExitCode> {
    let progress = Progress::new();
    let state = State::at(folder);
    let mut stopped = 0;
    if let Some(supervisor) = state.registry().running(SUPERVISOR) {
        let step = progress.aside(&format!("stopping the system (pid {} watches it)", supervisor.pid));
        let _ = kill(Pid::from_raw(supervisor.pid), Signal::SIGTERM);
        let gone = comes_true(SUPERVISOR_LIMIT, || {
            let names = state.registry().entries().into_iter().map(|entry| entry.name);
            step.note(&names.collect::<Vec<_>>().join(", "));
            !supervisor.is_running()
        });
        if !gone {
            let _ = kill(Pid::from_raw(supervisor.pid), Signal::SIGKILL);
        }
        step.done("");
        stopped += 1;
    }
    // All of it, if nobody watched.
    stopped += supervision::stop_all(&state, &progress);
    let left: Vec<String> = state.registry().entries().into_iter().map(|entry| entry.name).collect();
    if !left.is_empty() {
        bail!("could not stop {}", left.join(", "));
    }
    if stopped == 0 {
        say!("Nothing was running in {}.", state.shown());
    }
    if purge {
        state.purge()?;
        say!("The data in {} are gone.", state.shown());
    }
    Ok(ExitCode::SUCCESS)
}
