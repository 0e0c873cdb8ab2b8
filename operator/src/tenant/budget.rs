//! How many statuses may be written for the sake of usage alone: each write is one to the API server's disk.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// Writes a minute, of all tenants together.
const PER_MINUTE: i64 = 240;

/// Writes that may come at once after a while of fewer.
const AT_ONCE: i64 = 20;

/// What one write costs, so that a part of one can be counted.
const COST: i64 = 60_000;

/// The writes that are left.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<Option<State>>);

#[derive(Debug, Clone, Copy)]
struct State {
    left: i64,
    at: Timestamp,
}

impl Budget {
    /// Whether one more may be written now; then it counts as written.
    pub(super) fn take(&self, now: Timestamp) -> bool {
        let mut state = self.lock();
        let mut current = refilled(*state, now);
        let may = current.left >= COST;
        if may {
            current.left -= COST;
        }
        *state = Some(current);
        may
    }

    /// How many may be written now.
    pub(super) fn left(&self, now: Timestamp) -> usize {
        usize::try_from(refilled(*self.lock(), now).left / COST).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        // A panic while it was held cannot leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refilled(state: Option<State>, now: Timestamp) -> State {
    let Some(State { left, at }) = state else { return State { left: AT_ONCE * COST, at: now } };
    // A clock that is put back gives nothing.
    let milliseconds = now.as_millisecond().saturating_sub(at.as_millisecond()).max(0);
    State { left: left.saturating_add(milliseconds.saturating_mul(PER_MINUTE)).min(AT_ONCE * COST), at: now }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn ten_thousand_tenants_together_write_no_more_than_the_budget() {
        let budget = Budget::default();
        let start: Timestamp = "2026-03-20T12:00:00Z".parse().unwrap();
        let mut written = 0;
        for second in 0..600 {
            let now = start + SignedDuration::from_secs(second);
            let left = budget.left(now);
            let taken = (0..10_000).filter(|_| budget.take(now)).count();
            assert_eq!(taken, left, "after {second} s");
            written += taken;
        }
        assert!((2_390..=2_420).contains(&written), "{written} in ten minutes");
    }

    #[test]
    fn a_clock_that_is_put_back_gives_nothing() {
        let budget = Budget::default();
        let start: Timestamp = "2026-03-20T12:00:00Z".parse().unwrap();
        while budget.take(start) {}
        assert!(!budget.take(start - SignedDuration::from_hours(1)));
        assert!(!budget.take(start - SignedDuration::from_hours(1)));
    }
}
