//! Instants as RFC 3339 has them (section 5.6), and in no other form.
//!
//! `jiff` reads more: ISO 8601 without separators, hours alone, a comma before the fraction, zones in brackets. A program
//! that relies on one of these would find that the next reader of its timestamps refuses them.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::Offset;

/// The bytes before a second's fraction.
const CLOCK_BYTES: usize = "2026-01-31T12:00:00".len();

/// The digits of a fraction that an instant has room for. More are cut off, towards the past.
const FRACTION_DIGITS: usize = 9;

/// The instant that `text` is, if it is one: `2026-01-31T12:00:00Z`, with any number of digits after the seconds and with
/// `Z` or `±HH:MM` at its end. `T` and `Z` may be lower case, and a space may stand for the `T`. A leap second (`:60`) is
/// the last second of its minute.
#[must_use]
pub fn instant(text: &str) -> Option<Timestamp> {
    let (clock, rest) = text.as_bytes().split_first_chunk::<CLOCK_BYTES>()?;
    let [date @ .., b'T' | b't' | b' ', h1, h2, b':', m1, m2, b':', s1, s2] = clock else { return None };
    let (hour, minute, second) = (two(*h1, *h2)?, two(*m1, *m2)?, two(*s1, *s2)?);
    let (nanosecond, rest) = fraction(rest)?;
    let second = if second == 60 { 59 } else { second };
    let time = Time::new(hour, minute, second, nanosecond).ok()?;
    offset(rest)?.to_timestamp(civil_date(date)?.to_datetime(time)).ok()
}

/// The date that `text` is, if it is one: `2026-01-31`.
#[must_use]
pub fn date(text: &str) -> Option<Date> {
    civil_date(text.as_bytes())
}

fn civil_date(text: &[u8]) -> Option<Date> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = i16::from(two(*y1, *y2)?) * 100 + i16::from(two(*y3, *y4)?);
    Date::new(year, two(*m1, *m2)?, two(*d1, *d2)?).ok()
}

/// The nanoseconds of a fraction, if there is one, and what follows.
fn fraction(text: &[u8]) -> Option<(i32, &[u8])> {
    let Some(text) = text.strip_prefix(b".") else { return Some((0, text)) };
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (fraction, rest) = text.split_at(digits);
    let kept = &fraction[..digits.min(FRACTION_DIGITS)];
    let number = kept.iter().fold(0, |number, digit| number * 10 + i32::from(digit - b'0'));
    let missing = u32::try_from(FRACTION_DIGITS - kept.len()).ok()?;
    (digits > 0).then_some((number * 10_i32.pow(missing), rest))
}

/// How far the clock is ahead of UTC.
fn offset(text: &[u8]) -> Option<Offset> {
    let [sign, h1, h2, b':', m1, m2] = text else {
        return matches!(text, b"Z" | b"z").then_some(Offset::UTC);
    };
    let (hours, minutes) = (two(*h1, *h2)?, two(*m1, *m2)?);
    let seconds = (i32::from(hours) * 60 + i32::from(minutes)) * 60;
    match sign {
        _ if hours > 23 || minutes > 59 => None,
        b'+' => Offset::from_seconds(seconds).ok(),
        b'-' => Offset::from_seconds(-seconds).ok(),
        _ => None,
    }
}

/// The number that two digits are.
fn two(tens: u8, ones: u8) -> Option<i8> {
    let digit = |byte: u8| i8::try_from(byte.wrapping_sub(b'0')).ok().filter(|digit| (0..=9).contains(digit));
    Some(digit(tens)? * 10 + digit(ones)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rfc_3339_allows_is_an_instant() {
        let cases = [
            ("2026-11-28T13:00:00Z", "2026-11-28T13:00:00Z"),
            ("2026-11-28t13:00:00z", "2026-11-28T13:00:00Z"),
            ("2026-11-28 13:00:00Z", "2026-11-28T13:00:00Z"),
            ("2026-11-28T13:00:00+00:00", "2026-11-28T13:00:00Z"),
            ("2026-11-28T13:00:00-00:00", "2026-11-28T13:00:00Z"),
            ("2026-11-28T13:00:00+05:30", "2026-11-28T07:30:00Z"),
            ("2026-11-28T13:00:00-23:59", "2026-11-29T12:59:00Z"),
            ("2026-11-28T13:00:00.5Z", "2026-11-28T13:00:00.5Z"),
            ("2026-11-28T13:00:00.000000001+01:00", "2026-11-28T12:00:00.000000001Z"),
            // More digits than an instant has room for are cut off, and never rounded up.
            ("2026-11-28T13:00:00.9999999999999Z", "2026-11-28T13:00:00.999999999Z"),
            ("2026-11-28T13:00:00.123456789123456789+01:00", "2026-11-28T12:00:00.123456789Z"),
            // A leap second is in its minute.
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("2016-12-31T15:59:60.5-08:00", "2016-12-31T23:59:59.5Z"),
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
        ];
        for (text, expected) in cases {
            assert_eq!(instant(text).map(|instant| instant.to_string()).as_deref(), Some(expected), "{text}");
        }
        let long = format!("2026-11-28T13:00:00.{}Z", "1".repeat(10_000));
        assert_eq!(instant(&long), instant("2026-11-28T13:00:00.111111111Z"));
    }

    #[test]
    fn what_rfc_3339_does_not_allow_is_no_instant() {
        let cases = [
            "20261128T130000Z",
            "2026-11-28T130000Z",
            "2026-11-28T13Z",
            "2026-11-28T13:00Z",
            "2026-11-28",
            "2026-11-28T13:00:00",
            "2026-11-28T13:00:00[Europe/Berlin]",
            "2026-11-28T13:00:00Z[Europe/Berlin]",
            "2026-11-28T13:00:00+01:00[Europe/Berlin]",
            "2026-11-28T13:00:00,5Z",
            "2026-11-28T13:00:00.Z",
            "2026-11-28T13:00:00+24:00",
            "2026-11-28T13:00:00+01:60",
            "2026-11-28T13:00:00+0100",
            "2026-11-28T13:00:00+01",
            "2026-11-28T13:00:00+01:00:00",
            "2026-11-28T13:00:00 01:00",
            "2026-11-28T13:00:00Zz",
            " 2026-11-28T13:00:00Z",
            "2026-11-28T13:00:00Z ",
            "2026-11-28_13:00:00Z",
            "2026-11-28T24:00:00Z",
            "2026-11-28T13:60:00Z",
            "2026-11-28T13:00:61Z",
            "2026-02-29T13:00:00Z",
            "2026-13-01T13:00:00Z",
            "2026-00-01T13:00:00Z",
            "2026-11-00T13:00:00Z",
            "+002026-11-28T13:00:00Z",
            "-2026-11-28T13:00:00Z",
            "2026-W48-6T13:00:00Z",
            "2026-332T13:00:00Z",
            "2026-1-28T13:00:00Z",
            "２026-11-28T13:00:00Z",
            "2026-11-28T13:00:0aZ",
            "1795870800",
            "",
        ];
        for text in cases {
            assert_eq!(instant(text), None, "{text}");
        }
    }

    #[test]
    fn a_date_is_a_year_a_month_and_a_day() {
        assert_eq!(date("2026-06-15"), Some(Date::constant(2026, 6, 15)));
        for text in
            ["2026-02-29", "20260615", "2026-6-15", "2026-06-1", "2026-W25-1", "2026-166", "yesterday!"]
        {
            assert_eq!(date(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn an_instant_is_read_as_it_is_written(
            second in -62_135_596_800_i64..253_402_207_200,
            nanosecond in 0_i32..1_000_000_000,
            minutes in -23 * 60_i32..23 * 60,
        ) {
            let written = Timestamp::new(second, nanosecond).unwrap();
            let text = written.to_string();
            proptest::prop_assert_eq!(instant(&text), Some(written));
            let offset = Offset::from_seconds(minutes * 60).unwrap();
            let text = written.display_with_offset(offset).to_string();
            // In the year 0, and in that after 9999, a year has no four digits.
            if text.len() < 40 && !text.starts_with(['-', '+']) {
                proptest::prop_assert_eq!(instant(&text), Some(written), "{}", text);
            }
        }
    }
}
