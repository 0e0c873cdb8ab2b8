//! Tokens that this api took in and that may wait to be counted, by tenant.
//!
//! A snapshot of the usage says until when it is complete: all that was answered 202 before that instant is counted
//! in it. What was answered since then is remembered here. Some of it is counted already, so this is rather too much
//! than too little, by what arrives in one reading of the snapshot. What other apis took in is not in it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use flagmeter_core::event::UsageEvent;
use flagmeter_core::period::BillingPeriod;
use jiff::{SignedDuration, Timestamp};

use crate::tenant::Known;

/// Time that one sum is kept for: half as long as a snapshot lasts.
const SPAN: SignedDuration = SignedDuration::from_millis(100);

/// Sums of a tenant at most. While workers are stopped, sums are put together, and forgotten later than they could be.
const MOST: usize = 32;

/// What one tenant has waiting in its open period.
#[derive(Debug, Default)]
pub struct Queued(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    period: Option<Timestamp>,
    /// Tokens, and the instant until which they were taken in, the oldest first.
    sums: VecDeque<(Timestamp, i64)>,
}

impl Queued {
    /// Notes `tokens` that were answered 202 at `now`, of events in `period`.
    pub fn add(&self, period: &BillingPeriod, tokens: i64, now: Timestamp) {
        self.with(period, |sums| match sums.back_mut() {
            Some((until, sum)) if now <= *until => *sum = sum.saturating_add(tokens),
            _ => {
                if sums.len() == MOST {
                    put_pairs_together(sums);
                }
                sums.push_back((now.saturating_add(SPAN).unwrap_or(now), tokens));
            }
        });
    }

    /// Tokens of events in `period` that a snapshot may lack which is complete until `counted`. If nobody knows until
    /// when it is, that is all of them.
    #[must_use]
    pub fn tokens(&self, period: &BillingPeriod, counted: Option<Timestamp>) -> i64 {
        self.with(period, |sums| {
            if let Some(counted) = counted {
                while sums.front().is_some_and(|(until, _)| *until < counted) {
                    sums.pop_front();
                }
            }
            sums.iter().fold(0_i64, |sum, (_, tokens)| sum.saturating_add(*tokens))
        })
    }

    fn with<T>(&self, period: &BillingPeriod, then: impl FnOnce(&mut VecDeque<(Timestamp, i64)>) -> T) -> T {
        // A panic while it was held leaves sums that are all the same.
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.period != Some(period.start) {
            *sums = Sums { period: Some(period.start), sums: VecDeque::new() };
        }
        then(&mut sums.sums)
    }
}

fn put_pairs_together(sums: &mut VecDeque<(Timestamp, i64)>) {
    let all: Vec<_> = sums.drain(..).collect();
    sums.extend(all.chunks(2).filter_map(|pair| {
        let (until, _) = pair.last()?;
        Some((*until, pair.iter().fold(0_i64, |sum, (_, tokens)| sum.saturating_add(*tokens))))
    }));
}

/// The tokens of one request, by tenant and open period, until it is answered.
#[derive(Default)]
pub(crate) struct Tally(Vec<(Arc<Known>, BillingPeriod, i64)>);

impl Tally {
    /// Adds an event of `tenant`, if it is of the period that is open at `now`. An event that takes another back makes
    /// no room before it is counted.
    pub(crate) fn add(&mut self, tenant: Arc<Known>, event: &UsageEvent, now: Timestamp) {
        let period = tenant.period(now);
        if event.reverses.is_some() || !period.contains(event.occurred_at) {
            return;
        }
        let tokens = event.tokens.get();
        match self.0.last_mut() {
            // Most lists are of one tenant.
            Some((last, _, sum)) if Arc::ptr_eq(last, &tenant) => *sum = sum.saturating_add(tokens),
            _ => self.0.push((tenant, period, tokens)),
        }
    }

    /// They were answered 202 at `now`.
    pub(crate) fn accepted(self, now: Timestamp) {
        for (tenant, period, tokens) in self.0 {
            tenant.queued().add(&period, tokens, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_781_524_800_000 + milliseconds).unwrap()
    }

    fn june() -> BillingPeriod {
        BillingPeriod {
            start: "2026-06-01T00:00:00Z".parse().unwrap(),
            end: "2026-07-01T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn tokens_wait_until_a_snapshot_is_complete_up_to_them() {
        let queued = Queued::default();
        queued.add(&june(), 1, at(0));
        queued.add(&june(), 2, at(50));
        queued.add(&june(), 4, at(150));
        assert_eq!(queued.tokens(&june(), None), 7);
        assert_eq!(queued.tokens(&june(), Some(at(100))), 7);
        assert_eq!(queued.tokens(&june(), Some(at(101))), 4);
        assert_eq!(queued.tokens(&june(), Some(at(251))), 0);
        assert_eq!(queued.tokens(&june(), None), 0);
    }

    #[test]
    fn a_new_period_begins_with_nothing_that_waits() {
        let queued = Queued::default();
        queued.add(&june(), 1, at(0));
        let july = BillingPeriod { start: june().end, end: "2026-08-01T00:00:00Z".parse().unwrap() };
        assert_eq!(queued.tokens(&july, None), 0);
        queued.add(&july, 2, at(100));
        assert_eq!(queued.tokens(&july, None), 2);
    }

    #[test]
    fn a_stopped_worker_costs_no_more_memory_and_loses_no_token() {
        let queued = Queued::default();
        for second in 0..3_600 {
            queued.add(&june(), 1, at(second * 1_000));
        }
        assert_eq!(queued.tokens(&june(), None), 3_600);
        let kept = queued.0.lock().unwrap().sums.len();
        assert!(kept <= MOST, "{kept}");
        // What may be counted is forgotten late, but never early.
        for second in [0, 1_000, 1_800, 3_599] {
            let left = queued.tokens(&june(), Some(at(second * 1_000)));
            assert!(left >= 3_600 - second, "{left} after {second} s");
        }
        assert_eq!(queued.tokens(&june(), Some(at(3_600_000))), 0);
    }
}
