//! An event as a client writes it: a JSON object `{tenant, feature, tokens, id?, timestamp?}`.
//!
//! Unknown fields are ignored, so that clients may send more than is metered, and named to the client; a field that comes
//! twice is refused.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::de::MapAccess;

use super::fault::{Fault, Faults};
use super::object::{Known, fill};
use super::unknown::{self, Ignored, Unknown};
use super::value::Value;
use super::wire::{Checked, Reading, Written};
use super::{EventId, NotAFeature, NotATenant, NotTokens, TenantName, UsageEvent};

/// The known fields as they stand.
#[derive(Default)]
pub(super) struct Plain<'a> {
    pub(super) tenant: Option<Value<'a>>,
    feature: Option<Value<'a>>,
    tokens: Option<Value<'a>>,
    pub(super) id: Option<Value<'a>>,
    pub(super) timestamp: Option<Value<'a>>,
    duplicate: Option<String>,
    /// The names of the others.
    pub(super) unknown: Vec<Cow<'a, str>>,
}

impl<'de: 'a, 'a> Known<'de> for Plain<'a> {
    fn read<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<Option<bool>, A::Error> {
        match name {
            "tenant" => fill(&mut self.tenant, map),
            "feature" => fill(&mut self.feature, map),
            "tokens" => fill(&mut self.tokens, map),
            "id" => fill(&mut self.id, map),
            "timestamp" => fill(&mut self.timestamp, map),
            _ => Ok(None),
        }
    }

    fn repeated(&mut self, name: String) {
        self.duplicate = Some(name);
    }

    fn unknown(&mut self, names: Vec<Cow<'de, str>>) {
        self.unknown = names;
    }
}

impl<'de: 'a, 'a> Written<'de> for Plain<'a> {
    fn written_id(&self) -> Option<String> {
        self.id.as_ref()?.text().map(str::to_owned)
    }

    fn check(&self, reading: &Reading, ignored: &mut Ignored) -> Checked {
        let mut faults = Faults::default();
        if self.is_a_list_in_an_object() {
            faults.add("events", &"is not a field of an event; send the list itself as the body: `[…]`");
            return Err(faults.0);
        }
        let arrival = reading.arrival;
        let tenant = tenant(&mut faults, "tenant", self.tenant.as_ref());
        let id = faults.optional("id", self.id.as_ref(), |value| value.event_id(arrival));
        let occurred_at =
            faults.optional("timestamp", self.timestamp.as_ref(), |value| value.instant(arrival.now));
        for name in &self.unknown {
            let meant = unknown::meant(name).filter(|field| !self.has(field));
            Unknown::of(reading, ignored, &mut faults).note("", name, meant);
        }
        self.usage(faults, tenant, id, occurred_at.unwrap_or(arrival.now))
    }
}

impl Plain<'_> {
    /// The event of what is used, and of who, when and under which id, which another form may say elsewhere.
    pub(super) fn usage(
        &self,
        mut faults: Faults,
        tenant: Option<TenantName>,
        id: Option<EventId>,
        occurred_at: Timestamp,
    ) -> Result<UsageEvent, Vec<Fault>> {
        let feature = faults
            .required("feature", self.feature.as_ref(), &NotAFeature, |value| value.text()?.try_into().ok());
        let is_text = self.tokens.as_ref().is_some_and(|tokens| tokens.text().is_some());
        let quotes = if is_text { ", without quotes" } else { "" };
        let allowed = format_args!("{NotTokens}{quotes}");
        let tokens = faults.required("tokens", self.tokens.as_ref(), &allowed, Value::tokens);
        if let Some(name) = &self.duplicate {
            faults.add(name, &"must come only once");
        }
        match (tenant, feature, tokens) {
            (Some(tenant), Some(feature), Some(tokens)) if faults.0.is_empty() => {
                let occurred_at = whole_microseconds(occurred_at);
                Ok(UsageEvent { tenant, feature, tokens, id, occurred_at, reverses: None })
            }
            _ => {
                unknown::explain(&mut faults.0, &self.unknown);
                Err(faults.0)
            }
        }
    }

    /// Whether the event has the field `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        let field = match name {
            "tenant" => &self.tenant,
            "feature" => &self.feature,
            "tokens" => &self.tokens,
            "id" => &self.id,
            "timestamp" => &self.timestamp,
            _ => &None,
        };
        field.is_some()
    }

    /// Whether it is `{"events": […]}`, as some other meters have it.
    fn is_a_list_in_an_object(&self) -> bool {
        let fields = ["tenant", "feature", "tokens"];
        self.unknown.iter().any(|name| name == "events") && !fields.into_iter().any(|field| self.has(field))
    }
}

/// The tenant that a field names.
pub(super) fn tenant(faults: &mut Faults, field: &str, value: Option<&Value<'_>>) -> Option<TenantName> {
    faults.required(field, value, &NotATenant, |value| value.text()?.try_into().ok())
}

/// The database and the queue keep microseconds. Rounded towards the past.
fn whole_microseconds(instant: Timestamp) -> Timestamp {
    // The fraction has the sign of the seconds.
    let fraction = i64::from(instant.subsec_nanosecond().div_euclid(1_000));
    let whole = instant.as_second().checked_mul(1_000_000).map(|seconds| seconds + fraction);
    whole.and_then(|whole| Timestamp::from_microsecond(whole).ok()).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_microsecond_is_cut_off_towards_the_past() {
        let cases = [
            ("2026-06-15T12:00:00.123456789Z", "2026-06-15T12:00:00.123456Z"),
            ("2026-06-15T12:00:00Z", "2026-06-15T12:00:00Z"),
            ("1969-12-31T23:59:59.999999001Z", "1969-12-31T23:59:59.999999Z"),
            ("1969-12-31T23:59:58.5Z", "1969-12-31T23:59:58.5Z"),
        ];
        for (instant, whole) in cases {
            assert_eq!(whole_microseconds(instant.parse().unwrap()), whole.parse().unwrap(), "{instant}");
        }
        for extreme in [Timestamp::MIN, Timestamp::MAX] {
            assert!(whole_microseconds(extreme) <= extreme);
        }
    }
}
