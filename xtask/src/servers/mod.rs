//! The servers of the dev system, each a file: how it is prepared, started, asked for its health, stopped.

mod etcd;
mod kube_apiserver;
mod kube_controller_manager;
mod postgres;
mod process_node;
mod valkey;

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use nix::sys::signal::Signal;

use crate::system::System;
pub(crate) use postgres::Postgres;
pub(crate) use valkey::Valkey;

/// A server by its name, in the order in which they are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Name {
    Postgres,
    Valkey,
    Etcd,
    KubeApiserver,
    KubeControllerManager,
    ProcessNode,
}

impl Name {
    /// In the order in which they are started.
    pub(crate) const ALL: [Self; 6] = [
        Self::Postgres,
        Self::Valkey,
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::ProcessNode,
    ];

    /// In commands, in the registry and as the name of its log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Valkey => "valkey",
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::ProcessNode => "process-node",
        }
    }

    /// The server that is called so.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|server| server.as_str() == name)
    }

    pub(crate) fn server(self) -> &'static dyn Server {
        match self {
            Self::Postgres => &Postgres,
            Self::Valkey => &Valkey,
            Self::Etcd => &etcd::Etcd,
            Self::KubeApiserver => &kube_apiserver::KubeApiserver,
            Self::KubeControllerManager => &kube_controller_manager::KubeControllerManager,
            Self::ProcessNode => &process_node::ProcessNode,
        }
    }
}

/// What xtask has to know about a server.
pub(crate) trait Server: Sync {
    /// What it is for, for somebody who waits for it.
    fn purpose(&self) -> &'static str;

    /// Where it listens.
    fn address(&self, system: &System) -> String;

    /// Makes its data folder and its configuration, whatever a crash left of them.
    fn prepare(&self, system: &System) -> Result<()>;

    /// The command that runs it in the foreground.
    fn command(&self, system: &System) -> Result<Command>;

    /// Whether it does its work; the error says what is missing.
    fn probe(&self, system: &System) -> Result<()>;

    /// What has to be done once it works.
    fn settle(&self, _system: &System) -> Result<()> {
        Ok(())
    }

    /// The signal after which it ends cleanly, and soon.
    fn stop_signal(&self) -> Signal {
        Signal::SIGTERM
    }

    /// How long that may take.
    fn grace(&self) -> Duration {
        Duration::from_secs(15)
    }
}
