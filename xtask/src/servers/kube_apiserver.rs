//! kube-apiserver: the real Kubernetes API.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Server;
use crate::certificates;
use crate::system::System;
use crate::tools::Tool;

/// The server. It keeps everything in etcd.
pub(crate) struct KubeApiserver;

impl Server for KubeApiserver {
    fn purpose(&self) -> &'static str {
        "the Kubernetes API"
    }

    fn address(&self, system: &System) -> String {
        format!("127.0.0.1:{}", system.settings.ports.kube_apiserver)
    }

    fn prepare(&self, system: &System) -> Result<()> {
        certificates::prepare(&system.state, &system.account)?;
        certificates::write_kubeconfigs(&system.state, &system.account, system.settings.ports.kube_apiserver)
    }

    fn command(&self, system: &System) -> Result<Command> {
        let ports = &system.settings.ports;
        let mut command = system.command(system.settings.tools.path(Tool::KubeApiserver)?);
        for (flag, file) in [
            ("--tls-cert-file", "apiserver.crt"),
            ("--tls-private-key-file", "apiserver.key"),
            ("--client-ca-file", "ca.crt"),
            ("--service-account-key-file", "service-accounts.pub"),
            ("--service-account-signing-key-file", "service-accounts.key"),
        ] {
            command.arg(flag).arg(system.state.pki(file));
        }
        command
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            .arg(format!("--secure-port={}", ports.kube_apiserver))
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .args(["--service-cluster-ip-range=10.43.0.0/16", "--authorization-mode=RBAC"])
            // The endpoint would be a loopback address, which it refuses.
            .arg("--endpoint-reconciler-type=none")
            .args(["--profiling=false", "--event-ttl=1h"])
            // An eighth less memory for a fifth more processor time, which is little.
            .env("GOGC", "50");
        Ok(command)
    }

    fn probe(&self, system: &System) -> Result<()> {
        system.kubectl()?.run(&["get", "--raw", "/readyz"]).map(drop)
    }

    /// Open watches can keep it from ending for long; it has nothing of its own to lose.
    fn grace(&self) -> Duration {
        Duration::from_secs(10)
    }
}
