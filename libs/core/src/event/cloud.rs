//! An event as a CloudEvent (CloudEvents 1.0, JSON event format): `id` and `source` together are its
//! id, `time` is when it happened, `subject` or `data.tenant` is the tenant, `data` has the rest.

use std::borrow::Cow;

use serde::de::MapAccess;

use super::EventId;
use super::fault::Faults;
use super::object::{Known, Object, fill};
use super::plain::{self, Plain};
use super::unknown::{self, Ignored, Unknown};
use super::value::Value;
use super::wire::{Checked, Reading, Written};

/// The longest `id` and `source`, in bytes. The specification sets none.
const MAX_CONTEXT_BYTES: usize = 1_024;

/// The known attributes as they stand.
#[derive(Default)]
pub(super) struct Cloud<'a> {
    specversion: Option<Value<'a>>,
    id: Option<Value<'a>>,
    source: Option<Value<'a>>,
    kind: Option<Value<'a>>,
    subject: Option<Value<'a>>,
    time: Option<Value<'a>>,
    data: Option<Object<Plain<'a>>>,
    duplicate: Option<String>,
    /// The names of fields that cannot even be extension attributes.
    unknown: Vec<Cow<'a, str>>,
}

impl<'de: 'a, 'a> Known<'de> for Cloud<'a> {
    fn read<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<Option<bool>, A::Error> {
        match name {
            "specversion" => fill(&mut self.specversion, map),
            "id" => fill(&mut self.id, map),
            "source" => fill(&mut self.source, map),
            "type" => fill(&mut self.kind, map),
            "subject" => fill(&mut self.subject, map),
            "time" => fill(&mut self.time, map),
            "data" => fill(&mut self.data, map),
            _ => Ok(None),
        }
    }

    fn repeated(&mut self, name: String) {
        self.duplicate = Some(name);
    }

    /// Attributes have lower-case letters and digits (section "Naming conventions"): `Id` is no extension, but a mistake.
    fn is_extension(name: &str) -> bool {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        name.bytes().all(is_allowed) || name == "data_base64"
    }

    fn unknown(&mut self, names: Vec<Cow<'de, str>>) {
        self.unknown = names;
    }
}

impl<'a> Cloud<'a> {
    /// An event in binary mode (CloudEvents 1.0, HTTP binding): `attribute` finds the value of a
    /// `ce-` header, and the body is the data.
    pub(super) fn binary(attribute: &dyn Fn(&str) -> Option<&'a str>, data: Object<Plain<'a>>) -> Self {
        let text = |name: &str| attribute(name).map(|text| Value::Text(text.into()));
        Self {
            specversion: text("specversion"),
            id: text("id"),
            source: text("source"),
            kind: text("type"),
            subject: text("subject"),
            time: text("time"),
            data: Some(data),
            duplicate: None,
            unknown: Vec::new(),
        }
    }

    /// Takes note of what is in the event and no event of ours has. `data` has neither the id nor the time.
    fn note_unknown(&self, data: &Plain<'_>, unknown: &mut Unknown<'_>) {
        for name in &self.unknown {
            unknown.note("", name, unknown::meant_attribute(name));
        }
        for name in &data.unknown {
            let is_missing = |field: &&str| match *field {
                "tenant" => !data.has("tenant") && said(self.subject.as_ref()).is_none(),
                "feature" | "tokens" => !data.has(field),
                _ => false,
            };
            unknown.note("data", name, unknown::meant(name).filter(is_missing));
        }
        if data.has("id") {
            unknown.note("data", "id", None);
        }
        if data.has("timestamp") {
            unknown.note("data", "timestamp", self.time.is_none().then_some("time"));
        }
    }
}

impl<'de: 'a, 'a> Written<'de> for Cloud<'a> {
    /// The id that source and id make, which is what the event is kept under.
    fn written_id(&self) -> Option<String> {
        // There is no space in a source: no two pairs are the same text.
        Some(format!("{} {}", self.source.as_ref()?.text()?, self.id.as_ref()?.text()?))
    }

    fn check(&self, reading: &Reading, ignored: &mut Ignored) -> Checked {
        let now = reading.arrival.now;
        let mut faults = Faults::default();
        let version = |value: &Value<'a>| (value.text() == Some("1.0")).then_some(());
        faults.required("specversion", self.specversion.as_ref(), &"must be \"1.0\"", version);
        let allowed = format!("must be a string of 1 to {MAX_CONTEXT_BYTES} bytes");
        let text = |value: &Value<'a>| {
            value.text().filter(|text| (1..=MAX_CONTEXT_BYTES).contains(&text.len())).map(drop)
        };
        let id = faults.required("id", self.id.as_ref(), &allowed, text);
        // A URI reference, and the first space ends it in the event's id.
        let spaceless = |value: &Value<'a>| {
            text(value)?;
            value.text().filter(|text| !text.contains(char::is_whitespace)).map(drop)
        };
        let allowed_source = format!("{allowed} without white space");
        let source = faults.required("source", self.source.as_ref(), &allowed_source, spaceless);
        faults.required("type", self.kind.as_ref(), &allowed, text);
        let occurred_at = faults.optional("time", self.time.as_ref(), |value| value.instant(now));
        if let Some(name) = &self.duplicate {
            faults.add(name, &"must come only once");
        }
        let id = source.and(id).and_then(|()| self.written_id()).map(|id| EventId::of(&id));
        let Some(Object(Some(data))) = &self.data else {
            faults.add("data", &"must be a JSON object {\"feature\", \"tokens\", \"tenant\"?}");
            return Err(faults.0);
        };
        self.note_unknown(data, &mut Unknown::of(reading, ignored, &mut faults));
        let tenant = match (said(self.subject.as_ref()), said(data.tenant.as_ref())) {
            (None, tenant @ Some(_)) => plain::tenant(&mut faults, "data.tenant", tenant),
            (Some(subject), Some(tenant)) if subject.text() != tenant.text() => {
                faults.add("subject", &"must be the same as data.tenant, or one of them left out");
                None
            }
            (subject, _) => plain::tenant(&mut faults, "subject", subject),
        };
        data.usage(faults, tenant, id, occurred_at.unwrap_or(now))
    }
}

/// An attribute that is null is left out (JSON event format, section 2.2).
fn said<'a, 'value>(value: Option<&'value Value<'a>>) -> Option<&'value Value<'a>> {
    value.filter(|value| !matches!(value, Value::Null))
}
