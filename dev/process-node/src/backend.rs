//! Where a Service's connections go: its ready pods. No I/O.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::action::container_port;

/// The TCP ports of a Service that selects pods.
pub fn tcp_ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    let spec = service.spec.iter().filter(|spec| spec.selector.as_ref().is_some_and(|map| !map.is_empty()));
    let ports = spec.flat_map(|spec| spec.ports.iter().flatten());
    ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
}

/// What a port is called: its name, or its number if it has none.
#[must_use]
pub fn port_name(port: &ServicePort) -> String {
    port.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| port.port.to_string())
}

/// The addresses behind the port of `service` that is called `name`, in a fixed order: of the pods that
/// it selects, those that are ready and are not being deleted.
#[must_use]
pub fn addresses(service: &Service, name: &str, pods: &[Arc<Pod>]) -> Vec<SocketAddr> {
    let Some(port) = tcp_ports(service).find(|port| port_name(port) == name) else {
        return Vec::new();
    };
    let target = port.target_port.clone().unwrap_or(IntOrString::Int(port.port));
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    let selected = |pod: &Pod| selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
    let address = |pod: &Arc<Pod>| {
        let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
        let containers = &pod.spec.as_ref()?.containers;
        let ports = containers.iter().flat_map(|container| container.ports.iter().flatten().cloned());
        Some(SocketAddr::new(ip, container_port(&target, &ports.collect::<Vec<_>>())?))
    };
    let takes_part = |pod: &&Arc<Pod>| selected(pod) && is_ready(pod);
    let mut addresses: Vec<_> = pods.iter().filter(takes_part).filter_map(address).collect();
    addresses.sort_unstable();
    addresses
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.filter(|condition| condition.type_ == "Ready").any(|ready| ready.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(ip: &str, ready: &str, app: &str, deleted: Option<&str>) -> Arc<Pod> {
        let pod = json!({
            "metadata": { "labels": { "app": app, "version": ip }, "deletionTimestamp": deleted },
            "spec": { "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": 3000 }] }] },
            "status": { "podIP": ip, "conditions": [{ "type": "Ready", "status": ready }] },
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn connections_go_to_ready_pods_of_the_selector_that_are_not_being_deleted() {
        let service = json!({ "spec": { "selector": { "app": "api" }, "ports": [
            { "name": "http", "port": 80, "targetPort": "http" },
            { "port": 3000 },
            { "name": "dns", "port": 53, "protocol": "UDP" },
        ] } });
        let service: Service = serde_json::from_value(service).unwrap();
        let pods = [
            pod("127.64.0.2", "True", "api", None),
            pod("127.64.0.1", "True", "api", None),
            pod("127.64.0.3", "False", "api", None),
            pod("127.64.0.4", "True", "worker", None),
            pod("127.64.0.5", "True", "api", Some("2026-01-01T00:00:00Z")),
        ];
        let expected: Vec<SocketAddr> =
            ["127.64.0.1:3000", "127.64.0.2:3000"].map(|text| text.parse().unwrap()).into();
        assert_eq!(addresses(&service, "http", &pods), expected);
        assert_eq!(addresses(&service, "3000", &pods), expected);
        assert_eq!(addresses(&service, "dns", &pods), []);
        assert_eq!(tcp_ports(&service).map(port_name).collect::<Vec<_>>(), ["http", "3000"]);
    }
}
