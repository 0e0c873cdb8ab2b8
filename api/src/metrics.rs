//! What the api counts about itself.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::StatusCode;
use flagmeter_core::problem::Code;
use jiff::Timestamp;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    register_histogram_vec_with_registry, register_histogram_with_registry,
    register_int_counter_vec_with_registry, register_int_counter_with_registry,
    register_int_gauge_vec_with_registry, register_int_gauge_with_registry,
};

use crate::auth::Reason;
use crate::routes::Route;

/// The api's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    accepted: IntCounter,
    refused: IntCounterVec,
    turned_away: IntCounterVec,
    auth_disabled: IntGauge,
    waiting: IntGauge,
    flush_events: Histogram,
    flush_seconds: Histogram,
    request_seconds: HistogramVec,
    /// Those of `request_seconds` that are used all the time: a look-up by labels costs more than counting.
    usual: Arc<[[OnceLock<Histogram>; STATUSES.len()]; Route::ALL.len()]>,
    tenants: IntGauge,
    tenants_read_at: IntGauge,
    queue_events: IntGauge,
    queue_closed: IntGauge,
    store_up: IntGaugeVec,
    live_streams: IntGauge,
    connections: IntGauge,
    connections_rejected: IntCounter,
    connections_closed: IntCounter,
    snapshot_failures: IntCounter,
}

/// What the api asks: a label of `flagmeter_api_store_up`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Store {
    /// Where usage is read.
    Postgresql,
    /// Where events go.
    Valkey,
}

impl Store {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Valkey => "valkey",
        }
    }
}

/// Something that is counted until it ends.
pub(crate) struct Counted(IntGauge);

impl Counted {
    fn one(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Seconds: from the fast path's fraction of a millisecond to the time limit.
const SECONDS: [f64; 12] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// The usual answers.
const STATUSES: [StatusCode; 6] = [
    StatusCode::ACCEPTED,
    StatusCode::OK,
    StatusCode::UNPROCESSABLE_ENTITY,
    StatusCode::NOT_FOUND,
    StatusCode::UNAUTHORIZED,
    StatusCode::SERVICE_UNAVAILABLE,
];

impl Metrics {
    /// Registers everything, at zero.
    ///
    /// # Errors
    ///
    /// If two metrics have one name.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter =
            |name: &str, help: &str| register_int_counter_with_registry!(Opts::new(name, help), registry);
        let gauge =
            |name: &str, help: &str| register_int_gauge_with_registry!(Opts::new(name, help), registry);
        let histogram =
            |name: &str, help: &str, buckets: &[f64]| HistogramOpts::new(name, help).buckets(buckets.into());
        let events = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0];
        let metrics = Self {
            accepted: counter(
                "flagmeter_api_events_accepted_total",
                "Events answered 202: they are in the queue.",
            )?,
            refused: register_int_counter_vec_with_registry!(
                Opts::new(
                    "flagmeter_api_requests_refused_total",
                    "Requests answered with a problem, by its code."
                ),
                &["code"],
                registry
            )?,
            turned_away: register_int_counter_vec_with_registry!(
                Opts::new(
                    "flagmeter_api_auth_rejected_total",
                    "Requests turned away for the key they showed or did not show, by reason."
                ),
                &["reason"],
                registry
            )?,
            auth_disabled: gauge(
                "flagmeter_api_auth_disabled",
                "1 where whoever reaches the port may do all, as FLAGMETER_AUTH says.",
            )?,
            waiting: gauge("flagmeter_api_events_waiting", "Events that wait for the flush in flight.")?,
            flush_events: register_histogram_with_registry!(
                histogram("flagmeter_api_flush_events", "Events in one flush to the queue.", &events),
                registry
            )?,
            flush_seconds: register_histogram_with_registry!(
                histogram(
                    "flagmeter_api_flush_seconds",
                    "Time of one flush to the queue, tries included.",
                    &SECONDS
                ),
                registry
            )?,
            request_seconds: register_histogram_vec_with_registry!(
                histogram(
                    "flagmeter_api_request_seconds",
                    "Time to answer a request, by route and status.",
                    &SECONDS
                ),
                &["route", "status"],
                registry
            )?,
            usual: Arc::default(),
            tenants: gauge("flagmeter_api_tenants", "Tenants that events are taken for.")?,
            tenants_read_at: gauge(
                "flagmeter_api_tenants_read_timestamp_seconds",
                "When the tenants were read that this api knows, in seconds since 1970.",
            )?,
            queue_events: gauge(
                "flagmeter_api_queue_events",
                "Events in the queue, as this api last saw it.",
            )?,
            queue_closed: gauge(
                "flagmeter_api_queue_closed",
                "1 while no events are taken in because the queue is full.",
            )?,
            store_up: register_int_gauge_vec_with_registry!(
                Opts::new(
                    "flagmeter_api_store_up",
                    "1 while the store answers this api, by store: postgresql (usage), valkey (the queue)."
                ),
                &["store"],
                registry
            )?,
            live_streams: gauge("flagmeter_api_live_streams", "Pages that are kept live.")?,
            connections: gauge("flagmeter_api_connections", "Connections to the API's port.")?,
            connections_rejected: counter(
                "flagmeter_api_connections_rejected_total",
                "Connections closed at once because their peer had as many as FLAGMETER_MAX_CONNECTIONS_PER_PEER.",
            )?,
            connections_closed: counter(
                "flagmeter_api_connections_closed_total",
                "Idle connections closed to make room for a new one because all places were taken.",
            )?,
            snapshot_failures: counter(
                "flagmeter_api_snapshot_failures_total",
                "Times that tenants or usage could not be read from PostgreSQL.",
            )?,
        };
        metrics.show_every_label();
        Ok(metrics)
    }

    /// So that a rate can be taken of what has not happened yet.
    fn show_every_label(&self) {
        for code in Code::ALL {
            self.refused.with_label_values(&[code.as_str()]);
        }
        for reason in Reason::ALL {
            self.turned_away.with_label_values(&[reason.as_str()]);
        }
        for store in [Store::Postgresql, Store::Valkey] {
            self.store_up(store, false);
        }
    }

    pub(crate) fn accepted(&self, events: usize) {
        self.accepted.inc_by(events as u64);
    }

    pub(crate) fn refused(&self, code: Code) {
        self.refused.with_label_values(&[code.as_str()]).inc();
    }

    pub(crate) fn turned_away(&self, reason: Reason) {
        self.turned_away.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn auth_disabled(&self, disabled: bool) {
        self.auth_disabled.set(disabled.into());
    }

    pub(crate) fn waiting(&self, events: usize) {
        self.waiting.set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    #[expect(clippy::cast_precision_loss, reason = "a flush has a few thousand events at most")]
    pub(crate) fn flushed(&self, events: usize) {
        self.flush_events.observe(events as f64);
    }

    pub(crate) fn flush_seconds(&self, seconds: f64) {
        self.flush_seconds.observe(seconds);
    }

    pub(crate) fn answered(&self, route: Route, status: StatusCode, time: Duration) {
        let seconds = time.as_secs_f64();
        let of_labels = || self.request_seconds.with_label_values(&[route.path(), status.as_str()]);
        match STATUSES.iter().position(|usual| *usual == status) {
            Some(place) => self.usual[route as usize][place].get_or_init(of_labels).observe(seconds),
            None => of_labels().observe(seconds),
        }
    }

    pub(crate) fn tenants(&self, tenants: usize, read_at: Timestamp) {
        self.tenants.set(i64::try_from(tenants).unwrap_or(i64::MAX));
        self.tenants_read_at.set(read_at.as_second());
    }

    pub(crate) fn queue(&self, events: u64, closed: bool) {
        self.queue_events.set(i64::try_from(events).unwrap_or(i64::MAX));
        self.queue_closed.set(closed.into());
    }

    pub(crate) fn store_up(&self, store: Store, up: bool) {
        self.store_up.with_label_values(&[store.as_str()]).set(up.into());
    }

    pub(crate) fn live_stream(&self) -> Counted {
        Counted::one(&self.live_streams)
    }

    pub(crate) fn connection(&self) -> Counted {
        Counted::one(&self.connections)
    }

    pub(crate) fn connection_rejected(&self) {
        self.connections_rejected.inc();
    }

    pub(crate) fn connection_closed(&self) {
        self.connections_closed.inc();
    }

    pub(crate) fn snapshot_failed(&self) {
        self.snapshot_failures.inc();
    }
}
