//! The pods of this node: a task for each, for as long as the API server knows it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::Cache;
use crate::context::Context;
use crate::{pod, scheduler};

/// How soon a binding that failed is tried again, if nothing else happens.
const RESYNC: Duration = Duration::from_secs(2);

/// Runs the pods until `shutdown`, and returns when all of them have stopped.
pub async fn run(context: &Arc<Context>, mut pods: Cache<Pod>, shutdown: &CancellationToken) {
    let tasks = TaskTracker::new();
    let mut running: HashMap<String, watch::Sender<Arc<Pod>>> = HashMap::new();
    let synchronize = async {
        loop {
            tokio::select! {
                () = pods.changed() => {}
                () = sleep(RESYNC) => {}
            }
            let present: HashMap<String, Arc<Pod>> =
                pods.objects().into_iter().filter_map(|pod| Some((pod.uid()?, pod))).collect();
            // The task of a pod that is gone sees that nobody speaks to it any more.
            running.retain(|uid, _| present.contains_key(uid));
            for (uid, pod) in present {
                match scheduler::node_of(&pod) {
                    None => scheduler::bind(context, &pod).await,
                    Some(node) if node == context.config.node_name => {
                        // A task that has ended keeps its place until the pod is gone, so that a pod
                        // that was just deleted does not start again.
                        let sender = running.entry(uid).or_insert_with(|| {
                            let (sender, latest) = watch::channel(Arc::clone(&pod));
                            tasks.spawn(pod::run(Arc::clone(context), latest, shutdown.clone()));
                            sender
                        });
                        sender.send_if_modified(|known| {
                            let changed = known.resource_version() != pod.resource_version();
                            *known = pod;
                            changed
                        });
                    }
                    Some(_) => {}
                }
            }
        }
    };
    let _: Option<()> = shutdown.run_until_cancelled(synchronize).await;
    tasks.close();
    tasks.wait().await;
}
