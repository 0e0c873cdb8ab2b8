//! `metadata`: the same for every kind, and in no definition.

use serde_json::Value;

use super::go::quoted;
use super::prune::child;
use super::{Found, Reason};

/// Its fields.
const FIELDS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Those that are texts, of those that people write.
const TEXTS: [&str; 3] = ["generateName", "name", "namespace"];

/// Those that are texts by name.
const MAPS: [&str; 2] = ["annotations", "labels"];

/// The most bytes of all annotations.
const MAX_ANNOTATIONS: usize = 256 << 10;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
     and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const NAME_PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
     '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
     used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Whether it can be read at all.
pub(super) fn decode(metadata: &Value, found: &mut Found) {
    let mut wrong = |path: &str, value: &Value, into: &str| {
        let kind = match value {
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            Value::Null => return,
        };
        found.add(path, Reason::BadRequest, format!("json: cannot unmarshal {kind} into Go {into}"));
    };
    let Some(fields) = metadata.as_object() else {
        return wrong("metadata", metadata, "value of type v1.ObjectMeta");
    };
    for name in TEXTS {
        if let Some(value) = fields.get(name).filter(|value| !value.is_string()) {
            wrong(&child("metadata", name), value, &format!("struct field ObjectMeta.{name} of type string"));
        }
    }
    for name in MAPS {
        let path = child("metadata", name);
        match fields.get(name) {
            Some(Value::Object(entries)) => {
                for (key, value) in entries.iter().filter(|(_, value)| !value.is_string()) {
                    let into = format!("struct field ObjectMeta.{name} of type string");
                    wrong(&child(&path, key), value, &into);
                }
            }
            Some(value) => {
                wrong(&path, value, &format!("struct field ObjectMeta.{name} of type map[string]string"));
            }
            None => {}
        }
    }
    for name in fields.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
        let path = child("metadata", name);
        found.add(&path, Reason::BadRequest, format!("unknown field \"{path}\""));
    }
}

/// Whether names, labels and annotations may be such. What could not be read is not judged.
pub(super) fn validate(metadata: &Value, found: &mut Found) {
    let is_wrong =
        |name: &str| metadata.get(name).is_some_and(|value| !value.is_string() && !value.is_null());
    let text = |name: &str| metadata[name].as_str().unwrap_or_default();
    let (name, generate_name) = (text("name"), text("generateName"));
    if name.is_empty() && !generate_name.is_empty() {
        // A hyphen at its end is not at the end of the name.
        let begins =
            generate_name.strip_suffix('-').map_or(generate_name.to_owned(), |base| format!("{base}a"));
        subdomain(&begins, |message| {
            found.invalid("metadata.generateName", &quoted(generate_name), message);
        });
    }
    if !name.is_empty() {
        subdomain(name, |message| found.invalid("metadata.name", &quoted(name), message));
    } else if generate_name.is_empty() && !is_wrong("name") && !is_wrong("generateName") {
        let message = "Required value: name or generateName is required".to_owned();
        found.add("metadata.name", Reason::Required, message);
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        let place = child("metadata.labels", key);
        qualified_name(key, |message| of_map("labels", &place, key, message, found));
        let value = value.as_str().unwrap_or_default();
        if value.len() > 63 {
            of_map("labels", &place, value, "must be no more than 63 bytes", found);
        } else if !value.is_empty() && !is_name_part(value) {
            of_map("labels", &place, value, LABEL_VALUE, found);
        }
    }
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        let place = child("metadata.annotations", key);
        qualified_name(&key.to_lowercase(), |message| of_map("annotations", &place, key, message, found));
    }
    if size > MAX_ANNOTATIONS {
        let message = format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes");
        found.add("metadata.annotations", Reason::TooLong, message);
    }
}

/// The API server names the map, not the entry.
fn of_map(name: &str, place: &str, value: &str, message: &str, found: &mut Found) {
    found.invalid(place, &quoted(value), message);
    if let Some(problem) = found.0.last_mut() {
        problem.field = Some(child("metadata", name));
    }
}

fn subdomain(text: &str, mut wrong: impl FnMut(&str)) {
    if text.len() > 253 {
        wrong("must be no more than 253 characters");
    }
    if !is_subdomain(text) {
        wrong(SUBDOMAIN);
    }
}

fn is_subdomain(text: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        label.bytes().next().is_some_and(is_alphanumeric)
            && label.bytes().next_back().is_some_and(is_alphanumeric)
            && label.bytes().all(|byte| byte == b'-' || is_alphanumeric(byte))
    };
    text.split('.').all(is_label)
}

/// The key of a label or an annotation.
fn qualified_name(key: &str, mut wrong: impl FnMut(&str)) {
    let name = match key.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong("prefix part must be non-empty");
            } else {
                if prefix.len() > 253 {
                    wrong("prefix part must be no more than 253 bytes");
                }
                if !is_subdomain(prefix) {
                    wrong(&format!("prefix part {SUBDOMAIN}"));
                }
            }
            name
        }
        _ => {
            return wrong(&format!(
                "a valid label key {NAME_PART} with an optional DNS subdomain prefix and '/' \
                 (e.g. 'example.com/MyName')"
            ));
        }
    };
    if name.is_empty() {
        wrong("name part must be non-empty");
    } else if name.len() > 63 {
        wrong("name part must be no more than 63 bytes");
    }
    if !is_name_part(name) {
        wrong(&format!("name part {NAME_PART}"));
    }
}

fn is_name_part(text: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    is_end(text.bytes().next())
        && is_end(text.bytes().next_back())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
