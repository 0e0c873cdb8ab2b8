//! Whether the queue has room: closed before it is full, and opened again well below that, so that it does
//! not flap. Nothing is ever dropped to make room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flagmeter_store::queue::{EventQueue, Load};

use crate::metrics::Metrics;

/// How often the queue's load is looked at. At 100,000 events a second that is 50,000 events.
const LOOK: Duration = Duration::from_millis(500);

/// Whether events are taken in. Clones share it.
#[derive(Debug, Clone)]
pub struct Gate {
    closed: Arc<AtomicBool>,
    max_events: u64,
}

impl Gate {
    /// Open, until `max_events` wait in the queue.
    #[must_use]
    pub fn new(max_events: u64) -> Self {
        Self { closed: Arc::default(), max_events }
    }

    /// Whether events are taken in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Relaxed)
    }

    /// Looks at the queue for as long as it is polled.
    pub async fn watch(&self, queue: &EventQueue, metrics: &Metrics) {
        let mut rounds = tokio::time::interval(LOOK);
        loop {
            rounds.tick().await;
            // A queue that does not answer takes no events either, and its senders are told so.
            let Ok(load) = queue.load().await else { continue };
            let closed = closes(&load, self.max_events, !self.is_open());
            if closed == self.is_open() {
                tracing::warn!(?load, closed, "the queue's room changed");
            }
            self.closed.store(closed, Ordering::Relaxed);
            metrics.queue(load.events, closed);
        }
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
