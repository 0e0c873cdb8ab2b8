//! How much a tenant may use, and how much of that it did.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::period::BillingPeriod;

/// The largest token count that every JSON reader holds exactly: 2^53 − 1 (RFC 8259, section 6).
pub const MAX_TOKENS: i64 = (1 << 53) - 1;

/// The least time between two instants that PostgreSQL tells apart.
const TICK: SignedDuration = SignedDuration::from_micros(1);

/// A raise of the quota for a time. In JSON: `{"tokens", "from", "until", "reason"}`, instants in RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Boost {
    /// Tokens on top, 1 to [`MAX_TOKENS`].
    pub tokens: i64,
    /// The first instant at which they are there.
    pub from: Timestamp,
    /// The first instant at which they are no longer there.
    pub until: Timestamp,
    /// What for, for people.
    pub reason: String,
}

impl Boost {
    /// Whether it is there at `instant`.
    #[must_use]
    pub fn holds(&self, instant: Timestamp) -> bool {
        self.from <= instant && instant < self.until
    }
}

/// What a tenant may use in a billing period: a base, and boosts on top of it for a time. A period that a boost
/// begins or ends in has the whole of it while it holds; nothing is shared out by days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Tokens a billing period, 1 to [`MAX_TOKENS`].
    pub base: i64,
    /// Raises for a time, in no order.
    pub boosts: Vec<Boost>,
}

impl Quota {
    /// The quota in effect at `instant`: the base and all boosts that hold, [`MAX_TOKENS`] at most.
    ///
    /// Whoever shows a quota, or holds usage against one, asks this.
    #[must_use]
    pub fn at(&self, instant: Timestamp) -> i64 {
        let boosts = self.boosts.iter().filter(|boost| boost.holds(instant));
        boosts.fold(self.base, |sum, boost| sum.saturating_add(boost.tokens.max(0))).min(MAX_TOKENS)
    }

    /// The quota that the usage of `period` is held against at `now`: that of now while the period is open, that
    /// of its last instant once it is over, that of its first before it begins.
    #[must_use]
    pub fn during(&self, period: &BillingPeriod, now: Timestamp) -> i64 {
        let last = period.end.checked_sub(TICK).unwrap_or(period.start).max(period.start);
        self.at(now.clamp(period.start, last))
    }

    /// When the first boost begins or ends after `since`, if one does.
    #[must_use]
    pub fn next_edge(&self, since: Timestamp) -> Option<Timestamp> {
        let edges = self.boosts.iter().flat_map(|boost| [boost.from, boost.until]);
        edges.filter(|edge| since < *edge).min()
    }

    /// Whether a boost begins or ends after `since`, and at `now` at the latest.
    #[must_use]
    pub fn changes(&self, since: Timestamp, now: Timestamp) -> bool {
        self.next_edge(since).is_some_and(|edge| edge <= now)
    }
}

/// Share of the quota used, in whole percent, rounded down: 799 of 1,000 is 79.
///
/// Rounded down so that an alert at 80 is never early. It may pass 100. A quota below 1 cannot be
/// stored; it would count as 1.
#[must_use]
pub fn percent(used: i64, quota: i64) -> i64 {
    let percent = i128::from(used.max(0)) * 100 / i128::from(quota.max(1));
    i64::try_from(percent).unwrap_or(i64::MAX)
}

/// Tokens left in the period, never below 0.
#[must_use]
pub fn remaining(used: i64, quota: i64) -> i64 {
    quota.saturating_sub(used).max(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percent_is_rounded_down_and_does_not_overflow() {
        let cases = [
            // used, quota, percent
            (0, 1_000, 0),
            (799, 1_000, 79),
            (800, 1_000, 80),
            (999_999_999, 1_000_000_000, 99),
            (2_500, 1_000, 250),
            (MAX_TOKENS, MAX_TOKENS, 100),
            (i64::MAX, 1, i64::MAX),
        ];
        for (used, quota, expected) in cases {
            assert_eq!(percent(used, quota), expected, "{used} of {quota}");
        }
        assert_eq!(remaining(1_200, 1_000), 0);
        assert_eq!(remaining(200, 1_000), 800);
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn boost(tokens: i64, from: &str, until: &str) -> Boost {
        Boost { tokens, from: at(from), until: at(until), reason: "launch".to_owned() }
    }

    #[test]
    fn a_boost_holds_from_its_first_instant_to_before_its_last_and_boosts_add_up() {
        let quota = Quota {
            base: 1_000,
            boosts: vec![
                boost(500, "2026-03-10T00:00:00Z", "2026-03-20T00:00:00Z"),
                boost(20, "2026-03-15T00:00:00Z", "2026-04-15T00:00:00Z"),
            ],
        };
        let cases = [
            ("2026-03-09T23:59:59.999999Z", 1_000),
            ("2026-03-10T00:00:00Z", 1_500),
            ("2026-03-15T00:00:00Z", 1_520),
            ("2026-03-19T23:59:59.999999Z", 1_520),
            ("2026-03-20T00:00:00Z", 1_020),
            ("2026-04-15T00:00:00Z", 1_000),
        ];
        for (instant, expected) in cases {
            assert_eq!(quota.at(at(instant)), expected, "{instant}");
        }
        let most = Quota {
            base: MAX_TOKENS,
            boosts: vec![boost(MAX_TOKENS, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"); 16],
        };
        assert_eq!(most.at(at("2026-03-01T00:00:00Z")), MAX_TOKENS);
    }

    #[test]
    fn a_period_that_is_over_has_the_quota_of_its_last_instant() {
        let march = BillingPeriod { start: at("2026-03-01T00:00:00Z"), end: at("2026-04-01T00:00:00Z") };
        let boosted = |from, until| Quota { base: 1_000, boosts: vec![boost(500, from, until)] };
        let (first, last) = ("2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z");
        let cases = [
            // the boost, now, the quota of March
            ((first, last), "2026-02-28T23:59:59Z", 1_500),
            ((first, last), "2026-03-15T00:00:00Z", 1_500),
            ((first, last), "2026-05-01T00:00:00Z", 1_500),
            ((first, "2026-03-31T00:00:00Z"), "2026-05-01T00:00:00Z", 1_000),
            ((last, "2026-06-01T00:00:00Z"), "2026-05-01T00:00:00Z", 1_000),
            (("2026-03-31T00:00:00Z", "2026-06-01T00:00:00Z"), "2026-02-28T23:59:59Z", 1_000),
        ];
        for ((from, until), now, expected) in cases {
            assert_eq!(boosted(from, until).during(&march, at(now)), expected, "{from} to {until} at {now}");
        }
    }

    #[test]
    fn an_edge_is_passed_once() {
        let quota = Quota { base: 1, boosts: vec![boost(1, "2026-03-10T00:00:00Z", "2026-03-20T00:00:00Z")] };
        let cases = [
            ("2026-03-09T23:59:00Z", "2026-03-09T23:59:59Z", false),
            ("2026-03-09T23:59:59Z", "2026-03-10T00:00:00Z", true),
            ("2026-03-10T00:00:00Z", "2026-03-10T00:01:00Z", false),
            ("2026-03-19T23:59:59Z", "2026-03-20T00:00:00Z", true),
            ("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", true),
        ];
        for (since, now, expected) in cases {
            assert_eq!(quota.changes(at(since), at(now)), expected, "{since} to {now}");
        }
    }

    proptest! {
        #[test]
        fn the_quota_changes_only_at_an_edge(
            edges in prop::collection::vec((0_i64..1_000, 1_i64..1_000, 1..=MAX_TOKENS), 0..16),
            since in 0_i64..2_000, later in 0_i64..100,
        ) {
            let second = |second| Timestamp::from_second(second).unwrap();
            let boosts = edges.into_iter().map(|(from, length, tokens)| Boost {
                tokens, from: second(from), until: second(from + length), reason: String::new(),
            });
            let quota = Quota { base: 1, boosts: boosts.collect() };
            let (since, now) = (second(since), second(since + later));
            prop_assert!((1..=MAX_TOKENS).contains(&quota.at(now)));
            prop_assert!(quota.at(since) == quota.at(now) || quota.changes(since, now));
        }
    }
}
