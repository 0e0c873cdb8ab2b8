//! What the worker counts about itself.

use flagmeter_store::postgres::batch::Applied;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    register_histogram_with_registry, register_int_counter_vec_with_registry,
    register_int_counter_with_registry, register_int_gauge_with_registry,
};

/// The worker's metrics. `counted + repeated + dead_lettered` is every event that left the queue.
#[derive(Debug, Clone)]
pub struct Metrics {
    counted: IntCounter,
    repeated: IntCounter,
    conflicting: IntCounter,
    dead_lettered: IntCounter,
    entries_seen_before: IntCounter,
    entries_unreadable: IntCounter,
    failures: IntCounterVec,
    batch_seconds: Histogram,
    batch_events: Histogram,
    queue_entries: IntGauge,
}

/// A step of the loop that can fail: the values of the label `step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Taking entries from the queue.
    Read,
    /// Taking over entries of others.
    Claim,
    /// Writing to PostgreSQL.
    Apply,
    /// Removing entries from the queue.
    Confirm,
    /// Making partitions ahead of time.
    Prepare,
}

impl Step {
    const ALL: [Self; 5] = [Self::Read, Self::Claim, Self::Apply, Self::Confirm, Self::Prepare];

    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Claim => "claim",
            Self::Apply => "apply",
            Self::Confirm => "confirm",
            Self::Prepare => "prepare",
        }
    }
}

impl Metrics {
    /// Registers everything, at zero.
    ///
    /// # Errors
    ///
    /// If two metrics have one name.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter =
            |name: &str, help: &str| register_int_counter_with_registry!(Opts::new(name, help), registry);
        let batch_seconds = HistogramOpts::new(
            "flagmeter_worker_batch_seconds",
            "Time to count one batch, retries included.",
        )
        .buckets(vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0]);
        let batch_events = HistogramOpts::new("flagmeter_worker_batch_events", "Events in one batch.")
            .buckets(vec![1.0, 10.0, 100.0, 1_000.0, 5_000.0, 10_000.0, 20_000.0]);
        let metrics = Self {
            counted: counter(
                "flagmeter_worker_events_counted_total",
                "Events counted, each for the first time.",
            )?,
            repeated: counter(
                "flagmeter_worker_events_repeated_total",
                "Events not counted because their id had been.",
            )?,
            conflicting: counter(
                "flagmeter_worker_events_conflicting_total",
                "Repeated events that say something else than what was counted under their id.",
            )?,
            dead_lettered: counter(
                "flagmeter_worker_events_dead_lettered_total",
                "Events kept in dead_letters.",
            )?,
            entries_seen_before: counter(
                "flagmeter_worker_entries_seen_before_total",
                "Entries that came again after they had been counted.",
            )?,
            entries_unreadable: counter(
                "flagmeter_worker_entries_unreadable_total",
                "Entries kept in dead_letters as they are.",
            )?,
            failures: register_int_counter_vec_with_registry!(
                Opts::new("flagmeter_worker_failures_total", "Steps that failed and were tried again."),
                &["step"],
                registry
            )?,
            batch_seconds: register_histogram_with_registry!(batch_seconds, registry)?,
            batch_events: register_histogram_with_registry!(batch_events, registry)?,
            queue_entries: register_int_gauge_with_registry!(
                Opts::new(
                    "flagmeter_worker_queue_entries",
                    "Entries in the queue: waiting, or in a worker's hands."
                ),
                registry
            )?,
        };
        for step in Step::ALL {
            metrics.failures.with_label_values(&[step.as_str()]);
        }
        Ok(metrics)
    }

    pub(crate) fn applied(&self, applied: Applied, events: usize, seconds: f64) {
        self.counted.inc_by(applied.counted);
        self.repeated.inc_by(applied.repeated);
        self.conflicting.inc_by(applied.conflicting);
        self.dead_lettered.inc_by(applied.dead_lettered);
        self.entries_seen_before.inc_by(applied.entries_seen_before);
        self.batch_seconds.observe(seconds);
        // Exact up to 2^53 events in a batch.
        #[expect(clippy::cast_precision_loss, reason = "a batch is never that large")]
        self.batch_events.observe(events as f64);
    }

    pub(crate) fn unreadable(&self) {
        self.entries_unreadable.inc();
    }

    pub(crate) fn failed(&self, step: Step) {
        self.failures.with_label_values(&[step.as_str()]).inc();
    }

    pub(crate) fn queue_entries(&self, entries: u64) {
        self.queue_entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }
}
