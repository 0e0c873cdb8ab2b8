//! Read, apply, confirm: the way of an entry out of the queue.
//!
//! An entry is confirmed only after PostgreSQL has committed it. Whatever goes wrong before that,
//! the entry comes again, to this worker or to another, and counts once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flagmeter_core::scaling::sample;
use flagmeter_runtime::admin::Readiness;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::postgres::alerts;
use flagmeter_store::postgres::batch::Counter;
use flagmeter_store::postgres::retention::{self, Limits};
use flagmeter_store::postgres::{self, dead_letters, unread};
use flagmeter_store::queue::EventQueue;
use flagmeter_store::{PgPool, StoreError};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use crate::gather::{Appetite, End, Hand, READ_ENTRIES, Which, gather};
use crate::metrics::{Metrics, Step};

/// The readiness condition that PostgreSQL answers and has this build's schema.
pub const DATABASE: &str = "database";

/// The readiness condition that Valkey answers.
pub const QUEUE: &str = "queue";

/// After how long an entry that a worker has in hand counts as left behind. A batch takes
/// milliseconds; if its worker was only slow, both count it, once.
pub const LEFT_BEHIND: Duration = Duration::from_secs(15);

/// How often a worker looks for entries left behind; and how often it says what it did and looks at the queue's length.
const ROUND: Duration = Duration::from_secs(5);

/// While less than enough waits, batches begin this far apart: an event is counted within some
/// 100 ms, and a quiet box does not commit hundreds of times a second.
const PACE: Duration = Duration::from_millis(50);

/// How often it makes partitions ahead of time, which reach to the end of tomorrow, and forgets old ones.
const KEEP_HOUSE_EVERY: Duration = Duration::from_mins(10);

/// The first wait after a failure; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How often tenants are looked for whose quota has changed by itself, because a boost began or ended.
const REVIEW_EVERY: Duration = Duration::from_mins(1);

/// A worker's loop and what it needs.
pub struct Drain {
    /// For reads that wait.
    pub reader: EventQueue,
    /// For everything else.
    pub queue: EventQueue,
    /// Counts.
    pub counter: Counter,
    /// For what is not counted, and for what is forgotten.
    pub pool: PgPool,
    /// This worker's name in the consumer group.
    pub consumer: String,
    /// Says which day it is.
    pub clock: Clock,
    /// What it counts about itself.
    pub metrics: Metrics,
    /// Whether PostgreSQL and Valkey answer.
    pub readiness: Readiness,
    /// What it did so far, for whoever scales workers.
    pub work: Work,
    /// How long what is kept.
    pub keep: Limits,
    /// [`LEFT_BEHIND`].
    pub left_behind: Duration,
}

/// How much a worker did, in transactions of which size, and how long they took.
#[derive(Debug, Default)]
pub struct Work(Mutex<sample::Work>);

impl Work {
    /// Adds a transaction of `events`.
    fn add(&self, events: usize, took: Duration) {
        self.total().add(events, took.as_secs_f64());
    }

    fn so_far(&self) -> sample::Work {
        *self.total()
    }

    fn total(&self) -> MutexGuard<'_, sample::Work> {
        // A panic while it was held leaves numbers, which are as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits that grow: 0.1 s, 0.2 s, … 5 s.
struct Patience(Duration);

impl Patience {
    fn new() -> Self {
        Self(FIRST_WAIT)
    }

    /// Waits, unless it is time to stop; answers whether to go on.
    async fn wait(&mut self, shutdown: &CancellationToken) -> bool {
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST_WAIT);
        next(wait, shutdown).await
    }
}

/// Waits for the next round; answers whether to go on.
async fn next(round: Duration, shutdown: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(round) => true,
        () = shutdown.cancelled() => false,
    }
}

/// Why nothing is known of the schema.
fn unmigrated(error: &StoreError) -> &'static str {
    if error.is_refused_login() { error.in_short() } else { "it does not answer, or was never migrated" }
}

impl Drain {
    /// Drains the queue until `shutdown`. What is in hand then is finished, if PostgreSQL answers.
    pub async fn run(&self, shutdown: &CancellationToken) {
        self.wait_for_schema(shutdown).await;
        // Boxed, since each holds a whole batch's state, for as long as the worker lives.
        tokio::join!(
            Box::pin(self.read_on(shutdown)),
            Box::pin(self.claim_on(shutdown)),
            Box::pin(self.keep_house_on(shutdown)),
            self.report_on(shutdown),
        );
        if let Err(error) = self.queue.leave(&self.consumer).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "stays in the consumer group");
        }
        tracing::info!("drained");
    }

    /// Another part migrates; nothing can be counted before.
    async fn wait_for_schema(&self, shutdown: &CancellationToken) {
        let mut patience = Patience::new();
        loop {
            match postgres::is_migrated(&self.pool).await {
                Ok(true) => return self.readiness.met(DATABASE),
                Ok(false) => self.readiness.unmet(DATABASE, "its schema is older than this build"),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "waiting for the schema: {}",
                        error.in_short()
                    );
                    self.readiness.unmet(DATABASE, unmigrated(&error));
                }
            }
            if !patience.wait(shutdown).await {
                return;
            }
        }
    }

    /// The main loop.
    async fn read_on(&self, shutdown: &CancellationToken) {
        let mut patience = Patience::new();
        let mut appetite = Appetite::default();
        // What this worker had in hand before it was restarted comes first, and again after a
        // confirmation was lost.
        let mut look_back = true;
        while !shutdown.is_cancelled() {
            let begun = tokio::time::Instant::now();
            let which = if look_back { Which::Given } else { Which::Unseen };
            let (hand, end) = match gather(&self.reader, &self.consumer, which, &mut appetite).await {
                Ok(read) => read,
                Err(error) => {
                    self.failed(Step::Read, &error);
                    self.readiness.unmet(QUEUE, error.in_short());
                    look_back = true;
                    patience.wait(shutdown).await;
                    continue;
                }
            };
            self.readiness.met(QUEUE);
            let more = look_back && !hand.is_empty();
            if self.process(&hand, shutdown).await {
                patience = Patience::new();
                look_back = more;
            } else {
                patience.wait(shutdown).await;
                look_back = true;
            }
            match end {
                End::Enough => {}
                End::Failed(error) => {
                    self.failed(Step::Read, &error);
                    look_back = true;
                }
                End::Drained if look_back || hand.is_empty() => {}
                End::Drained => {
                    next(PACE.saturating_sub(begun.elapsed()), shutdown).await;
                }
            }
        }
    }

    /// Takes over what other workers left behind.
    async fn claim_on(&self, shutdown: &CancellationToken) {
        let mut more = false;
        while (more && !shutdown.is_cancelled()) || next(ROUND, shutdown).await {
            more = false;
            match self.queue.claim(&self.consumer, self.left_behind, READ_ENTRIES).await {
                Ok(entries) if entries.is_empty() => {}
                Ok(entries) => {
                    tracing::info!(entries = entries.len(), "took over what another worker left behind");
                    more = self.process(&Hand::of(entries), shutdown).await;
                }
                Err(error) => self.failed(Step::Claim, &error),
            }
        }
    }

    /// Says what this worker does, whatever else it waits for.
    async fn report_on(&self, shutdown: &CancellationToken) {
        self.report().await;
        while next(ROUND, shutdown).await {
            self.report().await;
        }
    }

    /// What is done for all tenants alike, now and then. It may be cut off anywhere.
    async fn keep_house_on(&self, shutdown: &CancellationToken) {
        let mut house = tokio::time::interval(KEEP_HOUSE_EVERY);
        let mut review = tokio::time::interval(REVIEW_EVERY);
        let mut reviewed = None;
        let keeping = async {
            loop {
                tokio::select! {
                    _ = house.tick() => self.keep_house().await,
                    _ = review.tick() => reviewed = self.review(reviewed).await,
                }
            }
        };
        tokio::select! {
            () = keeping => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Holds usage against quotas that have changed by themselves after `since`; the first time, all usage there is.
    /// Answers until when that is done.
    async fn review(&self, since: Option<Timestamp>) -> Option<Timestamp> {
        let now = self.clock.now();
        let reviewed = match since {
            Some(since) => alerts::review_edges(&self.pool, since, now).await,
            None => alerts::review_all(&self.pool, now).await,
        };
        match reviewed {
            Ok(_) => Some(now),
            Err(error) => {
                self.failed(Step::Review, &error);
                since
            }
        }
    }

    /// Makes the partitions that tomorrow needs, and forgets what is kept long enough.
    async fn keep_house(&self) {
        let now = self.clock.now();
        if let Err(error) = self.counter.prepare(TimeZone::UTC.to_datetime(now).date()).await {
            self.failed(Step::Prepare, &error);
        }
        self.recover().await;
        if let Err(error) = self.forget(now).await {
            self.failed(Step::Forget, &error);
        }
    }

    /// Counts what an older worker could not read, as while a release is rolled out.
    async fn recover(&self) {
        let start = Instant::now();
        match unread::count(&self.pool, &self.counter).await {
            Ok(recovered) if recovered.entries == 0 => {}
            Ok(recovered) => {
                let entries = recovered.entries;
                tracing::info!(
                    entries,
                    events = recovered.events,
                    "counted entries that an older worker could not read"
                );
                self.metrics.applied(recovered.applied, recovered.events, start.elapsed().as_secs_f64());
            }
            Err(error) => self.failed(Step::Apply, &error),
        }
    }

    /// Nothing that the queue can still deliver is forgotten, however long it waits there, nor any id that an api would
    /// still take. What is kept is measured, whether or not all was forgotten that may be.
    async fn forget(&self, now: Timestamp) -> Result<(), StoreError> {
        let oldest = self.queue.oldest().await?;
        let since = retention::ids_since(&self.pool, &self.keep, now, oldest).await?;
        let refused_before = self.queue.refuse_ids_before(since, now).await?;
        let forgotten = retention::forget(&self.pool, &self.keep, now, oldest, refused_before).await;
        let kept = retention::kept(&self.pool, refused_before).await;
        if let Ok(kept) = &kept {
            self.metrics.kept(kept, now);
        }
        forgotten.and(kept.map(drop))
    }

    /// Says what this worker did, and looks at what is left to do.
    async fn report(&self) {
        if let Err(error) = self.queue.heartbeat(&self.consumer, self.work.so_far()).await {
            self.failed(Step::Report, &error);
        }
        match (self.queue.depth().await, self.queue.load().await) {
            (Ok(entries), Ok(load)) => self.metrics.queue(entries, load.events),
            (Err(error), _) | (_, Err(error)) => self.failed(Step::Report, &error),
        }
    }

    /// Counts what is in `hand` and removes it from the queue. Tries again until PostgreSQL has it or it
    /// is time to stop; answers whether it is out of the queue.
    async fn process(&self, hand: &Hand, shutdown: &CancellationToken) -> bool {
        if hand.is_empty() {
            return true;
        }
        let start = Instant::now();
        // Without those that failed: that PostgreSQL was away says nothing of how fast it counts.
        let mut attempt = start;
        let mut patience = Patience::new();
        while let Err(error) = self.apply(hand, start).await {
            self.failed(Step::Apply, &error);
            let why = if error.is_of_the_data() {
                "it refuses the data, which the log names: this is no outage"
            } else if error.is_refused_login() {
                error.in_short()
            } else {
                "it does not take what is counted"
            };
            self.readiness.unmet(DATABASE, why);
            if !patience.wait(shutdown).await {
                return false;
            }
            attempt = Instant::now();
        }
        self.readiness.met(DATABASE);
        let counted = hand.readable.iter().map(|entry| (entry.entry_id.as_str(), entry.batch.events.len()));
        let kept = hand.unreadable.iter().map(|(entry_id, ..)| (entry_id.as_str(), 0));
        let confirmed = self.queue.confirm(&counted.chain(kept).collect::<Vec<_>>()).await;
        self.work.add(hand.events, attempt.elapsed());
        confirmed.inspect_err(|error| self.failed(Step::Confirm, error)).is_ok()
    }

    async fn apply(&self, hand: &Hand, start: Instant) -> Result<(), StoreError> {
        for (entry_id, payload, reason) in &hand.unreadable {
            // It comes again with each try, and is one entry all the same.
            if dead_letters::add_unreadable(&self.pool, entry_id, payload, *reason).await? {
                tracing::error!(entry_id, %reason, "kept an entry in dead_letters");
                self.metrics.unreadable();
            }
        }
        if !hand.readable.is_empty() {
            let applied = self.counter.apply(&hand.readable).await?;
            self.metrics.applied(applied, hand.events, start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn failed(&self, step: Step, error: &StoreError) {
        let why = error.in_short();
        tracing::warn!(error = error as &dyn std::error::Error, ?step, "failed, and is tried again: {why}");
        self.metrics.failed(step);
    }
}
