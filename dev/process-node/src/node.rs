//! The Node object: registered, and kept ready for as long as this process runs.

use std::env::consts;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, why};
use crate::status::HOST;

/// How often the node says that it is alive; whoever watches it gives up after four times that long.
const HEARTBEAT: Duration = Duration::from_secs(10);
const LEASE_SECONDS: u32 = 40;

/// Registers the node and says that it is alive, again and again until `shutdown`. The object stays: pods
/// that come back find their node.
pub async fn run(context: &Context, shutdown: &CancellationToken) {
    let beat = async {
        let mut registered = false;
        loop {
            match beat(context).await {
                Ok(()) if registered => {}
                Ok(()) => {
                    tracing::info!(node = context.config.node_name, "the node is registered and ready");
                    registered = true;
                }
                Err(error) => tracing::warn!(error = why(&error), "failed to say that the node is alive"),
            }
            sleep(HEARTBEAT).await;
        }
    };
    let _: Option<()> = shutdown.run_until_cancelled(beat).await;
}

/// Everything is written each time, so a Node or Lease that somebody deleted is there again.
async fn beat(context: &Context) -> kube::Result<()> {
    let name = &context.config.node_name;
    let parameters = PatchParams::apply("process-node").force();
    let nodes: Api<Node> = Api::all(context.client.clone());
    let labels = json!({
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": operating_system(),
        "kubernetes.io/arch": architecture(),
    });
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } });
    let known = nodes.patch(name, &parameters, &Patch::Apply(node)).await?;

    let status = json!({ "apiVersion": "v1", "kind": "Node", "status": status(context, known) });
    nodes.patch_status(name, &parameters, &Patch::Apply(status)).await?;

    let leases: Api<Lease> = Api::namespaced(context.client.clone(), "kube-node-lease");
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": MicroTime(context.clock.now()),
        },
    });
    leases.patch(name, &parameters, &Patch::Apply(lease)).await.map(drop)
}

/// The status now, given the node as it is known: a node that stays ready has been so since it became it.
fn status(context: &Context, known: Node) -> Value {
    let conditions = known.status.and_then(|status| status.conditions).unwrap_or_default();
    let ready = conditions.into_iter().find(|known| known.type_ == "Ready" && known.status == "True");
    let now = context.now();
    let resources = json!({ "cpu": cores().to_string(), "memory": memory(), "pods": "110" });
    let version = concat!("process-node/", env!("CARGO_PKG_VERSION"));
    json!({
        "capacity": resources,
        "allocatable": resources,
        "conditions": [{
            "type": "Ready",
            "status": "True",
            "reason": "ProcessNodeReady",
            "message": "the process node runs pods as local processes",
            "lastHeartbeatTime": now,
            "lastTransitionTime": ready.and_then(|ready| ready.last_transition_time).unwrap_or(now),
        }],
        "addresses": [
            { "type": "InternalIP", "address": HOST },
            { "type": "Hostname", "address": context.config.node_name },
        ],
        "nodeInfo": {
            "architecture": architecture(),
            "operatingSystem": operating_system(),
            "osImage": "local processes",
            "containerRuntimeVersion": concat!("process://", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": version,
            "bootID": "", "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "systemUUID": "",
        },
    })
}

/// Kubernetes has Go's names.
fn operating_system() -> &'static str {
    if consts::OS == "macos" { "darwin" } else { consts::OS }
}

fn architecture() -> &'static str {
    match consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A machine that does not say has enough: nothing here counts what pods ask for.
fn memory() -> String {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|meminfo| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.trim().strip_suffix(" kB")?.to_owned() + "Ki")
    });
    total.unwrap_or_else(|| "8Gi".to_owned())
}
