//! The UTC minute, the unit of rollups.

use jiff::Timestamp;

/// A UTC minute, as its number since 1970-01-01T00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minute(i64);

impl Minute {
    /// The minute that `instant` lies in; its first instant belongs to it, its last is the next one's first.
    #[must_use]
    pub fn of(instant: Timestamp) -> Self {
        let seconds = instant.as_second();
        // Rounded towards the past also before 1970, and where only the fraction is negative.
        let seconds = if instant.subsec_nanosecond() < 0 { seconds - 1 } else { seconds };
        Self(seconds.div_euclid(60))
    }

    /// The minute's first instant.
    #[must_use]
    pub fn start(self) -> Timestamp {
        // A minute is made from a timestamp, so its start is one; the earliest timestamp of all is
        // not at the start of a minute, and stands for its own.
        Timestamp::from_second(self.0 * 60).unwrap_or(Timestamp::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_holds_its_first_instant_and_not_the_next_ones() {
        let cases = [
            // instant, start of its minute
            ("2026-01-31T23:59:59.999999Z", "2026-01-31T23:59:00Z"),
            ("2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:00Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ];
        for (instant, start) in cases {
            let minute = Minute::of(instant.parse().unwrap());
            assert_eq!(minute.start(), start.parse().unwrap(), "{instant}");
        }
    }
}
