//! The process node: runs the release's pods as local processes.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Server;
use crate::cache::fingerprint;
use crate::release::{API_PORT, IMAGE, NAMESPACE};
use crate::system::System;

/// The name of the only node.
const NODE: &str = "dev";

/// The server; it keeps everything in the Kubernetes API.
pub(crate) struct ProcessNode;

impl Server for ProcessNode {
    fn purpose(&self) -> &'static str {
        "runs pods as local processes"
    }

    fn address(&self, _system: &System) -> String {
        "-".to_owned()
    }

    fn prepare(&self, system: &System) -> Result<()> {
        // Addresses of the last run would be taken for this one's.
        match std::fs::remove_file(system.state.forwards()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn command(&self, system: &System) -> Result<Command> {
        let state = &system.state;
        let mut command = system.command(&state.data("bin").join("process-node"));
        command
            .arg("--kubeconfig")
            .arg(state.pki("process-node.kubeconfig"))
            .arg("--bin-dir")
            .arg(state.data("bin"))
            .arg("--state")
            .arg(state.data_folder())
            .args(["--namespace", NAMESPACE, "--node-name", NODE, "--image", IMAGE])
            .args(["--address-base", &address_base(system)])
            .arg("--service-port")
            .arg(format!("{API_PORT}={}", system.settings.ports.api));
        Ok(command)
    }

    fn probe(&self, system: &System) -> Result<()> {
        let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        let ready = system.kubectl()?.run(&["get", "node", NODE, "--output", path])?;
        if ready.trim() != "True" {
            bail!("the node is not ready");
        }
        Ok(())
    }

    /// It ends its pods first, and they may take their grace period.
    fn grace(&self) -> Duration {
        Duration::from_secs(45)
    }
}

/// Each system gives its pods addresses of its own in 127.0.0.0/8, from 127.64.0.0/16 to 127.126.0.0/16,
/// so that two can run side by side.
fn address_base(system: &System) -> String {
    let hash = fingerprint([system.state.folder().as_os_str().as_encoded_bytes()]);
    let number = u64::from_str_radix(&hash, 16).unwrap_or_default() % 63;
    format!("127.{}.0.0", 64 + number)
}
