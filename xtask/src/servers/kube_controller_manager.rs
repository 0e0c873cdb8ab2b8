//! kube-controller-manager: makes pods of Deployments, and tidies up.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::Server;
use crate::system::System;
use crate::tools::Tool;

/// What a release needs. No endpoint slices: they refuse the loopback addresses of the process node's
/// pods. No node lifecycle: the only node is alive as long as `up` is.
const CONTROLLERS: &str = "deployment-controller,replicaset-controller,statefulset-controller,job-controller,\
                           cronjob-controller,disruption-controller,garbage-collector-controller,\
                           pod-garbage-collector-controller,namespace-controller,serviceaccount-controller,\
                           root-ca-certificate-publisher-controller,ttl-after-finished-controller";

/// The server. It keeps nothing.
pub(crate) struct KubeControllerManager;

impl Server for KubeControllerManager {
    fn purpose(&self) -> &'static str {
        "makes pods of Deployments"
    }

    fn address(&self, _system: &System) -> String {
        "-".to_owned()
    }

    fn prepare(&self, _system: &System) -> Result<()> {
        Ok(())
    }

    fn command(&self, system: &System) -> Result<Command> {
        let pki = |name: &str| system.state.pki(name);
        let mut command = system.command(system.settings.tools.path(Tool::KubeControllerManager)?);
        command
            .arg("--kubeconfig")
            .arg(pki("controller-manager.kubeconfig"))
            .arg("--service-account-private-key-file")
            .arg(pki("service-accounts.key"))
            .arg("--root-ca-file")
            .arg(pki("ca.crt"))
            .arg(format!("--controllers={CONTROLLERS}"))
            .args(["--leader-elect=false", "--secure-port=0", "--profiling=false"])
            .args(["--use-service-account-credentials=false"]);
        Ok(command)
    }

    /// It serves no port; that it works shows in the service account it makes for each namespace.
    fn probe(&self, system: &System) -> Result<()> {
        let arguments = ["get", "serviceaccount", "default", "--namespace", "default", "--output", "name"];
        system.kubectl()?.run(&arguments).map(drop).context("it made no service account yet")
    }
}
