//! Keeps as many workers as the load asks for: observes, decides, acts and reports, over and over.
//!
//! The rule is `flagmeter_core::scaling`; here is what it is fed with, and what becomes of its decisions. It
//! runs in the process that holds the lease, so that no two write the number of workers.

mod act;
pub mod metrics;
mod observe;
mod report;
pub mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use flagmeter_core::scaling::history::Kept;
use flagmeter_core::scaling::sample::Owner;
use flagmeter_core::scaling::{Decision, History, Reason, decide};
use flagmeter_runtime::clock::Clock;
use flagmeter_runtime::telemetry::chain;
use flagmeter_store::queue::EventQueue;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client};
use tokio::time::{MissedTickBehavior, interval, timeout};

pub use self::metrics::Metrics;
pub use self::settings::Settings;

/// Who writes the number of workers: the field manager.
const MANAGER: &str = "flagmeter-scaler";

/// How long the API server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// For how long it is believed that nobody else decides. Before a write it is looked up anew.
const OWNER_KNOWN: SignedDuration = SignedDuration::from_secs(30);

/// Why a round ended early. The next one begins anew.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Deployment, or who else scales it, could not be read.
    #[error("failed to look at the workers' Deployment")]
    Observe(#[source] Fault),
    /// Whether the number was written is not known.
    #[error("failed to scale the workers' Deployment")]
    Act(#[source] Fault),
}

/// Why the API server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It refused, or could not be reached.
    #[error("the API server refused, or could not be reached")]
    Refused(#[source] Box<kube::Error>),
    /// It did not answer.
    #[error("the API server did not answer in {PATIENCE:?}")]
    Silent,
}

/// What scaling needs.
pub struct Scaler {
    client: Client,
    queue: EventQueue,
    metrics: Metrics,
    clock: Clock,
    namespace: String,
    settings: Settings,
    recorder: Recorder,
}

/// What one round leaves to the next.
struct Memory {
    history: History,
    owner: Option<(Timestamp, Option<Owner>)>,
    /// The last decision's word, and when it was last written down.
    told: Option<(&'static str, Timestamp)>,
    word: Option<&'static str>,
}

impl Scaler {
    /// A scaler of the Deployment that `settings` name, in `namespace`. `identity` is the pod's name.
    #[must_use]
    pub fn new(
        client: Client,
        queue: EventQueue,
        metrics: Metrics,
        clock: Clock,
        namespace: String,
        identity: String,
        settings: Settings,
    ) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(identity) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, queue, metrics, clock, namespace, settings, recorder }
    }

    /// Works until it is dropped. Whatever it is doing then may be cut off: the next process begins by looking.
    pub async fn run(&self) {
        tracing::info!(deployment = self.settings.deployment, "scaling");
        let mut memory = self.remember().await;
        let mut rounds = interval(self.settings.interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            if let Err(error) = self.round(&mut memory).await {
                tracing::warn!(error = chain(&error), "scaling begins anew");
                self.metrics.frozen.set(1.0);
                // Nothing is known of what somebody does meanwhile, or of what was just written.
                memory.history.forget_expected();
            }
        }
    }

    async fn round(&self, memory: &mut Memory) -> Result<(), Error> {
        let limits = &self.settings.limits;

        // observe
        let deployment = self.deployment().await.map_err(Error::Observe)?;
        let now = self.clock.now();
        let known = memory.owner.take().filter(|(at, _)| now.duration_since(*at) < OWNER_KNOWN);
        let (looked_up, owner) = match known {
            Some(known) => known,
            None => (now, self.owner(&deployment).await.map_err(Error::Observe)?),
        };
        let mut sample = self.sample(now, &deployment, owner).await;

        // decide
        let mut decision = decide(&memory.history, &sample, limits);
        memory.owner = Some((looked_up, sample.fleet.owner.clone()));
        if decision.replicas != decision.current && looked_up != now {
            sample.fleet.owner = self.owner(&deployment).await.map_err(Error::Observe)?;
            memory.owner = Some((now, sample.fleet.owner.clone()));
            decision = decide(&memory.history, &sample, limits);
        }

        // act
        let written = self.act(&deployment, &decision, memory.history.kept(now)).await.map_err(Error::Act)?;
        if !written {
            // Nor is there anything to say: the next round looks at what somebody else made of it.
            memory.history.observe(&sample, limits);
            memory.history.forget_expected();
            return Ok(());
        }
        memory.history.record(&sample, &decision, limits);

        // report
        self.report(memory, &deployment, sample, decision).await;
        Ok(())
    }

    /// What an earlier process left: in the queue, or, if that does not answer, in the ConfigMap.
    async fn remember(&self) -> Memory {
        let in_queue = match self.queue.scaling(0).await {
            Ok(scaling) => scaling.state,
            Err(error) => {
                tracing::info!(error = chain(&error), "the queue does not say what was decided before");
                None
            }
        };
        let in_map = self.reported_state().await.unwrap_or_else(|fault| {
            tracing::info!(error = chain(&fault), "no ConfigMap says what was decided before");
            None
        });
        let parsed = [in_map, in_queue].into_iter().flatten();
        let kept = parsed.filter_map(|text| serde_json::from_str::<Kept>(&text).ok());
        // Of two that are equally new the last, which is the queue's.
        let newest = kept.max_by_key(|kept| kept.at);
        let history = newest.map_or_else(History::default, |kept| History::resumed(&kept, self.clock.now()));
        Memory { history, owner: None, told: None, word: None }
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// Whether people should hear of it: a change, or something that keeps the rule from being followed.
fn is_news(decision: &Decision, before: Option<&'static str>) -> bool {
    let changed = decision.replicas != decision.current;
    let matters = match &decision.reason {
        Reason::Held(doubt) => doubt.is_the_queues(),
        Reason::NotOurs(_) | Reason::FellBack { .. } => true,
        // Somebody may scale by hand again.
        Reason::Adopted { .. } => return true,
        _ => false,
    };
    changed || (matters && before != Some(decision.reason.word()))
}

async fn limited<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Fault> {
    match timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(|error| Fault::Refused(Box::new(error))),
        Err(_) => Err(Fault::Silent),
    }
}
