//! What handlers need.

use axum::extract::FromRef;
use flagmeter_runtime::clock::Clock;
use tokio_util::sync::CancellationToken;

use crate::batcher::Batcher;
use crate::directory::Directory;
use crate::metrics::Metrics;
use crate::usage::Usage;

/// The api's state. A handler takes the part it uses.
#[derive(Clone, FromRef)]
pub struct AppState {
    /// The way into the queue.
    pub batcher: Batcher,
    /// The tenants.
    pub directory: Directory,
    /// What they used.
    pub usage: Usage,
    /// The time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// Cancelled when the api is told to stop: connections are closed after the answer under way.
    pub draining: CancellationToken,
}
