//! Watches over a system that runs, and stops all of it.

use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Error, Result};
use nix::sys::signal::Signal;

use crate::interrupt;
use crate::process;
use crate::progress::Progress;
use crate::registry::{Entry, POD, SUPERVISOR};
use crate::servers::Name;
use crate::state::State;
use crate::system::System;

/// How soon a death is noticed.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a process that is nobody's server may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// Makes this process the one that is responsible for the system.
pub(crate) fn take_over(state: &State) -> Result<()> {
    let own = std::process::id().cast_signed();
    match Entry::of(SUPERVISOR, own, state.log(SUPERVISOR)) {
        Some(entry) => state.registry().record(&entry),
        None => Ok(()),
    }
}

/// Returns when somebody asks this process to end; fails when a server dies, and keeps the reason for
/// `status`.
pub(crate) fn watch(system: &System) -> Result<()> {
    while !interrupt::requested() {
        system.check_all(&Name::ALL).inspect_err(|reason| note_end(&system.state, reason))?;
        sleep(PAUSE);
    }
    Ok(())
}

fn note_end(state: &State, reason: &Error) {
    // Nobody is there to be told if this fails.
    let _ = fs::write(state.ended(), format!("{reason:#}\n"));
}

/// Stops everything after a watch that ended with `outcome`, and says how the command ends.
pub(crate) fn end(state: &State, progress: &Progress, outcome: Result<()>) -> Result<ExitCode> {
    let interrupted = interrupt::requested();
    stop_all(state, progress);
    state.registry().remove(SUPERVISOR);
    if !interrupted {
        return outcome.map(|()| ExitCode::SUCCESS);
    }
    progress.say("everything is stopped; the data are kept");
    // 128 and the number of SIGINT, for an `up` that never was.
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(130) })
}

/// Stops every process of the system but this one, and returns how many there were.
///
/// It goes by the registry alone, so that it works after any crash. The registry is read again for each
/// process, since the process node may have started another container until it ended.
pub(crate) fn stop_all(state: &State, progress: &Progress) -> usize {
    let registry = state.registry();
    let own = std::process::id().cast_signed();
    let mut stopped = BTreeSet::new();
    loop {
        let entries = registry.entries().into_iter();
        let left =
            entries.filter(|entry| entry.pid != own && !stopped.contains(&entry.pid) && entry.is_running());
        let Some(entry) = left.min_by_key(rank) else { break };
        let step = progress.aside(&format!("stopping {} (pid {})", entry.name, entry.pid));
        let (signal, grace) = match Name::parse(&entry.name) {
            Some(name) => (name.server().stop_signal(), name.server().grace()),
            None => (Signal::SIGTERM, GRACE),
        };
        process::stop(entry.pid, &entry.started, signal, grace);
        registry.remove(&entry.name);
        stopped.insert(entry.pid);
        step.done("");
    }
    for entry in registry.entries().iter().filter(|entry| entry.pid != own) {
        registry.remove(&entry.name);
    }
    stopped.len()
}

/// Who stops first: whoever could start something again, then the process node with its pods, then the
/// pods it left behind, then the servers, the last started first.
fn rank(entry: &Entry) -> usize {
    let servers = Name::ALL.len();
    match Name::parse(&entry.name) {
        Some(Name::ProcessNode) => 1,
        Some(name) => 2 + servers - Name::ALL.iter().position(|other| *other == name).unwrap_or(servers),
        None if entry.name.starts_with(POD) => 2,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn the_system_is_taken_down_from_the_top() {
        let entry = |name: &&str| Entry {
            name: (*name).to_owned(),
            pid: 1,
            started: String::new(),
            log: PathBuf::new(),
        };
        let order = [
            "restart-valkey",
            "process-node",
            "pod-api-api",
            "kube-controller-manager",
            "kube-apiserver",
            "etcd",
        ];
        let ranks: Vec<usize> =
            order.iter().chain(&["valkey", "postgres"]).map(entry).map(|entry| rank(&entry)).collect();
        assert!(ranks.is_sorted() && ranks.first() < ranks.last(), "{ranks:?}");
        assert!(ranks.windows(2).skip(2).all(|pair| pair[0] < pair[1]), "{ranks:?}");
    }
}
