//! The CEL rules, each a function that stands for its text: the definition's rules are few, and a test fails when one
//! is not here.

use serde_json::Value;

use super::go::{self, quoted};
use super::prune::child;
use super::{Found, Problem, Reason};
use crate::{instant, settings, text, used_by};

/// What a rule says of a value.
pub(super) enum Answer {
    Holds,
    Fails,
    /// It cannot be asked, for this reason.
    Error(String),
}

/// A rule of the definition, as a function of `self`.
pub(super) type Rule = fn(&Value) -> Answer;

/// The function for the text of a rule.
pub(super) fn rule(text: &str) -> Option<Rule> {
    let rule: Rule = match text {
        "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')" => is_tenant_id,
        "self != 'Local' && timestamp('2000-01-01T00:00:00Z').getFullYear(self) > 0" => is_time_zone,
        "has(self.url) != has(self.secretRef)" => |value| one_of(value, ["url", "secretRef"]),
        "has(self.url) != has(self.urlSecretRef)" => |value| one_of(value, ["url", "urlSecretRef"]),
        "self.from < self.until" => is_span,
        settings::URL_RULE => is_web_url,
        text::RULE => is_shown_as_it_is,
        used_by::NAME_RULE => is_secret_name,
        _ => return None,
    };
    Some(rule)
}

/// Asks every rule in `schema` of `object`.
pub(super) fn check(schema: &Value, object: &Value, found: &mut Found) {
    walk("", schema, object, found);
}

fn walk(path: &str, schema: &Value, value: &Value, found: &mut Found) {
    for validation in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let (text, message) =
            (validation["rule"].as_str(), validation["message"].as_str().unwrap_or_default());
        let Some(rule) = text.and_then(rule) else { continue };
        let answer = match (rule(value), value) {
            (Answer::Holds, _) => continue,
            (Answer::Fails, Value::String(text)) => format!("{}: {message}", quoted(text)),
            (Answer::Fails, _) => message.to_owned(),
            (Answer::Error(error), value) => {
                let kind = if value.is_string() { "string" } else { "object" };
                format!("\"{kind}\": {error} evaluating rule: {message}")
            }
        };
        found.0.push(Problem {
            // The name is the only thing that a rule of the whole object can ask for.
            place: if path.is_empty() { "metadata.name".to_owned() } else { path.to_owned() },
            field: (!path.is_empty()).then(|| path.to_owned()),
            reason: Reason::Invalid,
            message: format!("Invalid value: {answer}"),
            secret: value.as_str().filter(|_| path.rsplit('.').next() == Some("url")).map(quoted),
        });
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(schema) = schema["properties"].get(name) {
                    walk(&child(path, name), schema, value, found);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(&format!("{path}[{index}]"), &schema["items"], item, found);
            }
        }
        _ => {}
    }
}

fn answer(holds: bool) -> Answer {
    if holds { Answer::Holds } else { Answer::Fails }
}

fn is_tenant_id(object: &Value) -> Answer {
    let metadata = &object["metadata"];
    let name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        (Some(name), _) if !name.is_empty() => name.to_owned(),
        // As the API server would complete it.
        (_, Some(begins)) => format!("{}00000", begins.get(..58).unwrap_or(begins)),
        _ => return Answer::Holds,
    };
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().next_back()];
    answer(
        name.len() <= 63
            && ends.into_iter().all(|end| end.is_some_and(is_alphanumeric))
            && name.bytes().all(|byte| byte == b'-' || is_alphanumeric(byte)),
    )
}

/// By the operator's table of time zones, and with the API server's eye for upper and lower case.
fn is_time_zone(value: &Value) -> Answer {
    let name = value.as_str().unwrap_or_default();
    match name {
        "Local" => return Answer::Fails,
        // To Go no name is UTC; that it is too short is said elsewhere.
        "" => return Answer::Holds,
        _ => {}
    }
    let known = jiff::tz::TimeZone::get(name).ok();
    if known.is_some_and(|zone| zone.iana_name() == Some(name) && !zone.is_unknown()) {
        Answer::Holds
    } else {
        Answer::Error(format!("unknown time zone {name}"))
    }
}

fn is_web_url(value: &Value) -> Answer {
    answer(value.as_str().is_some_and(go::is_web_url))
}

fn one_of(value: &Value, fields: [&str; 2]) -> Answer {
    let set = fields.into_iter().filter(|field| value.get(field).is_some()).count();
    answer(set == 1)
}

fn is_span(value: &Value) -> Answer {
    let [from, until] = ["from", "until"].map(|name| value[name].as_str());
    let (Some(from), Some(until)) = (from, until) else {
        return Answer::Error("invalid data, expected string, got []interface {}".to_owned());
    };
    for text in [from, until] {
        if let Some(error) = go::time_error(text) {
            return Answer::Error(format!("Invalid date-time formatted string {text}: {error}"));
        }
    }
    let [from, until] = [from, until].map(instant::since_1970);
    // The schema reports a value that is no text.
    answer(from.zip(until).is_none_or(|(from, until)| from < until))
}

fn is_shown_as_it_is(value: &Value) -> Answer {
    answer(value.as_str().is_some_and(|text| !text.contains(crate::text::is_hidden)))
}

fn is_secret_name(value: &Value) -> Answer {
    answer(value.as_str().is_some_and(used_by::is_secret_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::Linter;

    #[test]
    fn every_rule_of_the_definition_is_known() {
        fn check(path: &str, schema: &Value) -> usize {
            let rules = schema["x-kubernetes-validations"].as_array().map(Vec::as_slice).unwrap_or_default();
            for validation in rules {
                let text = validation["rule"].as_str().unwrap();
                let hint = "write it as a function in crds/src/lint/rules.rs, and a case in \
                            operator/tests/control_plane/admission.rs";
                assert!(rule(text).is_some(), "lint does not know the rule `{text}` of {path}: {hint}");
                for keyword in validation.as_object().unwrap().keys() {
                    assert!(["rule", "message"].contains(&keyword.as_str()), "lint does not know {keyword}");
                }
            }
            let fields = schema["properties"].as_object().into_iter().flatten();
            let below: usize = fields.map(|(name, schema)| check(&child(path, name), schema)).sum();
            rules.len() + below + schema.get("items").map_or(0, |schema| check(&format!("{path}[]"), schema))
        }
        assert!(check("", &Linter::new().unwrap().schema) >= 6);
    }
}
