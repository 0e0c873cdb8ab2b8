//! A container's process: how it is started, waited for and stopped.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::record::Exit;
use crate::registry::{self, Entry};

/// What a process is started with. There is no `Debug`: the environment may hold secrets.
#[derive(Clone)]
pub struct Launch {
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// Its working folder.
    pub folder: PathBuf,
}

impl Launch {
    /// The command, with no input and no output.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

/// A process that was started and is not reaped yet.
pub struct Process {
    child: Child,
    pid: Pid,
    entry: PathBuf,
}

impl Process {
    /// Starts a process that writes to `log`, and registers it as `name` in the folder `registry`.
    ///
    /// # Errors
    ///
    /// If it cannot be started or registered; it does not run then.
    pub fn spawn(launch: &Launch, log: &Path, registry: &Path, name: String) -> io::Result<Self> {
        log.parent().map_or(Ok(()), fs::create_dir_all)?;
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let child = launch
            .command()
            .stdout(output.try_clone()?)
            .stderr(output)
            // A group of its own: Ctrl-C in a terminal is for the node, which then stops in order.
            .process_group(0)
            .spawn()?;
        let gone = || io::Error::other("the process ended before it could be registered");
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(gone)?;
        let entry = Entry {
            name,
            pid,
            // One that has ended at once stays a zombie until it is waited for, and has no identity.
            started: registry::identity(pid).unwrap_or_default(),
            log: log.to_owned(),
        };
        entry.write(registry)?;
        Ok(Self { child, pid: Pid::from_raw(pid), entry: entry.path(registry) })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits for its end. May be dropped and called again.
    pub async fn wait(&mut self) -> Exit {
        let status = self.child.wait().await;
        // With a container, whatever its first process started ends too.
        let _ = killpg(self.pid, Signal::SIGKILL);
        let _ = fs::remove_file(&self.entry);
        status.map_or(Exit { code: 255, signal: None }, exit)
    }

    /// Asks it to end, and kills it once `overdue` returns.
    pub async fn stop(&mut self, overdue: impl Future<Output = ()>) -> Exit {
        let _ = kill(self.pid, Signal::SIGTERM);
        tokio::select! {
            exit = self.wait() => return exit,
            () = overdue => {}
        }
        let _ = killpg(self.pid, Signal::SIGKILL);
        self.wait().await
    }
}

fn exit(status: ExitStatus) -> Exit {
    let signal = status.signal();
    let code = status.code().unwrap_or_else(|| 128 + signal.unwrap_or(127));
    Exit { code, signal }
}
