//! One system on this machine: its folder, its settings and the servers it has started.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow};

use crate::account::Account;
use crate::execution::last_lines;
use crate::kubectl::Kubectl;
use crate::ports::{self, Ports};
use crate::process::Table;
use crate::progress::Progress;
use crate::registry::{Entry, RESTART};
use crate::servers::Name;
use crate::settings::Settings;
use crate::state::State;
use crate::tools::Tools;
use crate::waiting::wait_for;

/// How long a server may take until it works: PostgreSQL may have a crash to recover from.
const READY_LIMIT: Duration = Duration::from_mins(2);
/// A log that is larger begins anew with the next start.
const LOG_LIMIT: u64 = 20 << 20;
/// How many lines of a dead server's log are shown.
const SHOWN_LINES: usize = 20;

/// See the module.
pub(crate) struct System {
    pub(crate) state: State,
    pub(crate) settings: Settings,
    pub(crate) account: Account,
    /// Servers that this process started, to learn how they end.
    children: RefCell<BTreeMap<Name, Child>>,
}

/// How a new system is wanted.
pub(crate) struct Wish {
    /// Ports, unless there are those of a last run.
    pub(crate) ports: Ports,
    /// The API's port, whatever the last run had.
    pub(crate) api_port: Option<u16>,
    /// Whether PostgreSQL waits for the disk.
    pub(crate) durable: bool,
}

impl System {
    /// A system with the settings of the last run, if there are any. Nothing of it may run, and its
    /// servers should start soon: only now its ports are free.
    pub(crate) fn prepare(
        state: State,
        account: Account,
        wish: &Wish,
        tools: Tools,
        progress: &Progress,
    ) -> Result<Self> {
        let mut settings = if let Some(settings) = Settings::find(&state) {
            settings
        } else {
            if state.has_data() {
                let place = state.set_aside()?;
                progress.say(&format!(
                    "data of an earlier layout cannot be used; they are in {}",
                    place.display()
                ));
                account.make_folder(&state.data("pki"), 0o700)?;
            }
            Settings::new(wish.ports.clone(), wish.durable)?
        };
        settings.durable = wish.durable;
        settings.tools = tools;
        settings.ports.api = wish.api_port.unwrap_or(settings.ports.api);
        let (ports, moved) = settings.ports.settle(ports::is_free)?;
        settings.ports = ports;
        for sentence in moved {
            progress.say(&sentence);
        }
        settings.save(&state)?;
        Ok(Self { state, settings, account, children: RefCell::default() })
    }

    /// A system that somebody else brought up.
    pub(crate) fn attach(state: State) -> Result<Self> {
        let settings = Settings::load(&state)?;
        Ok(Self { state, settings, account: Account::choose()?, children: RefCell::default() })
    }

    pub(crate) fn kubectl(&self) -> Result<Kubectl> {
        Kubectl::new(&self.state, &self.settings.tools)
    }

    /// A program that runs as the servers' user and sees nothing of the caller's environment.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("TZ", "UTC")])
            .env("HOME", self.state.data_folder())
            .current_dir(self.state.data_folder());
        self.account.run_as(&mut command);
        command
    }

    /// Starts a server and waits until it works.
    ///
    /// # Errors
    ///
    /// It ended, with its last words; it was not ready in time; or it cannot be started.
    pub(crate) fn start(&self, name: Name) -> Result<()> {
        let server = name.server();
        server.prepare(self).with_context(|| format!("failed to prepare {}", name.as_str()))?;
        self.spawn(name)?;
        let watch = || self.check(name);
        wait_for(&format!("{} to work", name.as_str()), READY_LIMIT, watch, || server.probe(self)).map_err(
            // A death has its last words already.
            |error| match self.state.registry().running(name.as_str()) {
                Some(entry) => last_words(&entry.log, &error),
                None => error,
            },
        )?;
        server.settle(self).with_context(|| format!("failed to set up {}", name.as_str()))
    }

    /// Starts servers in order, a step each.
    pub(crate) fn start_all(&self, names: &[Name], progress: &Progress) -> Result<()> {
        for name in names {
            let step = progress.step(&format!("{} ({})", name.as_str(), name.server().purpose()));
            self.start(*name)?;
            let address = name.server().address(self);
            step.done(if address == "-" { "runs" } else { &address });
        }
        Ok(())
    }

    fn spawn(&self, name: Name) -> Result<()> {
        let doing = || format!("failed to start {}", name.as_str());
        let log = self.state.log(name.as_str());
        let truncate = fs::metadata(&log).is_ok_and(|metadata| metadata.len() > LOG_LIMIT);
        if truncate {
            fs::rename(&log, log.with_added_extension("old")).with_context(doing)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&log).with_context(doing)?;
        self.account.own(&log)?;
        let mut command = name.server().command(self)?;
        // A group of its own: the terminal's Ctrl-C is for xtask, which stops the servers in order.
        command.process_group(0).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(doing)?;
        if let Some(entry) = Entry::of(name.as_str(), child.id().cast_signed(), log) {
            self.state.registry().record(&entry)?;
        }
        self.children.borrow_mut().insert(name, child);
        Ok(())
    }

    /// An error if a server that should run does not. One that is being restarted counts as running.
    pub(crate) fn check(&self, name: Name) -> Result<()> {
        let registry = self.state.registry();
        let runs = || registry.running(name.as_str()).is_some();
        // In this order: a restart registers the new process before it withdraws itself.
        if runs() || registry.running(&format!("{RESTART}{}", name.as_str())).is_some() || runs() {
            return Ok(());
        }
        Err(self.death(name))
    }

    /// An error if any of them does not run.
    pub(crate) fn check_all(&self, names: &[Name]) -> Result<()> {
        names.iter().try_for_each(|name| self.check(*name))
    }

    fn death(&self, name: Name) -> Error {
        let pid = self.state.registry().find(name.as_str()).map(|entry| entry.pid);
        let mut children = self.children.borrow_mut();
        let child =
            children.get_mut(&name).filter(|child| pid.is_none_or(|pid| child.id().cast_signed() == pid));
        let how = match child.and_then(|child| child.try_wait().ok().flatten()) {
            Some(status) => format!("ended ({status})"),
            None => "ended".to_owned(),
        };
        self.state.registry().remove(name.as_str());
        let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        last_words(&self.state.log(name.as_str()), &anyhow!("{}{pid} {how}", name.as_str()))
    }

    /// The processes that a server has started.
    pub(crate) fn descendants_of(&self, name: Name) -> Vec<Entry> {
        let Some(entry) = self.state.registry().running(name.as_str()) else { return Vec::new() };
        let pids = Table::read().descendants(entry.pid, &[]);
        pids.into_iter().filter_map(|pid| Entry::of(name.as_str(), pid, entry.log.clone())).collect()
    }
}

/// An error with the last lines of a log.
pub(crate) fn last_words(log: &Path, error: &Error) -> Error {
    let lines: Vec<String> = match fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect(),
        Err(_) => return anyhow!("{error:#}"),
    };
    anyhow!("{error:#}\nthe last lines of {}:\n{}", log.display(), last_lines(&lines, SHOWN_LINES))
}
