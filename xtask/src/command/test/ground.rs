//! What tests stand on: servers of their own, started once, as far as a layer needs them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::account::Account;
use crate::assembly::{self, CONTROL_PLANE, STORES};
use crate::binaries::Executable;
use crate::cache::Cache;
use crate::checkout;
use crate::environment::Environment;
use crate::ports::Ports;
use crate::progress::Progress;
use crate::release;
use crate::servers::{Name, Postgres, Valkey};
use crate::state::State;
use crate::supervision;
use crate::system::{System, Wish};
use crate::tools::sdks::{self, Sdks};
use crate::tools::{Search, Tool, Tools};

/// A state of its own beside that of `up`.
const FOLDER: &str = "target/test-state";

/// The servers of one run of the tests. They start on data of their own, made anew for each run.
pub(crate) struct Ground<'a> {
    progress: &'a Progress,
    cache: Cache,
    state: State,
    system: Option<System>,
    /// The programs that tests send requests with.
    clients: Tools,
    /// What some of them send events with.
    sdks: Option<Sdks>,
    /// Those that have been started.
    names: Vec<Name>,
    _lock: File,
}

impl<'a> Ground<'a> {
    /// Stops and forgets what an earlier run left.
    pub(crate) fn new(progress: &'a Progress) -> Result<Self> {
        let state = State::at(Path::new(FOLDER));
        let Some(lock) = state.lock()? else { bail!("tests are running already in this checkout") };
        supervision::stop_all(&state, progress);
        state.clear()?;
        let state = State::at(Path::new(FOLDER));
        let (cache, clients) = (Cache::open()?, Tools::default());
        Ok(Self { progress, cache, state, system: None, clients, sdks: None, names: Vec::new(), _lock: lock })
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// PostgreSQL and Valkey.
    pub(crate) fn stores(&mut self) -> Result<&System> {
        if self.system.is_none() {
            let wish = Wish { ports: Ports::out_of_the_way(), api_port: None, durable: false };
            let account = Account::choose()?;
            self.state.create(&account, &self.cache, self.progress)?;
            supervision::take_over(&self.state)?;
            let tools = self.fetch(&[Tool::Postgres, Tool::Valkey])?;
            self.system = Some(System::prepare(self.state.clone(), account, &wish, tools, self.progress)?);
        }
        self.start(&STORES)
    }

    /// And a proxy and clients for the API.
    pub(crate) fn clients(&mut self) -> Result<()> {
        self.stores()?;
        self.clients = self.fetch(&Tool::CLIENTS)?;
        self.sdks = Some(sdks::provide(&self.cache, self.progress, self.clients.path(Tool::Node)?)?);
        Ok(())
    }

    /// And a Kubernetes API that knows Tenants.
    pub(crate) fn control_plane(&mut self) -> Result<&System> {
        self.stores()?;
        let tools = self.fetch(&Tool::SYSTEM)?;
        if let Some(system) = &mut self.system {
            system.settings.tools = tools;
            system.settings.save(&self.state)?;
        }
        self.start(&CONTROL_PLANE)?;
        if !self.state.env_json().exists() {
            let system = self.system()?;
            release::prepare(system)?;
            let definition = checkout::path("crds/tenants.yaml").display().to_string();
            system.kubectl()?.run(&[
                "apply",
                "--server-side",
                "--force-conflicts",
                "--filename",
                &definition,
            ])?;
            let address = format!("127.0.0.1:{}", system.settings.ports.api);
            Environment::of(system, &address, BTreeMap::new())?.write(system)?;
        }
        self.system()
    }

    /// And the whole system, as `up` brings it up.
    pub(crate) fn release(&mut self, executables: &[Executable]) -> Result<&System> {
        self.control_plane()?;
        if !self.names.contains(&Name::ProcessNode) {
            self.names.push(Name::ProcessNode);
            self.progress.expect(assembly::RELEASE_STEPS);
            let system = self.system.as_mut().context("no server was started")?;
            // The chart brings the definition, and helm takes over nothing that others made.
            system.kubectl()?.run(&["delete", "crd", "tenants.flagmeter.dev", "--ignore-not-found"])?;
            assembly::release(system, executables, self.progress)?;
        }
        self.system()
    }

    /// How a test reaches all that runs.
    pub(crate) fn tell(&self, command: &mut Command) -> Result<()> {
        let Some(system) = &self.system else { return Ok(()) };
        command
            .env("DATABASE_URL", Postgres::superuser_url(&system.settings))
            .env("VALKEY_URL", Valkey::url(&system.settings))
            .envs(self.clients.rows().map(|(tool, path, _)| (tool.variable(), path)))
            .envs(self.sdks.iter().flatten().map(|(variable, path)| (*variable, path)));
        if self.names.contains(&Name::KubeApiserver) {
            let home = self.state.folder().join("helm");
            command
                .env("KUBECONFIG", self.state.kubeconfig())
                .env("KUBECACHEDIR", self.state.folder().join("kubectl-cache"))
                .env("HELM_CACHE_HOME", home.join("cache"))
                .env("HELM_CONFIG_HOME", home.join("config"))
                .env("HELM_DATA_HOME", home.join("data"))
                .env("FLAGMETER_KUBECTL", system.settings.tools.path(Tool::Kubectl)?)
                .env("FLAGMETER_HELM", system.settings.tools.path(Tool::Helm)?)
                .env("FLAGMETER_ENV_JSON", self.state.env_json())
                // To restart a server: $FLAGMETER_XTASK --state $FLAGMETER_STATE restart NAME.
                .env("FLAGMETER_XTASK", std::env::current_exe()?)
                .env("FLAGMETER_STATE", self.state.folder());
        }
        Ok(())
    }

    /// An error if a server died that no test restarted.
    pub(crate) fn check(&self) -> Result<()> {
        self.system.as_ref().map_or(Ok(()), |system| system.check_all(&self.names))
    }

    /// Stops all, and keeps the logs.
    pub(crate) fn stop(&self) {
        supervision::stop_all(&self.state, self.progress);
        self.state.registry().remove(crate::registry::SUPERVISOR);
    }

    /// Stops all, and forgets it.
    pub(crate) fn clear(&self) {
        self.stop();
        // What stays is removed by the next run.
        let _ = self.state.clear();
    }

    /// Where the logs are.
    pub(crate) fn logs(&self) -> String {
        self.state.logs().display().to_string()
    }

    fn system(&self) -> Result<&System> {
        self.system.as_ref().context("no server was started")
    }

    fn fetch(&self, wanted: &[Tool]) -> Result<Tools> {
        let search = Search::new(&self.cache, wanted)?;
        self.progress.expect(search.steps());
        search.fetch(self.progress)
    }

    fn start(&mut self, names: &[Name]) -> Result<&System> {
        let missing: Vec<Name> = names.iter().copied().filter(|name| !self.names.contains(name)).collect();
        self.progress.expect(missing.len());
        for name in missing {
            self.system()?.start_all(&[name], self.progress)?;
            self.names.push(name);
        }
        self.system()
    }
}
