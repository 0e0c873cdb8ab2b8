//! What handlers need.

use std::sync::Arc;
use std::time::Duration;

use flagmeter_runtime::clock::Clock;
use flagmeter_store::queue::{Durability, EventQueue};
use flagmeter_store::{PgPool, StoreError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::auth::{Auth, Keys};
use crate::batcher::Batcher;
use crate::body::Bodies;
use crate::budget::Budget;
use crate::config::Limits;
use crate::directory::{Directory, Source};
use crate::features::Features;
use crate::gate::Gate;
use crate::ids::KnownIds;
use crate::metrics::Metrics;
use crate::recent;
use crate::turns::Turns;
use crate::usage::Usage;

/// How long a request waits for its turn at past usage: somewhat longer than two readings under way may take at most.
const READING_PATIENCE: Duration = Duration::from_secs(9);

/// The same at looking for an event, which takes milliseconds.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(3);

/// The api's state. The router shares one, so that a request costs one count of its users and not one for each field:
/// that was a fifth of the api's CPU.
pub struct AppState {
    /// Who may ask for what.
    pub auth: Auth,
    /// The way into the queue.
    pub batcher: Batcher,
    /// Whether the queue takes events.
    pub gate: Gate,
    /// Since when clients' ids are known.
    pub ids: KnownIds,
    /// Reads bodies.
    pub bodies: Bodies,
    /// The memory that bodies and answers share.
    pub(crate) budget: Budget,
    /// The features that tenants have.
    pub features: Features,
    /// The queue itself, to ask what waits in it.
    pub queue: Arc<EventQueue>,
    /// PostgreSQL, for what no snapshot holds. No POST touches it.
    pub pool: PgPool,
    /// Turns at adding up past usage there.
    pub(crate) readings: Turns,
    /// Turns at looking for an event there.
    pub(crate) lookups: Turns,
    /// The tenants.
    pub directory: Directory,
    /// What they used.
    pub usage: Usage,
    /// The time.
    pub clock: Clock,
    /// What one request may ask for.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Metrics,
    /// Cancelled when the api is told to stop: connections are closed after the answer under way.
    pub draining: CancellationToken,
}

/// What an api stands on.
pub struct Ground {
    /// Who may ask for what.
    pub auth: Auth,
    /// The queue.
    pub queue: Arc<EventQueue>,
    /// PostgreSQL.
    pub pool: PgPool,
    /// The time.
    pub clock: Clock,
    /// What it takes in, and for how long it answers.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Metrics,
    /// Cancelled when the api is told to stop.
    pub draining: CancellationToken,
}

impl AppState {
    /// An api that knows nothing yet, and the task that takes its events to the queue. That ends when the state is
    /// dropped, after what waits then was flushed.
    #[must_use]
    pub fn new(ground: Ground) -> (Self, JoinHandle<()>) {
        let Ground { auth, queue, pool, clock, limits, metrics, draining } = ground;
        let gate = Gate::new(limits.queued_events);
        let (batcher, flushed) = Batcher::start(Arc::clone(&queue), gate.clone(), clock, metrics.clone());
        let (usage, budget) = (Usage::default(), Budget::default());
        let state = Self {
            auth,
            batcher,
            gate,
            ids: KnownIds::default(),
            bodies: Bodies::new(limits.body_bytes, budget.clone()),
            budget,
            features: Features::new(limits.features, usage.clone()),
            queue,
            pool,
            readings: Turns::new(READING_PATIENCE),
            lookups: Turns::new(LOOKUP_PATIENCE),
            directory: Directory::default(),
            usage,
            clock,
            limits,
            metrics,
            draining,
        };
        (state, flushed)
    }

    /// Keeps what it knows true for as long as it is polled, the keys among that. Calls `heard` with all news.
    pub async fn follow(&self, keys: &Keys, heard: impl Fn(News<'_>)) {
        let source =
            Source { pool: &self.pool, queue: &self.queue, keys, clock: self.clock, metrics: &self.metrics };
        tokio::join!(
            self.batcher.watch_durability(&self.queue, |outcome| heard(News::Durability(outcome))),
            self.gate.watch(&self.queue, &self.metrics, |answered| heard(News::Queue { answered })),
            self.ids.follow(&self.queue),
            self.directory.follow(&source, |outcome| heard(News::Tenants(outcome))),
            self.usage.follow(&source, |outcome| heard(News::Usage(outcome))),
            recent::follow(&source, &self.directory),
        );
    }
}

/// What an api hears while it goes on.
pub enum News<'a> {
    /// Valkey was asked how durable it is.
    Durability(&'a Result<Durability, StoreError>),
    /// It was asked what waits in it.
    Queue {
        /// Whether it said so.
        answered: bool,
    },
    /// The tenants were read, or could not be.
    Tenants(Result<(), &'a StoreError>),
    /// The usage was asked for, perhaps in vain: events are taken in without it.
    Usage(&'a Result<(), StoreError>),
}
