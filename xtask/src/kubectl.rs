//! Calls of kubectl as the administrator of the dev system.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::execution::Execution;
use crate::state::State;
use crate::tools::{Tool, Tools};

/// How long one call may take.
const LIMIT: Duration = Duration::from_mins(1);

/// kubectl with its kubeconfig. Its discovery cache stays in the state, not in the user's home.
pub(crate) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    pub(crate) fn new(state: &State, tools: &Tools) -> Result<Self> {
        let program = tools.path(Tool::Kubectl)?.to_owned();
        Ok(Self { program, kubeconfig: state.kubeconfig(), cache: state.folder().join("kubectl-cache") })
    }

    /// Runs it and returns its output.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        self.execution(arguments).run()
    }

    /// Runs it and parses its output.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        serde_json::from_str(&self.run(arguments)?).context("kubectl wrote no JSON")
    }

    /// Applies objects. They go in by standard input, since some are Secrets, and on the server's side,
    /// since an apply on the client's would copy them into an annotation.
    pub(crate) fn apply(&self, objects: &str) -> Result<()> {
        let arguments =
            ["apply", "--server-side", "--force-conflicts", "--field-manager=xtask", "--filename=-"];
        self.execution(&arguments).input(objects).run().map(drop)
    }

    /// One call, for a caller who wants to watch it.
    pub(crate) fn execution(&self, arguments: &[&str]) -> Execution<'static> {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache).args(arguments);
        Execution::new(command, LIMIT)
    }
}
