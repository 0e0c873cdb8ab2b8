//! The figures that are held to something: each with a floor that must hold and an aim.

use flagmeter_core::number::grouped;
use serde::{Deserialize, Serialize};

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// A figure's name and what it is held to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Goal {
    /// For programs.
    pub(crate) key: String,
    /// For people.
    pub(crate) what: String,
    /// What must hold, if anything must.
    pub(crate) floor: Option<f64>,
    pub(crate) aim: Option<f64>,
    pub(crate) better: Better,
    pub(crate) unit: String,
}

/// A figure: one value a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) goal: Goal,
    pub(crate) values: Vec<f64>,
}

/// How a figure stands to its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is asked of it.
    Told,
    Aim,
    Floor,
    Missed,
}

impl Verdict {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Told => "–",
            Self::Aim => "aim reached",
            Self::Floor => "floor holds",
            Self::Missed => "**floor missed**",
        }
    }
}

impl Goal {
    /// A ratio, or another figure without a unit, of which more is better.
    pub(crate) fn at_least(key: &str, what: &str, floor: f64, aim: f64) -> Self {
        Self::new(key, what, Some(floor), Some(aim), Better::Higher)
    }

    /// One of which less is better.
    pub(crate) fn at_most(key: &str, what: &str, floor: f64, aim: f64) -> Self {
        Self::new(key, what, Some(floor), Some(aim), Better::Lower)
    }

    /// One that nothing is asked of.
    pub(crate) fn told(key: &str, what: &str) -> Self {
        Self::new(key, what, None, None, Better::Higher)
    }

    fn new(key: &str, what: &str, floor: Option<f64>, aim: Option<f64>, better: Better) -> Self {
        Self { key: key.to_owned(), what: what.to_owned(), floor, aim, better, unit: String::new() }
    }

    pub(crate) fn in_unit(self, unit: &str) -> Self {
        Self { unit: unit.to_owned(), ..self }
    }

    pub(crate) fn row(self, values: Vec<f64>) -> Row {
        Row { goal: self, values }
    }

    /// Whether `value` is as good as `bound`.
    fn reaches(&self, value: f64, bound: f64) -> bool {
        match self.better {
            Better::Higher => value >= bound,
            Better::Lower => value <= bound,
        }
    }
}

impl Row {
    pub(crate) fn median(&self) -> f64 {
        median(&self.values)
    }

    /// The least and the most of all rounds.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let values = self.values.iter().copied();
        (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max))
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let reaches = |bound: Option<f64>| bound.map(|bound| self.goal.reaches(self.median(), bound));
        match (reaches(self.goal.aim), reaches(self.goal.floor)) {
            (None, None) => Verdict::Told,
            (Some(true), _) => Verdict::Aim,
            (_, Some(true)) => Verdict::Floor,
            _ => Verdict::Missed,
        }
    }

    /// Whether it is worse than half its floor: on a shared machine nothing less is a sign of anything. A time
    /// is never one: it is the machine's as much as FlagMeter's.
    pub(crate) fn is_gross_regression(&self) -> bool {
        if self.goal.unit == "ms" {
            return false;
        }
        let slack = match self.goal.better {
            Better::Higher => 0.5,
            Better::Lower => 2.0,
        };
        self.goal.floor.is_some_and(|floor| !self.goal.reaches(self.median(), floor * slack))
    }
}

/// The middle one, or the mean of the middle two; NaN of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// A number with as many digits as it takes to tell it from its neighbours.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => {
            let whole = format!("{value:.0}");
            whole.parse().map_or(whole, grouped)
        }
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        for (values, middle) in
            [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 3.0], 2.5), (vec![7.0], 7.0)]
        {
            assert!((median(&values) - middle).abs() < 1e-12, "{values:?}");
        }
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_figure_is_held_to_its_goal_and_only_half_the_floor_is_a_regression() {
        let cases = [
            // the median, verdict, gross
            (0.80, Verdict::Aim, false),
            (0.60, Verdict::Floor, false),
            (0.59, Verdict::Missed, false),
            (0.29, Verdict::Missed, true),
            (f64::NAN, Verdict::Missed, true),
        ];
        for (value, verdict, gross) in cases {
            let row = Goal::at_least("x", "x", 0.60, 0.75).row(vec![value]);
            assert_eq!((row.verdict(), row.is_gross_regression()), (verdict, gross), "{value}");
        }
        let cases = [
            (2.0, Verdict::Aim, false),
            (10.0, Verdict::Floor, false),
            (19.0, Verdict::Missed, false),
            (21.0, Verdict::Missed, true),
        ];
        for (value, verdict, gross) in cases {
            let row = Goal::at_most("x", "x", 10.0, 2.0).row(vec![value]);
            assert_eq!((row.verdict(), row.is_gross_regression()), (verdict, gross), "{value}");
        }
        let late = Goal::at_most("x", "x", 10.0, 2.0).in_unit("ms").row(vec![900.0]);
        assert_eq!((late.verdict(), late.is_gross_regression()), (Verdict::Missed, false));
        let told = Goal::told("x", "x").row(vec![0.0]);
        assert_eq!((told.verdict(), told.is_gross_regression()), (Verdict::Told, false));
    }

    #[test]
    fn numbers_are_as_long_as_they_need_to_be() {
        let cases = [
            (0.614, "0.61"),
            (12.34, "12.3"),
            (338.4, "338"),
            (1_500.0, "1,500"),
            (76_543.2, "76,543"),
            (1_870_000.0, "1,870,000"),
        ];
        for (value, text) in cases {
            assert_eq!(figure(value), text);
        }
    }
}
