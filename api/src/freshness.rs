//! How new numbers are.

use std::time::Duration;

use flagmeter_runtime::clock::Clock;
use flagmeter_store::queue::EventQueue;
use jiff::Timestamp;

/// How long the queue may take to say what waits in it, before the numbers are given without that.
const PATIENCE: Duration = Duration::from_millis(500);

/// How new numbers are: they hold every event that was answered 202 more than the lag before `as_of`, and of
/// the later ones those that were counted by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// The instant of which the numbers tell.
    pub as_of: Timestamp,
    /// The age, then, of the oldest event that waited in the queue, 0 if none did. It grows while no worker
    /// counts. `None` if the queue did not say.
    pub lag_milliseconds: Option<i64>,
}

impl Freshness {
    /// Of numbers that are read *after* this. What is counted in between is in them, and only makes the lag
    /// longer than it was; numbers read before could lack what no longer waits.
    pub async fn of_next_reading(queue: &EventQueue, clock: Clock) -> Self {
        let as_of = clock.now();
        let oldest = tokio::time::timeout(PATIENCE, queue.oldest()).await;
        // An entry of a moment ago may be ahead of this clock.
        let age = |added: Timestamp| (as_of.as_millisecond() - added.as_millisecond()).max(0);
        let lag = oldest.ok().and_then(Result::ok).map(|oldest| oldest.map_or(0, age));
        Self { as_of, lag_milliseconds: lag }
    }
}
