//! Bodies that hold events: one or many, in four forms.
//!
//! An event is made while its JSON is read, so that nothing larger than the body and the events is
//! ever held, and never more events than allowed.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::error::Category;

use super::cloud::Cloud;
use super::fault::Fault;
use super::object::{Known, Object};
use super::plain::Plain;
use super::unknown::{Ignored, IgnoredField};
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

/// How a body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// When it arrived.
    pub arrival: Arrival,
    /// The most events that it may hold.
    pub limit: usize,
    /// Whether a field that no event has is a fault. Otherwise it is ignored, and named.
    pub strict: bool,
    /// Whether the ids of a list's events are wanted as well.
    pub ids: bool,
}

impl Reading {
    /// The usual one, of a body that arrives so and may hold `limit` events.
    #[must_use]
    pub fn new(arrival: Arrival, limit: usize) -> Self {
        Self { arrival, limit, strict: false, ids: false }
    }
}

/// What a body was read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Its events.
    pub body: Body,
    /// Fields that no event has, if they are no faults: each once, at most [`MAX_IGNORED`](super::MAX_IGNORED).
    pub ignored: Vec<IgnoredField>,
}

/// What a body holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// One event that stands for itself, and its id as the client wrote it.
    One(Checked, Option<String>),
    /// A list, in its order; and, where they are wanted, the ids likewise.
    Many(Vec<Checked>, Vec<Option<String>>),
}

/// An event in one of its forms.
pub(super) trait Written<'de>: Known<'de> {
    /// Its id as the client wrote it.
    fn written_id(&self) -> Option<String>;

    /// The event, if there is nothing wrong with it.
    fn check(&self, reading: &Reading, ignored: &mut Ignored) -> Checked;
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

/// Reads the events of a body.
///
/// # Errors
///
/// [`Refusal`], where nothing can be said of single events.
pub fn decode(body: &[u8], form: Form, reading: &Reading) -> Result<Read, Refusal> {
    let mut ignored = Ignored::default();
    let body = match form {
        Form::Json if first(body) == Some(b'[') => many::<Plain<'_>>(body, reading, &mut ignored)?,
        Form::Json => one::<Plain<'_>>(body, reading, &mut ignored)?,
        Form::Lines => lines(body, reading, &mut ignored)?,
        Form::CloudEvent => one::<Cloud<'_>>(body, reading, &mut ignored)?,
        Form::CloudEvents => match many::<Cloud<'_>>(body, reading, &mut ignored) {
            // A batch may have none (JSON batch format, section 4.1).
            Err(Refusal::Empty) => Body::Many(Vec::new(), Vec::new()),
            read => read?,
        },
    };
    Ok(Read { body, ignored: ignored.0 })
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
    reading: &Reading,
) -> Result<Read, Refusal> {
    let data = serde_json::from_slice(body).map_err(|error| not_json(body, &error))?;
    let cloud = Cloud::binary(attribute, data);
    let id = cloud.written_id();
    let mut ignored = Ignored::default();
    let body = Body::One(cloud.check(reading, &mut ignored), id);
    Ok(Read { body, ignored: ignored.0 })
}

/// By reference: an object is large, and there are many.
fn checked<'de, T: Written<'de>>(object: &Object<T>, reading: &Reading, ignored: &mut Ignored) -> Checked {
    match &object.0 {
        Some(event) => event.check(reading, ignored),
        None => Err(vec![Fault::new("", &"the event must be a JSON object")]),
    }
}

/// An event that stands for itself.
fn one<'de, T: Written<'de>>(
    body: &'de [u8],
    reading: &Reading,
    ignored: &mut Ignored,
) -> Result<Body, Refusal> {
    let object: Object<T> = serde_json::from_slice(body).map_err(|error| not_json(body, &error))?;
    let id = object.0.as_ref().and_then(T::written_id);
    Ok(Body::One(checked(&object, reading, ignored), id))
}

/// Why `body` is not JSON, and what to do about it where that is usual.
fn not_json(body: &[u8], error: &serde_json::Error) -> Refusal {
    let object_then_more = first(body) == Some(b'{')
        && error.is_syntax()
        && error.to_string().starts_with("trailing characters");
    Refusal::NotJson(match first(body) {
        None => "it is empty; send an event as JSON".to_owned(),
        Some(_) if object_then_more => {
            format!("{error}; send several events as a list, `[…]`, or as `application/x-ndjson`, one a line")
        }
        Some(_) => error.to_string(),
    })
}

/// The first byte that is no white space.
fn first(body: &[u8]) -> Option<u8> {
    body.trim_ascii_start().first().copied()
}

/// An object a line. A line that is not JSON is that event's fault alone; empty lines are none.
fn lines(body: &[u8], reading: &Reading, ignored: &mut Ignored) -> Result<Body, Refusal> {
    let (mut events, mut ids) = (Vec::new(), Vec::new());
    for line in body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        if events.len() == reading.limit {
            return Err(Refusal::TooMany(reading.limit));
        }
        let (event, id) = match serde_json::from_slice::<Object<Plain<'_>>>(line) {
            Ok(object) => {
                let id = object.0.as_ref().filter(|_| reading.ids).and_then(Plain::written_id);
                (checked(&object, reading, ignored), id)
            }
            Err(error) => (Err(vec![Fault::new("", &format_args!("the line is not JSON: {error}"))]), None),
        };
        events.push(event);
        if reading.ids {
            ids.push(id);
        }
    }
    if events.is_empty() { Err(Refusal::Empty) } else { Ok(Body::Many(events, ids)) }
}

/// An array of objects.
fn many<'de, T: Written<'de>>(
    body: &'de [u8],
    reading: &Reading,
    ignored: &mut Ignored,
) -> Result<Body, Refusal> {
    let mut reader = Deserializer::from_slice(body);
    let mut list = List::<T> { reading, ignored, events: Vec::new(), ids: Vec::new(), kind: PhantomData };
    let read = (&mut list).deserialize(&mut reader).and_then(|()| reader.end());
    match read {
        Ok(()) if list.events.is_empty() => Err(Refusal::Empty),
        Ok(()) => Ok(Body::Many(list.events, list.ids)),
        // The list's own word, not the reader's: it had one too many, or was no list.
        Err(error) if error.classify() == Category::Data => Err(if list.events.len() >= reading.limit {
            Refusal::TooMany(reading.limit)
        } else {
            Refusal::NotJson("it must be an array".to_owned())
        }),
        Err(error) => Err(not_json(body, &error)),
    }
}

/// A list that is read.
struct List<'a, T> {
    reading: &'a Reading,
    ignored: &'a mut Ignored,
    events: Vec<Checked>,
    ids: Vec<Option<String>>,
    kind: PhantomData<T>,
}

impl<'de, T: Written<'de>> DeserializeSeed<'de> for &mut List<'_, T> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Written<'de>> Visitor<'de> for &mut List<'_, T> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(object) = seq.next_element::<Object<T>>()? {
            if self.events.len() == self.reading.limit {
                return Err(serde::de::Error::custom("too many"));
            }
            if self.reading.ids {
                self.ids.push(object.0.as_ref().and_then(T::written_id));
            }
            self.events.push(checked(&object, self.reading, self.ignored));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
