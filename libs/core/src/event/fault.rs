//! What is wrong with an event, field by field.

use std::fmt;

use super::value::Value;
use crate::problem::shown;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field's name as an answer [repeats](shown) it, or empty for the event as a whole.
    pub field: String,
    /// What is allowed instead, to be read after the field's name.
    pub detail: String,
}

impl Fault {
    pub(super) fn new(field: &str, detail: &dyn fmt::Display) -> Self {
        Self { field: shown(field).into_owned(), detail: detail.to_string() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => formatter.write_str(&self.detail),
            field => write!(formatter, "{field} {}", self.detail),
        }
    }
}

/// All faults of an event, gathered field by field.
#[derive(Default)]
pub(super) struct Faults(pub(super) Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, field: &str, detail: &dyn fmt::Display) {
        self.0.push(Fault::new(field, detail));
    }

    /// The value of a field that must be there. `allowed` says what it must be.
    pub(super) fn required<'a, T>(
        &mut self,
        field: &str,
        value: Option<&Value<'a>>,
        allowed: &dyn fmt::Display,
        read: impl Fn(&Value<'a>) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = value else {
            self.add(field, &format_args!("is missing; it {allowed}"));
            return None;
        };
        let read = read(value);
        if read.is_none() {
            self.add(field, allowed);
        }
        read
    }

    /// The value of a field that may be missing or `null`.
    pub(super) fn optional<'a, T>(
        &mut self,
        field: &str,
        value: Option<&Value<'a>>,
        read: impl Fn(&Value<'a>) -> Result<T, String>,
    ) -> Option<T> {
        let value = value.filter(|value| !matches!(value, Value::Null))?;
        read(value).map_err(|detail| self.add(field, &detail)).ok()
    }
}
