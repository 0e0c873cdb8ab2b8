//! How fast a worker is, from what the workers say of their transactions.
//!
//! A transaction of `n` events takes a fixed part and a part for each event. What a worker can do is what it does
//! in full transactions, in which the fixed part hardly counts. While little arrives its transactions are small,
//! and nearly all of their time is the fixed part: 19 events in 93 ms may come from a worker that does 200 events/s,
//! or 77,000. So small transactions say what a worker does at least, and never that it is slow. Only large ones do.

use super::sample::Done;

/// Events that are enough for one transaction of a worker: it takes no more while more waits. A transaction costs some
/// 800 updates of totals however large it is, so a larger one costs less an event; from here on little is gained, and
/// the events that wait for the next transaction wait longer.
pub const FULL_TRANSACTION_EVENTS: u16 = 20_000;

/// From this size on, a transaction's time says something of the part for each event.
const LARGE: f64 = 1_000.0;

/// What the fixed part of a large transaction may be, in seconds: several round trips to a PostgreSQL that is far
/// away, or that flushes slowly. Of what a large one takes beyond it, each event has its share.
const FIXED_SECONDS: f64 = 0.25;

/// Workers that together were busy for less have not shown anything.
const LEAST_BUSY_SECONDS: f64 = 0.02;

/// Events of workers of an earlier version that say something.
const ENOUGH: u64 = 100;

/// Fewer, and more, events a second than any worker does.
const LEAST: f64 = 1e-3;
const MOST: f64 = 1e9;

/// What workers showed between two samples: bounds of what one can do, in events a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shown {
    /// What it did, so it can.
    lowest: f64,
    /// It can do no more; infinite where only small transactions were seen.
    highest: f64,
    /// Events in the transaction that the mean event was in; `None` if no worker says so.
    pub(super) batch: Option<f64>,
}

impl Shown {
    /// What `done` shows; `None` if that is nothing. Workers `are_behind` if something waits for longer than it should.
    pub(super) fn by(done: &Done, are_behind: bool) -> Option<Self> {
        if done.processed == 0 || done.busy < LEAST_BUSY_SECONDS {
            return None;
        }
        let (lowest, highest, batch) = if let Some((size, seconds)) = done.mean_batch() {
            let bound = (size >= LARGE).then(|| full_rate(size, seconds));
            (size / seconds, bound, Some(size))
        } else {
            // Workers of an earlier version. While they are behind they take what there is, so that their
            // transactions are as large as they can be.
            let rate = done.mean_rate();
            (rate, (are_behind && done.processed >= ENOUGH).then_some(rate), None)
        };
        let lowest = if lowest.is_finite() { lowest.clamp(LEAST, MOST) } else { LEAST };
        Some(Self { lowest, highest: highest.unwrap_or(f64::INFINITY).max(lowest), batch })
    }

    /// Whether it is known what a worker cannot do.
    pub(super) fn is_bounded(&self) -> bool {
        self.highest.is_finite()
    }

    /// What is believed after it, if `before` was, or nothing but the `prior`: the same, as far as it agrees with what was
    /// seen.
    ///
    /// At once, since both are cheap to be wrong about. No worker is started for it while nothing waits; and when a large
    /// transaction that stood still is over, the next one shows what is true.
    pub(super) fn believed(&self, before: Option<f64>, prior: f64) -> Option<f64> {
        let believed = before.unwrap_or(prior).clamp(self.lowest, self.highest);
        (before.is_some() || self.is_bounded() || believed > prior).then_some(believed)
    }
}

/// What a worker does at most, of which a transaction of `size` events took `seconds`: as much as a full one would, if
/// the fixed part were [`FIXED_SECONDS`].
fn full_rate(size: f64, seconds: f64) -> f64 {
    let each = (seconds - FIXED_SECONDS).max(0.0) / size;
    let full = f64::from(FULL_TRANSACTION_EVENTS).max(size);
    full / (seconds + each * (full - size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::sample::{Batches, Queue, Work};

    /// What a worker did in transactions of these sizes and seconds.
    fn did(batches: impl IntoIterator<Item = (usize, f64)>) -> Done {
        let mut work = Work::default();
        for (size, seconds) in batches {
            work.add(size, seconds);
        }
        since_it_started(work)
    }

    fn since_it_started(work: Work) -> Done {
        let queue = |work| Queue { workers: [("worker".to_owned(), work)].into(), ..Queue::default() };
        queue(work).work_since(&queue(Work::default()))
    }

    /// This many transactions of `size` events, each of which takes a fixed part and a part for each event.
    fn done(transactions: usize, size: usize, fixed: f64, each: f64) -> Done {
        did((0..transactions).map(|_| (size, takes(size, fixed, each))))
    }

    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    fn takes(size: usize, fixed: f64, each: f64) -> f64 {
        fixed + each * size as f64
    }

    fn believed(before: Option<f64>, done: &Done) -> Option<f64> {
        Shown::by(done, true)?.believed(before, 5_000.0)
    }

    #[test]
    fn small_transactions_never_say_that_a_worker_is_slow() {
        for size in [1, 19, 60, 300, 999] {
            for (fixed, each) in [(0.093, 13e-6), (0.005, 13e-6), (3.0, 13e-6), (0.0, 0.01)] {
                let done = done(50, size, fixed, each);
                for before in [None, Some(5_000.0), Some(77_000.0)] {
                    let after = believed(before, &done);
                    let no_slower = after.is_none_or(|after| after >= before.unwrap_or(5_000.0));
                    assert!(no_slower, "{size} {fixed} {each} {before:?}: {after:?}");
                }
            }
        }
        // Nor does one that stood still, after which all that came meanwhile was counted at once.
        let stalled = did([(19, 0.093), (19, 0.093), (19, 30.0), (6_000, 0.2)]);
        assert!(believed(Some(5_000.0), &stalled).unwrap() > 10_000.0);
    }

    #[test]
    fn full_transactions_say_exactly_what_a_worker_does() {
        for (fixed, each) in [(0.093, 13e-6), (0.005, 13e-6), (0.005, 0.002), (5.0, 0.0)] {
            let done = done(3, 20_000, fixed, each);
            let does = 20_000.0 / takes(20_000, fixed, each);
            let shown = Shown::by(&done, false).unwrap();
            assert!(
                (shown.lowest - does).abs() < 1e-6 && (shown.highest - does).abs() < 1e-6,
                "{shown:?} {does}"
            );
            for before in [None, Some(28.0), Some(250_000.0)] {
                let after = shown.believed(before, 5_000.0).unwrap();
                assert!((after - does).abs() < 1e-6, "{before:?}: {after}");
            }
        }
    }

    #[test]
    fn a_large_transaction_bounds_what_a_worker_does_from_both_sides() {
        // Fixed part, part for each event, size.
        for (fixed, each, size) in
            [(0.093, 13e-6, 2_000), (0.005, 0.002, 1_000), (0.005, 0.002, 7_000), (0.2, 1e-3, 1_500)]
        {
            let does = 20_000.0 / takes(20_000, fixed, each);
            let shown = Shown::by(&done(2, size, fixed, each), false).unwrap();
            assert!(shown.lowest <= does && does <= shown.highest, "{shown:?} {does}");
        }
        // 2 ms an event: seen at once from 1,000 events, not only from 20,000.
        let shown = Shown::by(&done(1, 1_000, 0.005, 0.002), false).unwrap();
        assert!(shown.highest < 600.0, "{shown:?}");
    }

    #[test]
    fn a_transaction_that_stood_still_is_outdone_by_the_next_one() {
        let stalled = believed(Some(70_000.0), &done(1, 2_000, 30.0, 13e-6)).unwrap();
        assert!(stalled < 100.0, "{stalled}");
        let next = believed(Some(stalled), &done(1, 20_000, 0.093, 13e-6)).unwrap();
        assert!(next > 50_000.0, "{next}");
    }

    #[test]
    fn numbers_that_no_worker_has_make_no_speed_that_no_worker_has() {
        for (sizes, seconds) in
            [(0, 0.0), (u64::MAX, 0.0), (0, f64::INFINITY), (u64::MAX, f64::INFINITY), (1, f64::NAN)]
        {
            let batches = Some(Batches { sizes, seconds });
            let done = since_it_started(Work { processed: 7, busy_seconds: 1.0, batches });
            let after = Shown::by(&done, true).unwrap().believed(None, 5_000.0).unwrap_or(5_000.0);
            assert!((LEAST..=MOST).contains(&after), "{sizes} {seconds}: {after}");
        }
    }

    #[test]
    fn a_worker_that_does_not_say_how_large_its_transactions_are_is_slow_only_while_it_is_behind() {
        let done = since_it_started(Work { processed: 200, busy_seconds: 4.0, batches: None });
        let believed = |behind| Shown::by(&done, behind).unwrap().believed(Some(5_000.0), 5_000.0);
        assert_eq!((believed(false), believed(true)), (Some(5_000.0), Some(50.0)));
        let one = since_it_started(Work { processed: 1, busy_seconds: 20.0, batches: None });
        assert_eq!(
            Shown::by(&one, true).unwrap().believed(Some(50.0), 5_000.0),
            Some(50.0),
            "it stood still"
        );
        assert_eq!(Shown::by(&Done::default(), true), None);
    }
}
