//! A line of JSON for each event. `tracing-subscriber` has such a form, which leaves out the causes of an error: of a
//! wrong password it only says that something failed.

use std::error::Error;
use std::fmt;

use serde::ser::{SerializeMap, Serializer as _};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// The most causes of one error that are written.
const MAX_CAUSES: usize = 16;

/// Fields beside time, level and target. The field of an error, say `error`, has its text, and `error.sources` a list of
/// its causes, the nearest first.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let span = event.parent().and_then(|id| context.span(id)).or_else(|| context.lookup_current());
        let span = span.as_ref().map(span_of::<S, N>);
        let line = line(&timestamp, event, span).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

fn line(timestamp: &str, event: &Event<'_>, span: Option<Map<String, Value>>) -> serde_json::Result<String> {
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::new(&mut bytes);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("timestamp", timestamp)?;
    map.serialize_entry("level", event.metadata().level().as_str())?;
    let mut fields = Fields { map, outcome: Ok(()) };
    event.record(&mut fields);
    let Fields { mut map, outcome } = fields;
    outcome?;
    map.serialize_entry("target", event.metadata().target())?;
    if let Some(span) = span {
        map.serialize_entry("span", &span)?;
    }
    map.end()?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The span's name and fields.
fn span_of<S, N>(span: &SpanRef<'_, S>) -> Map<String, Value>
where
    S: for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    let extensions = span.extensions();
    let text = extensions.get::<FormattedFields<N>>().map(|fields| fields.fields.as_str());
    let fields = text.and_then(|text| serde_json::from_str(text).ok());
    let mut fields: Map<String, Value> = fields.unwrap_or_default();
    fields.insert("name".to_owned(), span.name().into());
    fields
}

/// Writes the fields of an event into an object.
struct Fields<M: SerializeMap> {
    map: M,
    outcome: Result<(), M::Error>,
}

impl<M: SerializeMap> Fields<M> {
    fn entry<V: serde::Serialize + ?Sized>(&mut self, name: &str, value: &V) {
        if self.outcome.is_ok() {
            self.outcome = self.map.serialize_entry(name, value);
        }
    }
}

impl<M: SerializeMap> Visit for Fields<M> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.entry(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.entry(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.entry(field.name(), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.entry(field.name(), &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.entry(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.entry(field.name(), &value.to_string());
        let mut causes = Vec::new();
        let mut cause = value.source();
        while let Some(source) = cause.filter(|_| causes.len() < MAX_CAUSES) {
            causes.push(source.to_string());
            cause = source.source();
        }
        if !causes.is_empty() {
            self.entry(&format!("{}.sources", field.name()), &causes);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.entry(field.name(), &format!("{value:?}"));
    }
}
