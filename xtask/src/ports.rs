//! Which ports of 127.0.0.1 the system listens on.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// A port for each server, and one for the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) api: u16,
    pub(crate) postgres: u16,
    pub(crate) valkey: u16,
    pub(crate) etcd: u16,
    pub(crate) etcd_peer: u16,
    pub(crate) kube_apiserver: u16,
}

impl Ports {
    /// The ports everybody expects.
    pub(crate) const USUAL: Self =
        Self { api: 3000, postgres: 5432, valkey: 6379, etcd: 2379, etcd_peer: 2380, kube_apiserver: 6443 };

    /// Ports out of everybody's way, for tests that run beside a system: below those that the kernel
    /// gives to outgoing connections, and different for each process that asks.
    pub(crate) fn out_of_the_way() -> Self {
        let first = 20_000 + u16::try_from(std::process::id() % 1_000).unwrap_or_default() * 10;
        let [api, postgres, valkey, etcd, etcd_peer, kube_apiserver] = [0, 1, 2, 3, 4, 5].map(|n| first + n);
        Self { api, postgres, valkey, etcd, etcd_peer, kube_apiserver }
    }

    /// These ports, each moved up to the next that is free, and a sentence for each that moved.
    pub(crate) fn settle(&self, is_free: impl Fn(u16) -> bool) -> Result<(Self, Vec<String>)> {
        let mut settled = self.clone();
        let mut given = Vec::new();
        let mut moved = Vec::new();
        for (name, port) in settled.named() {
            let wanted = *port;
            let Some(next) = (wanted..=u16::MAX).find(|port| !given.contains(port) && is_free(*port)) else {
                bail!("there is no free port for {name} from {wanted} on");
            };
            if next != wanted {
                moved.push(format!("port {wanted} is taken: {name} listens on {next}"));
            }
            *port = next;
            given.push(next);
        }
        Ok((settled, moved))
    }

    fn named(&mut self) -> [(&'static str, &mut u16); 6] {
        [
            ("the API", &mut self.api),
            ("PostgreSQL", &mut self.postgres),
            ("Valkey", &mut self.valkey),
            ("etcd", &mut self.etcd),
            ("etcd's peer address", &mut self.etcd_peer),
            ("kube-apiserver", &mut self.kube_apiserver),
        ]
    }
}

/// Whether nobody listens on the port. Where a listener on all addresses does not forbid one on
/// loopback, only a connection tells.
pub(crate) fn is_free(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).is_ok() && !is_open(address)
}

/// Whether somebody accepts connections there.
pub(crate) fn is_open(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_kept_and_nothing_is_said() {
        assert_eq!(Ports::USUAL.settle(|_| true).unwrap(), (Ports::USUAL, vec![]));
    }

    #[test]
    fn a_taken_port_moves_up_past_those_already_given() {
        let (ports, moved) = Ports::USUAL.settle(|port| port != 2379 && port != 3000).unwrap();
        assert_eq!((ports.api, ports.etcd, ports.etcd_peer), (3001, 2380, 2381));
        assert_eq!(moved.len(), 3);
        assert_eq!(moved[0], "port 3000 is taken: the API listens on 3001");
    }

    #[test]
    fn a_port_somebody_listens_on_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        drop(listener);
        assert!(is_free(port));
    }

    #[test]
    fn no_port_left_is_an_error() {
        assert!(Ports::USUAL.settle(|_| false).is_err());
    }
}
