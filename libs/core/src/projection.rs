//! When a quota will be used up, if usage goes on as it did.
//!
//! A date is only given where it is more than a guess: after a whole day of usage, with a last day that is like
//! the days before it, and for the billing period that is open.

mod hours;

use std::ops::Range;

use jiff::{SignedDuration, Timestamp};

pub use self::hours::{Hours, hours};
use crate::minute::Minute;
use crate::period::BillingPeriod;
use crate::quota::Quota;

/// Days that are looked at.
pub const DAYS: usize = 7;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// How old what is known of the last days may be.
const FRESH: SignedDuration = SignedDuration::from_hours(1);

/// How many times the usage of the last day may be that of a day before, or the other way round.
const REGULAR: i128 = 3;

/// The last seven days before `now`, the oldest first: 24 hours each, whatever the clock of a tenant says, from the
/// beginning of an hour in UTC; the last goes on to the minute of `now`.
#[must_use]
pub fn days(now: Timestamp) -> [Range<Timestamp>; DAYS] {
    let before = |days: usize| hour(now) - DAY * i32::try_from(days).unwrap_or_default();
    std::array::from_fn(|day| {
        let end = if day == DAYS - 1 { end(now) } else { before(DAYS - day - 1) };
        before(DAYS - day)..end
    })
}

/// Up to where usage is looked at: minutes that are over.
fn end(now: Timestamp) -> Timestamp {
    Minute::of(now).start()
}

/// When the hour of `now` began.
fn hour(now: Timestamp) -> Timestamp {
    end(now) - begun(now)
}

/// How long ago that was, in whole minutes.
fn begun(now: Timestamp) -> SignedDuration {
    SignedDuration::from_secs(end(now).as_second().rem_euclid(60 * 60))
}

/// What a tenant used on the last [`days`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recent {
    until: Timestamp,
    tokens: [i64; DAYS],
}

impl Recent {
    /// Tokens of each of the [`days`] before `now`.
    #[must_use]
    pub fn new(now: Timestamp, sums: &[i64]) -> Self {
        let tokens = std::array::from_fn(|day| sums.get(day).copied().unwrap_or_default().max(0));
        Self { until: now, tokens }
    }

    /// The instant up to which it tells.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Tokens of 24 hours by the last of the days, and of a day on average. Only whole days count: the first day with
    /// usage may have begun at its end, unless there may have been some before it.
    fn rates(&self) -> Option<(i128, i128)> {
        let first = self.tokens.iter().position(|tokens| *tokens > 0)?;
        let whole = if first == 0 { &self.tokens[..] } else { self.tokens.get(first + 1..)? };
        let (last, before) = whole.split_last()?;
        // The last day has up to an hour more than the others.
        let minutes = (DAY + begun(self.until)).as_mins();
        let last = i128::from(*last) * i128::from(DAY.as_mins()) / i128::from(minutes);
        let sum = before.iter().copied().map(i128::from).sum::<i128>() + last;
        Some((last, sum / i128::try_from(whole.len()).ok()?))
    }
}

/// What can be said of the end of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projection {
    /// It is used up.
    Exhausted,
    /// It will be, in the open period, about then: to the minute, but no more exact than usage is steady.
    At(Timestamp),
    /// It will not be before the next period starts.
    Lasts,
    /// Nothing was used in the last 24 hours.
    NoUsage,
    /// Usage began less than a day ago, or what was used is not known.
    TooLittleData,
    /// The last 24 hours are nothing like a day on average: more than three times as much, or less than a third.
    Irregular,
}

impl Projection {
    /// Of `quota`, of which `used` is used, at `now` in the open `period`. `recent` is `None` where it is not known.
    ///
    /// The rate is the mean of that of the last 24 hours and that of the last seven days. A boost that begins or ends
    /// before the quota is used up is reckoned with: it may be used up by the very end of one.
    #[must_use]
    pub fn of(
        used: i64,
        quota: &Quota,
        period: &BillingPeriod,
        recent: Option<&Recent>,
        now: Timestamp,
    ) -> Self {
        if used >= quota.at(now) {
            return Self::Exhausted;
        }
        let Some(recent) = recent.filter(|recent| now.duration_since(recent.until) <= FRESH) else {
            return Self::TooLittleData;
        };
        if recent.tokens[DAYS - 1] == 0 {
            return Self::NoUsage;
        }
        let Some((day, average)) = recent.rates() else { return Self::TooLittleData };
        if day > average * REGULAR || average > day * REGULAR {
            return Self::Irregular;
        }
        let when_used = |tokens: i64| {
            let more = i128::from(tokens) - i128::from(used);
            let minutes = (more * 2 * 24 * 60).div_euclid((day + average).max(1)) + 1;
            let left = i64::try_from(minutes.max(0)).ok().filter(|minutes| *minutes < 400 * 24 * 60)?;
            Some(Minute::of(now).start() + SignedDuration::from_mins(left))
        };
        let mut begin = now;
        loop {
            let edge = quota.next_edge(begin).filter(|edge| *edge < period.end);
            // Where a boost has just ended, more may be used already than is left.
            let end = when_used(quota.at(begin)).map(|end| end.max(begin));
            match (end, edge) {
                (Some(end), _) if end < edge.unwrap_or(period.end) => return Self::At(end),
                (_, Some(edge)) => begin = edge,
                (_, None) => return Self::Lasts,
            }
        }
    }

    /// The instant, if there is one.
    #[must_use]
    pub fn exhaustion(self) -> Option<Timestamp> {
        if let Self::At(instant) = self { Some(instant) } else { None }
    }

    /// A word that never changes its meaning.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::At(_) => "projected",
            Self::Lasts => "lasts",
            Self::NoUsage => "no_usage",
            Self::TooLittleData => "too_little_data",
            Self::Irregular => "irregular",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Boost;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn quota(base: i64) -> Quota {
        Quota { base, boosts: Vec::new() }
    }

    #[test]
    fn the_last_days_begin_with_an_hour_and_follow_each_other() {
        let days = days(at("2026-06-15T12:34:56Z"));
        assert_eq!(days[0], at("2026-06-08T12:00:00Z")..at("2026-06-09T12:00:00Z"));
        assert_eq!(days[6], at("2026-06-14T12:00:00Z")..at("2026-06-15T12:34:00Z"));
        assert!(days.windows(2).all(|pair| pair[0].end == pair[1].start));
    }

    #[test]
    fn a_date_is_given_where_it_is_more_than_a_guess() {
        let (now, june) = (
            "2026-06-15T12:00:00Z",
            BillingPeriod { start: at("2026-06-01T00:00:00Z"), end: at("2026-07-01T00:00:00Z") },
        );
        let cases = [
            // used of 1,000; the last seven days; what is said
            (1_000, [100; 7], Projection::Exhausted),
            (2_000, [0; 7], Projection::Exhausted),
            (500, [100; 7], Projection::At(at("2026-06-20T12:01:00Z"))),
            // 100 on the last day and 200 on average: 150 a day.
            (700, [300, 300, 200, 200, 150, 150, 100], Projection::At(at("2026-06-17T12:01:00Z"))),
            // The day on which usage began is no whole one.
            (700, [0, 0, 0, 0, 1, 100, 100], Projection::At(at("2026-06-18T12:01:00Z"))),
            (700, [0, 0, 0, 0, 0, 1, 100], Projection::At(at("2026-06-18T12:01:00Z"))),
            (999, [1_000; 7], Projection::At(at("2026-06-15T12:02:00Z"))),
            (0, [10; 7], Projection::Lasts),
            // A minute before the period's end, and at it.
            (0, [64, 65, 64, 65, 64, 65, 64], Projection::Lasts),
            (700, [100, 100, 100, 100, 100, 100, 0], Projection::NoUsage),
            (700, [0; 7], Projection::NoUsage),
            (700, [0, 0, 0, 0, 0, 0, 100], Projection::TooLittleData),
            (700, [10, 10, 10, 10, 10, 10, 100], Projection::Irregular),
            (700, [100, 100, 100, 100, 100, 100, 10], Projection::Irregular),
            (700, [-5, 100, 100, 100, 100, 100, -5], Projection::NoUsage),
        ];
        for (used, days, expected) in cases {
            let recent = Recent::new(at(now), &days);
            let found = Projection::of(used, &quota(1_000), &june, Some(&recent), at(now));
            assert_eq!(found, expected, "{used} {days:?}");
        }
        let old = Recent::new(at("2026-06-15T10:59:59Z"), &[100; 7]);
        for recent in [None, Some(&old)] {
            assert_eq!(Projection::of(0, &quota(1_000), &june, recent, at(now)), Projection::TooLittleData);
        }
    }

    #[test]
    fn what_was_used_in_the_hour_that_has_begun_is_no_more_of_a_day() {
        let june = BillingPeriod { start: at("2026-06-01T00:00:00Z"), end: at("2026-07-01T00:00:00Z") };
        let now = at("2026-06-15T12:30:00Z");
        // A token a minute: 1,440 a day, and 30 more in the half hour that has begun.
        let recent = Recent::new(now, &[1_440, 1_440, 1_440, 1_440, 1_440, 1_440, 1_470]);
        let found = Projection::of(0, &quota(1_440), &june, Some(&recent), now);
        assert_eq!(found, Projection::At(at("2026-06-16T12:31:00Z")));
    }

    #[test]
    fn a_boost_that_begins_or_ends_before_then_is_reckoned_with() {
        let june = BillingPeriod { start: at("2026-06-01T00:00:00Z"), end: at("2026-07-01T00:00:00Z") };
        let now = at("2026-06-15T12:00:00Z");
        let cases = [
            // 1,000 tokens more from when until when; 700 of 1,000 are used, and 100 a day
            ("2026-06-01T00:00:00Z", "2026-06-16T00:00:00Z", Projection::At(at("2026-06-18T12:01:00Z"))),
            // By the end of it 1,150 are used.
            ("2026-06-01T00:00:00Z", "2026-06-20T00:00:00Z", Projection::At(at("2026-06-20T00:00:00Z"))),
            ("2026-06-17T00:00:00Z", "2026-06-25T00:00:00Z", Projection::At(at("2026-06-25T00:00:00Z"))),
            ("2026-06-17T00:00:00Z", "2026-07-10T00:00:00Z", Projection::At(at("2026-06-28T12:01:00Z"))),
            // It comes too late, or ends with the period.
            ("2026-06-19T00:00:00Z", "2026-06-25T00:00:00Z", Projection::At(at("2026-06-18T12:01:00Z"))),
            ("2026-06-16T00:00:00Z", "2026-07-01T00:00:00Z", Projection::At(at("2026-06-28T12:01:00Z"))),
        ];
        let recent = Recent::new(now, &[100; DAYS]);
        for (from, until, expected) in cases {
            let boost = Boost { tokens: 1_000, from: at(from), until: at(until), reason: String::new() };
            let quota = Quota { base: 1_000, boosts: vec![boost] };
            let found = Projection::of(700, &quota, &june, Some(&recent), now);
            assert_eq!(found, expected, "{from} to {until}");
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let (now, max) = (at("2026-06-15T12:00:00Z"), crate::quota::MAX_TOKENS);
        let period = BillingPeriod { start: now, end: at("2026-07-01T00:00:00Z") };
        let of = |used, base, day| {
            Projection::of(used, &quota(base), &period, Some(&Recent::new(now, &[day; DAYS])), now)
        };
        assert_eq!(of(0, max, 1), Projection::Lasts);
        assert_eq!(of(0, max, i64::MAX), Projection::At(at("2026-06-15T12:02:00Z")));
        assert_eq!(of(i64::MIN, max, i64::MAX), Projection::At(at("2026-06-16T12:02:00Z")));
    }
}
