//! The worker: takes entries from the queue, counts them in PostgreSQL, and only then removes them; and sends alerts.
//!
//! - [`drain`] is that loop, and `gather` what it takes in hand at once.
//! - [`notifier`] sends alerts, beside it.
//! - [`config`] and [`metrics`] are what its name says.

pub mod config;
pub mod drain;
mod gather;
pub mod metrics;
pub mod notifier;

use std::sync::Arc;

use flagmeter_runtime::admin::{self, Readiness};
use flagmeter_runtime::clock::Clock;
use flagmeter_store::StoreError;
use flagmeter_store::postgres::{self, batch::Counter};
use flagmeter_store::queue::EventQueue;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::drain::{DATABASE, Drain, LEFT_BEHIND, QUEUE, Work};
use crate::metrics::{Deliveries, Metrics};
use crate::notifier::post::Poster;
use crate::notifier::{ENDING, Line, Notifier};

/// Connections that count: one for what was read, one for what others left behind.
const COUNTING_CONNECTIONS: u32 = 2;

/// Connections for what happens beside it.
const CONNECTIONS: u32 = 1;

/// Connections of the notifier: a receiver is never waited for with one in hand.
const NOTIFYING_CONNECTIONS: u32 = 2;

/// Why the worker could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A URL is invalid.
    #[error("failed to set up the stores")]
    Store(#[from] StoreError),
    /// Two metrics have one name.
    #[error("failed to register the metrics")]
    Metrics(#[source] prometheus::Error),
    /// The admin port cannot be opened.
    #[error("failed to serve the admin port")]
    Admin(#[source] std::io::Error),
}

/// Runs the worker until `shutdown`, then finishes what it has in hand.
///
/// # Errors
///
/// [`Error`]; whatever was in hand comes again to this or another worker.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let registry = admin::registry();
    let metrics = Metrics::register(&registry).map_err(Error::Metrics)?;
    let readiness = Readiness::of(&[DATABASE, QUEUE]);
    let database_url = config.database_url.expose();
    let counting = postgres::counting_pool(database_url, "flagmeter-worker", COUNTING_CONNECTIONS)?;
    let pool = postgres::pool(database_url, "flagmeter-worker", CONNECTIONS)?;
    let notifier = Arc::new(Notifier {
        pool: postgres::pool(database_url, "flagmeter-notifier", NOTIFYING_CONNECTIONS)?,
        sealer: config.sealer,
        poster: Poster::new(config.allow_private_webhooks),
        line: Line::default(),
        clock: Clock::system(),
        metrics: Deliveries::register(&registry).map_err(Error::Metrics)?,
        public_url: config.public_url,
    });
    let drain = Drain {
        reader: EventQueue::new(config.valkey_url.expose())?,
        queue: EventQueue::new(config.valkey_url.expose())?,
        counter: Counter::new(counting),
        pool,
        consumer: config.consumer,
        clock: Clock::system(),
        metrics,
        readiness: readiness.clone(),
        work: Work::default(),
        keep: config.keep,
        left_behind: LEFT_BEHIND,
    };
    // The admin port stays open until the drain has ended: its probes keep the pod alive.
    let closed = CancellationToken::new();
    let admin = admin::serve(config.admin_listen, registry, readiness, closed.clone());
    let drained = async {
        tokio::join!(drain.run(&shutdown), notifier.run(&shutdown, ENDING));
        closed.cancel();
        Ok(())
    };
    tokio::try_join!(async { admin.await.map_err(Error::Admin) }, drained).map(|_| ())
}
