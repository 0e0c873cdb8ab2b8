//! One look at the queue and at the workers' Deployment, and what may be wrong with it.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What was seen at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// The queue; `None` if it did not answer.
    pub queue: Option<Queue>,
    /// The Deployment.
    pub fleet: Fleet,
}

/// The queue's own numbers, all of one instant.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Events that were ever put in.
    pub pushed: u64,
    /// Events that have left it, counted.
    pub left: u64,
    /// Entries in it: waiting, or in a worker's hands. An entry holds one event or more.
    pub entries: u64,
    /// Entries that were ever put in.
    pub entries_added: u64,
    /// Entries in workers' hands.
    pub pending: u64,
    /// Entries that no worker has seen, by the server's own reckoning, where it has one.
    pub lag: Option<u64>,
    /// Seconds that the oldest entry has been there; 0 if there is none.
    pub oldest_wait_seconds: f64,
    /// What each worker has done since it started.
    pub workers: BTreeMap<String, Work>,
}

/// What a worker has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Events.
    pub processed: u64,
    /// Seconds in which it was at work on them.
    pub busy_seconds: f64,
    /// How large its transactions were, and how long they took; `None` if it is of a version that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<Batches>,
}

/// A worker's transactions since it started, as its events saw them: divided by the events, that is the transaction
/// which the mean event was in. A large one counts for more than a small one, since more events were in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Batches {
    /// How many events were in its transaction, for each event: the sum of the sizes' squares.
    pub sizes: u64,
    /// How many seconds its transaction took, for each event.
    pub seconds: f64,
}

impl Work {
    /// Adds a transaction of `events` that took `seconds`.
    pub fn add(&mut self, events: usize, seconds: f64) {
        let events = events as u64;
        self.processed = self.processed.saturating_add(events);
        self.busy_seconds += seconds;
        let batches = self.batches.get_or_insert_default();
        batches.sizes = batches.sizes.saturating_add(events.saturating_mul(events));
        batches.seconds += float(events) * seconds;
    }
}

/// The Deployment of the workers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fleet {
    /// How many workers there should be (`spec.replicas`).
    pub replicas: u32,
    /// How many are ready.
    pub ready: u32,
    /// Whether old ones are being replaced by new ones.
    pub rolling_out: bool,
    /// Who else decides how many there are.
    pub owner: Option<Owner>,
}

/// Who decides in FlagMeter's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// A `HorizontalPodAutoscaler` of this name.
    HorizontalPodAutoscaler(String),
    /// A KEDA `ScaledObject` of this name.
    ScaledObject(String),
    /// A person, who annotated the Deployment.
    Annotation,
}

/// Why a sample is no reason to change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Doubt {
    /// The queue did not answer.
    Unreachable,
    /// Its numbers cannot all be true.
    Contradiction(Contradiction),
    /// Its counters, or the clock, went back: a new beginning.
    Restarted,
    /// Too few samples since the beginning.
    TooFew {
        /// How many there are.
        samples: u32,
    },
    /// No worker is ready, so that nobody works: more of them would not either.
    NoneReady,
    /// Old workers are being replaced by new ones.
    RollingOut,
    /// Not all workers are ready.
    Starting {
        /// So many are.
        ready: u32,
    },
}

/// Numbers that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Contradiction {
    /// More events left than were put in.
    MoreLeftThanPushed,
    /// More entries are in workers' hands than there are.
    MorePendingThanEntries,
    /// The server's lag is not what is neither counted nor in hand.
    Lag,
    /// Events wait without entries, or entries without events.
    EventsAndEntries,
    /// More entries came than events.
    MoreEntriesThanEvents,
}

impl Queue {
    /// Events that wait, or that a worker has in hand.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.pushed.saturating_sub(self.left)
    }

    /// Whether the numbers can all be true.
    ///
    /// # Errors
    ///
    /// The first [`Contradiction`].
    pub fn checked(&self) -> Result<(), Contradiction> {
        if self.left > self.pushed {
            return Err(Contradiction::MoreLeftThanPushed);
        }
        let Some(unseen) = self.entries.checked_sub(self.pending) else {
            return Err(Contradiction::MorePendingThanEntries);
        };
        if self.lag.is_some_and(|lag| lag != unseen) {
            return Err(Contradiction::Lag);
        }
        // An entry holds an event at least.
        if self.backlog() < self.entries || (self.entries == 0 && self.backlog() > 0) {
            return Err(Contradiction::EventsAndEntries);
        }
        Ok(())
    }

    /// Whether this may come after `earlier`.
    pub(super) fn follows(&self, earlier: &Self) -> Result<(), Doubt> {
        let back = self.pushed < earlier.pushed
            || self.left < earlier.left
            || self.entries_added < earlier.entries_added;
        if back {
            return Err(Doubt::Restarted);
        }
        if self.entries_added - earlier.entries_added > self.pushed - earlier.pushed {
            return Err(Doubt::Contradiction(Contradiction::MoreEntriesThanEvents));
        }
        Ok(())
    }

    /// What the workers did since `earlier`. One that is new or began anew since then says nothing yet.
    pub(super) fn work_since(&self, earlier: &Self) -> Done {
        let mut done = Done::default();
        for (name, now) in &self.workers {
            let Some(before) = earlier.workers.get(name) else { continue };
            let Some(processed) = now.processed.checked_sub(before.processed) else { continue };
            let busy = now.busy_seconds - before.busy_seconds;
            if !(busy >= 0.0 && busy.is_finite()) {
                continue;
            }
            done.processed += processed;
            done.busy += busy;
            // One that had done nothing before says nothing of it either.
            let before = before.batches.unwrap_or_default();
            if let Some(now) = now.batches
                && now.sizes >= before.sizes
                && now.seconds >= before.seconds
            {
                done.measured += processed;
                done.sizes += float(now.sizes - before.sizes);
                done.seconds += now.seconds - before.seconds;
            }
        }
        done
    }
}

/// What several workers did between two samples.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) processed: u64,
    pub(super) busy: f64,
    /// Of those processed, what workers did that say how large their transactions were.
    measured: u64,
    /// [`Batches::sizes`], of those.
    sizes: f64,
    /// [`Batches::seconds`], of those.
    seconds: f64,
}

impl Done {
    /// Events and seconds of the transaction that the mean event was in, where workers say so.
    pub(super) fn mean_batch(&self) -> Option<(f64, f64)> {
        let events = float(self.measured);
        (self.measured > 0).then(|| (self.sizes / events, self.seconds / events))
    }

    /// Events in a busy second.
    pub(super) fn mean_rate(&self) -> f64 {
        float(self.processed) / self.busy
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and good enough beyond")]
fn float(number: u64) -> f64 {
    number as f64
}

impl Fleet {
    /// Why it is no time to stop a worker.
    pub(super) fn unsettled(&self) -> Option<Doubt> {
        if self.rolling_out {
            Some(Doubt::RollingOut)
        } else if self.ready < self.replicas {
            Some(Doubt::Starting { ready: self.ready })
        } else {
            None
        }
    }
}

impl Doubt {
    /// Whether it is about the queue, which somebody should look at, and not about a beginning or the workers.
    #[must_use]
    pub fn is_the_queues(&self) -> bool {
        matches!(self, Self::Unreachable | Self::Contradiction(_))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HorizontalPodAutoscaler(name) => write!(formatter, "HorizontalPodAutoscaler {name}"),
            Self::ScaledObject(name) => write!(formatter, "ScaledObject {name}"),
            Self::Annotation => formatter.write_str("the annotation flagmeter.dev/autoscale"),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => formatter.write_str("Valkey did not answer"),
            Self::Contradiction(contradiction) => contradiction.fmt(formatter),
            Self::Restarted => formatter.write_str("the queue's counters began anew"),
            Self::TooFew { samples } => write!(formatter, "{samples} of 3 samples so far"),
            Self::NoneReady => formatter.write_str("no worker is ready"),
            Self::RollingOut => formatter.write_str("a rollout is in progress"),
            Self::Starting { ready } => write!(formatter, "only {ready} are ready"),
        }
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::MoreLeftThanPushed => "more events left the queue than were put in",
            Self::MorePendingThanEntries => "the workers have more entries in hand than the queue holds",
            Self::Lag => "Valkey's lag is not the entries less those in hand",
            Self::EventsAndEntries => "the counts of events and of entries in the queue do not agree",
            Self::MoreEntriesThanEvents => "more entries than events were put into the queue",
        })
    }
}
