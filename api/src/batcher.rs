//! All events that wait at one flush go into the queue as one entry.
//!
//! One flush is in flight, and the next starts when it was answered: no timer holds an event back,
//! and the more events arrive during a flush, the larger the next one is. An event's sender is
//! answered only after Valkey has answered for its entry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use flagmeter_core::event::UsageEvent;
use flagmeter_core::packed::Batch;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::StoreError;
use flagmeter_store::queue::{Durability, EventQueue};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use uuid::{NoContext, Uuid};

use crate::metrics::Metrics;

/// Events in one entry at most. Together with [`WAITING`] it bounds the api's memory: an event is
/// at most some 400 bytes.
const FLUSH_EVENTS: usize = 1_000;

/// Events that may wait for the flush in flight; more are refused, and their senders told to come
/// again. 16,384 of them are at most 8 MiB, and some 0.2 s of what one box takes in.
const WAITING: usize = 16_384;

/// How long a flush is tried again over new connections before its senders are told.
const PATIENCE: Duration = Duration::from_secs(2);

/// The wait between two tries.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// How often Valkey is asked how durable it is.
const ASK_DURABILITY: Duration = Duration::from_secs(10);

/// Takes events to the queue. Clones share one flush.
#[derive(Clone)]
pub struct Batcher {
    waiting: mpsc::Sender<Waiting>,
    durability: Arc<AtomicU8>,
}

/// An event, and where its sender waits.
struct Waiting {
    event: UsageEvent,
    answer: oneshot::Sender<Result<Uuid, NotQueued>>,
}

/// What a sender is told of an event that is in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The event's id: the client's, or the one it was given.
    pub id: Uuid,
    /// What Valkey did before it answered.
    pub durability: Durability,
}

/// Why an event is not known to be in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotQueued {
    /// It is not.
    #[error("too many events wait for the queue")]
    Full,
    /// It may be.
    #[error("the queue did not confirm the event")]
    Unconfirmed,
}

impl Batcher {
    /// Starts the task that flushes to `queue`. It ends when the last clone is dropped, after what
    /// waits then was flushed.
    #[must_use]
    pub fn start(
        queue: Arc<EventQueue>,
        clock: Clock,
        metrics: Metrics,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (waiting, received) = mpsc::channel(WAITING);
        let durability = Arc::new(AtomicU8::new(code(Durability::Memory)));
        let flusher = Flusher { queue, clock, metrics };
        (Self { waiting, durability }, tokio::spawn(flusher.run(received)))
    }

    /// Puts `event` into the queue, and waits until Valkey has it.
    ///
    /// # Errors
    ///
    /// [`NotQueued`], which says whether the event may be in the queue all the same.
    pub async fn push(&self, event: UsageEvent) -> Result<Receipt, NotQueued> {
        let (answer, answered) = oneshot::channel();
        self.waiting.try_send(Waiting { event, answer }).map_err(|_| NotQueued::Full)?;
        let id = answered.await.unwrap_or(Err(NotQueued::Unconfirmed))?;
        Ok(Receipt { id, durability: durability(self.durability.load(Ordering::Relaxed)) })
    }

    /// Asks Valkey how durable it is, now and then, for as long as it is polled. Calls `asked` with
    /// each outcome.
    pub async fn watch_durability(
        &self,
        queue: &EventQueue,
        asked: impl Fn(&Result<Durability, StoreError>),
    ) {
        let mut rounds = tokio::time::interval(ASK_DURABILITY);
        let mut soon = tokio::time::interval(Duration::from_millis(500));
        loop {
            let outcome = queue.durability().await;
            if let Ok(durability) = &outcome {
                self.durability.store(code(*durability), Ordering::Relaxed);
            }
            asked(&outcome);
            let next = if outcome.is_ok() { &mut rounds } else { &mut soon };
            next.reset();
            next.tick().await;
        }
    }
}

const fn code(durability: Durability) -> u8 {
    match durability {
        Durability::Fsync => 2,
        Durability::Everysec => 1,
        Durability::Memory => 0,
    }
}

const fn durability(code: u8) -> Durability {
    match code {
        2 => Durability::Fsync,
        1 => Durability::Everysec,
        _ => Durability::Memory,
    }
}

/// The task's side.
struct Flusher {
    queue: Arc<EventQueue>,
    clock: Clock,
    metrics: Metrics,
}

impl Flusher {
    async fn run(self, mut received: mpsc::Receiver<Waiting>) {
        let mut flush = Vec::with_capacity(FLUSH_EVENTS);
        while received.recv_many(&mut flush, FLUSH_EVENTS).await > 0 {
            self.metrics.waiting(received.len());
            let (events, answers): (Vec<_>, Vec<_>) =
                flush.drain(..).map(|one| (one.event, one.answer)).unzip();
            let batch = self.batch(events);
            match self.push(&batch.encode()).await {
                Ok(()) => {
                    for (index, answer) in answers.into_iter().enumerate() {
                        // Whoever hung up meanwhile has an event that counts all the same.
                        let _ = answer.send(Ok(batch.event_id(index)));
                    }
                    self.metrics.flushed(batch.events.len());
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        events = answers.len(),
                        "a flush failed"
                    );
                    for answer in answers {
                        let _ = answer.send(Err(NotQueued::Unconfirmed));
                    }
                    // Whoever came meanwhile would wait as long for the same answer.
                    while let Ok(waiting) = received.try_recv() {
                        let _ = waiting.answer.send(Err(NotQueued::Full));
                    }
                }
            }
        }
    }

    fn batch(&self, events: Vec<UsageEvent>) -> Batch {
        let now = self.clock.now();
        let seconds = now.as_second().unsigned_abs();
        let batch_id = Uuid::new_v7(uuid::Timestamp::from_unix(
            NoContext,
            seconds,
            now.subsec_nanosecond().unsigned_abs(),
        ));
        // Whole microseconds, which is what is kept.
        let received_at = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        Batch { batch_id, received_at, events }
    }

    /// Pushes an entry. One whose answer was lost is pushed again, with the same batch id: both
    /// copies count once.
    async fn push(&self, entry: &[u8]) -> Result<(), StoreError> {
        let start = Instant::now();
        loop {
            match self.queue.push(entry).await {
                Err(error) if error.is_broken_connection() && start.elapsed() < PATIENCE => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "flushing again over a new connection"
                    );
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
                outcome => {
                    self.metrics.flush_seconds(start.elapsed().as_secs_f64());
                    return outcome;
                }
            }
        }
    }
}
