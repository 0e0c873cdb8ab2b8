//! Counts of tests, and the table that closes a run.

use std::ops::AddAssign;
use std::time::Duration;

use super::Layer;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };

    /// Whether something ran and nothing failed.
    pub(crate) fn is_good(self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// What the runs of a test program say in sum; nothing if it never said anything.
    pub(crate) fn of_output<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut results = lines.into_iter().filter_map(Self::of_line).peekable();
        results.peek()?;
        let mut sum = Self::default();
        results.for_each(|tally| sum += tally);
        Some(sum)
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s`
    fn of_line(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what: &str| {
            let counts = counts.split("; ").filter_map(|count| count.split_once(' '));
            counts.into_iter().find(|(_, name)| *name == what)?.0.parse::<u64>().ok()
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// One layer's line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) layer: Layer,
    pub(crate) tally: Tally,
    pub(crate) took: Duration,
}

/// Prints the table and, as the very last line, the sum; returns the sum.
pub(crate) fn close(rows: &[Row]) -> Tally {
    say!("\n{:<10} {:>7} {:>7} {:>8} {:>8}", "LAYER", "PASSED", "FAILED", "SKIPPED", "SECONDS");
    let mut sum = Tally::default();
    for Row { layer, tally, took } in rows {
        let (name, seconds) = (layer.name(), took.as_secs_f32());
        say!("{name:<10} {:>7} {:>7} {:>8} {seconds:>8.1}", tally.passed, tally.failed, tally.skipped);
        sum += *tally;
    }
    say!("\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let output = "running 3 tests\n\
            test one ... ok\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1.20s\n";
        let tally = Tally { passed: 7, failed: 2, skipped: 1 };
        assert_eq!(Tally::of_output(output.lines()), Some(tally));
        assert!(!tally.is_good());
    }

    #[test]
    fn a_program_that_died_has_no_result() {
        assert_eq!(Tally::of_output(["running 3 tests", "test one ... ok", "test result: "]), None);
    }

    #[test]
    fn no_test_at_all_is_not_good() {
        assert!(!Tally::default().is_good());
        assert!(Tally::PASSED.is_good());
    }
}
