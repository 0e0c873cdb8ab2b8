//! Tokens that this api took in and that may wait to be counted, by tenant.
//!
//! A snapshot of the usage says until when it is complete: all that was answered 202 before that instant is counted
//! in it. What was answered since then is remembered here. Some of it is counted already, so this is rather too much
//! than too little, by what arrives in one reading of the snapshot. What other apis took in is not in it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use flagmeter_core::event::UsageEvent;
use flagmeter_core::period::BillingPeriod;
use flagmeter_core::quota::MAX_TOKENS;
use jiff::{SignedDuration, Timestamp};

use crate::tenant::Known;
use crate::usage::{Snapshot, Usage};

/// Time that one sum is kept for: half as long as a snapshot lasts.
const SPAN: SignedDuration = SignedDuration::from_millis(100);

/// Sums of a tenant at most. While workers are stopped, sums are put together, and forgotten later than they could be.
const MOST: usize = 32;

/// Billing periods of a tenant at most. Events come for the open one, for those of the last 35 days, and for the next
/// while clocks differ.
const PERIODS: usize = 8;

/// What one tenant has waiting, by the first instants of its billing periods, the newest first.
#[derive(Debug, Default)]
pub struct Queued(Mutex<Vec<(Timestamp, Sums)>>);

/// What waits in one period.
#[derive(Debug, Default)]
struct Sums {
    /// Tokens, and the instant until which they were taken in, the oldest first.
    answered: VecDeque<(Timestamp, i64)>,
    /// Tokens of requests that are not answered yet.
    unanswered: i64,
    /// How many more the period may hold, by the snapshot that was read then.
    room: Option<(Option<Timestamp>, i64)>,
}

impl Queued {
    /// Tokens of events in `period` that a snapshot may lack which is complete until `counted`. If nobody knows until
    /// when it is, that is all of them.
    #[must_use]
    pub fn tokens(&self, period: &BillingPeriod, counted: Option<Timestamp>) -> i64 {
        self.with(period, |sums| sums.waiting(counted))
    }

    /// How many tokens more `period` may hold, with those of requests that are not answered yet. A snapshot is asked
    /// only once: until the next one, what was taken in since is all that changes.
    fn room(&self, period: &BillingPeriod, snapshot: Option<&Snapshot>, tenant: &Known) -> i64 {
        let read_at = snapshot.map(|snapshot| snapshot.as_of);
        self.with(period, |sums| match sums.room {
            Some((then, room)) if then == read_at => room,
            _ => {
                let used = snapshot.map_or(0, |snapshot| snapshot.total(tenant, period));
                let waiting = sums.waiting(snapshot.and_then(Snapshot::complete_until));
                let taken = used.saturating_add(waiting).saturating_add(sums.unanswered);
                let room = MAX_TOKENS.saturating_sub(taken);
                sums.room = Some((read_at, room));
                room
            }
        })
    }

    /// Notes `tokens` of events in `period` whose request is not answered yet, or takes them off again.
    fn unanswered(&self, period: &BillingPeriod, tokens: i64) {
        self.with(period, |sums| sums.take(tokens));
    }

    /// The same were answered 202 at `now`.
    fn answered(&self, period: &BillingPeriod, tokens: i64, now: Timestamp) {
        self.with(period, |sums| {
            sums.unanswered = sums.unanswered.saturating_sub(tokens).max(0);
            sums.add(tokens, now);
        });
    }

    fn with<T>(&self, period: &BillingPeriod, then: impl FnOnce(&mut Sums) -> T) -> T {
        // A panic while it was held leaves sums that are all the same.
        let mut periods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The open period is the first, or the second.
        let place = periods.iter().position(|(start, _)| *start <= period.start).unwrap_or(periods.len());
        if periods.get(place).is_none_or(|(start, _)| *start != period.start) {
            periods.insert(place, (period.start, Sums::default()));
            periods.truncate(PERIODS);
        }
        match periods.get_mut(place) {
            Some((_, sums)) => then(sums),
            None => then(&mut Sums::default()),
        }
    }
}

impl Sums {
    fn add(&mut self, tokens: i64, now: Timestamp) {
        match self.answered.back_mut() {
            Some((until, sum)) if now <= *until => *sum = sum.saturating_add(tokens),
            _ => {
                if self.answered.len() == MOST {
                    put_pairs_together(&mut self.answered);
                }
                self.answered.push_back((now.saturating_add(SPAN).unwrap_or(now), tokens));
            }
        }
    }

    fn take(&mut self, tokens: i64) {
        self.unanswered = self.unanswered.saturating_add(tokens).max(0);
        if let Some((_, room)) = &mut self.room {
            *room = room.saturating_sub(tokens);
        }
    }

    fn waiting(&mut self, counted: Option<Timestamp>) -> i64 {
        if let Some(counted) = counted {
            while self.answered.front().is_some_and(|(until, _)| *until < counted) {
                self.answered.pop_front();
            }
        }
        self.answered.iter().fold(0_i64, |sum, (_, tokens)| sum.saturating_add(*tokens))
    }
}

fn put_pairs_together(sums: &mut VecDeque<(Timestamp, i64)>) {
    let all: Vec<_> = sums.drain(..).collect();
    sums.extend(all.chunks(2).filter_map(|pair| {
        let (until, _) = pair.last()?;
        Some((*until, pair.iter().fold(0_i64, |sum, (_, tokens)| sum.saturating_add(*tokens))))
    }));
}

/// The tokens of one request, by tenant and billing period, until it is answered. Then those that were answered 202 are
/// queued, and others forgotten.
pub(crate) struct Tally<'a> {
    usage: &'a Usage,
    /// The part of the tenant and the period whose event was asked about last. Most requests have no other.
    last: Option<Part>,
    before: Vec<Part>,
}

/// A tenant's part in one period, or one of several if other events are between these.
struct Part {
    tenant: Arc<Known>,
    period: BillingPeriod,
    /// How many tokens more the period may hold.
    room: i64,
    tokens: i64,
    /// Those of them that other requests see.
    noted: i64,
}

impl Part {
    /// Whether an event of `tenant` at `instant` is of this part.
    fn has(&self, tenant: &Arc<Known>, instant: Timestamp) -> bool {
        Arc::ptr_eq(&self.tenant, tenant) && self.period.contains(instant)
    }
}

/// A period would have more tokens than a program can read from JSON, or PostgreSQL add up.
pub(crate) struct TooManyTokens;

impl<'a> Tally<'a> {
    pub(crate) fn new(usage: &'a Usage) -> Self {
        Self { usage, last: None, before: Vec::new() }
    }

    /// How many tokens an event of `tenant`, which arrives at `now`, adds to the period that it falls in, for
    /// [`Tally::add`]. An event that takes another back makes no room before it is counted.
    pub(crate) fn counts(
        &mut self,
        tenant: &Arc<Known>,
        event: &UsageEvent,
        now: Timestamp,
    ) -> Result<i64, TooManyTokens> {
        if event.reverses.is_some() {
            return Ok(0);
        }
        let room = match &self.last {
            Some(last) if last.has(tenant, event.occurred_at) => last.room,
            _ => self.room(tenant, tenant.period_of(event.occurred_at, now)),
        };
        let tokens = event.tokens.get();
        // One of no tokens always fits, also where a period was filled beyond the bound before there was one.
        if tokens <= room.max(0) { Ok(tokens) } else { Err(TooManyTokens) }
    }

    /// Begins the part of another tenant or period: how many tokens more that may hold.
    fn room(&mut self, tenant: &Arc<Known>, period: BillingPeriod) -> i64 {
        self.note();
        let room = self.usage.look(|snapshot| tenant.queued().room(&period, snapshot, tenant));
        let next = Part { tenant: Arc::clone(tenant), period, room, tokens: 0, noted: 0 };
        self.before.extend(self.last.replace(next));
        room
    }

    /// Adds what an event counts, right after that was asked.
    pub(crate) fn add(&mut self, tokens: i64) {
        if let Some(last) = &mut self.last {
            last.room -= tokens;
            last.tokens += tokens;
        }
    }

    /// Lets other requests see it, while this one waits for the queue.
    pub(crate) fn note(&mut self) {
        if let Some(last) = &mut self.last {
            last.tenant.queued().unanswered(&last.period, last.tokens - last.noted);
            last.noted = last.tokens;
        }
    }

    /// It was answered 202 at `now`.
    pub(crate) fn accepted(mut self, now: Timestamp) {
        for Part { tenant, period, noted, .. } in self.last.take().into_iter().chain(self.before.drain(..)) {
            tenant.queued().answered(&period, noted, now);
        }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        for Part { tenant, period, noted, .. } in self.last.iter().chain(&self.before) {
            tenant.queued().unanswered(period, -noted);
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
        queued.answered(&june(), 1, at(0));
        queued.answered(&june(), 2, at(50));
        queued.answered(&june(), 4, at(150));
        assert_eq!(queued.tokens(&june(), None), 7);
        assert_eq!(queued.tokens(&june(), Some(at(100))), 7);
        assert_eq!(queued.tokens(&june(), Some(at(101))), 4);
        assert_eq!(queued.tokens(&june(), Some(at(251))), 0);
        assert_eq!(queued.tokens(&june(), None), 0);
    }

    #[test]
    fn a_period_has_its_own_that_waits_also_when_a_request_of_another_is_answered_after_it_began() {
        let queued = Queued::default();
        queued.answered(&june(), 1, at(0));
        let july = BillingPeriod { start: june().end, end: "2026-08-01T00:00:00Z".parse().unwrap() };
        assert_eq!(queued.tokens(&july, None), 0);
        queued.answered(&july, 2, at(100));
        queued.answered(&june(), 4, at(200));
        assert_eq!((queued.tokens(&july, None), queued.tokens(&june(), None)), (2, 5));
        assert_eq!((queued.tokens(&july, Some(at(250))), queued.tokens(&june(), Some(at(250)))), (0, 4));
    }

    #[test]
    fn only_so_many_periods_are_remembered_and_the_open_one_is_among_them() {
        let queued = Queued::default();
        let month = |number: i64| {
            let start = june().start + SignedDuration::from_hours(720) * i32::try_from(number).unwrap();
            BillingPeriod { start, end: start + SignedDuration::from_hours(720) }
        };
        for number in 0..20 {
            queued.answered(&month(number), 1, at(number));
            queued.answered(&month(number - 1), 1, at(number));
        }
        assert_eq!(queued.0.lock().unwrap().len(), PERIODS);
        assert_eq!((queued.tokens(&month(19), None), queued.tokens(&month(18), None)), (1, 2));
    }

    #[test]
    fn a_stopped_worker_costs_no_more_memory_and_loses_no_token() {
        let queued = Queued::default();
        for second in 0..3_600 {
            queued.answered(&june(), 1, at(second * 1_000));
        }
        assert_eq!(queued.tokens(&june(), None), 3_600);
        let kept = queued.0.lock().unwrap()[0].1.answered.len();
        assert!(kept <= MOST, "{kept}");
        // What may be counted is forgotten late, but never early.
        for second in [0, 1_000, 1_800, 3_599] {
            let left = queued.tokens(&june(), Some(at(second * 1_000)));
            assert!(left >= 3_600 - second, "{left} after {second} s");
        }
        assert_eq!(queued.tokens(&june(), Some(at(3_600_000))), 0);
    }
}
