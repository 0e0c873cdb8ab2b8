//! A hollow kubelet: it registers a Node, takes the pods of one namespace, and runs each container
//! as a local process, so that Deployments roll, scale and heal without containers or root.
//!
//! - [`config`] is the command line, [`context`] what every part needs to work.
//! - [`node`] is the Node object, [`scheduler`] gives it the pods, [`cache`] what the API server says.
//! - [`pods`] has a task per pod: [`pod`] is its life, [`sandbox`] what its containers share,
//!   [`container`] one container's starts, probes and restarts.
//! - [`image`], [`environment`] and [`credentials`] decide what a process is started with,
//!   [`process`] starts and stops it, [`registry`] lets others find it.
//! - [`record`] and [`status`] are what is reported, without I/O.
//! - [`forward`] is the Services: a port on this machine each, to the pods that [`backend`] finds ready.

use std::fs::{self, File};
use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use nix::fcntl::{Flock, FlockArg};
use tokio_util::sync::CancellationToken;

pub mod action;
pub mod address;
pub mod backend;
pub mod backoff;
pub mod cache;
pub mod config;
pub mod container;
pub mod context;
pub mod credentials;
pub mod environment;
pub mod file;
pub mod forward;
pub mod image;
pub mod node;
pub mod pod;
pub mod pods;
pub mod probe;
pub mod process;
pub mod record;
pub mod registry;
pub mod sandbox;
pub mod scheduler;
pub mod status;
pub mod stop;

pub use config::Config;

use cache::Cache;
use context::Context;

/// Runs the node until `shutdown`; then every container has been stopped.
///
/// # Errors
///
/// If the node cannot begin: its state folder is in use or not writable, or the kubeconfig is not
/// usable. No container was started then. Once it runs, nothing ends it but `shutdown`; an API
/// server that is away is waited for.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    for folder in [config.run_folder(), config.pods_folder()] {
        fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    }
    // Two nodes with one state would each take the other's containers for left-overs.
    let lock = File::create(config.run_folder().join("process-node.lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| error)
        .with_context(|| format!("failed to lock {}: is another node running?", config.state.display()))?;
    registry::stop_left_overs(&config.run_folder()).await;
    fs::remove_dir_all(config.pods_folder()).context("failed to remove the folders of earlier pods")?;

    let context = Arc::new(Context::connect(config).await?);
    let (client, namespace) = (context.client.clone(), &context.config.namespace);
    let pods: Cache<Pod> = Cache::start(Api::namespaced(client.clone(), namespace), &shutdown);
    let services: Cache<Service> = Cache::start(Api::namespaced(client, namespace), &shutdown);
    tokio::join!(
        node::run(&context, &shutdown),
        forward::run(&context, services, pods.clone(), &shutdown),
        pods::run(&context, pods, &shutdown),
    );
    Ok(())
}
