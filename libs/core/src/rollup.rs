//! Events folded to what is written: one row a key, keys in ascending order.
//!
//! Both matter to the database. A key twice would make PostgreSQL refuse the upsert, and two workers
//! that lock rows in different orders would deadlock.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt as _};

use crate::event::{FeatureName, TenantName, UsageEvent};
use crate::minute::Minute;
use crate::period::BillingPeriod;
use crate::quota::MAX_TOKENS;

/// Tokens by tenant, feature and minute.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RollupBatch(BTreeMap<(TenantName, FeatureName, Minute), Sum>);

/// Tokens by tenant and billing period.
pub type PeriodBatch = BTreeMap<(TenantName, BillingPeriod), PeriodSum>;

/// Tokens by tenant, billing period and feature.
pub type FeatureBatch = BTreeMap<(TenantName, BillingPeriod, FeatureName), Sum>;

/// Tokens and the events they come from.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// Tokens.
    pub tokens: i64,
    /// Events, those that take another back among them.
    pub events: i64,
}

/// What a period gained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeriodSum {
    /// Tokens and events.
    pub sum: Sum,
    /// The newest minute among them.
    pub last_minute: Minute,
}

/// A sum that does not fit into 63 bits. More than 1,024 events of the largest size there are
/// needed for it, so it is no honest usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sum of tokens does not fit into 63 bits")]
pub struct SumOverflow;

impl Sum {
    fn add(&mut self, other: Self) -> Result<(), SumOverflow> {
        self.tokens = self.tokens.checked_add(other.tokens).ok_or(SumOverflow)?;
        self.events = self.events.checked_add(other.events).ok_or(SumOverflow)?;
        Ok(())
    }
}

/// What a billing period holds, while events are added to it one by one. A period holds at most [`MAX_TOKENS`], so that
/// every JSON reader shows its total exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeriodTotal(i64);

impl PeriodTotal {
    /// A period that holds `tokens`.
    #[must_use]
    pub fn of(tokens: i64) -> Self {
        Self(tokens)
    }

    /// Adds an event's tokens, unless the total would exceed the bound; answers whether it did. A reversal always fits.
    pub fn add(&mut self, tokens: i64) -> bool {
        let sum = self.0.saturating_add(tokens);
        let fits = tokens <= 0 || sum <= MAX_TOKENS;
        if fits {
            self.0 = sum;
        }
        fits
    }

    /// Whether adding `tokens` in all made a period exceed the bound, if it holds `total` now.
    #[must_use]
    pub fn is_exceeded(total: i64, tokens: i64) -> bool {
        tokens > 0 && total > MAX_TOKENS
    }
}

impl RollupBatch {
    /// Folds `events`.
    ///
    /// # Errors
    ///
    /// [`SumOverflow`].
    pub fn of<'a>(events: impl IntoIterator<Item = &'a UsageEvent>) -> Result<Self, SumOverflow> {
        // Ordered only once folded: there are many events and few keys.
        let mut sums = HashMap::<_, Sum>::new();
        for event in events {
            let key = (&event.tenant, &event.feature, Minute::of(event.occurred_at));
            sums.entry(key).or_default().add(Sum { tokens: event.signed_tokens(), events: 1 })?;
        }
        let owned = |(tenant, feature, minute): (&TenantName, &FeatureName, _)| {
            (tenant.clone(), feature.clone(), minute)
        };
        Ok(Self(sums.into_iter().map(|(key, sum)| (owned(key), sum)).collect()))
    }

    /// The rows, in key order.
    pub fn rows(&self) -> impl Iterator<Item = (&(TenantName, FeatureName, Minute), &Sum)> + Clone {
        self.0.iter()
    }

    /// The rows folded to billing periods. `period_of` says in which period of a tenant a minute
    /// lies: no zone of today has an offset with seconds, so a minute never lies in two. It is asked once for each
    /// period that a tenant's minutes come to, one after another: a calendar is slow, and keys are many.
    ///
    /// # Errors
    ///
    /// [`SumOverflow`].
    pub fn periods(
        &self,
        period_of: impl Fn(&TenantName, Minute) -> BillingPeriod,
    ) -> Result<(PeriodBatch, FeatureBatch), SumOverflow> {
        let mut periods = PeriodBatch::new();
        let mut features = FeatureBatch::new();
        let mut last: Option<(&TenantName, BillingPeriod)> = None;
        for ((tenant, feature, minute), sum) in &self.0 {
            let period = match last {
                Some((same, period)) if same == tenant && period.contains(minute.start()) => period,
                _ => period_of(tenant, *minute),
            };
            last = Some((tenant, period));
            let row = periods
                .entry((tenant.clone(), period))
                .or_insert(PeriodSum { sum: Sum::default(), last_minute: *minute });
            row.sum.add(*sum)?;
            row.last_minute = row.last_minute.max(*minute);
            features.entry((tenant.clone(), period, feature.clone())).or_default().add(*sum)?;
        }
        Ok((periods, features))
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::*;
    use crate::event::{EventId, TokenCount};
    use crate::period::BillingDay;

    fn event(tenant: &str, feature: &str, tokens: i64, at: &str) -> UsageEvent {
        UsageEvent {
            tenant: tenant.try_into().unwrap(),
            feature: feature.try_into().unwrap(),
            tokens: TokenCount::try_from(tokens).unwrap(),
            id: None,
            occurred_at: at.parse().unwrap(),
            reverses: None,
        }
    }

    #[test]
    fn events_fold_to_one_row_a_key_and_every_token_is_in_each_fold() {
        let events = [
            event("b", "f", 1, "2026-01-31T23:59:59Z"),
            event("a", "g", 2, "2026-02-01T00:00:00Z"),
            event("a", "f", 4, "2026-01-31T23:59:00Z"),
            event("a", "f", 8, "2026-01-31T23:59:59.9Z"),
        ];
        let rollups = RollupBatch::of(&events).unwrap();
        let rows: Vec<_> = rollups
            .rows()
            .map(|((t, f, m), s)| (t.as_str(), f.as_str(), m.start().to_string(), s.tokens))
            .collect();
        assert_eq!(
            rows,
            [
                ("a", "f", "2026-01-31T23:59:00Z".to_owned(), 12),
                ("a", "g", "2026-02-01T00:00:00Z".to_owned(), 2),
                ("b", "f", "2026-01-31T23:59:00Z".to_owned(), 1),
            ]
        );

        let first = BillingDay::try_from(1).unwrap();
        let in_utc =
            |_: &TenantName, minute: Minute| BillingPeriod::containing(minute.start(), first, &TimeZone::UTC);
        let (periods, features) = rollups.periods(in_utc).unwrap();
        assert_eq!(
            periods.values().map(|row| (row.sum.tokens, row.sum.events)).collect::<Vec<_>>(),
            [(12, 2), (2, 1), (1, 1)]
        );
        assert_eq!(features.values().map(|sum| sum.tokens).sum::<i64>(), 15);
    }

    #[test]
    fn a_period_holds_up_to_the_bound_and_takes_no_more_until_something_is_reversed() {
        let mut total = PeriodTotal::of(MAX_TOKENS - 10);
        let steps = [(11, false), (10, true), (1, false), (0, true), (-5, true), (6, false), (5, true)];
        for (tokens, fits) in steps {
            assert_eq!(total.add(tokens), fits, "{tokens}");
        }
        assert_eq!(total, PeriodTotal::of(MAX_TOKENS));
        // One that grew beyond the bound under an earlier version takes nothing but reversals.
        let mut beyond = PeriodTotal::of(i64::MAX);
        assert_eq!([beyond.add(1), beyond.add(-1)], [false, true]);
        let exceeded = [(MAX_TOKENS, 1), (MAX_TOKENS + 1, 1), (MAX_TOKENS + 1, -1), (MAX_TOKENS + 1, 0)];
        assert_eq!(
            exceeded.map(|(total, tokens)| PeriodTotal::is_exceeded(total, tokens)),
            [false, true, false, false]
        );
    }

    #[test]
    fn a_sum_beyond_63_bits_is_refused_and_does_not_wrap() {
        let events: Vec<_> =
            (0..1_025).map(|_| event("a", "f", MAX_TOKENS, "2026-01-01T00:00:00Z")).collect();
        assert_eq!(RollupBatch::of(&events), Err(SumOverflow));
        assert!(RollupBatch::of(&events[..1_024]).is_ok());
    }
    fn any_event() -> impl Strategy<Value = UsageEvent> {
        // Minutes around the end of a month, some of them the same.
        let instant = (-3_i64..3, 0..60_000_i64);
        (0..3_usize, 0..3_usize, 1..1_000_i64, instant, any::<bool>()).prop_map(
            |(tenant, feature, tokens, (minute, millisecond), reverses)| {
                let month_end: jiff::Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
                let ahead = jiff::SignedDuration::from_millis(minute * 60_000 + millisecond);
                UsageEvent {
                    occurred_at: month_end + ahead,
                    reverses: reverses.then(|| EventId::of("taken back")),
                    ..event(["a", "b", "c"][tenant], ["f", "g", "h"][feature], tokens, "2026-02-01T00:00:00Z")
                }
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_is_folded_each_fold_has_every_event_once_and_in_its_place(
            events in proptest::collection::vec(any_event(), 0..200),
        ) {
            // One tenant's months begin a minute later than the others', so that a minute is in two periods.
            let day = BillingDay::try_from(1).unwrap();
            let zone = |tenant: &TenantName| {
                let seconds = if tenant.as_str() == "a" { 0 } else { 60 };
                TimeZone::fixed(jiff::tz::Offset::from_seconds(seconds).unwrap())
            };
            let period_of = |tenant: &TenantName, minute: Minute| {
                BillingPeriod::containing(minute.start(), day, &zone(tenant))
            };
            let mut rows = BTreeMap::new();
            let mut periods = BTreeMap::new();
            let mut features = BTreeMap::new();
            for event in &events {
                let tokens = if event.reverses.is_some() { -event.tokens.get() } else { event.tokens.get() };
                let (tenant, feature) = (event.tenant.clone(), event.feature.clone());
                let minute = Minute::of(event.occurred_at);
                let period = period_of(&tenant, minute);
                let add = |sum: &mut (i64, i64)| *sum = (sum.0 + tokens, sum.1 + 1);
                add(rows.entry((tenant.clone(), feature.clone(), minute)).or_default());
                add(features.entry((tenant.clone(), period, feature)).or_default());
                let (sum, last) = periods.entry((tenant, period)).or_insert(((0, 0), minute));
                add(sum);
                *last = minute.max(*last);
            }
            let plain = |sum: &Sum| (sum.tokens, sum.events);

            let folded = RollupBatch::of(&events).unwrap();
            let folded_rows: Vec<_> = folded.rows().map(|(key, sum)| (key.clone(), plain(sum))).collect();
            prop_assert!(folded_rows.is_sorted_by(|one, next| one.0 < next.0));
            prop_assert_eq!(folded_rows, rows.into_iter().collect::<Vec<_>>());
            let (folded_periods, folded_features) = folded.periods(period_of).unwrap();
            let folded_periods: Vec<_> = folded_periods
                .into_iter()
                .map(|(key, row)| (key, (plain(&row.sum), row.last_minute)))
                .collect();
            prop_assert_eq!(folded_periods, periods.into_iter().collect::<Vec<_>>());
            let folded_features: Vec<_> =
                folded_features.iter().map(|(key, sum)| (key.clone(), plain(sum))).collect();
            prop_assert_eq!(folded_features, features.into_iter().collect::<Vec<_>>());
        }
    }
}
