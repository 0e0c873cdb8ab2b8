//! What was counted, put into other periods: after a change of a tenant's calendar.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::period::BillingPeriod;

/// What was counted in the periods that are made anew, before that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Events.
    pub events: i64,
    /// Tokens by feature.
    pub features: BTreeMap<String, i64>,
}

/// What the minutes of one of the new periods say of a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minutes {
    /// The period's first instant.
    pub period_start: Timestamp,
    /// The feature.
    pub feature: String,
    /// Tokens.
    pub tokens: i64,
    /// The start of the newest minute.
    pub last_minute: Timestamp,
}

/// A new period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recounted {
    /// When.
    pub period: BillingPeriod,
    /// Events.
    pub events: i64,
    /// The start of its newest minute with usage.
    pub last_minute: Timestamp,
    /// Tokens by feature.
    pub features: BTreeMap<String, i64>,
}

impl Recounted {
    /// Tokens of all features.
    #[must_use]
    pub fn tokens(&self) -> i64 {
        self.features.values().fold(0, |sum, tokens| sum.saturating_add(*tokens))
    }
}

/// What was `counted`, put into `periods` as their `minutes` say.
///
/// Nothing is lost or made: all tokens of each feature, and all events, are in the new periods. What no minute knows
/// any more, because it was forgotten, is in the first period. The first period is always there, and has all features
/// that there were, at 0 if need be: a reader who asks for what has changed is told so. Of the others there are those
/// in which something was used.
///
/// Minutes keep tokens and not how many events they came from, so where there are several periods, their events are
/// shared out by tokens.
#[must_use]
pub fn recount(periods: &[BillingPeriod], counted: &Counted, minutes: Vec<Minutes>) -> Vec<Recounted> {
    let new = |period: &BillingPeriod| Recounted {
        period: *period,
        events: 0,
        last_minute: period.start,
        features: BTreeMap::new(),
    };
    let mut recounted: Vec<Recounted> = periods.iter().map(new).collect();
    let Some(first) = recounted.first_mut() else { return Vec::new() };
    first.features.clone_from(&counted.features);
    for Minutes { period_start, feature, tokens, last_minute } in minutes {
        let Some(index) = periods.iter().position(|period| period.start == period_start) else { continue };
        let at = &mut recounted[index];
        at.last_minute = at.last_minute.max(last_minute);
        if index > 0 {
            *at.features.entry(feature.clone()).or_default() += tokens;
            *recounted[0].features.entry(feature).or_default() -= tokens;
        }
    }
    let mut index = 0;
    recounted.retain(|period| {
        index += 1;
        index == 1 || !period.features.is_empty()
    });
    share_out(counted.events, &mut recounted);
    recounted
}

/// Shares `events` out by tokens. Each share is rounded so that all of them add up.
fn share_out(events: i64, periods: &mut [Recounted]) {
    let weight = |period: &Recounted| i128::from(period.tokens().max(0));
    let all: i128 = periods.iter().map(weight).sum();
    if all == 0 {
        periods[0].events = events;
        return;
    }
    let (mut tokens, mut shared) = (0, 0);
    for period in periods {
        tokens += weight(period);
        // To the nearest whole number.
        let so_far = i64::try_from((i128::from(events) * tokens * 2 + all) / (all * 2)).unwrap_or(events);
        period.events = so_far - shared;
        shared = so_far;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Periods of 100 seconds.
    fn periods(number: i64) -> Vec<BillingPeriod> {
        (0..number)
            .map(|index| BillingPeriod { start: second(index * 100), end: second((index + 1) * 100) })
            .collect()
    }

    fn minutes(period: i64, feature: &str, tokens: i64) -> Minutes {
        let period_start = second(period * 100);
        Minutes { period_start, feature: feature.to_owned(), tokens, last_minute: second(period * 100 + 60) }
    }

    fn features(features: &[(&str, i64)]) -> BTreeMap<String, i64> {
        features.iter().map(|(feature, tokens)| ((*feature).to_owned(), *tokens)).collect()
    }

    #[test]
    fn what_no_minute_knows_is_in_the_first_period_and_a_feature_never_vanishes_from_it() {
        let counted = Counted { events: 10, features: features(&[("chat", 100), ("old", 20), ("new", 80)]) };
        let known = vec![minutes(0, "chat", 60), minutes(2, "chat", 40), minutes(2, "new", 80)];
        let recounted = recount(&periods(3), &counted, known);
        assert_eq!(recounted.len(), 2, "nothing was used in the second");
        assert_eq!(recounted[0].features, features(&[("chat", 60), ("old", 20), ("new", 0)]));
        assert_eq!(recounted[1].features, features(&[("chat", 40), ("new", 80)]));
        assert_eq!((recounted[0].tokens(), recounted[1].tokens()), (80, 120));
        assert_eq!((recounted[0].events, recounted[1].events), (4, 6));
        assert_eq!((recounted[0].last_minute, recounted[1].last_minute), (second(60), second(260)));
    }

    #[test]
    fn events_of_no_tokens_stay_in_the_first_period() {
        let counted = Counted { events: 2, features: features(&[("chat", 0)]) };
        let recounted = recount(&periods(1), &counted, Vec::new());
        assert_eq!((recounted[0].events, recounted[0].tokens()), (2, 0));
        assert_eq!(recount(&[], &counted, Vec::new()), []);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_made(
            events in 0_i64..1_000_000,
            tokens in prop::collection::btree_map("[a-d]", -1_000_i64..1_000_000, 0..4),
            known in prop::collection::vec((0_i64..4, "[a-d]", -1_000_i64..1_000_000), 0..20),
        ) {
            let counted = Counted { events, features: tokens };
            let known = known.iter().map(|(period, feature, tokens)| minutes(*period, feature, *tokens)).collect();
            let recounted = recount(&periods(4), &counted, known);
            prop_assert_eq!(recounted.iter().map(|period| period.events).sum::<i64>(), events);
            prop_assert!(recounted.iter().all(|period| period.events >= 0));
            let mut sums = BTreeMap::<String, i64>::new();
            for (feature, tokens) in recounted.iter().flat_map(|period| &period.features) {
                *sums.entry(feature.clone()).or_default() += tokens;
            }
            sums.retain(|feature, tokens| *tokens != 0 || counted.features.contains_key(feature));
            prop_assert_eq!(sums, counted.features);
        }
    }
}
