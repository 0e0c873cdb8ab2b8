//! Types and bounds, as the schema gives them.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Number, Value};

use super::go::{self, Numeric};
use super::prune::child;
use super::{Found, Problem, Reason};

/// The keywords that [`Walk`] looks at, or that say nothing of whether a value is valid.
#[cfg(test)]
pub(super) const KEYWORDS: [&str; 15] = [
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-list-type",
];

/// Every pattern in `schema`.
pub(super) fn patterns(schema: &Value) -> Vec<&str> {
    let own = schema["pattern"].as_str();
    let fields = schema["properties"].as_object().into_iter().flat_map(|fields| fields.values());
    own.into_iter().chain(fields.chain(schema.get("items")).flat_map(patterns)).collect()
}

/// A walk over an object and its schema.
pub(super) struct Walk<'a> {
    pub(super) patterns: &'a BTreeMap<String, Regex>,
    pub(super) found: &'a mut Found,
}

impl Walk<'_> {
    /// Judges a whole object.
    pub(super) fn root(&mut self, schema: &Value, object: &Value) {
        self.value("", schema, object);
    }

    fn value(&mut self, path: &str, schema: &Value, value: &Value) {
        if let Some(message) = type_error(path, schema, value) {
            self.found.add(path, Reason::TypeInvalid, message);
        }
        self.one_of(path, schema, value);
        match value {
            Value::String(text) => self.text(path, schema, text),
            Value::Number(number) => self.number(path, schema, number),
            Value::Array(items) => self.list(path, schema, items),
            Value::Object(_) => self.object(path, schema, value),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn one_of(&mut self, path: &str, schema: &Value, value: &Value) {
        let Some(possible) = schema["enum"].as_array().filter(|possible| !possible.contains(value)) else {
            return;
        };
        let possible: Vec<String> = possible.iter().map(go::shown).collect();
        let message =
            format!("Unsupported value: {}: supported values: {}", go::shown(value), possible.join(", "));
        self.found.add(path, Reason::NotSupported, message);
    }

    fn text(&mut self, path: &str, schema: &Value, text: &str) {
        let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        let invalid = |message: String| (go::quoted(text), format!("{path} in body {message}"));
        let pattern = schema["pattern"].as_str();
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            let message = format!("Too long: may not be more than {most} bytes");
            self.found.add(path, Reason::TooLong, message);
        } else if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
            let (value, message) = invalid(format!("should be at least {least} chars long"));
            self.found.invalid(path, &value, &message);
        } else if let Some(pattern) = pattern
            && self.patterns.get(pattern).is_some_and(|regex| !regex.is_match(text))
        {
            let (value, message) = invalid(format!("should match '{pattern}'"));
            self.found.invalid(path, &value, &message);
        }
        if schema["format"] == "date-time" && !go::is_date_time(text) {
            let value = go::quoted(text);
            let message =
                format!("Invalid value: {value}: {path} in body must be of type date-time: {value}");
            self.found.add(path, Reason::TypeInvalid, message);
        }
    }

    fn number(&mut self, path: &str, schema: &Value, number: &Number) {
        let value = Numeric::of(number);
        if let (Some("integer"), Some(format)) = (schema["type"].as_str(), schema["format"].as_str()) {
            let fits = match (value, format) {
                (Numeric::Int(int), "int32") => i32::try_from(int).is_ok(),
                (Numeric::Int(_), _) => true,
                (Numeric::Float(float), _) => {
                    let int = format!("{float}").parse::<i64>();
                    int.is_ok_and(|int| format != "int32" || i32::try_from(int).is_ok())
                }
            };
            if !fits {
                self.found.0.push(Problem::without_field(
                    path,
                    Reason::Invalid,
                    format!(
                        "Invalid value: \"\": Checked value must be of type integer with format {format} in {path}"
                    ),
                ));
            }
        }
        for (bound, wrong, words) in [
            (&schema["minimum"], std::cmp::Ordering::Less, "greater than or equal to"),
            (&schema["maximum"], std::cmp::Ordering::Greater, "less than or equal to"),
        ] {
            let Some(bound) = bound.as_f64() else { continue };
            let (ordering, bound) = match value {
                // The bounds of integers are integers, which `1.0` does not show.
                Numeric::Int(int) => {
                    let bound = format!("{bound:.0}").parse::<i64>().unwrap_or(i64::MAX);
                    (Some(int.cmp(&bound)), bound.to_string())
                }
                Numeric::Float(float) => (float.partial_cmp(&bound), Numeric::Float(bound).shown()),
            };
            if ordering == Some(wrong) {
                let message = format!("{path} in body should be {words} {bound}");
                self.found.invalid(path, &value.shown(), &message);
            }
        }
    }

    fn list(&mut self, path: &str, schema: &Value, items: &[Value]) {
        if let Some(schema) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.value(&format!("{path}[{index}]"), schema, item);
            }
        }
        let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
        if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
            let message = format!("Too many: {count}: must have at most {most} items");
            self.found.add(path, Reason::TooMany, message);
        }
        if schema["x-kubernetes-list-type"] == "set" {
            for (index, item) in items.iter().enumerate() {
                // Named once, where it is repeated first.
                if items[..index].iter().filter(|other| *other == item).count() == 1 {
                    let message = format!("Duplicate value: {}", go::shown(item));
                    self.found.add(&format!("{path}[{index}]"), Reason::Duplicate, message);
                }
            }
        }
    }

    fn object(&mut self, path: &str, schema: &Value, object: &Value) {
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(value) = object.get(name) {
                self.value(&child(path, name), schema, value);
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if object.get(name).is_none() {
                self.found.add(&child(path, name), Reason::Required, "Required value".to_owned());
            }
        }
    }
}

/// What the API server says of a value of another type than the schema's.
fn type_error(path: &str, schema: &Value, value: &Value) -> Option<String> {
    let wanted = schema["type"].as_str()?;
    let format = schema["format"].as_str();
    let (given, given_format) = match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
        Value::Number(number) => match Numeric::of(number) {
            Numeric::Int(_) => ("integer", "int64"),
            Numeric::Float(float) if wanted == "integer" && is_integer(float) => return None,
            Numeric::Float(_) => ("number", "float64"),
        },
    };
    if given == wanted {
        return None;
    }
    let says = |wanted: &str, given: &str| {
        Some(format!("Invalid value: \"{given}\": {path} in body must be of type {wanted}: \"{given}\""))
    };
    let is_number = matches!(wanted, "integer" | "number");
    match (value, format) {
        (Value::Null, _) | (_, None) => says(wanted, given),
        // A text or a list of a format is left to the format, unless that is a number's.
        (Value::String(_) | Value::Array(_), Some(_)) if is_number => says(wanted, given),
        (Value::String(_) | Value::Array(_), Some(_)) => None,
        (_, Some(format)) => says(format, given_format),
    }
}

/// Whether the API server takes a float for an integer: one that is near enough, and that JSON holds exactly.
fn is_integer(float: f64) -> bool {
    const EXACT: f64 = 9_007_199_254_740_991.0;
    let (whole, size) = (float.trunc(), float.abs());
    if size > EXACT {
        return false;
    }
    let difference = (float - whole).abs();
    difference == 0.0 || whole != 0.0 && difference / (size + whole.abs()) < 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::Linter;

    #[test]
    fn every_keyword_of_the_definition_is_looked_at() {
        fn check(path: &str, schema: &Value) {
            for keyword in schema.as_object().into_iter().flatten().map(|(keyword, _)| keyword.as_str()) {
                // The rules have a test of their own.
                let known = keyword == "x-kubernetes-validations" || KEYWORDS.contains(&keyword);
                assert!(known, "lint does not look at {keyword} of {path}: teach crds/src/lint/schema.rs");
            }
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                check(&child(path, name), schema);
            }
            if let Some(items) = schema.get("items") {
                check(&format!("{path}[]"), items);
            }
        }
        // The status is the operator's, and never looked at.
        check("spec", &Linter::new().unwrap().schema["properties"]["spec"]);
    }
}
