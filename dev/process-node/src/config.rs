//! The command line.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

/// A Kubernetes node whose pods are local processes.
#[derive(Debug, Clone, clap::Parser)]
#[command(version)]
pub struct Config {
    /// How to reach the API server, as an administrator.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// The namespace whose pods are run and whose Services are forwarded.
    #[arg(long)]
    pub namespace: String,
    /// The Node's name.
    #[arg(long, default_value = "dev")]
    pub node_name: String,
    /// Where the binaries of the image are.
    #[arg(long, value_parser = absolute)]
    pub bin_dir: PathBuf,
    /// The repository of the only image that is run, without a tag.
    #[arg(long)]
    pub image: String,
    /// Folder for logs, the process registry and the pods' files.
    #[arg(long, value_parser = absolute)]
    pub state: PathBuf,
    /// The network, 16 bits wide, that pods have their addresses from.
    #[arg(long, default_value = "127.64.0.0")]
    pub address_base: Ipv4Addr,
    /// The local port for a port of a Service, such as `flagmeter-api/http=3000`.
    #[arg(long = "service-port", value_name = "SERVICE/PORT=NUMBER")]
    pub service_ports: Vec<ServicePort>,
    /// What containers find in PATH, after the folder of binaries.
    #[arg(long, env = "PATH", default_value = "/usr/bin:/bin", hide_env_values = true)]
    pub path: String,
}

/// Containers have a working folder of their own, so a relative path would mean another place there.
fn absolute(path: &str) -> Result<PathBuf, std::io::Error> {
    std::path::absolute(path)
}

impl Config {
    /// The process registry.
    #[must_use]
    pub fn run_folder(&self) -> PathBuf {
        self.state.join("run")
    }

    /// What pods have of their own, a folder per UID.
    #[must_use]
    pub fn pods_folder(&self) -> PathBuf {
        self.state.join("pods")
    }

    /// Where the output of a container goes; earlier starts are in the same file.
    #[must_use]
    pub fn log_file(&self, pod: &str, container: &str) -> PathBuf {
        self.state.join("logs/pods").join(pod).join(container).with_added_extension("log")
    }

    /// The local port that was asked for, for `service` and the name of its port.
    #[must_use]
    pub fn service_port(&self, service: &str, port: &str) -> Option<u16> {
        self.service_ports
            .iter()
            .find(|wish| wish.service == service && wish.port == port)
            .map(|wish| wish.local)
    }
}

/// One `--service-port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    service: String,
    port: String,
    local: u16,
}

impl FromStr for ServicePort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('=').and_then(|(key, local)| {
            let (service, port) = key.split_once('/')?;
            Some(Self { service: service.to_owned(), port: port.to_owned(), local: local.parse().ok()? })
        });
        parts.ok_or("must look like flagmeter-api/http=3000")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn a_service_port_is_found_by_service_and_port_name_and_nonsense_is_refused() {
        let arguments = "process-node --kubeconfig k --namespace n --bin-dir b --image i --state s";
        let wish = ["--service-port", "api/http=3000"];
        let config = Config::try_parse_from(arguments.split(' ').chain(wish)).unwrap();
        assert_eq!(config.service_port("api", "http"), Some(3000));
        assert_eq!(config.service_port("api", "admin"), None);
        assert!(config.state.is_absolute());
        for nonsense in ["api=3000", "api/http", "api/http=70000"] {
            let wish = ["--service-port", nonsense];
            assert!(Config::try_parse_from(arguments.split(' ').chain(wish)).is_err(), "{nonsense}");
        }
    }
}
