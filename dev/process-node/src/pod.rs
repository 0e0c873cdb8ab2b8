//! The life of one pod on this node, from its first start to its deletion.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::events::EventType;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::container::{self, grace_period};
use crate::context::{Context, why};
use crate::record::{self, RestartPolicy};
use crate::sandbox::{Sandbox, Slot};
use crate::stop::{self, Stop, StopSender};

/// What the containers of a pod get that was deleted without grace, and is only gone: as with a kubelet.
const GONE_GRACE: Duration = Duration::from_secs(1);

/// How soon the API server is asked again after it did not do what it was asked.
const RETRY: Duration = Duration::from_secs(1);

/// How long the end of the node waits for the API server.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Runs the pod in `latest` until it is deleted, or until `shutdown`; its containers have ended then.
/// When the sender of `latest` is dropped, the pod is gone already.
pub async fn run(context: Arc<Context>, latest: watch::Receiver<Arc<Pod>>, shutdown: CancellationToken) {
    let Some(address) = context.addresses.take() else {
        tracing::error!("failed to run a pod: all addresses are in use");
        return;
    };
    let is_over = is_over(&latest.borrow());
    let sandbox = Sandbox::new(context, latest.clone(), address);
    warn_of_volumes(&sandbox);
    let (sender, stop) = stop::channel();
    tokio::select! {
        // The order first: a pod that is being deleted already must not start.
        biased;
        () = give_orders(latest.clone(), &shutdown, sender) => {}
        () = sandbox.keep_token_fresh() => {}
        () = report(&sandbox, &shutdown), if !is_over => {}
        () = run_containers(&sandbox, is_over, stop) => {}
    }
    if shutdown.is_cancelled() {
        // What has to end by itself did not: the next node decides about that.
        if RestartPolicy::of(&sandbox.pod()) == RestartPolicy::Always {
            let _ = timeout(LAST_WORD, sandbox.report_now()).await;
        }
    } else {
        let exists = || latest.has_changed().is_ok() && !shutdown.is_cancelled();
        while exists() && !is_over && !sandbox.report_end().await {
            sleep(RETRY).await;
        }
        while exists() && !delete(&sandbox).await {
            sleep(RETRY).await;
        }
    }
    // An error says that it was never created.
    let _ = fs::remove_dir_all(&sandbox.folder);
}

/// Whether the pod had ended before this node saw it.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Tells of every change until the node ends: what containers become then is not their own doing.
async fn report(sandbox: &Sandbox, shutdown: &CancellationToken) {
    shutdown.run_until_cancelled(sandbox.report()).await;
    std::future::pending::<()>().await;
}

/// Turns what happens to the pod or the node into an order to stop, for as long as it is polled.
async fn give_orders(
    mut latest: watch::Receiver<Arc<Pod>>,
    shutdown: &CancellationToken,
    sender: StopSender,
) {
    loop {
        let pod = Arc::clone(&latest.borrow_and_update());
        if pod.metadata.deletion_timestamp.is_some() {
            sender.order(grace_period(&pod, pod.metadata.deletion_grace_period_seconds));
        }
        tokio::select! {
            () = shutdown.cancelled() => {
                sender.order(grace_period(&pod, None));
                return std::future::pending::<()>().await;
            }
            changed = latest.changed() => if changed.is_err() {
                sender.order(GONE_GRACE);
                return std::future::pending::<()>().await;
            }
        }
    }
}

/// Runs the init containers, one after the other, then the containers, side by side. Returns when all
/// have ended and the order to stop was given: a pod that ended by itself stays until it is deleted.
async fn run_containers(sandbox: &Sandbox, is_over: bool, mut stop: Stop) {
    if !is_over {
        let policy = RestartPolicy::of(&sandbox.pod());
        let record = sandbox.record();
        let mains = || (0..record.main.len()).map(Slot::Main);
        let done = |slot: Slot| {
            let end = slot.record(&record).and_then(record::ended);
            end.is_some_and(|end| !policy.restarts(end.exit_code))
        };
        let initialized = mains().all(done) || run_init_containers(sandbox, record.init.len(), &stop).await;
        if initialized {
            join_all(mains().map(|slot| container::run(sandbox, slot, policy, stop.clone()))).await;
        }
    }
    stop.ordered().await;
}

/// Whether all init containers succeeded.
async fn run_init_containers(sandbox: &Sandbox, count: usize, stop: &Stop) -> bool {
    let policy = RestartPolicy::of(&sandbox.pod());
    for slot in (0..count).map(Slot::Init) {
        // After a restart of the node the pod begins anew, init containers too, unless it must not.
        if policy != RestartPolicy::Never {
            sandbox.update(slot, |status| {
                if record::ended(status).is_some() {
                    record::wait(status, "PodInitializing", None);
                }
            });
        }
        if container::run(sandbox, slot, policy.for_init(), stop.clone()).await != Some(0) {
            return false;
        }
    }
    true
}

/// Removes the pod from the API server, which has waited for the node to say that nothing runs any more.
/// Whether it is gone.
async fn delete(sandbox: &Sandbox) -> bool {
    let pod = sandbox.pod();
    let parameters = DeleteParams::default()
        .grace_period(0)
        .preconditions(Preconditions { uid: pod.uid(), ..Preconditions::default() });
    match sandbox.context.api::<Pod>().delete(&pod.name_any(), &parameters).await {
        Ok(_) => true,
        Err(kube::Error::Api(answer)) if answer.code == 404 => true,
        Err(error) => {
            tracing::warn!(pod = pod.name_any(), error = why(&error), "failed to delete the pod");
            false
        }
    }
}

/// A process sees the real file system. For an `emptyDir` that does, and the token of a projected volume
/// is in the kubeconfig; whoever counts on another volume shall know.
fn warn_of_volumes(sandbox: &Sandbox) {
    let pod = sandbox.pod();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    for volume in volumes.filter(|volume| volume.empty_dir.is_none() && volume.projected.is_none()) {
        let note = format!("volume {} is ignored: the process node mounts nothing", volume.name);
        sandbox.context.tell(&pod, EventType::Warning, "FailedMount", note);
    }
}
