//! The forwarder: each TCP port of each Service is a port of this machine, which leads to its ready pods.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::backend;
use crate::cache::Cache;
use crate::context::Context;

/// How long a connection waits for a pod to become ready. Long enough for a crash and a start.
const PATIENCE: Duration = Duration::from_secs(10);
/// A pod on this machine answers at once or not at all.
const CONNECT: Duration = Duration::from_secs(1);
/// How soon the same pods are tried again after none of them answered.
const RETRY: Duration = Duration::from_millis(100);

/// A port that is listened on, until dropped. Connections that were made go on.
struct Forward {
    local: SocketAddr,
    _listening: DropGuard,
}

/// The pods behind one port of one Service.
#[derive(Clone)]
struct Route {
    service: String,
    port: String,
    services: Cache<Service>,
    pods: Cache<Pod>,
}

/// Follows the Services until `shutdown`, and says in `forwards.json` which port each is on.
pub async fn run(
    context: &Context,
    mut services: Cache<Service>,
    pods: Cache<Pod>,
    shutdown: &CancellationToken,
) {
    let mut forwards: BTreeMap<String, Forward> = BTreeMap::new();
    // What is there may be of an earlier process node.
    write(context, &forwards);
    let follow = async {
        loop {
            services.changed().await;
            let mut wanted = BTreeMap::new();
            for service in services.objects() {
                for port in backend::tcp_ports(&service) {
                    let (service, name) = (service.name_any(), backend::port_name(port));
                    wanted.insert(format!("{service}/{name}"), (service, name, port.port));
                }
            }
            let known = forwards.len();
            forwards.retain(|key, _| wanted.contains_key(key));
            let mut changed = forwards.len() != known;
            for (key, (service, port, own)) in wanted {
                if forwards.contains_key(&key) {
                    continue;
                }
                let asked = context.config.service_port(&service, &port);
                let route = Route { service, port, services: services.clone(), pods: pods.clone() };
                match start(route, asked, own).await {
                    Ok(forward) => {
                        tracing::info!(service = key, address = %forward.local, "forwarding");
                        forwards.insert(key, forward);
                        changed = true;
                    }
                    Err(error) => tracing::error!(service = key, %error, "failed to listen for a Service"),
                }
            }
            if changed {
                write(context, &forwards);
            }
        }
    };
    let _: Option<()> = shutdown.run_until_cancelled(follow).await;
}

fn write(context: &Context, forwards: &BTreeMap<String, Forward>) {
    let addresses: BTreeMap<_, _> = forwards.iter().map(|(key, forward)| (key, forward.local)).collect();
    let path = context.config.state.join("forwards.json");
    let json = serde_json::to_vec_pretty(&addresses).map_err(io::Error::from);
    if let Err(error) = json.and_then(|json| crate::file::replace(&path, &json, 0o644)) {
        tracing::error!(path = %path.display(), %error, "failed to write which ports are forwarded");
    }
}

/// Listens on the port that was asked for or the Service's `own`, or on the next one that is free.
async fn start(route: Route, asked: Option<u16>, own: i32) -> io::Result<Forward> {
    let mut error = io::Error::other("there is no free port");
    for port in candidates(asked, own) {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => {
                if asked.is_some_and(|asked| asked != port) {
                    tracing::warn!(
                        service = route.service,
                        ?asked,
                        port,
                        "the port is taken, using the next"
                    );
                }
                let local = listener.local_addr()?;
                let listening = CancellationToken::new();
                tokio::spawn(accept(listener, route, listening.clone()));
                return Ok(Forward { local, _listening: listening.drop_guard() });
            }
            Err(failure) => error = failure,
        }
    }
    Err(error)
}

/// The ports to try, in this order.
fn candidates(asked: Option<u16>, own: i32) -> impl Iterator<Item = u16> {
    let first = asked.or(u16::try_from(own).ok()).unwrap_or(u16::MAX);
    first..=u16::MAX
}

async fn accept(listener: TcpListener, route: Route, listening: CancellationToken) {
    let mut turn = 0_usize;
    while let Some(accepted) = listening.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((client, _)) => {
                turn = turn.wrapping_add(1);
                tokio::spawn(forward(client, route.clone(), turn));
            }
            Err(error) => {
                tracing::warn!(service = route.service, %error, "failed to accept a connection");
                sleep(RETRY).await;
            }
        }
    }
}

/// Carries one connection until both sides have closed it.
async fn forward(mut client: TcpStream, route: Route, turn: usize) {
    // Without a pod, the client sees its connection closed.
    if let Some(mut pod) = route.connect(turn).await {
        let _ = (client.set_nodelay(true), pod.set_nodelay(true));
        // An error is between the client and the pod.
        let _ = copy_bidirectional(&mut client, &mut pod).await;
    }
}

impl Route {
    /// A connection to a ready pod, the `turn`-th or one that answers after it.
    async fn connect(mut self, turn: usize) -> Option<TcpStream> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let mut addresses = self.addresses();
            let first = turn.checked_rem(addresses.len()).unwrap_or(0);
            addresses.rotate_left(first);
            for address in addresses {
                if let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(address)).await {
                    return Some(stream);
                }
            }
            let _ = timeout(RETRY, self.pods.changed()).await;
        }
        tracing::warn!(service = self.service, "closed a connection: no pod became ready");
        None
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let services = self.services.objects();
        let service = services.iter().find(|service| service.name_any() == self.service);
        service
            .map(|service| backend::addresses(service, &self.port, &self.pods.objects()))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_asked_for_comes_first_then_the_services_own_then_the_next() {
        let first_two = |asked, own| candidates(asked, own).take(2).collect::<Vec<_>>();
        assert_eq!(first_two(Some(3000), 80), [3000, 3001]);
        assert_eq!(first_two(None, 8080), [8080, 8081]);
        assert_eq!(first_two(Some(u16::MAX), 80), [u16::MAX]);
    }
}
