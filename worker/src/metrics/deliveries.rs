//! What the notifier counts about itself.

use flagmeter_store::postgres::deliveries::{Backlog, Channel, Conclusion};
use jiff::Timestamp;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// The notifier's metrics.
#[derive(Debug, Clone)]
pub struct Deliveries {
    ended: IntCounterVec,
    pending: IntGauge,
    oldest_seconds: IntGauge,
}

/// The values of the label `outcome`.
const OUTCOMES: [&str; 6] = ["delivered", "retried", "failed", "given_up", "skipped", "put_back"];

fn outcome(conclusion: &Conclusion) -> &'static str {
    let [delivered, retried, failed, given_up, skipped, put_back] = OUTCOMES;
    match conclusion {
        Conclusion::Delivered(_) => delivered,
        Conclusion::Again { .. } => retried,
        Conclusion::Failed { .. } => failed,
        Conclusion::GivenUp { .. } => given_up,
        Conclusion::Skipped { .. } => skipped,
        Conclusion::PutBack { .. } => put_back,
    }
}

impl Deliveries {
    /// Registers everything, at zero.
    ///
    /// # Errors
    ///
    /// If two metrics have one name.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let ended = IntCounterVec::new(
            Opts::new(
                "flagmeter_worker_deliveries_total",
                "Attempts to deliver an alert, by what came of them. `failed` and `given_up` reach nobody.",
            ),
            &["channel", "outcome"],
        )?;
        registry.register(Box::new(ended.clone()))?;
        for channel in Channel::ALL {
            for outcome in OUTCOMES {
                ended.with_label_values(&[channel.as_str(), outcome]);
            }
        }
        Ok(Self {
            ended,
            pending: gauge(
                "flagmeter_worker_deliveries_pending",
                "Alerts that wait to be delivered, by all workers together.",
            )?,
            oldest_seconds: gauge(
                "flagmeter_worker_deliveries_oldest_pending_seconds",
                "For how long the oldest of them has been tried; 0 if none waits.",
            )?,
        })
    }

    pub(crate) fn ended(&self, channel: Channel, conclusion: &Conclusion) {
        self.ended.with_label_values(&[channel.as_str(), outcome(conclusion)]).inc();
    }

    pub(crate) fn backlog(&self, backlog: Backlog, now: Timestamp) {
        self.pending.set(backlog.pending);
        self.oldest_seconds
            .set(backlog.oldest.map_or(0, |oldest| now.duration_since(oldest).as_secs().max(0)));
    }
}
