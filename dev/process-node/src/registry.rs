//! The process registry: a file per process, so that each is found and stopped even after a `kill -9`
//! of whoever started it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures::future::join_all;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

/// How long a container of an earlier process node may take to stop.
const GRACE: Duration = Duration::from_secs(10);

/// A file of the registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// The file's name, without `.json`.
    pub name: String,
    /// The process.
    pub pid: i32,
    /// When it was started, as [`identity`] tells it: a process id alone may be somebody else's by now.
    pub started: String,
    /// Where its output goes.
    pub log: PathBuf,
}

impl Entry {
    /// Where the entry is in `folder`.
    #[must_use]
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(&self.name).with_added_extension("json")
    }

    /// Writes the entry.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        let content = serde_json::to_vec(self)?;
        crate::file::replace(&self.path(folder), &content, 0o644)
    }

    /// Whether its process still runs.
    fn is_alive(&self) -> bool {
        identity(self.pid).is_some_and(|identity| identity == self.started)
    }
}

/// When process `pid` was started: the 22nd field of `/proc/PID/stat`, or what `ps` says where there is
/// no `/proc`. `None` if it ended, even if nobody has reaped it yet.
#[must_use]
pub fn identity(pid: i32) -> Option<String> {
    if cfg!(target_os = "linux") {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field, a name in parentheses, may itself hold spaces and parentheses.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        return Some(fields.nth(18)?.to_owned()).filter(|_| !matches!(state, "Z" | "X"));
    }
    let ps = |column: &str| {
        let output = Command::new("ps").args(["-o", column, "-p", &pid.to_string()]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        Some(text).filter(|text| !text.is_empty())
    };
    ps("stat=").filter(|state| !state.starts_with('Z'))?;
    ps("lstart=")
}

/// Stops the containers that an earlier process node left running, all at the same time.
pub async fn stop_left_overs(folder: &Path) {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let entries = files.filter_map(|file| {
        let ours = file.file_name().to_str()?.starts_with("pod-");
        let entry: Entry = serde_json::from_slice(&fs::read(file.path()).ok().filter(|_| ours)?).ok()?;
        Some(stop(entry, file.path()))
    });
    join_all(entries.collect::<Vec<_>>()).await;
}

/// Stops one process that is no child of ours, so its end can only be looked for.
async fn stop(entry: Entry, path: PathBuf) {
    let process = Pid::from_raw(entry.pid);
    if entry.is_alive() {
        tracing::info!(entry.name, entry.pid, "stopping what an earlier process node left running");
        // An error says that it ended meanwhile.
        let _ = kill(process, Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        while entry.is_alive() && Instant::now() < deadline {
            sleep(Duration::from_millis(50)).await;
        }
        // Its group lives on in what it started itself.
        let _ = killpg(process, Signal::SIGKILL);
    }
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_and_not_once_it_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let identity_while_running = identity(pid).unwrap();
        assert_eq!(identity(pid), Some(identity_while_running));

        child.kill().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        // Not reaped yet: a zombie is no process any more.
        while identity(pid).is_some() {
            assert!(std::time::Instant::now() < deadline, "a killed process still counts as running");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(identity(pid), None);
    }
}
