//! What the operator counts.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Every way in which a reconcile can end.
const RESULTS: [&str; 9] =
    ["in_force", "stalled", "invalid", "observe", "read_secret", "seal", "apply", "overtaken", "report"];

/// The operator's metrics, in a registry of its own.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Reconciles by how they ended: `in_force`, `stalled`, or the step that failed.
    pub reconciles: IntCounterVec,
    /// How long a reconcile took.
    pub reconcile_seconds: Histogram,
    /// Rows that somebody else had changed, and that were put back.
    pub drift_repairs: IntCounter,
    /// Sweeps that would have detached so many tenants at once that they were not believed.
    pub sweeps_refused: IntCounter,
    /// Tenant resources, by whether their settings are in force.
    pub tenants: IntGaugeVec,
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
                    "Reconciles by how they ended: in_force, stalled, or the step that failed",
                ),
                &["result"],
            )?,
            reconcile_seconds: Histogram::with_opts(HistogramOpts::new(
                "flagmeter_operator_reconcile_seconds",
                "How long a reconcile took",
            ))?,
            drift_repairs: IntCounter::new(
                "flagmeter_operator_drift_repairs_total",
                "Rows that somebody else had changed, and that were put back",
            )?,
            sweeps_refused: IntCounter::new(
                "flagmeter_operator_sweeps_refused_total",
                "Sweeps that would have detached so many tenants at once that they were not believed",
            )?,
            tenants: IntGaugeVec::new(
                Opts::new(
                    "flagmeter_operator_tenants",
                    "Tenant resources, by whether their settings are in force",
                ),
                &["ready"],
            )?,
            leader: IntGauge::new(
                "flagmeter_operator_leader",
                "1 in the process that holds the lease, else 0",
            )?,
        };
        registry.register(Box::new(metrics.reconciles.clone()))?;
        registry.register(Box::new(metrics.reconcile_seconds.clone()))?;
        registry.register(Box::new(metrics.drift_repairs.clone()))?;
        registry.register(Box::new(metrics.sweeps_refused.clone()))?;
        registry.register(Box::new(metrics.tenants.clone()))?;
        registry.register(Box::new(metrics.leader.clone()))?;
        for result in RESULTS {
            metrics.reconciles.with_label_values(&[result]);
        }
        metrics.set_tenants(0, 0);
        Ok(metrics)
    }

    /// Sets the number of tenants whose settings are in force, and of those whose are not.
    pub fn set_tenants(&self, ready: usize, other: usize) {
        for (label, count) in [("true", ready), ("false", other)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.tenants.with_label_values(&[label]).set(count);
        }
    }
}
