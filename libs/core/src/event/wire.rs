//! Bodies that hold events: one or many, in four forms.
//!
//! An event is made while its JSON is read, so that nothing larger than the body and the events is
//! ever held, and never more events than allowed.

use std::fmt;

use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::error::Category;

use super::cloud::Cloud;
use super::fault::Fault;
use super::object::{Known, Object};
use super::plain::Plain;
use super::{Arrival, UsageEvent};

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/json`: an object, or an array of objects.
    Json,
    /// `application/x-ndjson`: an object a line.
    Lines,
    /// `application/cloudevents+json`: one CloudEvent.
    CloudEvent,
    /// `application/cloudevents-batch+json`: an array of CloudEvents.
    CloudEvents,
}

/// An event, or everything that is wrong with it.
pub type Checked = Result<UsageEvent, Vec<Fault>>;

/// What a body holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// One event that stands for itself, and its id as the client wrote it.
    One(Checked, Option<String>),
    /// A list, in its order.
    Many(Vec<Checked>),
}

/// Why a body as a whole is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not JSON at all (RFC 8259).
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// A list of nothing.
    #[error("the body must hold at least one event")]
    Empty,
    /// More events than one request may bring.
    #[error("the body may hold at most {0} events; send the others in another request")]
    TooMany(usize),
}

/// Reads the events of a body, at most `limit` of them.
///
/// # Errors
///
/// [`Refusal`], where nothing can be said of single events.
pub fn decode(body: &[u8], form: Form, arrival: Arrival, limit: usize) -> Result<Body, Refusal> {
    let plain = |object: Object<Plain<'_>>| checked(object, |plain| plain.check(arrival));
    let cloud = |object: Object<Cloud<'_>>| checked(object, |cloud| cloud.check(arrival.now));
    match form {
        Form::Json if first(body) == Some(b'[') => many(body, limit, plain),
        Form::Json => {
            let object: Object<Plain<'_>> = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
            let id = object.0.as_ref().and_then(Plain::written_id);
            Ok(Body::One(plain(object), id))
        }
        Form::Lines => lines(body, arrival, limit),
        Form::CloudEvent => {
            let object: Object<Cloud<'_>> = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
            let id = object.0.as_ref().and_then(Cloud::written_id);
            Ok(Body::One(cloud(object), id))
        }
        Form::CloudEvents => many(body, limit, cloud),
    }
}

/// Reads a CloudEvent in binary mode: `attribute` finds the value of a `ce-` header by the attribute's
/// name, and `body` is the data.
///
/// # Errors
///
/// [`Refusal::NotJson`].
pub fn decode_binary<'a>(
    body: &'a [u8],
    attribute: &dyn Fn(&str) -> Option<&'a str>,
    arrival: Arrival,
) -> Result<Body, Refusal> {
    let data = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
    let cloud = Cloud::binary(attribute, data);
    let id = cloud.written_id();
    Ok(Body::One(cloud.check(arrival.now), id))
}

fn checked<T>(object: Object<T>, check: impl Fn(T) -> Checked) -> Checked {
    object.0.map_or_else(|| Err(vec![Fault::new("", &"the event must be a JSON object")]), check)
}

fn not_json(error: &serde_json::Error) -> Refusal {
    Refusal::NotJson(error.to_string())
}

/// The first byte that is no white space.
fn first(body: &[u8]) -> Option<u8> {
    body.trim_ascii_start().first().copied()
}

/// An object a line. A line that is not JSON is that event's fault alone; empty lines are none.
fn lines(body: &[u8], arrival: Arrival, limit: usize) -> Result<Body, Refusal> {
    let mut events = Vec::new();
    for line in body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        if events.len() == limit {
            return Err(Refusal::TooMany(limit));
        }
        events.push(match serde_json::from_slice(line) {
            Ok(object) => checked(object, |plain: Plain<'_>| plain.check(arrival)),
            Err(error) => Err(vec![Fault::new("", &format_args!("the line is not JSON: {error}"))]),
        });
    }
    if events.is_empty() { Err(Refusal::Empty) } else { Ok(Body::Many(events)) }
}

/// An array of objects.
fn many<'de, T: Known<'de>>(
    body: &'de [u8],
    limit: usize,
    check: impl Fn(Object<T>) -> Checked,
) -> Result<Body, Refusal> {
    let mut reader = Deserializer::from_slice(body);
    let mut list = List { limit, check, events: Vec::new(), kind: std::marker::PhantomData };
    let read = (&mut list).deserialize(&mut reader).and_then(|()| reader.end());
    match read {
        Ok(()) if list.events.is_empty() => Err(Refusal::Empty),
        Ok(()) => Ok(Body::Many(list.events)),
        // The list's own word, not the reader's: it had one too many, or was no list.
        Err(error) if error.classify() == Category::Data => Err(if list.events.len() >= limit {
            Refusal::TooMany(limit)
        } else {
            Refusal::NotJson("it must be an array".to_owned())
        }),
        Err(error) => Err(not_json(&error)),
    }
}

/// A list that is read.
struct List<T, F> {
    limit: usize,
    check: F,
    events: Vec<Checked>,
    kind: std::marker::PhantomData<T>,
}

impl<'de, T: Known<'de>, F: Fn(Object<T>) -> Checked> DeserializeSeed<'de> for &mut List<T, F> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Known<'de>, F: Fn(Object<T>) -> Checked> Visitor<'de> for &mut List<T, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(object) = seq.next_element()? {
            if self.events.len() == self.limit {
                return Err(serde::de::Error::custom("too many"));
            }
            self.events.push((self.check)(object));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
