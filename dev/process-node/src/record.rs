//! One container's status and how it changes. Kubernetes' own type is the record.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, Pod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; after a signal 128 more than its number, as a container's is.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// Why a container could not be started; it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// One of the words that a kubelet uses, such as `CreateContainerConfigError`.
    pub reason: &'static str,
    /// The sentence for the person who has to fix it.
    pub message: String,
}

impl Fault {
    /// A fault.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// What the container says of its environment cannot be had.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new("CreateContainerConfigError", message)
    }
}

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever its exit code.
    Always,
    /// When it failed.
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    /// What `pod` says of its containers.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// The same for init containers, which are done once they succeed.
    #[must_use]
    pub fn for_init(self) -> Self {
        if self == Self::Always { Self::OnFailure } else { self }
    }

    /// Whether a container starts again that ended with `code`.
    #[must_use]
    pub fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// The record of `container` before its first start, or where an earlier process node left it: what ran
/// then was stopped meanwhile, so it counts as killed.
#[must_use]
pub fn first(container: &Container, earlier: Option<&ContainerStatus>, now: &Time) -> ContainerStatus {
    let mut status = earlier.cloned().unwrap_or_default();
    status.name.clone_from(&container.name);
    status.image = container.image.clone().unwrap_or_default();
    let state = status.state.get_or_insert_default();
    if state.running.is_some() {
        let killed = Exit { code: 137, signal: None };
        end(&mut status, killed, now);
        if let Some(terminated) = ended_mut(&mut status) {
            terminated.reason = Some("ContainerStatusUnknown".to_owned());
            terminated.message = Some("it ran when the process node was stopped".to_owned());
        }
    } else if state.terminated.is_none() {
        wait(&mut status, "ContainerCreating", None);
    }
    status
}

/// The container is not running, and `reason` says why.
pub fn wait(status: &mut ContainerStatus, reason: &str, message: Option<String>) {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    enter(status, ContainerState { waiting: Some(waiting), ..ContainerState::default() });
}

/// The container was started as process `pid`.
pub fn start(status: &mut ContainerStatus, pid: i32, now: &Time) {
    let running = ContainerStateRunning { started_at: Some(now.clone()) };
    // An id says that it ran before.
    if status.container_id.replace(format!("process://{pid}")).is_some() {
        status.restart_count += 1;
    }
    enter(status, ContainerState { running: Some(running), ..ContainerState::default() });
}

/// The container's process ended.
pub fn end(status: &mut ContainerStatus, exit: Exit, now: &Time) {
    let running = status.state.take().and_then(|state| state.running);
    let terminated = ContainerStateTerminated {
        exit_code: exit.code,
        signal: exit.signal,
        reason: Some(if exit.code == 0 { "Completed" } else { "Error" }.to_owned()),
        container_id: status.container_id.clone(),
        started_at: running.and_then(|running| running.started_at),
        finished_at: Some(now.clone()),
        message: None,
    };
    enter(status, ContainerState { terminated: Some(terminated), ..ContainerState::default() });
}

/// How the container ended, if that is its state.
#[must_use]
pub fn ended(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

fn ended_mut(status: &mut ContainerStatus) -> Option<&mut ContainerStateTerminated> {
    status.state.as_mut()?.terminated.as_mut()
}

/// No state begins ready, and the last end stays known.
fn enter(status: &mut ContainerStatus, state: ContainerState) {
    let before = status.state.replace(state);
    if let Some(before) = before.filter(|before| before.terminated.is_some()) {
        status.last_state = Some(before);
    }
    status.ready = false;
    status.started = Some(false);
}
