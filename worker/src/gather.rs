//! What a worker takes into its hands for one transaction: as much as waits, up to enough.

use std::time::Duration;

use flagmeter_core::packed::{Batch, LARGEST_ENTRY_EVENTS, Unreadable};
use flagmeter_core::scaling::FULL_TRANSACTION_EVENTS;
use flagmeter_store::StoreError;
use flagmeter_store::postgres::batch::Entry;
use flagmeter_store::queue::{EventQueue, RawEntry};

/// Events that are enough for one transaction. The operator takes the same for a full one when it judges workers' speed.
const ENOUGH_EVENTS: usize = FULL_TRANSACTION_EVENTS as usize;

/// Entries of one read at most. What they hold is only known once they are here: a client may send single events for a
/// while, and then lists as long as they may be.
pub(crate) const READ_ENTRIES: usize = 24;

/// Events in hand at most: just not enough, and a read of the largest entries. At some 250 bytes each they take 75 MB of the
/// 256 MiB that the chart gives a worker.
const _: () = assert!(ENOUGH_EVENTS + READ_ENTRIES * LARGEST_ENTRY_EVENTS < 300_000);

/// How long one read waits for an entry. A worker that is told to stop does so after this at the latest.
const READ_WAIT: Duration = Duration::from_millis(500);

/// An entry that cannot be read: its id, its bytes, and why.
pub(crate) type Illegible = (String, Vec<u8>, Unreadable);

/// Entries for one transaction.
#[derive(Debug, Default)]
pub(crate) struct Hand {
    pub(crate) readable: Vec<Entry>,
    pub(crate) unreadable: Vec<Illegible>,
    /// Of the readable ones.
    pub(crate) events: usize,
    /// The id of the last one.
    last: Option<String>,
}

impl Hand {
    pub(crate) fn of(entries: Vec<RawEntry>) -> Self {
        let mut hand = Self::default();
        hand.take(entries);
        hand
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries() == 0
    }

    fn entries(&self) -> usize {
        self.readable.len() + self.unreadable.len()
    }

    fn take(&mut self, entries: Vec<RawEntry>) {
        self.last = entries.last().map(|entry| entry.entry_id.clone()).or(self.last.take());
        for RawEntry { entry_id, payload } in entries {
            match payload.map(|bytes| (Batch::decode(&bytes), bytes)) {
                Ok((Ok(batch), _)) => {
                    self.events += batch.events.len();
                    self.readable.push(Entry { entry_id, batch });
                }
                Ok((Err(reason), bytes)) => self.unreadable.push((entry_id, bytes, reason)),
                Err(bytes) => self.unreadable.push((entry_id, bytes, Unreadable::Malformed)),
            }
        }
    }
}

/// Which entries are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that no worker has seen.
    Unseen,
    /// Those that this worker was given and did not confirm.
    Given,
}

impl Which {
    /// As many as `count` of them, after those in `hand`; waits up to `wait` for the first unseen one.
    async fn read(
        self,
        queue: &EventQueue,
        consumer: &str,
        hand: &Hand,
        count: usize,
        wait: Duration,
    ) -> Result<Vec<RawEntry>, StoreError> {
        match self {
            Self::Unseen => queue.read(consumer, count, wait).await,
            Self::Given => queue.pending(consumer, hand.last.as_deref(), count).await,
        }
    }
}

/// Why gathering ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Nothing more waits.
    Drained,
    /// More may wait, but this is enough.
    Enough,
    /// The queue failed after it had given something. What was on its way then is this worker's, unseen.
    Failed(StoreError),
}

/// How many events entries held lately, so that a read asks for no more than is enough: 20,000 events may be ten lists of
/// many clients or thousands of single events of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appetite {
    events_an_entry: usize,
}

impl Default for Appetite {
    fn default() -> Self {
        Self { events_an_entry: ENOUGH_EVENTS / READ_ENTRIES }
    }
}

impl Appetite {
    /// Entries to ask for where `events` are in hand.
    fn ask(self, events: usize) -> usize {
        ENOUGH_EVENTS.saturating_sub(events).div_ceil(self.events_an_entry).clamp(1, READ_ENTRIES)
    }

    /// The next entries will be like these.
    fn learn(&mut self, hand: &Hand) {
        if let Some(mean) = hand.events.checked_div(hand.entries()) {
            self.events_an_entry = mean.max(1);
        }
    }
}

/// Takes what waits in the queue, up to enough; waits for the first unseen entry, and for no other. Never to be cut off: entries
/// on their way would be this worker's, unseen.
///
/// # Errors
///
/// Of the first read.
pub(crate) async fn gather(
    queue: &EventQueue,
    consumer: &str,
    which: Which,
    appetite: &mut Appetite,
) -> Result<(Hand, End), StoreError> {
    let mut hand = Hand::default();
    let mut asked = appetite.ask(0);
    let mut read = which.read(queue, consumer, &hand, asked, READ_WAIT).await?;
    loop {
        let found = read.len();
        hand.take(read);
        appetite.learn(&hand);
        if found < asked {
            return Ok((hand, End::Drained));
        }
        if hand.events >= ENOUGH_EVENTS {
            return Ok((hand, End::Enough));
        }
        asked = appetite.ask(hand.events);
        read = match which.read(queue, consumer, &hand, asked, Duration::ZERO).await {
            Ok(read) => read,
            Err(error) => return Ok((hand, End::Failed(error))),
        };
    }
}

#[cfg(test)]
mod tests {
    use flagmeter_store::testing;

    use super::*;

    #[test]
    fn a_read_asks_for_what_is_enough_and_never_for_more_than_memory_allows() {
        let cases = [
            // events an entry, events in hand, entries asked for
            (1, 0, READ_ENTRIES),
            (1, 19_990, 10),
            (100, 0, READ_ENTRIES),
            (100, 18_000, 20),
            (1_000, 0, 20),
            (1_999, 0, 11),
            (1_999, 19_999, 1),
            (1_999, 30_000, 1),
        ];
        for (events_an_entry, events, entries) in cases {
            assert_eq!(Appetite { events_an_entry }.ask(events), entries, "{events_an_entry} {events}");
        }
        assert_eq!(Appetite::default().ask(0), READ_ENTRIES);
    }

    #[tokio::test]
    async fn lists_as_long_as_they_may_be_after_single_events_are_no_more_than_a_worker_has_memory_for() {
        let queue = testing::queue().unwrap();
        queue.create_group().await.unwrap();
        for number in 1..=60 {
            let events = if number <= 24 { 1 } else { LARGEST_ENTRY_EVENTS };
            let batch =
                Batch { events: vec![testing::event("acme", 1); events], ..testing::entry(number, []).batch };
            queue.push(&batch.encode(), events).await.unwrap();
        }
        let mut appetite = Appetite::default();
        let (first, _) = gather(&queue, "a", Which::Unseen, &mut appetite).await.unwrap();
        assert!((ENOUGH_EVENTS..300_000).contains(&first.events), "{}", first.events);
        let (rest, _) = gather(&queue, "a", Which::Unseen, &mut appetite).await.unwrap();
        assert!((ENOUGH_EVENTS..60_000).contains(&rest.events), "{}: it learns nothing", rest.events);
        // What it was given, it takes again in parts as large, and each once.
        let (again, _) = gather(&queue, "a", Which::Given, &mut Appetite::default()).await.unwrap();
        let ids = |hand: &Hand| hand.readable.iter().map(|entry| entry.entry_id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&again), ids(&first));
    }

    #[test]
    fn entries_are_expected_to_be_as_large_as_the_last_ones() {
        let mut appetite = Appetite::default();
        appetite.learn(&Hand::default());
        assert_eq!(appetite.ask(0), READ_ENTRIES);
        let raw = |payload: &[u8]| RawEntry { entry_id: String::new(), payload: Ok(payload.to_vec()) };
        appetite.learn(&Hand::of(vec![raw(b"not an entry")]));
        assert_eq!(appetite.events_an_entry, 1);
        appetite.learn(&Hand { events: 3_000, ..Hand::of(vec![raw(b"one"), raw(b"another")]) });
        assert_eq!(appetite.events_an_entry, 1_500);
    }
}
