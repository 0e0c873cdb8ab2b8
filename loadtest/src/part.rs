//! Programs that are measured: started, ended, and what they cost.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// The kernel tells CPU times in hundredths of a second (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// How long a program may take to end.
const GRACE: Duration = Duration::from_secs(20);

/// A program of FlagMeter's, or a baseline. It is killed if it is dropped.
pub(crate) struct Part {
    name: String,
    child: Child,
    pub(crate) pid: u32,
}

impl Part {
    /// Starts `program`, which logs to `log`.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        logs: &Path,
    ) -> Result<Self> {
        let doing = || format!("failed to start {name}");
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(logs.join(format!("{name}.log")))
            .with_context(doing)?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(doing)?;
        let pid = child.id().with_context(doing)?;
        Ok(Self { name: name.to_owned(), child, pid })
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM)
            .with_context(|| format!("failed to stop {}", self.name))?;
        let ended = tokio::time::timeout(GRACE, self.child.wait()).await;
        let status = ended.with_context(|| format!("{} did not end", self.name))??;
        // A baseline has no ear for the signal; it has nothing to finish.
        if !status.success() && self.name != "baseline" {
            bail!("{} ended with {status}", self.name);
        }
        Ok(())
    }
}

/// An address of loopback where nobody listens now.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to find a free port")?;
    Ok(listener.local_addr()?)
}

/// CPU time that a process took so far, its ended threads included.
pub(crate) fn cpu(pid: u32) -> Duration {
    let ticks = stat(pid).map_or(0, |fields| {
        // Fields 14 and 15 of proc(5); `fields` starts with the third.
        fields.iter().skip(14 - 3).take(2).filter_map(|field| field.parse::<u32>().ok()).sum()
    });
    TICK * ticks
}

/// CPU time of this process.
pub(crate) fn own_cpu() -> Duration {
    cpu(std::process::id())
}

/// CPU time that a process and those it started and that still run took so far.
pub(crate) fn tree_cpu(pid: u32) -> Duration {
    with_children(pid).into_iter().map(cpu).sum()
}

/// Memory of a process and of those it started, in bytes: each page divided among those that share it.
pub(crate) fn memory(pid: u32) -> u64 {
    with_children(pid).into_iter().map(own_memory).sum()
}

fn with_children(pid: u32) -> Vec<u32> {
    let others = fs::read_dir("/proc").into_iter().flatten().flatten();
    let others = others.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |other: u32| stat(other)?.get(1)?.parse::<u32>().ok();
    others.filter(|other| *other == pid || parent(*other) == Some(pid)).collect()
}

fn own_memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1_024
}

/// The fields of /proc/PID/stat after the name, which may itself hold blanks and brackets.
fn stat(pid: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = line.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_nobody_uses_none() {
        assert!(memory(std::process::id()) > 100_000);
        // No process has the largest pid.
        assert_eq!((memory(u32::MAX), cpu(u32::MAX)), (0, Duration::ZERO));
    }
}
