//! An event as a client writes it: a JSON object `{tenant, feature, tokens, id?, timestamp?}`.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use jiff::{Timestamp, Unit};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{EventId, MAX_AGE, MAX_AHEAD, MAX_ID_BYTES, NotTokens, TokenCount, UsageEvent};

/// Why a body is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not JSON at all (RFC 8259).
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// It is JSON, and says something that an event cannot say.
    #[error("{}", faults_text(.0))]
    Invalid(Vec<Fault>),
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field's name, or empty for the event as a whole.
    pub field: String,
    /// What is allowed instead, to be read after the field's name.
    pub detail: String,
}

impl Fault {
    fn new(field: &str, detail: &dyn fmt::Display) -> Self {
        Self { field: field.to_owned(), detail: detail.to_string() }
    }
}

fn faults_text(faults: &[Fault]) -> String {
    let line = |fault: &Fault| format!("{} {}", fault.field, fault.detail).trim_start().to_owned();
    faults.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// Reads one event that arrived at `now`.
///
/// Unknown fields are ignored, so that clients may send more than is metered; a field that comes
/// twice is refused, because which of the two was meant cannot be known.
///
/// # Errors
///
/// [`Refusal`], with all faults of the event at once.
pub fn decode(body: &[u8], now: Timestamp) -> Result<UsageEvent, Refusal> {
    let fields: Fields<'_> = serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            Refusal::Invalid(vec![Fault::new("", &"the body must be a JSON object")])
        }
        _ => Refusal::NotJson(error.to_string()),
    })?;
    fields.check(now).map_err(Refusal::Invalid)
}

/// The known fields as they stand, and the name of one that came twice.
#[derive(Default)]
struct Fields<'a> {
    tenant: Option<Value<'a>>,
    feature: Option<Value<'a>>,
    tokens: Option<Value<'a>>,
    id: Option<Value<'a>>,
    timestamp: Option<Value<'a>>,
    duplicate: Option<String>,
}

impl Fields<'_> {
    fn check(self, now: Timestamp) -> Result<UsageEvent, Vec<Fault>> {
        let mut faults = Vec::new();
        let tenant = required(
            &mut faults,
            "tenant",
            self.tenant.as_ref(),
            |value| value.text()?.try_into().ok(),
            &super::NotATenant,
        );
        let feature = required(
            &mut faults,
            "feature",
            self.feature.as_ref(),
            |value| value.text()?.try_into().ok(),
            &super::NotAFeature,
        );
        let tokens = required(&mut faults, "tokens", self.tokens.as_ref(), Value::tokens, &NotTokens);
        let id = optional(&mut faults, "id", self.id.as_ref(), Value::event_id);
        let occurred_at =
            optional(&mut faults, "timestamp", self.timestamp.as_ref(), |value| value.instant(now));
        if let Some(name) = self.duplicate {
            faults.push(Fault::new(&name, &"must come only once"));
        }
        match (tenant, feature, tokens) {
            (Some(tenant), Some(feature), Some(tokens)) if faults.is_empty() => {
                let occurred_at = whole_microseconds(occurred_at.unwrap_or(now));
                Ok(UsageEvent { tenant, feature, tokens, id, occurred_at })
            }
            _ => Err(faults),
        }
    }
}

/// The database and the queue keep microseconds.
fn whole_microseconds(instant: Timestamp) -> Timestamp {
    let floor = jiff::TimestampRound::new().smallest(Unit::Microsecond).mode(jiff::RoundMode::Floor);
    instant.round(floor).unwrap_or(instant)
}

fn required<'a, T>(
    faults: &mut Vec<Fault>,
    field: &str,
    value: Option<&Value<'a>>,
    read: impl Fn(&Value<'a>) -> Option<T>,
    allowed: &dyn fmt::Display,
) -> Option<T> {
    let read = match value {
        None => Err(Fault::new(field, &format_args!("is missing; it {allowed}"))),
        Some(value) => read(value).ok_or_else(|| Fault::new(field, allowed)),
    };
    read.map_err(|fault| faults.push(fault)).ok()
}

/// A field that may be missing or `null`.
fn optional<'a, T>(
    faults: &mut Vec<Fault>,
    field: &str,
    value: Option<&Value<'a>>,
    read: impl Fn(&Value<'a>) -> Result<T, String>,
) -> Option<T> {
    let value = value.filter(|value| !matches!(value, Value::Null))?;
    read(value).map_err(|detail| faults.push(Fault::new(field, &detail))).ok()
}

/// A JSON value as far as an event has use for it.
enum Value<'a> {
    Null,
    Text(Cow<'a, str>),
    Integer(i64),
    /// Anything else, numbers with a fraction or beyond 2^63 among them.
    Other,
}

impl Value<'_> {
    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    fn tokens(&self) -> Option<TokenCount> {
        if let Self::Integer(tokens) = self { TokenCount::try_from(*tokens).ok() } else { None }
    }

    fn event_id(&self) -> Result<EventId, String> {
        let text = self.text().filter(|text| (1..=MAX_ID_BYTES).contains(&text.len()));
        text.map(EventId::of).ok_or_else(|| format!("must be a string of 1 to {MAX_ID_BYTES} bytes"))
    }

    fn instant(&self, now: Timestamp) -> Result<Timestamp, String> {
        let instant: Timestamp = self
            .text()
            .and_then(|text| text.parse().ok())
            .ok_or("must be an RFC 3339 time, such as 2026-01-31T12:00:00Z")?;
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

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        let mut unknown = HashSet::new();
        while let Some(Value::Text(name)) = map.next_key::<Value<'de>>()? {
            let slot = match name.as_ref() {
                "tenant" => &mut fields.tenant,
                "feature" => &mut fields.feature,
                "tokens" => &mut fields.tokens,
                "id" => &mut fields.id,
                "timestamp" => &mut fields.timestamp,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    if !unknown.insert(name.clone()) {
                        fields.duplicate = Some(name.into_owned());
                    }
                    continue;
                }
            };
            if slot.replace(map.next_value()?).is_some() {
                fields.duplicate = Some(name.into_owned());
            }
        }
        Ok(fields)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
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
        Ok(i64::try_from(number).map_or(Value::Other, Value::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Value::Other)
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-06-15T12:00:00Z";

    fn read(body: &str) -> Result<UsageEvent, Refusal> {
        decode(body.as_bytes(), NOW.parse().unwrap())
    }

    #[test]
    fn an_event_is_read_and_unknown_fields_are_ignored() {
        let event = read(
            r#"{"tenant":"acme","feature":"gpt\u002d4","tokens":1500,"id":"order-7",
                "timestamp":"2026-06-15T13:59:59.1234567+02:00","model":{"a":[1,{"a":2,"a":3}]}}"#,
        )
        .unwrap();
        assert_eq!(event.tenant.as_str(), "acme");
        assert_eq!(event.feature.as_str(), "gpt-4");
        assert_eq!(event.tokens.get(), 1500);
        assert_eq!(event.id, Some(EventId::of("order-7")));
        assert_eq!(event.occurred_at.to_string(), "2026-06-15T11:59:59.123456Z");

        let event = read(r#"{"tenant":"acme","feature":"f","tokens":1,"id":null,"timestamp":null}"#).unwrap();
        assert_eq!((event.id, event.occurred_at), (None, NOW.parse().unwrap()));
    }

    #[test]
    fn what_is_no_event_is_refused_with_what_is_allowed() {
        let cases = [
            // what is wrong, the fault's text
            (
                r#"{"feature":"f","tokens":1}"#,
                "tenant is missing; it must be a DNS label: 1 to 63 of a-z, 0-9 and '-', and no '-' at its ends",
            ),
            (
                r#"{"tenant":7,"feature":"f","tokens":1}"#,
                "tenant must be a DNS label: 1 to 63 of a-z, 0-9 and '-', and no '-' at its ends",
            ),
            (
                r#"{"tenant":"a","feature":" f","tokens":1}"#,
                "feature must be 1 to 128 printable ASCII characters, and no space at its ends",
            ),
            (
                r#"{"tenant":"a","feature":"f"}"#,
                "tokens is missing; it must be a whole number from 1 to 9007199254740991",
            ),
            (
                r#"{"tenant":"a","feature":"f","tokens":0}"#,
                "tokens must be a whole number from 1 to 9007199254740991",
            ),
            (
                r#"{"tenant":"a","feature":"f","tokens":-1}"#,
                "tokens must be a whole number from 1 to 9007199254740991",
            ),
            (
                r#"{"tenant":"a","feature":"f","tokens":1.5}"#,
                "tokens must be a whole number from 1 to 9007199254740991",
            ),
            (
                r#"{"tenant":"a","feature":"f","tokens":"1"}"#,
                "tokens must be a whole number from 1 to 9007199254740991",
            ),
            (
                r#"{"tenant":"a","feature":"f","tokens":null}"#,
                "tokens must be a whole number from 1 to 9007199254740991",
            ),
            (
                r#"{"tenant":"a","feature":"f","tokens":9007199254740992}"#,
                "tokens must be a whole number from 1 to 9007199254740991",
            ),
            (
                r#"{"tenant":"a","feature":"f","tokens":99999999999999999999}"#,
                "tokens must be a whole number from 1 to 9007199254740991",
            ),
            (r#"{"tenant":"a","feature":"f","tokens":1,"id":""}"#, "id must be a string of 1 to 128 bytes"),
            (r#"{"tenant":"a","feature":"f","tokens":1,"id":7}"#, "id must be a string of 1 to 128 bytes"),
            (
                r#"{"tenant":"a","feature":"f","tokens":1,"timestamp":"yesterday"}"#,
                "timestamp must be an RFC 3339 time, such as 2026-01-31T12:00:00Z",
            ),
            (
                r#"{"tenant":"a","feature":"f","tokens":1,"timestamp":"2026-05-11T11:59:59Z"}"#,
                "timestamp must be at most 35 days in the past",
            ),
            (
                r#"{"tenant":"a","feature":"f","tokens":1,"timestamp":"2026-06-15T12:05:01Z"}"#,
                "timestamp must be at most 5 minutes in the future",
            ),
            (r#"{"tenant":"a","feature":"f","tokens":1,"tokens":2}"#, "tokens must come only once"),
            (r#"{"tenant":"a","feature":"f","tokens":1,"model":1,"model":1}"#, "model must come only once"),
            ("[]", "the body must be a JSON object"),
            ("7", "the body must be a JSON object"),
        ];
        for (body, expected) in cases {
            let refusal = read(body).unwrap_err();
            assert!(matches!(refusal, Refusal::Invalid(_)), "{body}: {refusal:?}");
            assert_eq!(refusal.to_string(), expected, "{body}");
        }
        for body in ["", "{", "{\"tenant\":}", "{} {}", "nul", "{\"tenant\":\"\\ud800\"}"] {
            assert!(matches!(read(body), Err(Refusal::NotJson(_))), "{body}: {:?}", read(body));
        }
    }

    #[test]
    fn all_faults_of_an_event_are_told_at_once() {
        let refusal = read(r#"{"tenant":"A","tokens":0}"#).unwrap_err();
        let Refusal::Invalid(faults) = refusal else { panic!("{refusal:?}") };
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["tenant", "feature", "tokens"]);
    }
}
