//! A JSON value, read only as far as an event has use for it.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Arrival, EventId, MAX_AGE, MAX_AHEAD, MAX_ID_AHEAD, MAX_ID_BYTES, TokenCount};
use crate::rfc3339;

/// A JSON value as far as an event has use for it.
pub(super) enum Value<'a> {
    Null,
    Text(Cow<'a, str>),
    /// A whole number, however it is written: `1000`, `1e3` and `1000.0` are the same.
    Integer(i64),
    /// Another number: one with a fraction, or beyond 2^63.
    Number,
    Other,
}

impl Value<'_> {
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn tokens(&self) -> Option<TokenCount> {
        if let Self::Integer(tokens) = self { TokenCount::try_from(*tokens).ok() } else { None }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Integer(_) | Self::Number)
    }

    pub(super) fn event_id(&self, arrival: Arrival) -> Result<EventId, String> {
        let text = self.text().filter(|text| (1..=MAX_ID_BYTES).contains(&text.len()));
        let text = text.ok_or_else(|| format!("must be a string of 1 to {MAX_ID_BYTES} bytes"))?;
        // Clients resolve them as parts of a path before they send it (RFC 3986, section 5.2.4), escaped or not.
        if [".", ".."].contains(&text) {
            return Err("must not be `.` or `..`, which no URL can name; choose another".to_owned());
        }
        let id = EventId::of(text);
        check_age(id, arrival).map(|()| id)
    }

    pub(super) fn instant(&self, now: Timestamp) -> Result<Timestamp, String> {
        let allowed = "must be an RFC 3339 time, such as 2026-01-31T12:00:00Z";
        let instant = match self {
            Self::Text(text) => rfc3339::instant(text).ok_or(allowed)?,
            _ if self.is_number() => return Err(format!("{allowed}, and not a number of seconds")),
            _ => return Err(allowed.to_owned()),
        };
        let age = now.duration_since(instant);
        if age > MAX_AGE {
            return Err(format!("must be at most {} days in the past", MAX_AGE.as_hours() / 24));
        }
        if age < -MAX_AHEAD {
            return Err(format!("must be at most {} minutes in the future", MAX_AHEAD.as_mins()));
        }
        Ok(instant)
    }
}

/// The ledger keeps a UUIDv7 with the others of its day, for as long as it keeps that day. One that is older could
/// not be told from one that was counted before, so it is refused rather than counted twice.
fn check_age(id: EventId, Arrival { now, ids_since }: Arrival) -> Result<(), String> {
    let Some(made_at) = id.made_at() else { return Ok(()) };
    if made_at < ids_since || made_at.duration_since(now) > MAX_ID_AHEAD {
        return Err(format!(
            "is a UUIDv7 made at {made_at:.0}; it must be made after {ids_since:.0}, since when ids are known, and not \
             be ahead"
        ));
    }
    Ok(())
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// The whole number that `number` is, if it surely is the one that was written. From 2^52 on the reader's rounding may
/// make one number of another, and below it at most a fraction of a whole number.
fn whole(number: f64) -> Option<i64> {
    const MOST: f64 = 4_503_599_627_370_495.0;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and far from the end of the range")]
    (number.abs() <= MOST && number.fract() == 0.0).then_some(number as i64)
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Value::Number, Value::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(whole(number).map_or(Value::Number, Value::Integer))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}
