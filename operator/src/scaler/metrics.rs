//! What the scaler counts.

use flagmeter_core::scaling::{Decision, Sample};
use prometheus::{Gauge, IntCounterVec, Opts, Registry};

/// The scaler's metrics. They stay at zero where nothing is scaled.
#[derive(Debug, Clone)]
pub struct Metrics {
    lambda: Gauge,
    mu: Gauge,
    batch: Gauge,
    backlog: Gauge,
    oldest_wait: Gauge,
    desired: Gauge,
    current: Gauge,
    /// 1 while the number does not follow the load.
    pub(super) frozen: Gauge,
    decisions: IntCounterVec,
}

impl Metrics {
    /// The metrics, each at zero, registered in `registry`.
    ///
    /// # Errors
    ///
    /// If one of them is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = Gauge::new(format!("flagmeter_autoscaler_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let decisions = IntCounterVec::new(
            Opts::new(
                "flagmeter_autoscaler_decisions_total",
                "Decisions about the number of workers, by reason",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(decisions.clone()))?;
        Ok(Self {
            lambda: gauge("lambda", "Events that arrive in a second, smoothed")?,
            mu: gauge(
                "mu",
                "Events that a worker does in a second in which it is at work, in full transactions",
            )?,
            batch: gauge(
                "batch_events",
                "Events in the transaction that the mean event was in; 0 if not known",
            )?,
            backlog: gauge("backlog", "Events in the queue: waiting, or in a worker's hands")?,
            oldest_wait: gauge("oldest_wait_seconds", "How long the oldest entry has been in the queue")?,
            desired: gauge("desired", "Workers that the rule wants, within the bounds")?,
            current: gauge("current", "Workers that there are to be")?,
            frozen: gauge(
                "frozen",
                "1 while the number of workers does not follow the load: held, paused, or somebody else's",
            )?,
            decisions,
        })
    }

    pub(super) fn say(&self, sample: &Sample, decision: &Decision) {
        if let Some(estimate) = &decision.estimate {
            self.lambda.set(estimate.arrival_rate);
            self.mu.set(estimate.service_rate);
            self.batch.set(estimate.batch.unwrap_or_default());
            // Exact up to 2^53 events.
            #[expect(clippy::cast_precision_loss, reason = "a queue never holds as many")]
            self.backlog.set(estimate.backlog as f64);
            self.desired.set(estimate.wanted.into());
        }
        if let Some(queue) = &sample.queue {
            self.oldest_wait.set(queue.oldest_wait_seconds);
        }
        self.current.set(decision.replicas.into());
        self.frozen.set(if decision.is_active() { 0.0 } else { 1.0 });
        self.decisions.with_label_values(&[decision.reason.word()]).inc();
    }
}
