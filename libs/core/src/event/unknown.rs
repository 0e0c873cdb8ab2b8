//! Fields that no event has: what was probably meant by them.
//!
//! Clients may send more than is metered. But a field that only looks like one of ours, such as `ID`, is most likely a
//! mistake, and one that costs money: without an `id` a repeat counts twice.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use super::fault::{Fault, Faults};
use super::wire::Reading;
use crate::problem::shown;

/// The most fields that one answer names.
pub const MAX_IGNORED: usize = 8;

/// The longest name that is looked at for what was meant by it, in bytes.
const MAX_NAME_BYTES: usize = 32;

/// A field that a client sent and no event has. It was not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IgnoredField {
    /// Its name, as an answer [repeats](shown) it.
    pub field: String,
    /// The field that was probably meant, if the event does not have that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub did_you_mean: Option<&'static str>,
}

/// The ignored fields of a request, each once, at most [`MAX_IGNORED`].
#[derive(Default)]
pub(super) struct Ignored(pub(super) Vec<IgnoredField>);

impl Ignored {
    /// Adds the field `name` of `place`, which is empty for the event itself.
    pub(super) fn add(&mut self, place: &str, name: &str, did_you_mean: Option<&'static str>) {
        let field = in_place(place, name);
        if let Some(known) = self.0.iter_mut().find(|known| known.field == field) {
            known.did_you_mean = known.did_you_mean.or(did_you_mean);
        } else if self.0.len() < MAX_IGNORED {
            self.0.push(IgnoredField { field, did_you_mean });
        }
    }
}

/// A request's handling of fields that no event has: they are ignored, or faults.
pub(super) enum Unknown<'a> {
    Ignored(&'a mut Ignored),
    Fault(&'a mut Faults),
}

impl<'a> Unknown<'a> {
    /// That of a request that is read so.
    pub(super) fn of(reading: &Reading, ignored: &'a mut Ignored, faults: &'a mut Faults) -> Self {
        if reading.strict { Self::Fault(faults) } else { Self::Ignored(ignored) }
    }

    /// Takes note of the field `name` of `place`.
    pub(super) fn note(&mut self, place: &str, name: &str, did_you_mean: Option<&'static str>) {
        match self {
            Self::Ignored(ignored) => ignored.add(place, name, did_you_mean),
            Self::Fault(faults) => faults.add(&in_place(place, name), &NotKnown(did_you_mean)),
        }
    }
}

fn in_place(place: &str, name: &str) -> String {
    let name = shown(name);
    if place.is_empty() { name.into_owned() } else { format!("{place}.{name}") }
}

/// What a client is told of a field that no event has, where it wants to be told.
struct NotKnown(Option<&'static str>);

impl fmt::Display for NotKnown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(field) => write!(formatter, "is not a field of an event; did you mean `{field}`?"),
            None => formatter.write_str(
                "is not a field of an event; leave it out, or send the event without `Prefer: handling=strict`",
            ),
        }
    }
}

/// Adds to each fault of a missing field which of `names` was probably meant to be it.
pub(super) fn explain(faults: &mut [Fault], names: &[Cow<'_, str>]) {
    for fault in faults.iter_mut().filter(|fault| fault.detail.starts_with("is missing")) {
        let field = fault.field.rsplit('.').next().unwrap_or_default();
        if let Some(name) = names.iter().find(|name| meant(name) == Some(field)) {
            let hint = format!(
                ". You sent `{}`, which is not a field of an event: did you mean `{field}`?",
                shown(name)
            );
            fault.detail.push_str(&hint);
        }
    }
}

/// The field of an event that `name` probably means, if any: another spelling, a usual word for the same, or a typo.
pub(super) fn meant(name: &str) -> Option<&'static str> {
    let mut buffer = [0; MAX_NAME_BYTES];
    let bare = bare(name, &mut buffer)?;
    let field = match bare {
        b"tenant" | b"tenantid" | b"tenantname" | b"customer" | b"customerid" | b"subject"
        | b"organization" | b"organisation" | b"org" | b"orgid" | b"account" | b"accountid" => "tenant",
        b"feature" | b"featurename" | b"featureid" | b"model" | b"modelname" | b"modelid" => "feature",
        b"tokens" | b"token" | b"totaltokens" | b"tokencount" | b"tokensused" | b"usedtokens"
        | b"numtokens" | b"count" | b"amount" | b"quantity" | b"value" => "tokens",
        b"id" | b"ids" | b"eventid" | b"uuid" | b"uid" | b"guid" | b"idempotencykey" | b"idempotencyid"
        | b"dedupid" | b"deduplicationid" | b"transactionid" | b"messageid" => "id",
        b"timestamp" | b"time" | b"ts" | b"date" | b"datetime" | b"createdat" | b"occurredat"
        | b"eventtime" | b"eventtimestamp" => "timestamp",
        _ => ["tenant", "feature", "tokens", "timestamp"]
            .into_iter()
            .find(|field| is_typo_of(field.as_bytes(), bare))?,
    };
    Some(field)
}

/// The attribute of a CloudEvent that `name` is in another spelling.
pub(super) fn meant_attribute(name: &str) -> Option<&'static str> {
    let mut buffer = [0; MAX_NAME_BYTES];
    let bare = bare(name, &mut buffer)?;
    ["specversion", "id", "source", "type", "subject", "time", "data"]
        .into_iter()
        .find(|attribute| attribute.as_bytes() == bare)
}

/// The letters and digits of `name` in lower case, unless they are many.
fn bare<'buffer>(name: &str, buffer: &'buffer mut [u8; MAX_NAME_BYTES]) -> Option<&'buffer [u8]> {
    let mut length = 0;
    for byte in name.bytes().filter(|byte| !matches!(byte, b'_' | b'-' | b'.' | b' ')) {
        *buffer.get_mut(length)? = byte.to_ascii_lowercase();
        length += 1;
    }
    buffer.get(..length)
}

/// Whether `text` is `word` with one letter wrong, missing, too many, or swapped with the next; never the first.
fn is_typo_of(word: &[u8], text: &[u8]) -> bool {
    if word.first() != text.first() || word.len().abs_diff(text.len()) > 1 {
        return false;
    }
    let same = word.iter().zip(text).take_while(|(one, other)| one == other).count();
    let (word, text) = (&word[same..], &text[same..]);
    match (word, text) {
        ([a, b, word @ ..], [c, d, text @ ..]) if a == d && b == c && word == text => true,
        ([_, word @ ..], [_, text @ ..]) if word == text => true,
        ([_, rest @ ..], text) if rest == text => true,
        (word, [_, rest @ ..]) => word == rest,
        (word, []) => word.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_known_for_what_it_means_and_a_field_of_the_clients_own_is_not() {
        let cases = [
            ("ID", Some("id")),
            ("Id", Some("id")),
            ("event_id", Some("id")),
            ("eventId", Some("id")),
            ("idempotencyKey", Some("id")),
            ("idempotency-key", Some("id")),
            ("time", Some("timestamp")),
            ("ts", Some("timestamp")),
            ("TimeStamp", Some("timestamp")),
            ("timestmap", Some("timestamp")),
            ("timestam", Some("timestamp")),
            ("timestampp", Some("timestamp")),
            ("created_at", Some("timestamp")),
            ("token", Some("tokens")),
            ("Tokens", Some("tokens")),
            ("total_tokens", Some("tokens")),
            ("tokns", Some("tokens")),
            ("tenent", Some("tenant")),
            ("tenantId", Some("tenant")),
            ("featrue", Some("feature")),
            ("features", Some("feature")),
            ("model", Some("feature")),
            ("request", None),
            ("prompt_tokens", None),
            ("user", None),
            ("note", None),
            ("i", None),
            ("", None),
            ("ідентифікатор", None),
            ("a name that is far too long to be one of ours", None),
        ];
        for (name, field) in cases {
            assert_eq!(meant(name), field, "{name}");
        }
    }

    #[test]
    fn an_answer_names_eight_ignored_fields_and_each_once() {
        let mut ignored = Ignored::default();
        for number in 0..20 {
            ignored.add("", &format!("field{number}"), None);
            ignored.add("", "field3", None);
        }
        ignored.add("", "field7", Some("id"));
        ignored.add("", "field8", None);
        assert_eq!(ignored.0.len(), MAX_IGNORED);
        assert_eq!(ignored.0[7], IgnoredField { field: "field7".to_owned(), did_you_mean: Some("id") });
        let mut ignored = Ignored::default();
        ignored.add("data", &"x".repeat(1_000), None);
        assert_eq!(ignored.0[0].field.chars().count(), "data.".len() + crate::problem::MAX_SHOWN_CHARS);
    }
}
