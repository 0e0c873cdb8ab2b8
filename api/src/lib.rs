//! The api: takes events in, answers usage, shows the dashboard.
//!
//! - [`service`] is the HTTP API; its handlers are in `routes`, a module for each group.
//! - [`auth`] says who may ask for what, before a handler is called.
//! - [`batcher`] takes events to the queue; PostgreSQL is not on the path of a POST.
//! - [`directory`], [`usage`] and [`recent`] are what the api knows of PostgreSQL, kept true in the background;
//!   [`queued`] is what it took in that may not be counted yet.
//! - [`error`] has the one shape of every refusal.

pub mod auth;
pub mod batcher;
pub mod body;
mod budget;
pub mod config;
mod csv;
pub mod directory;
pub mod error;
pub mod features;
pub mod freshness;
pub mod gate;
pub mod ids;
pub mod metrics;
mod page;
pub mod queued;
mod readiness;
pub mod recent;
mod routes;
pub mod serve;
pub mod service;
pub mod state;
pub mod tenant;
mod tokens;
mod turns;
pub mod usage;

use std::sync::Arc;

use flagmeter_runtime::clock::Clock;
use flagmeter_runtime::{admin, listen};
use flagmeter_store::queue::EventQueue;
use flagmeter_store::{StoreError, postgres};
use tokio_util::sync::CancellationToken;

use crate::auth::{Auth, Keys};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::readiness::Watch;
use crate::service::Service;
use crate::state::{AppState, Ground};

/// Connections to PostgreSQL: one listens, one reads the usage, two look for events, two add up past usage,
/// one adds up the last days. Those that nobody needs are not made.
const CONNECTIONS: u32 = 7;

/// Why the api could not start, or stopped by itself.
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
    /// The API's port cannot be opened.
    #[error("failed to serve the API")]
    Serve(#[source] std::io::Error),
}

/// Runs the api until `shutdown`, then goes on serving for the drain time, then answers what is
/// under way.
///
/// # Errors
///
/// [`Error`]; every event answered 202 is in the queue all the same.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let registry = admin::registry();
    let metrics = Metrics::register(&registry).map_err(Error::Metrics)?;
    let watch = Watch::new();
    let clock = Clock::system();
    let pool = postgres::pool(config.database_url.expose(), "flagmeter-api", CONNECTIONS)?;
    let queue = Arc::new(EventQueue::new(config.valkey_url.expose())?);
    let keys = Keys::default();
    let auth = Auth::new(config.auth, keys.clone(), clock);
    if auth.is_disabled() {
        tracing::warn!(
            "FLAGMETER_AUTH=disabled: anyone who can reach the port may send events and read usage of every tenant"
        );
    }
    metrics.auth_disabled(auth.is_disabled());
    let (limits, draining) = (config.limits, shutdown.clone());
    let (state, flushed) = AppState::new(Ground { auth, queue, pool, clock, limits, metrics, draining });
    let state = Arc::new(state);

    let listener = listen::on("FLAGMETER_LISTEN", config.listen).await.map_err(Error::Serve)?;
    tracing::info!(address = %config.listen, "API open");
    watch.serving();

    // Keeps what the api knows true, until the last request was answered.
    let knowledge = state.follow(&keys, |news| watch.hear(&news));
    let stopping = watch.readiness();
    let drained = async move {
        shutdown.cancelled().await;
        stopping.unmet(readiness::SERVING, "it was told to stop");
        tokio::time::sleep(config.drain).await;
    };
    let closed = CancellationToken::new();
    let admin = admin::serve(config.admin_listen, registry, watch.readiness(), closed.clone());
    let service = Arc::new(Service::new(Arc::clone(&state)));
    let served = async {
        let limits = serve::Limits::new(config.peers, config.idle);
        serve::serve(listener, service, limits, state.metrics.clone(), drained).await;
        closed.cancel();
        Ok(())
    };
    tokio::select! {
        () = knowledge => {}
        outcome = async { tokio::try_join!(async { admin.await.map_err(Error::Admin) }, served) } => { outcome?; }
    }
    drop(state);
    // What waits is flushed; its senders have hung up, but it counts.
    let _ = flushed.await;
    tracing::info!("stopped");
    Ok(())
}
