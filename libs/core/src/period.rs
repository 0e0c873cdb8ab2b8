//! Billing periods: from one billing day to the next, in the tenant's time zone.

use jiff::civil::{Date, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp};

/// The day of the month on which a period starts, 1 to 31. In a shorter month it is the month's
/// last day: 31 starts on 31 January, 28 (or 29) February, 31 March. This is how calendars and
/// payment providers read "the 31st of each month"; the day is never moved for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BillingDay(i8);

/// A number that is no billing day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a billing day is a whole number from 1 to 31")]
pub struct NotABillingDay;

impl TryFrom<i32> for BillingDay {
    type Error = NotABillingDay;

    fn try_from(day: i32) -> Result<Self, Self::Error> {
        match i8::try_from(day) {
            Ok(day @ 1..=31) => Ok(Self(day)),
            _ => Err(NotABillingDay),
        }
    }
}

impl BillingDay {
    /// The day's number, 1 to 31.
    #[must_use]
    pub fn number(self) -> i8 {
        self.0
    }

    /// The day on which a period starts in the month of `date`.
    fn in_month_of(self, date: Date) -> Date {
        date.first_of_month()
            .with()
            .day(self.0.min(date.days_in_month()))
            .build()
            .unwrap_or(date.last_of_month())
    }
}

/// A half-open span of time, `start` in it and `end` not. The periods of one billing day and zone
/// tile time: every instant lies in exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BillingPeriod {
    /// The period's first instant.
    pub start: Timestamp,
    /// The first instant of the next period.
    pub end: Timestamp,
}

impl BillingPeriod {
    /// The period that `instant` lies in.
    ///
    /// A period starts at the first instant at which the calendar of `zone` has come to the billing
    /// day, or past it:
    ///
    /// - at midnight, as a rule;
    /// - where the clocks skip midnight, at the first instant after the gap, wherever the gap begins;
    /// - where midnight comes twice, at the first of both, and the clocks' way back over midnight does
    ///   not lead back into the period before;
    /// - where the whole day does not exist, at the first instant of the day after it.
    ///
    /// `vectors/billing-periods.json` has some thousand of these for other implementations.
    #[must_use]
    pub fn containing(instant: Timestamp, day: BillingDay, zone: &TimeZone) -> Self {
        let date = zone.to_datetime(instant).date();
        let start = |months| start_of(day.in_month_of(months_after(date, months)), zone);
        let this_month = start(0);
        if instant < this_month {
            return Self { start: start(-1), end: this_month };
        }
        let next_month = start(1);
        if instant < next_month {
            Self { start: this_month, end: next_month }
        } else {
            // The clocks had come to the next month, and were set back: the period goes on.
            Self { start: next_month, end: start(2) }
        }
    }

    /// Whether `instant` lies in the period.
    #[must_use]
    pub fn contains(&self, instant: Timestamp) -> bool {
        self.start <= instant && instant < self.end
    }
}

/// The first day of the month `months` after that of `date`. At the ends of the calendar (years
/// −9999 and 9999) it stays at `date`.
fn months_after(date: Date, months: i64) -> Date {
    date.first_of_month().checked_add(Span::new().months(months)).unwrap_or(date)
}

/// The first instant at which the calendar of `zone` shows `date`, or a later one if it skips `date`.
///
/// Instants of one date need not follow each other: clocks that are set back soon after midnight show the day
/// before once more. So this looks at one stretch of time after the other between two changes of the clock, from
/// before any zone can have come to `date`, for the first in which it is reached.
pub(crate) fn start_of(date: Date, zone: &TimeZone) -> Timestamp {
    let midnight = date.to_datetime(Time::midnight());
    let reached = |offset: Offset| offset.to_timestamp(midnight).unwrap_or(Timestamp::MIN);
    let mut stretch = reached(Offset::MAX);
    let mut offset = zone.to_offset(stretch);
    for change in zone.following(stretch) {
        if reached(offset) < change.timestamp() {
            break;
        }
        (stretch, offset) = (change.timestamp(), change.offset());
    }
    reached(offset).max(stretch)
}

#[cfg(test)]
mod tests;
