//! Whether the queue takes events: closed before it is full, and opened again well below that, so that it does
//! not flap; and closed while Valkey is away. Nothing is ever dropped to make room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use flagmeter_store::StoreError;
use flagmeter_store::queue::{EventQueue, Load};
use tokio::time::Instant;

use crate::batcher::NotQueued;
use crate::metrics::{Metrics, Store};

/// How often the queue's load is looked at. At 100,000 events a second that is 50,000 events.
const LOOK: Duration = Duration::from_millis(500);

/// How often it is looked whether a Valkey that is away has come back, and how long it may take to say so.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How long Valkey may be silent before it counts as away. As long a flush is tried again: one that is only restarted
/// makes its senders wait, and turns nobody away.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether events are taken in. Clones share it.
#[derive(Debug, Clone)]
pub struct Gate {
    state: Arc<AtomicU8>,
    max_events: u64,
}

/// What [`Gate::state`] may be.
const OPEN: u8 = 0;
/// The queue is full.
const FULL: u8 = 1;
/// Valkey does not answer.
const AWAY: u8 = 2;

impl Gate {
    /// Open, until `max_events` wait in the queue.
    #[must_use]
    pub fn new(max_events: u64) -> Self {
        Self { state: Arc::new(AtomicU8::new(OPEN)), max_events }
    }

    /// Whether events are taken in.
    ///
    /// # Errors
    ///
    /// [`NotQueued::QueueFull`] or [`NotQueued::Away`]: they are not.
    pub fn check(&self) -> Result<(), NotQueued> {
        match self.state.load(Ordering::Relaxed) {
            OPEN => Ok(()),
            FULL => Err(NotQueued::QueueFull),
            _ => Err(NotQueued::Away),
        }
    }

    /// Valkey does not answer, or refuses. Until it does, senders need not wait to be told so.
    pub(crate) fn close(&self, error: &StoreError) {
        if self.state.swap(AWAY, Ordering::Relaxed) != AWAY {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "{}: no events are taken in until it answers",
                error.in_short()
            );
        }
    }

    /// Looks at the queue for as long as it is polled. Calls `looked` each time, with whether Valkey answered.
    pub async fn watch(&self, queue: &EventQueue, metrics: &Metrics, looked: impl Fn(bool)) {
        let mut silent_since = None;
        loop {
            let load = self.look(queue).await;
            metrics.store_up(Store::Valkey, load.is_ok());
            looked(load.is_ok());
            match &load {
                Ok(load) => {
                    silent_since = None;
                    self.see(load, metrics);
                }
                Err(error) if silent_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE => {
                    self.close(error);
                }
                Err(_) => {}
            }
            tokio::time::sleep(if load.is_ok() { LOOK } else { LOOK_AGAIN }).await;
        }
    }

    async fn look(&self, queue: &EventQueue) -> Result<Load, StoreError> {
        if self.check() == Err(NotQueued::Away) {
            // An attempt to connect that began while it was away may hang long after it is back.
            let load = tokio::time::timeout(LOOK_AGAIN, queue.load()).await;
            return load.unwrap_or(Err(StoreError::QueueSilent));
        }
        queue.load().await
    }

    fn see(&self, load: &Load, metrics: &Metrics) {
        let before = self.check();
        let full = closes(load, self.max_events, before == Err(NotQueued::QueueFull));
        let after = if full { Err(NotQueued::QueueFull) } else { Ok(()) };
        if before != after {
            tracing::warn!(?load, full, "the queue's room changed");
        }
        self.state.store(if full { FULL } else { OPEN }, Ordering::Relaxed);
        metrics.queue(load.events, full);
    }
}

/// Whether no events are taken in at this load: from 100 % of the events, or 90 % of the memory; once closed,
/// until there are less than 90 % and 80 %.
fn closes(load: &Load, max_events: u64, closed: bool) -> bool {
    let (events_percent, memory_percent) = if closed { (90, 80) } else { (100, 90) };
    let at_least =
        |used: u64, limit: u64, percent: u128| u128::from(used) * 100 >= u128::from(limit) * percent;
    at_least(load.events, max_events, events_percent)
        || load.max_memory.is_some_and(|limit| at_least(load.used_memory, limit, memory_percent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_when_the_queue_is_full_and_opens_well_below_that() {
        let cases = [
            // events of 1,000, memory of 1,000, closed before, closed after
            (999, 899, false, false),
            (1_000, 0, false, true),
            (0, 900, false, true),
            (999, 0, true, true),
            (899, 799, true, false),
            (0, 800, true, true),
        ];
        for (events, used_memory, before, after) in cases {
            let load = Load { events, used_memory, max_memory: Some(1_000) };
            assert_eq!(closes(&load, 1_000, before), after, "{load:?}");
        }
        let unlimited = Load { events: 0, used_memory: u64::MAX, max_memory: None };
        assert!(!closes(&unlimited, 1_000, false));
    }
}
