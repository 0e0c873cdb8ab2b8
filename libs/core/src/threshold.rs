//! At which percents of the quota something is recorded, and what is still to be recorded.

use jiff::SignedDuration;

/// The most thresholds that a tenant may have.
pub const MAX_THRESHOLDS: usize = 10;

/// The highest threshold, in percent.
pub const MAX_PERCENT: i32 = 1_000;

/// A threshold that recovers and is crossed again at the same quota this soon after its message gets no second message.
pub const FLAP: SignedDuration = SignedDuration::from_mins(1);

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
    /// Whether it was recorded less than [`FLAP`] ago. Of one that another stands for, whether that was.
    pub is_recent: bool,
}

/// What is to be recorded of a period.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Due {
    /// Thresholds that are reached, the highest first: that one is told, and stands for the others.
    pub crossed: Vec<i32>,
    /// Thresholds that are reached again just after they were told at this quota, the highest first: recorded without a
    /// message.
    pub crossed_again: Vec<i32>,
    /// Thresholds that are out of reach again, ascending.
    pub recovered: Vec<i32>,
}

impl Due {
    /// Whether nothing is to be recorded.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.crossed.is_empty() && self.crossed_again.is_empty() && self.recovered.is_empty()
    }
}

/// What is to be recorded of a period in which `used` tokens were used, held against `quota`, where `recorded`, oldest
/// first, is what was recorded of it.
///
/// The same question whether usage has changed or the quota. A threshold is recorded as crossed once for each quota, and
/// as recovered if the newest record of it is a crossing at a lower quota. That arms it: what was recorded before no
/// longer counts, so that it is crossed, and told, again. Only if its message at the same quota is
/// less than [`FLAP`] old there is no second one: a boost was put in and taken out, or two workers looked at it by clocks that
/// differ.
///
/// Nor is a recovery recorded twice within that time. If it lasts, a later look records it: what goes to and fro is
/// bounded in rows, too.
///
/// Usage that falls because an event was taken back recovers nothing: it reached the threshold, and the message was
/// right.
#[must_use]
pub fn due(used: i64, quota: i64, thresholds: &Thresholds, recorded: &[Recorded]) -> Due {
    let mut due = Due::default();
    for threshold in thresholds.reached(used, quota).iter().rev().copied() {
        match crossing(threshold, quota, recorded) {
            Crossing::Known => {}
            Crossing::Told => due.crossed.push(threshold),
            Crossing::Flap => due.crossed_again.push(threshold),
        }
    }
    due.recovered = recorded.iter().map(|record| record.threshold).collect();
    due.recovered.sort_unstable();
    due.recovered.dedup();
    due.recovered.retain(|threshold| {
        let newest = recorded.iter().rfind(|record| record.threshold == *threshold);
        newest.is_some_and(|record| record.kind == Kind::Crossed && record.quota < quota)
            && !is_reached(*threshold, used, quota)
            && !recorded.contains(&Recorded {
                threshold: *threshold,
                quota,
                kind: Kind::Recovered,
                is_recent: true,
            })
    });
    due
}

/// What a threshold that is reached comes to.
enum Crossing {
    /// It is recorded.
    Known,
    /// It is to be recorded, and told.
    Told,
    /// It is to be recorded, since it recovered, but was told only just.
    Flap,
}

fn crossing(threshold: i32, quota: i64, recorded: &[Recorded]) -> Crossing {
    let is_here = |record: &&Recorded| record.kind == Kind::Crossed && record.quota == quota;
    let of_it = || recorded.iter().rev().filter(|record| record.threshold == threshold);
    let mut since_recovery = of_it().take_while(|record| record.kind != Kind::Recovered).peekable();
    let recovered = since_recovery.peek().is_none();
    let is_recent = of_it().filter(is_here).any(|record| record.is_recent);
    if since_recovery.any(|record| is_here(&record)) {
        Crossing::Known
    } else if !is_recent {
        Crossing::Told
    } else if recovered {
        Crossing::Flap
    } else {
        // It was crossed all the time, at other quotas. If that lasts, the next look records it.
        Crossing::Known
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quota::MAX_TOKENS;

    fn thresholds(percents: &[i32]) -> Thresholds {
        Thresholds::try_from(percents.to_vec()).unwrap()
    }

    /// Told only just.
    fn crossed(threshold: i32, quota: i64) -> Recorded {
        Recorded { threshold, quota, kind: Kind::Crossed, is_recent: true }
    }

    /// Told a minute ago, or longer.
    fn crossed_before(threshold: i32, quota: i64) -> Recorded {
        Recorded { is_recent: false, ..crossed(threshold, quota) }
    }

    fn recovered(threshold: i32, quota: i64) -> Recorded {
        Recorded { kind: Kind::Recovered, ..crossed_before(threshold, quota) }
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
            let due = due(used, quota, &all, recorded);
            assert_eq!((&*due.crossed, &*due.recovered), (crossed, recovered), "{what}");
        }
    }

    #[test]
    fn a_recovery_arms_a_threshold_again_and_a_flap_is_not_told() {
        let only = thresholds(&[80]);
        // What, used, quota, recorded, told, not told.
        let cases: [Case<'_>; 7] = [
            (
                "a boost ended, at 180 %",
                1_800,
                1_000,
                &[crossed_before(80, 1_000), recovered(80, 2_500)],
                &[80],
                &[],
            ),
            ("it ended within a minute", 900, 1_000, &[crossed(80, 1_000), recovered(80, 2_500)], &[], &[80]),
            (
                "that is known by now",
                900,
                1_000,
                &[crossed(80, 1_000), recovered(80, 2_500), crossed(80, 1_000)],
                &[],
                &[],
            ),
            (
                "and the next one is true",
                900,
                1_000,
                &[
                    crossed_before(80, 1_000),
                    recovered(80, 2_500),
                    crossed_before(80, 1_000),
                    recovered(80, 2_500),
                ],
                &[80],
                &[],
            ),
            (
                "another quota is no flap",
                1_800,
                1_100,
                &[crossed(80, 1_000), recovered(80, 2_500)],
                &[80],
                &[],
            ),
            (
                "a former quota, reached all the time, is known",
                1_800,
                1_000,
                &[crossed_before(80, 1_000), crossed_before(80, 1_500)],
                &[],
                &[],
            ),
            (
                "a former quota, after a recovery and a crossing of the boosted one, is not",
                2_100,
                1_000,
                &[crossed_before(80, 1_000), recovered(80, 2_500), crossed_before(80, 2_500)],
                &[80],
                &[],
            ),
        ];
        for (what, used, quota, recorded, told, not_told) in cases {
            let due = due(used, quota, &only, recorded);
            assert_eq!((&*due.crossed, &*due.crossed_again), (told, not_told), "{what}");
        }
        // The boost comes again: it recovers again, at the same quota.
        let again = [crossed_before(80, 1_000), recovered(80, 2_500), crossed_before(80, 1_000)];
        assert_eq!(due(1_800, 2_500, &only, &again).recovered, [80]);
        let at_once =
            [crossed(80, 1_000), Recorded { is_recent: true, ..recovered(80, 2_500) }, crossed(80, 1_000)];
        assert!(due(1_800, 2_500, &only, &at_once).is_nothing(), "it goes to and fro");
    }

    fn any_thresholds() -> impl Strategy<Value = Thresholds> {
        prop::collection::btree_set(1..=MAX_PERCENT, 0..=MAX_THRESHOLDS)
            .prop_map(|percents| Thresholds::try_from(percents.into_iter().collect::<Vec<_>>()).unwrap())
    }

    /// What is recorded of a period, and at which second: of what another stands for, that one's.
    #[derive(Default)]
    struct History {
        records: Vec<Recorded>,
        at: Vec<u32>,
    }

    impl History {
        /// Looks at `second`, and records what is due.
        fn look(&mut self, second: u32, used: i64, quota: i64, thresholds: &Thresholds) -> Due {
            for (record, at) in self.records.iter_mut().zip(&self.at) {
                record.is_recent = i64::from(second - at) < FLAP.as_secs();
            }
            let due = due(used, quota, thresholds, &self.records);
            let is_same = |threshold: i32, record: &Recorded| {
                (record.threshold, record.quota, record.kind) == (threshold, quota, Kind::Crossed)
            };
            for threshold in &due.crossed_again {
                let place = self.records.iter().rposition(|record| is_same(*threshold, record)).unwrap();
                self.records.push(crossed(*threshold, quota));
                self.at.push(self.at[place]);
            }
            let told = due.crossed.iter().map(|threshold| crossed(*threshold, quota));
            let recovered = due.recovered.iter().map(|threshold| recovered(*threshold, quota));
            for record in told.chain(recovered) {
                self.records.push(record);
                self.at.push(second);
            }
            due
        }

        fn truncate(&mut self, length: usize) {
            self.records.truncate(length);
            self.at.truncate(length);
        }

        /// Whether `threshold` had recovered at `quota` just before `second`.
        fn recovered_just_before(&self, second: u32, threshold: i32, quota: i64) -> bool {
            self.records.iter().zip(&self.at).any(|(record, at)| {
                (record.threshold, record.quota, record.kind) == (threshold, quota, Kind::Recovered)
                    && i64::from(second - at) < FLAP.as_secs()
            })
        }
    }

    /// A quota: often one of a few, as boosts that come and go make them.
    fn any_quota() -> impl Strategy<Value = i64> {
        prop_oneof![3 => prop::sample::select(vec![1_000_i64, 2_500, 4_000]), 1 => 1_i64..5_000]
    }

    proptest! {
        #[test]
        fn whatever_happens_each_true_crossing_is_told_once_and_everything_reached_is_recorded(
            thresholds in any_thresholds(),
            steps in prop::collection::vec((-500_i64..2_000, any_quota(), 0_u32..200), 1..60),
        ) {
            let (mut used, mut second, mut history) = (0, 0, History::default());
            let mut told: Vec<(i32, i64, u32)> = Vec::new();
            for (tokens, quota, seconds) in steps {
                used += tokens;
                second += seconds;
                let before = history.records.clone();
                let now = history.look(second, used, quota, &thresholds);
                // Looked at again, at once or later, it is nothing new: reviews look back.
                for later in [0, 1, 59, 61, 300] {
                    let length = history.records.len();
                    let again = history.look(second + later, used, quota, &thresholds);
                    let late = again.crossed.iter().all(|threshold| told.iter().any(|(one, at, when)| {
                        (one, at) == (threshold, &quota) && i64::from(second - when) < FLAP.as_secs()
                    }));
                    history.truncate(length);
                    let lasted = again.recovered.iter().all(|threshold| {
                        later > 0 && history.recovered_just_before(second, *threshold, quota)
                    });
                    prop_assert!(again.crossed_again.is_empty() && late && lasted, "{again:?}");
                }
                for threshold in thresholds.percents().iter().copied().filter(|one| is_reached(*one, used, quota)) {
                    let newest = history.records.iter().rfind(|record| record.threshold == threshold);
                    prop_assert_eq!(newest.map(|record| record.kind), Some(Kind::Crossed));
                    let known = |record: &Recorded| record.threshold == threshold && record.quota == quota;
                    prop_assert!(history.records.iter().any(known));
                }
                for threshold in &now.crossed {
                    // Told again at one quota only after it recovered, and a minute after it was told last.
                    let last = told.iter().rfind(|(one, at, _)| (one, *at) == (threshold, quota));
                    if let Some((_, _, when)) = last {
                        prop_assert!(i64::from(second - when) >= FLAP.as_secs());
                        let of_it = before.iter().rev().filter(|record| record.threshold == *threshold);
                        let mut since =
                            of_it.take_while(|record| (record.kind, record.quota) != (Kind::Crossed, quota));
                        prop_assert!(since.any(|record| record.kind == Kind::Recovered));
                    }
                    told.push((*threshold, quota, second));
                }
                prop_assert!(now.crossed.is_sorted_by(|one, other| one > other));
            }
            // Recoveries are of something.
            for threshold in thresholds.percents() {
                let of_it: Vec<_> = history.records.iter().filter(|record| record.threshold == *threshold).collect();
                prop_assert!(of_it.first().is_none_or(|first| first.kind == Kind::Crossed));
                prop_assert!(of_it.windows(2).all(|pair| pair.iter().any(|record| record.kind == Kind::Crossed)));
            }
        }

        #[test]
        fn while_the_quota_stands_asking_only_when_one_is_newly_reached_misses_nothing(
            thresholds in any_thresholds(),
            quota in 1_i64..5_000,
            steps in prop::collection::vec(-500_i64..2_000, 1..40),
        ) {
            let (mut used, mut asked, mut always) = (0, History::default(), History::default());
            for tokens in steps {
                let before = used;
                used += tokens;
                if thresholds.newly_reached(before, used, quota) {
                    asked.look(0, used, quota, &thresholds);
                }
                always.look(0, used, quota, &thresholds);
            }
            prop_assert_eq!(asked.records, always.records);
        }
    }
}
