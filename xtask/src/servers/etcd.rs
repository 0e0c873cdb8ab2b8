//! etcd: where Kubernetes keeps its objects.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Server;
use crate::system::System;
use crate::tools::Tool;

/// The server; its data are in `etcd` of the state.
pub(crate) struct Etcd;

impl Server for Etcd {
    fn purpose(&self) -> &'static str {
        "where Kubernetes keeps its objects"
    }

    fn address(&self, system: &System) -> String {
        format!("127.0.0.1:{}", system.settings.ports.etcd)
    }

    fn prepare(&self, system: &System) -> Result<()> {
        system.account.make_folder(&system.state.data("etcd"), 0o700)
    }

    fn command(&self, system: &System) -> Result<Command> {
        let ports = &system.settings.ports;
        let client = format!("http://127.0.0.1:{}", ports.etcd);
        let peer = format!("http://127.0.0.1:{}", ports.etcd_peer);
        let mut command = system.command(system.settings.tools.path(Tool::Etcd)?);
        command
            .arg("--data-dir")
            .arg(system.state.data("etcd"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            // What is in here can be made again with --fresh; waiting for the disk at each write is not worth it.
            .args(["--unsafe-no-fsync", "--log-level", "warn"]);
        Ok(command)
    }

    fn probe(&self, system: &System) -> Result<()> {
        let agent =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).build().new_agent();
        let url = format!("http://{}/health", self.address(system));
        agent.get(&url).call().map(drop).context("etcd is not healthy")
    }
}
