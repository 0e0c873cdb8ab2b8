//! By which billing days and zones a tenant's periods are made, over time.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::period::{BillingDay, BillingPeriod};

/// A first period that would be shorter than this is joined to the one after it. It is what a change of the zone
/// alone leaves over, whose midnights are up to 26 hours apart.
const SHORTEST: SignedDuration = SignedDuration::from_hours(48);

/// A billing day, and the zone in which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The day.
    pub billing_day: BillingDay,
    /// The zone.
    pub time_zone: TimeZone,
}

impl Terms {
    /// The billing period that `instant` lies in.
    #[must_use]
    pub fn period(&self, instant: Timestamp) -> BillingPeriod {
        BillingPeriod::containing(instant, self.billing_day, &self.time_zone)
    }
}

/// The terms of a tenant, each with the instant since which it holds, the first since ever.
///
/// The periods tile time: a change of terms never makes a gap or an overlap, and never touches a period that is over.
/// It holds from the start of the period that is open when it is made, so that the first period after it begins
/// where the last one that is over ended, and goes to the next billing day of the new terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    first: Terms,
    then: Vec<(Timestamp, Terms)>,
}

impl Calendar {
    /// The same terms since ever.
    #[must_use]
    pub fn new(billing_day: BillingDay, time_zone: TimeZone) -> Self {
        Self { first: Terms { billing_day, time_zone }, then: Vec::new() }
    }

    /// `first` since ever, and `then` each since its instant; `None` if those do not ascend.
    #[must_use]
    pub fn of(first: Terms, then: Vec<(Timestamp, Terms)>) -> Option<Self> {
        then.is_sorted_by(|(one, _), (other, _)| one < other).then_some(Self { first, then })
    }

    /// All terms, oldest first, each with the instant since which it holds.
    pub fn history(&self) -> impl Iterator<Item = (Option<Timestamp>, &Terms)> {
        let then = self.then.iter().map(|(since, terms)| (Some(*since), terms));
        std::iter::once((None, &self.first)).chain(then)
    }

    /// The newest terms.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        self.then.last().map_or(&self.first, |(_, terms)| terms)
    }

    /// The billing period that `instant` lies in.
    #[must_use]
    pub fn period(&self, instant: Timestamp) -> BillingPeriod {
        let begun = self.then.partition_point(|(since, _)| *since <= instant);
        let (since, terms) = match begun.checked_sub(1).map(|newest| &self.then[newest]) {
            None => (None, &self.first),
            Some((since, terms)) => (Some(*since), terms),
        };
        let mut period = terms.period(instant);
        if let Some(since) = since {
            let is_short = |end: Timestamp| end.duration_since(since) < SHORTEST;
            if is_short(period.end) {
                period.end = terms.period(period.end).end;
            }
            if is_short(period.start) {
                period.start = since;
            }
        }
        if let Some((next, _)) = self.then.get(begun) {
            period.end = period.end.min(*next);
        }
        period
    }

    /// The calendar after a change to `terms` at `now`; `None` if it has these terms already.
    #[must_use]
    pub fn changed(&self, terms: Terms, now: Timestamp) -> Option<Self> {
        if *self.terms() == terms {
            return None;
        }
        let mut then = self.then.clone();
        let mut since = self.period(now).start;
        if let Some((newest, _)) = then.last() {
            // Also if a clock went back since the last change: what was over then stays over.
            since = since.max(*newest);
            then.pop_if(|(newest, _)| *newest == since);
        }
        then.push((since, terms));
        Some(Self { first: self.first.clone(), then })
    }

    /// The periods that hold the instants from `from` to `to`, in their order, at most `limit`.
    #[must_use]
    pub fn periods(&self, from: Timestamp, to: Timestamp, limit: usize) -> Vec<BillingPeriod> {
        let first = Some(self.period(from)).filter(|_| from <= to);
        let next = |period: &BillingPeriod| Some(self.period(period.end)).filter(|next| next.start <= to);
        std::iter::successors(first, next).take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn terms(day: i32, zone: &str) -> Terms {
        Terms { billing_day: day.try_into().unwrap(), time_zone: TimeZone::get(zone).unwrap() }
    }

    fn calendar(day: i32, zone: &str) -> Calendar {
        let Terms { billing_day, time_zone } = terms(day, zone);
        Calendar::new(billing_day, time_zone)
    }

    /// The starts of the periods from the one that holds `from` to the one that holds `to`.
    fn starts(calendar: &Calendar, from: &str, to: &str) -> Vec<String> {
        let periods = calendar.periods(at(from), at(to), 100);
        periods.iter().map(|period| period.start.to_string()).collect()
    }

    #[test]
    fn a_change_begins_where_the_last_period_that_is_over_ended() {
        let cases: [(&str, Calendar, Terms, &[&str]); 5] = [
            (
                "the new day was in the open period: that ends there",
                calendar(1, "UTC"),
                terms(15, "UTC"),
                &[
                    "2026-02-01T00:00:00Z",
                    "2026-03-01T00:00:00Z",
                    "2026-03-15T00:00:00Z",
                    "2026-04-15T00:00:00Z",
                ],
            ),
            (
                "the new day is still to come in it: it ends earlier",
                calendar(1, "UTC"),
                terms(25, "UTC"),
                &[
                    "2026-02-01T00:00:00Z",
                    "2026-03-01T00:00:00Z",
                    "2026-03-25T00:00:00Z",
                    "2026-04-25T00:00:00Z",
                ],
            ),
            (
                "the new period began before it: what is over stays so",
                calendar(15, "UTC"),
                terms(1, "UTC"),
                &[
                    "2026-01-15T00:00:00Z",
                    "2026-02-15T00:00:00Z",
                    "2026-03-15T00:00:00Z",
                    "2026-04-01T00:00:00Z",
                    "2026-05-01T00:00:00Z",
                ],
            ),
            (
                "a zone to the east: the open period ends earlier",
                calendar(1, "UTC"),
                terms(1, "Europe/Berlin"),
                &[
                    "2026-02-01T00:00:00Z",
                    "2026-03-01T00:00:00Z",
                    "2026-03-31T22:00:00Z",
                    "2026-04-30T22:00:00Z",
                ],
            ),
            (
                "a zone to the west: the hours before its midnight belong to the open period",
                calendar(1, "UTC"),
                terms(1, "America/New_York"),
                &[
                    "2026-02-01T00:00:00Z",
                    "2026-03-01T00:00:00Z",
                    "2026-04-01T04:00:00Z",
                    "2026-05-01T04:00:00Z",
                ],
            ),
        ];
        for (what, before, terms, expected) in cases {
            let after = before.changed(terms, at("2026-03-20T12:00:00Z")).unwrap();
            let starts = starts(&after, "2026-02-10T00:00:00Z", "2026-05-05T00:00:00Z");
            assert_eq!(starts[..expected.len()], *expected, "{what}");
        }
    }

    #[test]
    fn the_same_terms_are_no_change_and_a_second_change_in_a_period_replaces_the_first() {
        let first = calendar(15, "UTC");
        let now = at("2026-03-20T12:00:00Z");
        assert_eq!(first.changed(terms(15, "UTC"), now), None);
        let second = first.changed(terms(1, "UTC"), now).unwrap();
        let third = second.changed(terms(20, "UTC"), now).unwrap();
        assert_eq!(third.history().count(), 2);
        assert_eq!(third.period(now).start, at("2026-03-20T00:00:00Z"));
        // A clock that went back reopens nothing.
        let late = third.changed(terms(1, "UTC"), at("2026-03-01T00:00:00Z")).unwrap();
        assert_eq!(late.history().count(), 2);
        assert_eq!(late.period(at("2026-03-01T00:00:00Z")), first.period(at("2026-03-01T00:00:00Z")));
    }

    #[test]
    fn terms_ascend() {
        let (one, other) = (at("2026-01-01T00:00:00Z"), at("2026-02-01T00:00:00Z"));
        let with = |first, second| {
            Calendar::of(terms(1, "UTC"), vec![(first, terms(2, "UTC")), (second, terms(3, "UTC"))])
        };
        assert!(with(one, other).is_some());
        assert!(with(other, one).is_none());
        assert!(with(one, one).is_none());
    }

    const ZONES: [&str; 8] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Santiago",
        "Asia/Kolkata",
        "Pacific/Kiritimati",
        "Etc/GMT+12",
        "America/Havana",
    ];

    proptest! {
        #[test]
        fn whatever_changes_the_periods_tile_time_and_what_is_over_stays(
            first in (1..=31_i32, 0..ZONES.len()),
            changes in prop::collection::vec((1..=31_i32, 0..ZONES.len(), 0_i64..100 * 86_400), 0..8),
            instants in prop::collection::vec(-40_i64 * 86_400..900 * 86_400, 8),
        ) {
            let start = 1_770_000_000;
            let mut now = start;
            let mut calendar = calendar(first.0, ZONES[first.1]);
            let instants: Vec<Timestamp> =
                instants.into_iter().map(|second| Timestamp::from_second(start + second).unwrap()).collect();
            for (day, zone, later) in changes {
                now += later;
                let now = Timestamp::from_second(now).unwrap();
                let before = calendar.clone();
                calendar = calendar.changed(terms(day, ZONES[zone]), now).unwrap_or(calendar);
                let open = before.period(now);
                for instant in instants.iter().filter(|instant| **instant < open.start) {
                    prop_assert_eq!(calendar.period(*instant), before.period(*instant));
                }
                prop_assert_eq!(calendar.period(open.start).start, open.start);
            }
            for instant in instants {
                let period = calendar.period(instant);
                prop_assert!(period.contains(instant), "{:?} {:?}", instant, period);
                prop_assert_eq!(calendar.period(period.end).start, period.end);
                prop_assert_eq!(calendar.period(period.start), period);
                prop_assert_eq!(calendar.period(period.end - SignedDuration::from_micros(1)), period);
            }
        }
    }
}
