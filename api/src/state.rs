//! What handlers need.

use std::sync::Arc;

use flagmeter_runtime::clock::Clock;
use flagmeter_store::PgPool;
use flagmeter_store::queue::EventQueue;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::batcher::Batcher;
use crate::body::Bodies;
use crate::directory::Directory;
use crate::features::Features;
use crate::gate::Gate;
use crate::ids::KnownIds;
use crate::metrics::Metrics;
use crate::usage::Usage;

/// The api's state. The router shares one, so that a request costs one count of its users and not one for each field:
/// that was a fifth of the api's CPU.
pub struct AppState {
    /// Who may ask for what.
    pub auth: Auth,
    /// The way into the queue.
    pub batcher: Batcher,
    /// Whether the queue has room.
    pub gate: Gate,
    /// Since when clients' ids are known.
    pub ids: KnownIds,
    /// The budget for bodies.
    pub bodies: Bodies,
    /// The features that tenants have.
    pub features: Features,
    /// The queue itself, to ask what waits in it.
    pub queue: Arc<EventQueue>,
    /// PostgreSQL, for what no snapshot holds. No POST touches it.
    pub pool: PgPool,
    /// The tenants.
    pub directory: Directory,
    /// What they used.
    pub usage: Usage,
    /// The time.
    pub clock: Clock,
    /// For how many days minutes are kept.
    pub rollups_days: u16,
    /// What is counted.
    pub metrics: Metrics,
    /// Cancelled when the api is told to stop: connections are closed after the answer under way.
    pub draining: CancellationToken,
}
