//! The packages of the workspace, as cargo tells them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::binaries::cargo;
use crate::checkout;
use crate::execution::Execution;

const LIMIT: Duration = Duration::from_mins(2);

#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `dev`, `build`, or nothing for a normal one.
    kind: Option<String>,
}

impl Workspace {
    pub(crate) fn read() -> Result<Self> {
        let metadata =
            Execution::new(cargo(&["metadata", "--no-deps", "--format-version=1"]), LIMIT).run()?;
        serde_json::from_str(&metadata).context("failed to parse cargo's metadata")
    }

    pub(crate) fn package(&self, id: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.id == id)
    }
}

impl Package {
    pub(crate) fn folder(&self) -> PathBuf {
        self.manifest_path.parent().unwrap_or(checkout::root()).to_owned()
    }

    /// Whether it is for developers only.
    pub(crate) fn is_for_development(&self) -> bool {
        self.manifest_path.starts_with(checkout::path("dev"))
    }
}

impl Dependency {
    /// Whether it is part of what ships, and not only of tests.
    pub(crate) fn is_shipped(&self) -> bool {
        self.kind.as_deref() != Some("dev")
    }
}
