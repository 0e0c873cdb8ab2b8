//! What the worker counts about itself.

mod deliveries;

use flagmeter_store::postgres::batch::Applied;
use flagmeter_store::postgres::retention::Kept;
use jiff::Timestamp;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    register_histogram_with_registry, register_int_counter_vec_with_registry,
    register_int_counter_with_registry, register_int_gauge_with_registry,
};

pub use self::deliveries::Deliveries;

/// The metrics of counting. `counted + repeated + dead_lettered` is every event that left the queue.
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
    queue_events: IntGauge,
    kept_seconds: IntGaugeVec,
    kept_bytes: IntGaugeVec,
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
    /// Dropping what is kept long enough.
    Forget,
    /// Saying what was done, and asking what is left.
    Report,
    /// Holding usage against quotas that changed by themselves.
    Review,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Read,
        Self::Claim,
        Self::Apply,
        Self::Confirm,
        Self::Prepare,
        Self::Forget,
        Self::Report,
        Self::Review,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Claim => "claim",
            Self::Apply => "apply",
            Self::Confirm => "confirm",
            Self::Prepare => "prepare",
            Self::Forget => "forget",
            Self::Report => "report",
            Self::Review => "review",
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
        let gauges = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["what"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
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
            queue_events: register_int_gauge_with_registry!(
                Opts::new(
                    "flagmeter_worker_queue_events",
                    "Events in the queue: waiting, or in a worker's hands."
                ),
                registry
            )?,
            kept_seconds: gauges(
                "flagmeter_worker_kept_seconds",
                "How far back what is kept reaches: the window in which events can be read, or repeats be known.",
            )?,
            kept_bytes: gauges("flagmeter_worker_kept_bytes", "Bytes on disk of what is kept.")?,
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

    pub(crate) fn queue(&self, entries: u64, events: u64) {
        self.queue_entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.queue_events.set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    pub(crate) fn kept(&self, kept: &Kept, now: Timestamp) {
        let windows =
            [("events", kept.events), ("event_ids", kept.event_ids), ("dead_letters", kept.dead_letters)];
        for (what, window) in windows {
            let since = window.since.map_or(0, |since| now.duration_since(since).as_secs());
            self.kept_seconds.with_label_values(&[what]).set(since);
            self.kept_bytes.with_label_values(&[what]).set(window.bytes);
        }
    }
}
