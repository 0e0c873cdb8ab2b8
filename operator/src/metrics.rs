//! What the operator counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Every way in which a reconcile can end.
const RESULTS: [&str; 16] = [
    "in_force",
    "key_pending",
    "stalled",
    "deleting",
    "gone",
    "invalid",
    "finalizer",
    "observe",
    "read_secret",
    "make_key",
    "write_secret",
    "seal",
    "apply",
    "clean_up",
    "overtaken",
    "report",
];

/// The operator's metrics, in a registry of its own.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Reconciles by how they ended: `in_force`, `key_pending`, `stalled`, `deleting`, `gone`, or the step that failed.
    pub reconciles: IntCounterVec,
    /// How long a reconcile took.
    pub reconcile_seconds: Histogram,
    /// Requests to the API server by verb and resource: what `calls` counts.
    pub api_calls: IntCounterVec,
    /// Rows that somebody else had changed, and that were put back.
    pub drift_repairs: IntCounter,
    /// Sweeps that would have detached so many tenants at once that they were not believed.
    pub sweeps_refused: IntCounter,
    /// Scopes whose `tenants`, or whose `secrets`, cannot be watched now.
    pub watches_failing: IntGaugeVec,
    /// Tenant resources, by whether their settings are in force.
    pub tenants: IntGaugeVec,
    /// Tenants by scope: ready, and not.
    by_scope: Arc<Mutex<HashMap<String, (usize, usize)>>>,
    /// 1 in the process that holds the lease, else 0.
    pub leader: IntGauge,
}

impl Metrics {
    /// The metrics, each at zero, registered in `registry`.
    ///
    /// # Errors
    ///
    /// If one of them is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            reconciles: IntCounterVec::new(
                Opts::new(
                    "flagmeter_operator_reconciles_total",
                    "Reconciles by how they ended: in_force, key_pending, stalled, deleting, gone, or the step that failed",
                ),
                &["result"],
            )?,
            reconcile_seconds: Histogram::with_opts(HistogramOpts::new(
                "flagmeter_operator_reconcile_seconds",
                "How long a reconcile took",
            ))?,
            api_calls: IntCounterVec::new(
                Opts::new(
                    "flagmeter_operator_api_calls_total",
                    "Requests to the Kubernetes API server by verb and resource",
                ),
                &["verb", "resource"],
            )?,
            drift_repairs: IntCounter::new(
                "flagmeter_operator_drift_repairs_total",
                "Rows that somebody else had changed, and that were put back",
            )?,
            sweeps_refused: IntCounter::new(
                "flagmeter_operator_sweeps_refused_total",
                "Sweeps that would have detached so many tenants at once that they were not believed",
            )?,
            watches_failing: IntGaugeVec::new(
                Opts::new(
                    "flagmeter_operator_watches_failing",
                    "Namespaces, or 1 for all together, whose tenants, or whose secrets, cannot be watched now",
                ),
                &["watch"],
            )?,
            tenants: IntGaugeVec::new(
                Opts::new(
                    "flagmeter_operator_tenants",
                    "Tenant resources, by whether their settings are in force",
                ),
                &["ready"],
            )?,
            by_scope: Arc::default(),
            leader: IntGauge::new(
                "flagmeter_operator_leader",
                "1 in the process that holds the lease, else 0",
            )?,
        };
        registry.register(Box::new(metrics.reconciles.clone()))?;
        registry.register(Box::new(metrics.reconcile_seconds.clone()))?;
        registry.register(Box::new(metrics.api_calls.clone()))?;
        registry.register(Box::new(metrics.drift_repairs.clone()))?;
        registry.register(Box::new(metrics.sweeps_refused.clone()))?;
        registry.register(Box::new(metrics.watches_failing.clone()))?;
        registry.register(Box::new(metrics.tenants.clone()))?;
        registry.register(Box::new(metrics.leader.clone()))?;
        for result in RESULTS {
            metrics.reconciles.with_label_values(&[result]);
        }
        for watch in ["tenants", "secrets"] {
            metrics.watches_failing.with_label_values(&[watch]);
        }
        for ready in ["true", "false"] {
            metrics.tenants.with_label_values(&[ready]);
        }
        Ok(metrics)
    }

    /// Sets the number of a scope's tenants whose settings are in force, and of those whose are not.
    pub fn set_tenants(&self, scope: &str, ready: usize, other: usize) {
        // A panic while it was held leaves numbers that are right again with the next ones.
        let mut scopes = self.by_scope.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.insert(scope.to_owned(), (ready, other));
        let (ready, other) = scopes.values().fold((0, 0), |sums, scope| (sums.0 + scope.0, sums.1 + scope.1));
        for (label, count) in [("true", ready), ("false", other)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.tenants.with_label_values(&[label]).set(count);
        }
    }
}
