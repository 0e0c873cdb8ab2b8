//! `cargo xtask restart NAME`: a restart that nobody takes for a failure.

use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::interrupt;
use crate::process;
use crate::progress::Progress;
use crate::registry::{Entry, RESTART, SUPERVISOR};
use crate::servers::Name;
use crate::state::State;
use crate::system::System;

pub(crate) fn run(folder: &Path, name: Name, kill: bool, away: Duration) -> Result<ExitCode> {
    let state = State::at(folder);
    let system = System::attach(state.clone())?;
    let registry = state.registry();
    if registry.running(SUPERVISOR).is_none() {
        bail!("nothing is running in {}", state.shown());
    }
    let progress = Progress::new();
    progress.expect(1);

    // As long as this entry stands, whoever watches waits.
    let marker = format!("{RESTART}{}", name.as_str());
    let own = std::process::id().cast_signed();
    registry.record(
        &Entry::of(&marker, own, state.log(name.as_str())).context("failed to register the restart")?,
    )?;
    let step = progress.step(&format!("restarting {}", name.as_str()));
    let outcome = stop(&system, name, kill, away).and_then(|()| system.start(name));
    registry.remove(&marker);
    outcome?;
    step.done(&registry.running(name.as_str()).map(|entry| format!("pid {}", entry.pid)).unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}

/// Ends it, and waits for as long as it is to stay away.
fn stop(system: &System, name: Name, kill: bool, away: Duration) -> Result<()> {
    if let Some(entry) = system.state.registry().running(name.as_str()) {
        let descendants = system.descendants_of(name);
        let (signal, grace) = if kill {
            (Signal::SIGKILL, Duration::ZERO)
        } else {
            (name.server().stop_signal(), name.server().grace())
        };
        process::stop(entry.pid, &entry.started, signal, grace);
        if name != Name::ProcessNode {
            end(&descendants);
        }
    }
    let stopped = Instant::now();
    while stopped.elapsed() < away {
        interrupt::check()?;
        sleep(Duration::from_millis(100).min(away));
    }
    Ok(())
}

/// What PostgreSQL started ends by itself soon after it; until then its data cannot be opened again.
/// Containers are left to the next process node.
fn end(descendants: &[Entry]) {
    for process in descendants {
        process::wait(process.pid, &process.started, Duration::from_secs(10));
    }
}
