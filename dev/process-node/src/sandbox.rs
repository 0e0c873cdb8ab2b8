//! What the containers of one pod share: its address, its folder, its credentials, its record.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::{OnceCell, watch};
use tokio::time::{sleep, timeout};

use crate::address::Address;
use crate::context::{Context, why};
use crate::credentials;
use crate::record::{self, Fault};
use crate::status::{self, PodRecord};

/// Which container of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The n-th init container.
    Init(usize),
    /// The n-th container.
    Main(usize),
}

impl Slot {
    /// What the pod says of it.
    #[must_use]
    pub fn spec(self, pod: &Pod) -> Option<&Container> {
        let spec = pod.spec.as_ref()?;
        match self {
            Self::Init(index) => spec.init_containers.as_ref()?.get(index),
            Self::Main(index) => spec.containers.get(index),
        }
    }

    /// Its record.
    #[must_use]
    pub fn record(self, record: &PodRecord) -> Option<&ContainerStatus> {
        match self {
            Self::Init(index) => record.init.get(index),
            Self::Main(index) => record.main.get(index),
        }
    }
}

/// One pod on this node.
pub struct Sandbox {
    /// The node.
    pub context: Arc<Context>,
    /// The pod's own folder, removed with it.
    pub folder: PathBuf,
    latest: watch::Receiver<Arc<Pod>>,
    address: Address,
    record: watch::Sender<PodRecord>,
    published: Mutex<PodStatus>,
    kubeconfig: OnceCell<Option<PathBuf>>,
}

impl Sandbox {
    /// A place for the pod in `latest`, which may have been on this node before.
    #[must_use]
    pub fn new(context: Arc<Context>, latest: watch::Receiver<Arc<Pod>>, address: Address) -> Self {
        let pod = Arc::clone(&latest.borrow());
        let now = context.now();
        let earlier = pod.status.clone().unwrap_or_default();
        let first = |containers: &[Container], statuses: &Option<Vec<ContainerStatus>>| {
            let known = |name: &str| statuses.iter().flatten().find(|status| status.name == name);
            let records = containers.iter().map(|spec| record::first(spec, known(&spec.name), &now));
            records.collect::<Vec<_>>()
        };
        let spec = pod.spec.clone().unwrap_or_default();
        let record = PodRecord {
            init: first(&spec.init_containers.unwrap_or_default(), &earlier.init_container_statuses),
            main: first(&spec.containers, &earlier.container_statuses),
            ip: address.ip(),
            start_time: earlier.start_time.clone().unwrap_or_else(|| now.clone()),
            over: false,
        };
        Self {
            folder: context.config.pods_folder().join(pod.uid().unwrap_or_default()),
            context,
            latest,
            address,
            record: watch::Sender::new(record),
            published: Mutex::new(earlier),
            kubeconfig: OnceCell::new(),
        }
    }

    /// The pod as last heard of.
    #[must_use]
    pub fn pod(&self) -> Arc<Pod> {
        Arc::clone(&self.latest.borrow())
    }

    /// The pod's address.
    #[must_use]
    pub fn ip(&self) -> std::net::Ipv4Addr {
        self.address.ip()
    }

    /// The record as it is now.
    #[must_use]
    pub fn record(&self) -> PodRecord {
        self.record.borrow().clone()
    }

    /// Changes the record of one container; [`Self::report`] tells the API server.
    pub fn update(&self, slot: Slot, change: impl FnOnce(&mut ContainerStatus)) {
        self.record.send_modify(|record| {
            let status = match slot {
                Slot::Init(index) => record.init.get_mut(index),
                Slot::Main(index) => record.main.get_mut(index),
            };
            if let Some(status) = status {
                change(status);
            }
        });
    }

    /// The file for KUBECONFIG, if the pod may talk to the API server.
    ///
    /// # Errors
    ///
    /// A fault that says what failed; the same call may be made again.
    pub async fn kubeconfig(&self) -> Result<Option<PathBuf>, Fault> {
        let issue = || async { credentials::issue(&self.context, &self.pod(), &self.folder).await };
        self.kubeconfig.get_or_try_init(issue).await.cloned().map_err(Fault::config)
    }

    /// Keeps the pod's token fresh, if it was given one, for as long as it is polled.
    pub async fn keep_token_fresh(&self) {
        let mut pause = credentials::REFRESH;
        loop {
            sleep(pause).await;
            pause = credentials::REFRESH;
            if let Some(Some(_)) = self.kubeconfig.get()
                && let Err(error) = credentials::write_token(&self.context, &self.pod(), &self.folder).await
            {
                tracing::warn!(pod = self.pod().name_any(), error, "failed to refresh the token");
                pause = credentials::RETRY;
            }
        }
    }

    /// Tells the API server of every change, for as long as it is polled.
    pub async fn report(&self) {
        let mut records = self.record.subscribe();
        loop {
            let record = records.borrow_and_update().clone();
            if self.publish(&record).await {
                // The sender is `self`.
                let _ = records.changed().await;
            } else {
                sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Tells the API server how the pod ended, now that none of its containers starts again.
    pub async fn report_end(&self) -> bool {
        self.record.send_modify(|record| record.over = true);
        self.report_now().await
    }

    /// Tells the API server how the pod is. Whether it was heard.
    pub async fn report_now(&self) -> bool {
        self.publish(&self.record()).await
    }

    /// Whether the API server knows `record` now, or has no such pod any more.
    async fn publish(&self, record: &PodRecord) -> bool {
        let pod = self.pod();
        let known = self.published.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let conditions = known.conditions.as_deref().unwrap_or_default();
        let status = status::of(&pod, record, conditions, &self.context.now());
        if status == known {
            return true;
        }
        // With its UID, the status cannot reach a younger pod of the same name.
        let mut patch = json!({ "metadata": { "uid": pod.uid() }, "status": status });
        // A patch would add the address to the one that the pod had on an earlier process node.
        patch["status"]["podIPs"] = json!([{ "$patch": "replace" }, { "ip": self.ip() }]);
        let (pods, name) = (self.context.api::<Pod>(), pod.name_any());
        let (parameters, patch) = (PatchParams::default(), Patch::Strategic(patch));
        let patched = timeout(Duration::from_secs(10), pods.patch_status(&name, &parameters, &patch));
        let error = match patched.await {
            Ok(Ok(_)) => {
                *self.published.lock().unwrap_or_else(PoisonError::into_inner) = status;
                return true;
            }
            Ok(Err(kube::Error::Api(answer))) if answer.code == 404 => return true,
            Ok(Err(error)) => why(&error),
            Err(late) => late.to_string(),
        };
        tracing::warn!(pod = name, error, "failed to report the status");
        false
    }
}
