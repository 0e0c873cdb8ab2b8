//! Billing periods: from one billing day to the next, in the tenant's time zone.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
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
    /// A period starts at the first instant of its day in `zone`: at midnight; where the clocks
    /// skip midnight, at the first instant that exists after it; where midnight comes twice, at the
    /// first of both.
    #[must_use]
    pub fn containing(instant: Timestamp, day: BillingDay, zone: &TimeZone) -> Self {
        let date = zone.to_datetime(instant).date();
        let this_month = start_of(day.in_month_of(date), zone);
        if instant < this_month {
            Self { start: start_of(day.in_month_of(months_after(date, -1)), zone), end: this_month }
        } else {
            Self { start: this_month, end: start_of(day.in_month_of(months_after(date, 1)), zone) }
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

/// The first instant of `date` in `zone`.
pub(crate) fn start_of(date: Date, zone: &TimeZone) -> Timestamp {
    // "Compatible" takes the first of two midnights, and moves one that is skipped forward by the
    // length of the gap, which is the first instant after it when the gap starts at midnight.
    zone.to_ambiguous_timestamp(date.to_datetime(Time::midnight())).compatible().unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn period(instant: &str, day: i32, zone: &str) -> (String, String) {
        let zone = TimeZone::get(zone).unwrap();
        let day = BillingDay::try_from(day).unwrap();
        let period = BillingPeriod::containing(instant.parse().unwrap(), day, &zone);
        (period.start.to_string(), period.end.to_string())
    }

    #[test]
    fn a_period_runs_from_billing_day_to_billing_day() {
        let cases = [
            // instant, day, zone, start, end
            ("2026-03-14T23:59:59Z", 15, "UTC", "2026-02-15T00:00:00Z", "2026-03-15T00:00:00Z"),
            ("2026-03-15T00:00:00Z", 15, "UTC", "2026-03-15T00:00:00Z", "2026-04-15T00:00:00Z"),
            ("2026-02-10T12:00:00Z", 31, "UTC", "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"),
            ("2026-02-28T00:00:00Z", 31, "UTC", "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z"),
            ("2028-02-28T23:00:00Z", 31, "UTC", "2028-01-31T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("2026-12-31T23:30:00Z", 1, "Europe/Berlin", "2026-12-31T23:00:00Z", "2027-01-31T23:00:00Z"),
            ("2026-03-20T00:00:00Z", 15, "Europe/Berlin", "2026-03-14T23:00:00Z", "2026-04-14T22:00:00Z"),
            // In the past, where no new time zone release can change them. Midnight does not exist: the clocks of Santiago go from 24:00 to 01:00.
            ("2024-09-08T12:00:00Z", 8, "America/Santiago", "2024-09-08T04:00:00Z", "2024-10-08T03:00:00Z"),
            // Midnight exists twice: the clocks of Havana go from 01:00 back to 00:00.
            ("2024-11-03T12:00:00Z", 3, "America/Havana", "2024-11-03T04:00:00Z", "2024-12-03T05:00:00Z"),
        ];
        for (instant, day, zone, start, end) in cases {
            assert_eq!(period(instant, day, zone), (start.into(), end.into()), "{instant} {day} {zone}");
        }
    }

    proptest! {
        #[test]
        fn periods_tile_time(second in -1_000_000_000_i64..4_000_000_000, day in 1..=31_i32, zone in 0_usize..8) {
            let zones = ["UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Asia/Kolkata",
                         "Pacific/Apia", "Australia/Lord_Howe", "America/Havana"];
            let zone = TimeZone::get(zones[zone]).unwrap();
            let day = BillingDay::try_from(day).unwrap();
            let instant = Timestamp::from_second(second).unwrap();
            let period = BillingPeriod::containing(instant, day, &zone);
            prop_assert!(period.contains(instant));
            let next = BillingPeriod::containing(period.end, day, &zone);
            prop_assert_eq!(next.start, period.end);
            let last = period.end.checked_sub(Span::new().microseconds(1)).unwrap();
            prop_assert_eq!(BillingPeriod::containing(last, day, &zone), period);
        }
    }
}
