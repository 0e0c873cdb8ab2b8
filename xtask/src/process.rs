//! Processes of the operating system: who is alive, who belongs to whom, what memory they use.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::waiting::comes_true;

/// How long a process may take to vanish after SIGKILL (it waits for its disk writes).
const AFTER_KILL: Duration = Duration::from_secs(10);

/// When the process started, in whatever unit the system tells; nothing if there is no such process or
/// it is a zombie. Together with the pid it identifies a process: pids are used again, this pair is not.
pub(crate) fn started(pid: i32) -> Option<String> {
    if cfg!(target_os = "linux") {
        let fields = stat(pid)?;
        let alive = !matches!(fields.first().map(String::as_str), Some("Z" | "X") | None);
        // Field 22 of proc(5); `fields` starts with the third.
        fields.into_iter().nth(22 - 3).filter(|_| alive)
    } else {
        ps(&["-o", "stat=", "-p", &pid.to_string()]).filter(|state| !state.starts_with('Z'))?;
        ps(&["-o", "lstart=", "-p", &pid.to_string()])
    }
}

/// The fields of /proc/PID/stat after the name, which may itself hold blanks and brackets.
fn stat(pid: i32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = line.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn ps(arguments: &[&str]) -> Option<String> {
    let output = Command::new("ps").args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The command line of a process, as far as this user may see it.
pub(crate) fn command_line(pid: i32) -> Option<String> {
    if cfg!(target_os = "linux") {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
    } else {
        ps(&["-o", "command=", "-p", &pid.to_string()])
    }
}

/// Sends `signal`, waits up to `grace` for the process to end, then kills it and its process group.
pub(crate) fn stop(pid: i32, started_at: &str, signal: Signal, grace: Duration) {
    let gone = || started(pid).is_none_or(|now| now != started_at);
    if gone() {
        return;
    }
    let process = Pid::from_raw(pid);
    let _ = kill(process, signal);
    if !comes_true(grace, gone) {
        let _ = killpg(process, Signal::SIGKILL);
        let _ = kill(process, Signal::SIGKILL);
        comes_true(AFTER_KILL, gone);
    }
}

/// Waits up to `grace` for a process to end by itself, then kills it.
pub(crate) fn wait(pid: i32, started_at: &str, grace: Duration) {
    let gone = || started(pid).is_none_or(|now| now != started_at);
    if !comes_true(grace, gone) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        comes_true(AFTER_KILL, gone);
    }
}

/// Every process of the machine, once.
pub(crate) struct Table(BTreeMap<i32, Row>);

struct Row {
    parent: i32,
    kibibytes: u64,
}

impl Table {
    /// Looks at all processes. What another user's process uses stays unknown (0) without root.
    pub(crate) fn read() -> Self {
        if cfg!(target_os = "linux") { Self::from_proc() } else { Self::from_ps() }
    }

    fn from_proc() -> Self {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let row = |pid| {
            let parent = stat(pid)?.get(1)?.parse().ok()?;
            Some((pid, Row { parent, kibibytes: resident(pid).unwrap_or(0) }))
        };
        Self(pids.filter_map(row).collect())
    }

    fn from_ps() -> Self {
        let text = ps(&["-axo", "pid=,ppid=,rss="]).unwrap_or_default();
        let row = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse::<u64>);
            let mut next = || numbers.next()?.ok();
            let (pid, parent, kibibytes) = (next()?, next()?, next()?);
            Some((pid.try_into().ok()?, Row { parent: parent.try_into().ok()?, kibibytes }))
        };
        Self(text.lines().filter_map(row).collect())
    }

    /// The processes that `pid` started, and theirs, without itself, and without those that are `apart`
    /// and what they started.
    pub(crate) fn descendants(&self, pid: i32, apart: &[i32]) -> Vec<i32> {
        let children = |parent| {
            let rows = self.0.iter().filter(move |(pid, row)| row.parent == parent && !apart.contains(pid));
            rows.map(|(pid, _)| *pid)
        };
        let mut found: Vec<i32> = children(pid).collect();
        let mut next = 0;
        while let Some(&child) = found.get(next) {
            found.extend(children(child));
            next += 1;
        }
        found
    }

    /// Memory of a process and all it started but those that are `apart`, in KiB.
    pub(crate) fn kibibytes(&self, pid: i32, apart: &[i32]) -> u64 {
        let tree = self.descendants(pid, apart).into_iter().chain([pid]);
        tree.filter_map(|pid| self.0.get(&pid)).map(|row| row.kibibytes).sum()
    }
}

/// Memory of one process in KiB: its proportional share where the kernel tells it, so that memory which
/// processes share (PostgreSQL's buffers) is counted once; else all that is resident.
fn resident(pid: i32) -> Option<u64> {
    let value = |file: &str, key: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    value("smaps_rollup", "Pss:").or_else(|| value("status", "VmRSS:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_reaped_child_is_not() {
        let own = std::process::id().cast_signed();
        assert!(started(own).is_some());

        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        // A zombie counts as gone even before it is reaped.
        assert!(comes_true(Duration::from_secs(10), || started(pid).is_none()));
        child.wait().unwrap();
        assert_eq!(started(pid), None);
    }

    #[test]
    fn a_process_tree_holds_grandchildren_but_those_that_stand_apart() {
        let rows = [(1, 0, 5), (2, 1, 10), (3, 2, 20), (9, 0, 40)];
        let row = |(pid, parent, kibibytes)| (pid, Row { parent, kibibytes });
        let table = Table(rows.map(row).into());
        assert_eq!(table.descendants(1, &[]), [2, 3]);
        assert_eq!(table.kibibytes(1, &[]), 35);
        assert_eq!(table.kibibytes(1, &[2]), 5);
    }
}
