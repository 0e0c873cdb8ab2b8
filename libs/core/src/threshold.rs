//! At which percents of the quota something is recorded, and what is still to be recorded.

/// The most thresholds that a tenant may have.
pub const MAX_THRESHOLDS: usize = 10;

/// The highest threshold, in percent.
pub const MAX_PERCENT: i32 = 1_000;

/// Percents of the quota, ascending, each once: at most [`MAX_THRESHOLDS`], each from 1 to [`MAX_PERCENT`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds(Vec<i32>);

/// Numbers that are no thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("thresholds are at most 10 different whole numbers from 1 to 1000")]
pub struct NotThresholds;

impl TryFrom<Vec<i32>> for Thresholds {
    type Error = NotThresholds;

    /// In any order.
    fn try_from(mut percents: Vec<i32>) -> Result<Self, Self::Error> {
        percents.sort_unstable();
        let different = percents.windows(2).all(|pair| pair[0] != pair[1]);
        let in_range = percents.iter().all(|percent| (1..=MAX_PERCENT).contains(percent));
        if different && in_range && percents.len() <= MAX_THRESHOLDS {
            Ok(Self(percents))
        } else {
            Err(NotThresholds)
        }
    }
}

impl Default for Thresholds {
    /// 80 %.
    fn default() -> Self {
        Self(vec![80])
    }
}

impl Thresholds {
    /// The percents, ascending.
    #[must_use]
    pub fn percents(&self) -> &[i32] {
        &self.0
    }

    /// Those that `used` has reached, ascending.
    fn reached(&self, used: i64, quota: i64) -> &[i32] {
        &self.0[..self.0.partition_point(|threshold| is_reached(*threshold, used, quota))]
    }

    /// Whether usage that grew from `before` to `used` reached one that it had not before. If not, there is nothing
    /// to ask [`due`] for: this is what every count pays.
    #[must_use]
    pub fn newly_reached(&self, before: i64, used: i64, quota: i64) -> bool {
        self.reached(used, quota).len() > self.reached(before, quota).len()
    }
}

/// Whether `used` is at least `threshold` percent of `quota`: exactly 80 % is reached, and nothing is rounded.
#[must_use]
pub fn is_reached(threshold: i32, used: i64, quota: i64) -> bool {
    i128::from(used) * 100 >= i128::from(threshold) * i128::from(quota)
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Usage reached the threshold.
    Crossed,
    /// A raise of the quota put it out of reach again.
    Recovered,
}

/// What was recorded of a period before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// In percent.
    pub threshold: i32,
    /// The quota then.
    pub quota: i64,
    /// What happened.
    pub kind: Kind,
}

/// What is to be recorded of a period.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Due {
    /// Thresholds that are reached, the highest first: that one is told, and stands for the others.
    pub crossed: Vec<i32>,
    /// Thresholds that are out of reach again, ascending.
    pub recovered: Vec<i32>,
}

impl Due {
    /// Whether nothing is to be recorded.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.crossed.is_empty() && self.recovered.is_empty()
    }
}

/// What is to be recorded of a period in which `used` tokens were used, held against `quota`, where `recorded`, oldest
/// first, is what was recorded of it.
///
/// The same question whether usage has changed or the quota. A threshold is recorded as crossed once for each quota,
/// so another quota arms it anew; and as recovered if the newest record of it is a crossing at a lower quota. Usage
/// that falls because an event was taken back recovers nothing: it reached the threshold, and whoever was told was
/// told right.
#[must_use]
pub fn due(used: i64, quota: i64, thresholds: &Thresholds, recorded: &[Recorded]) -> Due {
    let known = |threshold, kind| recorded.contains(&Recorded { threshold, quota, kind });
    let reached = thresholds.reached(used, quota).iter().rev().copied();
    let crossed = reached.filter(|threshold| !known(*threshold, Kind::Crossed)).collect();
    let newest = |threshold| recorded.iter().rev().find(|record| record.threshold == threshold);
    let mut recovered: Vec<i32> = recorded.iter().map(|record| record.threshold).collect();
    recovered.sort_unstable();
    recovered.dedup();
    recovered.retain(|threshold| {
        newest(*threshold).is_some_and(|record| record.kind == Kind::Crossed && record.quota < quota)
            && !is_reached(*threshold, used, quota)
            && !known(*threshold, Kind::Recovered)
    });
    Due { crossed, recovered }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quota::MAX_TOKENS;

    fn thresholds(percents: &[i32]) -> Thresholds {
        Thresholds::try_from(percents.to_vec()).unwrap()
    }

    fn crossed(threshold: i32, quota: i64) -> Recorded {
        Recorded { threshold, quota, kind: Kind::Crossed }
    }

    fn recovered(threshold: i32, quota: i64) -> Recorded {
        Recorded { threshold, quota, kind: Kind::Recovered }
    }

    #[test]
    fn thresholds_are_sorted_different_and_in_bounds() {
        assert_eq!(thresholds(&[100, 50, 80]).percents(), [50, 80, 100]);
        assert_eq!(thresholds(&[1, 1_000]).percents(), [1, 1_000]);
        assert_eq!(Thresholds::default().percents(), [80]);
        assert!(thresholds(&[]).percents().is_empty());
        let many: Vec<i32> = (1..=11).collect();
        for wrong in [&[0][..], &[1_001], &[-1], &[80, 80], &many] {
            assert_eq!(Thresholds::try_from(wrong.to_vec()), Err(NotThresholds), "{wrong:?}");
        }
    }

    #[test]
    fn exactly_eighty_percent_is_reached_and_one_token_less_is_not() {
        let cases = [
            // threshold, used, quota, reached
            (80, 8_000, 10_000, true),
            (80, 7_999, 10_000, false),
            (80, 3, 4, false),
            (80, 4, 4, true),
            (33, 1, 3, true),
            (34, 1, 3, false),
            (100, MAX_TOKENS, MAX_TOKENS, true),
            (100, MAX_TOKENS - 1, MAX_TOKENS, false),
            (1_000, i64::MAX, MAX_TOKENS, true),
            (1, 0, 1, false),
            (1, -5, 1, false),
        ];
        for (threshold, used, quota, expected) in cases {
            assert_eq!(is_reached(threshold, used, quota), expected, "{used} of {quota} at {threshold} %");
        }
    }

    /// What happens, used, quota, recorded, crossed, recovered.
    type Case<'a> = (&'a str, i64, i64, &'a [Recorded], &'a [i32], &'a [i32]);

    #[test]
    fn what_is_due_follows_from_usage_quota_and_what_is_recorded() {
        let all = thresholds(&[50, 80, 100]);
        let cases: [Case<'_>; 11] = [
            // what, used, quota, recorded, crossed, recovered
            ("nothing is reached", 499, 1_000, &[], &[], &[]),
            ("one", 500, 1_000, &[], &[50], &[]),
            ("several at once, the highest first", 1_000, 1_000, &[], &[100, 80, 50], &[]),
            ("those that are recorded are not again", 850, 1_000, &[crossed(50, 1_000)], &[80], &[]),
            (
                "another quota arms them anew",
                900,
                1_100,
                &[crossed(80, 1_000), crossed(50, 1_000)],
                &[80, 50],
                &[],
            ),
            ("a raise recovers", 900, 1_500, &[crossed(50, 1_000), crossed(80, 1_000)], &[50], &[80]),
            ("once", 900, 2_000, &[crossed(80, 1_000), recovered(80, 1_500)], &[], &[]),
            ("a correction does not recover", 10, 1_000, &[crossed(80, 1_000)], &[], &[]),
            ("nor does a correction before a lower quota", 10, 500, &[crossed(80, 1_000)], &[], &[]),
            ("a threshold that is gone recovers too", 100, 2_000, &[crossed(90, 1_000)], &[], &[90]),
            (
                "back at a former quota, its crossings are known",
                900,
                1_000,
                &[crossed(50, 1_000), crossed(80, 1_000), recovered(80, 1_500)],
                &[],
                &[],
            ),
        ];
        for (what, used, quota, recorded, crossed, recovered) in cases {
            let expected = Due { crossed: crossed.to_vec(), recovered: recovered.to_vec() };
            assert_eq!(due(used, quota, &all, recorded), expected, "{what}");
        }
    }

    fn any_thresholds() -> impl Strategy<Value = Thresholds> {
        prop::collection::btree_set(1..=MAX_PERCENT, 0..=MAX_THRESHOLDS)
            .prop_map(|percents| Thresholds::try_from(percents.into_iter().collect::<Vec<_>>()).unwrap())
    }

    /// A history: usage or quota changes, and each time what is due is recorded.
    fn record(recorded: &mut Vec<Recorded>, quota: i64, due: &Due) {
        recorded.extend(due.crossed.iter().map(|threshold| crossed(*threshold, quota)));
        recorded.extend(due.recovered.iter().map(|threshold| recovered(*threshold, quota)));
    }

    proptest! {
        #[test]
        fn whatever_happens_nothing_is_recorded_twice_and_everything_reached_is_recorded(
            thresholds in any_thresholds(),
            steps in prop::collection::vec((-500_i64..2_000, 1_i64..5_000), 1..40),
        ) {
            let (mut used, mut recorded) = (0, Vec::new());
            for (tokens, quota) in steps {
                used += tokens;
                let now = due(used, quota, &thresholds, &recorded);
                record(&mut recorded, quota, &now);
                let again = due(used, quota, &thresholds, &recorded);
                prop_assert!(again.is_nothing(), "{again:?}");
                for threshold in thresholds.percents() {
                    prop_assert!(
                        !is_reached(*threshold, used, quota) || recorded.contains(&crossed(*threshold, quota))
                    );
                }
                prop_assert!(now.crossed.is_sorted_by(|one, other| one > other));
            }
            for (index, record) in recorded.iter().enumerate() {
                prop_assert!(!recorded[index + 1..].contains(record), "{record:?}");
            }
        }

        #[test]
        fn while_the_quota_stands_asking_only_when_one_is_newly_reached_misses_nothing(
            thresholds in any_thresholds(),
            quota in 1_i64..5_000,
            steps in prop::collection::vec(-500_i64..2_000, 1..40),
        ) {
            let (mut used, mut asked, mut always) = (0, Vec::new(), Vec::new());
            for tokens in steps {
                let before = used;
                used += tokens;
                if thresholds.newly_reached(before, used, quota) {
                    let now = due(used, quota, &thresholds, &asked);
                    record(&mut asked, quota, &now);
                }
                let now = due(used, quota, &thresholds, &always);
                record(&mut always, quota, &now);
            }
            prop_assert_eq!(asked, always);
        }
    }
}
