//! How long what is kept: by age, and where that is too much for the disk, by bytes.

use jiff::civil::Date;
use jiff::{Span, ToSpan};

/// The first day that is kept, of `days` (each with its bytes, oldest first): none older than `age_days`
/// before `today`, and no more bytes than `budget`, the oldest day going first. `today` always stays, however
/// large it is: whoever takes events in decides that, not whoever forgets them.
#[must_use]
pub fn first_day_kept(days: &[(Date, u64)], today: Date, age_days: u16, budget: u64) -> Date {
    let oldest: Span = i64::from(age_days).days();
    let by_age = today.checked_sub(oldest).unwrap_or(today);
    let mut bytes: u64 = 0;
    let mut first = today;
    for (day, size) in days.iter().rev().filter(|(day, _)| *day >= by_age) {
        bytes = bytes.saturating_add(*size);
        if bytes > budget && *day < today {
            return first;
        }
        first = first.min(*day);
    }
    by_age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_day_goes_first_and_today_always_stays() {
        let day = |day: i8| Date::constant(2026, 6, day);
        let days = [(day(10), 40), (day(11), 30), (day(12), 20), (day(13), 10), (day(14), 5)];
        let cases = [
            // today, days, budget, first day kept
            (13, 35, 1_000, Date::constant(2026, 5, 9)),
            (13, 3, 1_000, day(10)),
            (13, 2, 1_000, day(11)),
            // 5 of tomorrow (clocks differ), 10 of today, 20 of yesterday.
            (13, 35, 35, day(12)),
            (13, 35, 34, day(13)),
            (13, 35, 0, day(13)),
            // Both hold.
            (13, 1, 35, day(12)),
            (13, 0, 1_000, day(13)),
        ];
        for (today, age, budget, expected) in cases {
            assert_eq!(first_day_kept(&days, day(today), age, budget), expected, "{today} {age} {budget}");
        }
        assert_eq!(first_day_kept(&[], day(13), 1, 0), day(12));
    }
}
