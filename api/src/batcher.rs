//! All events that wait at one flush go into the queue as one entry.
//!
//! One flush is in flight, and the next starts when it was answered: no timer holds an event back,
//! and the more events arrive during a flush, the larger the next one is. An event's sender is
//! answered only after Valkey has answered for its entry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flagmeter_core::event::{EventId, UsageEvent};
use flagmeter_core::packed::{Batch, id_in};
use flagmeter_runtime::clock::Clock;
use flagmeter_store::StoreError;
use flagmeter_store::queue::{Durability, EventQueue};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use uuid::{NoContext, Uuid};

use crate::gate::Gate;
use crate::metrics::Metrics;

/// A flush that has this many events takes no further request. By the last one it took it may be larger, by at most
/// what a request may have.
pub(crate) const FLUSH_EVENTS: usize = 1_000;

/// Requests in a flush that are expected; there may be more.
const USUAL_REQUESTS: usize = 64;

/// Turns that all others have before a flush, while each brings it more: Valkey takes twice as many events in one entry
/// at two thirds of the cost of each. A third turn brings little more, and costs those who wait.
const TURNS: usize = 2;

/// Events that may wait for the flush in flight; more are refused, and their senders told to come
/// again. An event is at most some 400 bytes, so 65,536 of them are at most 25 MiB.
const WAITING: usize = 65_536;

/// How long a flush is tried again over new connections before its senders are told.
const PATIENCE: Duration = Duration::from_secs(2);

/// The wait between two tries.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// How often Valkey is asked how durable it is.
const ASK_DURABILITY: Duration = Duration::from_secs(10);

/// Takes events to the queue. Clones share one flush.
#[derive(Clone)]
pub struct Batcher {
    waiting: mpsc::UnboundedSender<Waiting>,
    /// Events that wait, at most [`WAITING`].
    events: Arc<AtomicUsize>,
    durability: Arc<AtomicU8>,
}

/// The events of one request, and where its sender waits.
struct Waiting {
    events: Vec<UsageEvent>,
    answer: oneshot::Sender<Result<(Uuid, Timestamp), NotQueued>>,
}

/// What a sender is told of events that are in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The first event's id: the client's, or the one it was given.
    pub first_id: Uuid,
    /// The id that the first event has if its client gave it none. Those of the others follow from it
    /// ([`id_in`](flagmeter_core::packed::id_in)).
    pub own_id: Uuid,
    /// When Valkey had answered.
    pub queued_at: Timestamp,
    /// What Valkey did before it answered.
    pub durability: Durability,
}

/// Why events are not known to be in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotQueued {
    /// They are not.
    #[error("too many events wait for the queue")]
    Full,
    /// They are not.
    #[error("the queue has no room")]
    QueueFull,
    /// They are not.
    #[error("the queue does not answer")]
    Away,
    /// They may be.
    #[error("the queue did not confirm the events")]
    Unconfirmed,
}

impl Batcher {
    /// Starts the task that flushes to `queue`, and closes `gate` if Valkey goes away. It ends when the last clone is
    /// dropped, after what waits then was flushed.
    #[must_use]
    pub fn start(
        queue: Arc<EventQueue>,
        gate: Gate,
        clock: Clock,
        metrics: Metrics,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        // Bounded by the events that wait, whatever the number of requests.
        let (waiting, received) = mpsc::unbounded_channel();
        let durability = Arc::new(AtomicU8::new(code(Durability::Memory)));
        let events = Arc::default();
        let flusher = Flusher { queue, gate, clock, metrics, events: Arc::clone(&events) };
        (Self { waiting, events, durability }, tokio::spawn(flusher.run(received)))
    }

    /// Puts `events` into the queue, all or none, and waits until Valkey has them.
    ///
    /// # Errors
    ///
    /// [`NotQueued`], which says whether the events may be in the queue all the same.
    pub async fn push(&self, events: Vec<UsageEvent>) -> Result<Receipt, NotQueued> {
        let count = events.len();
        let given = events.first().and_then(|event| event.id);
        if self.events.fetch_add(count, Ordering::Relaxed) + count > WAITING {
            self.events.fetch_sub(count, Ordering::Relaxed);
            return Err(NotQueued::Full);
        }
        let (answer, answered) = oneshot::channel();
        self.waiting.send(Waiting { events, answer }).map_err(|_| NotQueued::Full)?;
        let (own_id, queued_at) = answered.await.unwrap_or(Err(NotQueued::Unconfirmed))?;
        let first_id = given.map_or(own_id, EventId::uuid);
        Ok(Receipt { first_id, own_id, queued_at, durability: self.durability() })
    }

    /// What Valkey does before it answers.
    #[must_use]
    pub fn durability(&self) -> Durability {
        durability(self.durability.load(Ordering::Relaxed))
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
    gate: Gate,
    clock: Clock,
    metrics: Metrics,
    events: Arc<AtomicUsize>,
}

impl Flusher {
    async fn run(self, mut received: mpsc::UnboundedReceiver<Waiting>) {
        while let Some(first) = received.recv().await {
            let mut events = first.events.len();
            let mut flush = Vec::with_capacity(USUAL_REQUESTS);
            flush.push(first);
            // Who is ready to go on does so first: senders that were just answered, and those whose requests have
            // arrived meanwhile, which makes this flush larger. On a quiet box nobody is.
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
                let before = events;
                while events < FLUSH_EVENTS
                    && let Ok(next) = received.try_recv()
                {
                    events += next.events.len();
                    flush.push(next);
                }
                if events == before {
                    break;
                }
            }
            self.flush(flush, events, &mut received).await;
        }
    }

    async fn flush(
        &self,
        flush: Vec<Waiting>,
        count: usize,
        received: &mut mpsc::UnboundedReceiver<Waiting>,
    ) {
        self.metrics.waiting(self.events.load(Ordering::Relaxed).saturating_sub(count));
        let mut events = Vec::with_capacity(count);
        let mut answers = Vec::with_capacity(flush.len());
        for mut request in flush {
            answers.push((events.len(), request.answer));
            events.append(&mut request.events);
        }
        let batch = self.batch(events);
        let pushed = self.push(&batch.encode(), count).await;
        self.events.fetch_sub(count, Ordering::Relaxed);
        match pushed {
            Ok(()) => {
                let now = self.clock.now();
                for (first, answer) in answers {
                    // Whoever hung up meanwhile has events that count all the same.
                    let _ = answer.send(Ok((id_in(batch.batch_id, first), now)));
                }
                self.metrics.flushed(count);
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, events = count, "a flush failed");
                if error.is_broken_connection() {
                    self.gate.close(&error);
                }
                let reason =
                    if error.is_out_of_memory() { NotQueued::QueueFull } else { NotQueued::Unconfirmed };
                for (_, answer) in answers {
                    let _ = answer.send(Err(reason));
                }
                // Whoever came meanwhile would wait as long for the same answer.
                while let Ok(request) = received.try_recv() {
                    self.events.fetch_sub(request.events.len(), Ordering::Relaxed);
                    let _ = request.answer.send(Err(NotQueued::Full));
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
    async fn push(&self, entry: &[u8], events: usize) -> Result<(), StoreError> {
        let start = Instant::now();
        loop {
            match self.queue.push(entry, events).await {
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
