//! Instants as people write them: all that the API server takes for one works.

use std::borrow::Cow;

use jiff::civil::{DateTime, date};
use jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The first instant that is told from those before it, 0001-01-01T00:00:00Z, in seconds since 1970.
const EARLIEST: SignedDuration = SignedDuration::from_secs(-62_135_596_800);

/// The last that is told from those after it, 9999-12-30T22:00:00Z: the last whole second that `jiff` can hold.
const LATEST: SignedDuration = SignedDuration::from_secs(253_402_207_200);

/// An instant in RFC 3339. What lies outside the years 1 to 9999 is their first or last instant: people write
/// `9999-12-31T23:59:59Z` for forever. Digits after the ninth of a second's fraction are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub Timestamp);

impl Instant {
    /// Whether it stands for everything before, or after, what can be told apart.
    pub(crate) fn is_extreme(self) -> bool {
        [EARLIEST, LATEST].contains(&self.0.as_duration())
    }
}

/// The time since 1970 of an instant that the API server takes, to the nanosecond, as it would compare it; `None` for
/// another text.
pub(crate) fn since_1970(text: &str) -> Option<SignedDuration> {
    let (clock, rest) = text.split_at_checked(19)?;
    let clock: DateTime = clock.parse().ok()?;
    let (fraction, offset) = match rest.strip_prefix(['.', ',']) {
        Some(rest) => rest.split_at(rest.find(|digit: char| !digit.is_ascii_digit())?),
        None => ("", rest),
    };
    let nanoseconds = format!("{fraction:0<9.9}").parse().ok()?;
    let local = clock.duration_since(date(1970, 1, 1).at(0, 0, 0, 0));
    local.checked_add(SignedDuration::from_nanos(nanoseconds))?.checked_sub(seconds_ahead(offset)?)
}

/// How far `Z`, or `±HH:MM`, is ahead of UTC.
fn seconds_ahead(offset: &str) -> Option<SignedDuration> {
    if offset == "Z" {
        return Some(SignedDuration::ZERO);
    }
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let number = |digits: &str| {
        let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<i64>().ok().filter(|_| is_number)
    };
    let seconds = number(hours)? * 3_600 + number(minutes)? * 60;
    match offset.get(..1)? {
        "+" => Some(SignedDuration::from_secs(seconds)),
        "-" => Some(SignedDuration::from_secs(-seconds)),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let since = since_1970(&text).map(|since| since.clamp(EARLIEST, LATEST));
        let instant = since.and_then(|since| Timestamp::from_duration(since).ok());
        instant.map(Self).ok_or_else(|| {
            D::Error::custom(format_args!(
                "{text:?} is not an instant in RFC 3339, such as 2026-12-01T00:00:00Z"
            ))
        })
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl JsonSchema for Instant {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Instant".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instant_that_people_write_for_never_or_forever_is_one() {
        for (text, expected) in [
            ("2026-03-20T12:00:00Z", "2026-03-20T12:00:00Z"),
            ("2026-03-20T12:00:00.5Z", "2026-03-20T12:00:00.5Z"),
            ("2026-03-20T12:00:00,5Z", "2026-03-20T12:00:00.5Z"),
            ("2026-03-20T12:00:00.1234567899Z", "2026-03-20T12:00:00.123456789Z"),
            ("2026-03-20T12:00:00+02:00", "2026-03-20T10:00:00Z"),
            ("2026-03-20T12:00:00-24:60", "2026-03-21T13:00:00Z"),
            ("9999-12-30T22:00:00Z", "9999-12-30T22:00:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-30T22:00:00Z"),
            ("9999-12-31T23:59:59.999999999-24:00", "9999-12-30T22:00:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("0000-01-01T00:00:00+24:00", "0001-01-01T00:00:00Z"),
        ] {
            let read: Instant = serde_json::from_value(text.into()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "tomorrow",
            "2026-03-20",
            "2026-03-20T12:00:00",
            "2026-03-20T12:00:00.Z5",
            "2026-02-30T00:00:00Z",
        ] {
            assert!(serde_json::from_value::<Instant>(text.into()).is_err(), "{text}");
        }
    }
}
