//! The definition's rules without a cluster: what the API server would answer to a Tenant, in its own words, and what
//! the operator would say of it afterwards.
//!
//! It walks the definition's own schema, so that a field or bound added to the types is checked without a change here;
//! a keyword or a CEL rule that it does not know fails a test, and a test on a real API server compares every answer.
//! kube's `cel` feature would have run the CEL rules, but it brings chrono, an ANTLR runtime and some ten crates more,
//! takes any text for a time zone, and knows nothing of types, bounds and unknown fields.
//!
//! [`Document`] reads files, [`Linter`] judges what is in them.

mod document;
mod go;
mod metadata;
mod prune;
mod rules;
mod schema;

use std::borrow::Cow;
use std::collections::BTreeMap;

use kube::Resource;
use regex::Regex;
use serde_json::Value;

pub use document::{Document, MAX_DOCUMENTS, Unreadable};

use crate::settings::{self, InvalidSetting, NotAWebhookUrl};
use crate::{Tenant, manifest};

/// The longest text of a problem that is shown, in characters: a value may be as long as its file.
const MAX_SHOWN: usize = 1_000;

/// What the API server says where it leaves rules unchecked.
const UNCHECKED: &str = "Invalid value: null: some validation rules were not checked because the object was invalid; \
                         correct the existing errors to complete validation";

/// What a problem is. The words are the API server's, in `status.details.causes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The object cannot be read, or has fields that the definition does not; code 400.
    BadRequest,
    /// There is no such kind.
    NotFound,
    /// A field that must be there is not.
    Required,
    /// It is of another type.
    TypeInvalid,
    /// It breaks a bound, a pattern or a rule.
    Invalid,
    /// It is none of those that are possible.
    NotSupported,
    /// The text is too long.
    TooLong,
    /// The list is too long.
    TooMany,
    /// It is in the list already.
    Duplicate,
    /// The API server takes it, and the operator would not: the reason of its condition Stalled.
    Stalled(&'static str),
}

impl Reason {
    /// The reason as the API server, or the operator, gives it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::NotFound => "NotFound",
            Self::Required => "FieldValueRequired",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Stalled(reason) => reason,
        }
    }

    /// Whether the API server leaves the CEL rules unchecked after it.
    fn is_blocking(self) -> bool {
        matches!(
            self,
            Self::Required | Self::TypeInvalid | Self::NotSupported | Self::TooLong | Self::TooMany
        )
    }
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is.
    pub reason: Reason,
    /// The field, such as `spec.alerts.thresholds[0]`; `None` where the API server names none.
    pub field: Option<String>,
    /// What the API server says of it.
    pub message: String,
    /// Where in the document: the field, or what should hold it. Empty for the document itself.
    pub place: String,
    /// What in the message may be a secret.
    secret: Option<String>,
}

impl Problem {
    fn at(place: &str, reason: Reason, message: String) -> Self {
        Self { reason, field: Some(place.to_owned()), message, place: place.to_owned(), secret: None }
    }

    /// One that the API server names no field for.
    fn without_field(place: &str, reason: Reason, message: String) -> Self {
        Self { field: None, ..Self::at(place, reason, message) }
    }

    /// Whether it is no problem of its own, but the API server's word that it left rules unchecked because of others.
    #[must_use]
    pub fn is_unchecked(&self) -> bool {
        self.message == UNCHECKED
    }

    /// The message as one line that may be shown to anybody: without URLs, which are as good as passwords, and with
    /// at most 1,000 characters.
    #[must_use]
    pub fn shown(&self) -> String {
        let message = match &self.secret {
            Some(secret) => Cow::Owned(self.message.replacen(secret, "\"..\"", 1)),
            None => Cow::Borrowed(self.message.as_str()),
        };
        let mut shown = String::new();
        for (count, character) in message.chars().enumerate() {
            if count == MAX_SHOWN {
                shown.push_str("...");
                break;
            }
            if character.is_control() {
                shown.extend(character.escape_default());
            } else {
                shown.push(character);
            }
        }
        shown
    }
}

/// What is wrong with one document.
#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, place: &str, reason: Reason, message: String) {
        self.0.push(Problem::at(place, reason, message));
    }

    /// `Invalid value`, the API server's most common answer. `value` is as it shows it.
    fn invalid(&mut self, place: &str, value: &str, message: &str) {
        self.add(place, Reason::Invalid, format!("Invalid value: {value}: {message}"));
    }
}

/// What a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A Tenant, with its problems; none if it is valid.
    Tenant(Vec<Problem>),
    /// Something of FlagMeter's group that no definition is for, or a Tenant that does not say so.
    Misnamed(Problem),
    /// Something else, which is not FlagMeter's to judge.
    Other,
}

/// A linter that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no definition.
    #[error("failed to make the definition")]
    Definition(#[from] manifest::Error),
    /// A pattern of the definition is none.
    #[error("a pattern of the definition cannot be used")]
    Pattern(#[from] regex::Error),
}

/// Judges documents by the definition of this version.
pub struct Linter {
    schema: Value,
    patterns: BTreeMap<String, Regex>,
    allow_http: bool,
}

impl Linter {
    /// Reads the definition.
    ///
    /// # Errors
    ///
    /// [`Error`]; a test would have shown it.
    pub fn new() -> Result<Self, Error> {
        let schema = manifest::definition()?["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
        let mut patterns = BTreeMap::new();
        for pattern in schema::patterns(&schema) {
            patterns.insert(pattern.to_owned(), Regex::new(pattern)?);
        }
        Ok(Self { schema, patterns, allow_http: false })
    }

    /// The linter of a cluster whose operator takes http URLs of alerts too, or does not.
    #[must_use]
    pub fn allowing_http(self, allow_http: bool) -> Self {
        Self { allow_http, ..self }
    }

    /// What `document` is, and what is wrong with it.
    #[must_use]
    pub fn judge(&self, document: &Document) -> Verdict {
        let text = |name: &str| document.value[name].as_str();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let ours = Tenant::api_version(&());
        let group = version.and_then(|version| version.split_once('/')).map(|(group, _)| group);
        match (version, kind) {
            (Some(version), Some("Tenant")) if version == ours => {
                let duplicates = document.duplicates().map(|path| {
                    let message = format!("duplicate field \"{path}\"");
                    Problem::without_field(path, Reason::BadRequest, message)
                });
                Verdict::Tenant(duplicates.chain(self.check(&document.value)).collect())
            }
            (Some(version), Some(kind)) if group == Some(&*Tenant::group(&())) => {
                let message = format!("no matches for kind \"{kind}\" in version \"{version}\"");
                Verdict::Misnamed(Problem::without_field("apiVersion", Reason::NotFound, message))
            }
            (Some(_), None) if group == Some(&*Tenant::group(&())) => {
                let message = "kind not set".to_owned();
                Verdict::Misnamed(Problem::without_field("", Reason::BadRequest, message))
            }
            (None, Some("Tenant")) => {
                let message = "apiVersion not set".to_owned();
                Verdict::Misnamed(Problem::without_field("", Reason::BadRequest, message))
            }
            _ => Verdict::Other,
        }
    }

    /// What the API server would answer to the creation of `tenant`, and, if it took it, what would keep the operator
    /// from bringing it into force. Where the API server stops at fields that it does not know, this goes on without
    /// them.
    #[must_use]
    pub fn check(&self, tenant: &Value) -> Vec<Problem> {
        let mut found = Found::default();
        let mut object = tenant.clone();
        metadata::decode(&object["metadata"], &mut found);
        prune::unknown_fields(&mut object, &self.schema, &mut found);
        // It is the operator's: what stands there is not taken.
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        prune::nulls(&mut object, &self.schema);
        prune::defaults(&mut object, &self.schema);

        let mut invalid = Found::default();
        metadata::validate(&object["metadata"], &mut invalid);
        schema::Walk { patterns: &self.patterns, found: &mut invalid }.root(&self.schema, &object);
        if invalid.0.iter().any(|problem| problem.reason.is_blocking()) {
            invalid.0.push(Problem::without_field("", Reason::Invalid, UNCHECKED.to_owned()));
        } else {
            rules::check(&self.schema, &object, &mut invalid);
        }
        found.0.append(&mut invalid.0);
        if found.0.is_empty() {
            operator(object, self.allow_http, &mut found);
        }
        found.0
    }
}

/// What would keep the operator from bringing `object`, which the API server takes, into force.
fn operator(mut object: Value, allow_http: bool, found: &mut Found) {
    go::store(&mut object);
    let tenant: Tenant = match serde_json::from_value(object) {
        Ok(tenant) => tenant,
        Err(error) => {
            let message = format!("the resource does not parse: {error}");
            return found.add("spec", Reason::Stalled("InvalidSpec"), message);
        }
    };
    let spec = &tenant.spec;
    let mut stalled = |result: Result<(), InvalidSetting>| {
        if let Err(problem) = result {
            let place = match &problem {
                InvalidSetting::TimeZone(_) => "spec.timeZone".to_owned(),
                InvalidSetting::Field(text) => format!("spec.{}", text.split(' ').next().unwrap_or_default()),
            };
            found.add(&place, Reason::Stalled(problem.reason()), problem.to_string());
        }
    };
    stalled(settings::terms(spec).map(drop));
    stalled(settings::checked_quota(spec).map(drop));
    stalled(settings::thresholds(spec).map(drop));
    let slack = spec.alerts.slack.as_ref().and_then(|slack| slack.url.as_deref());
    let webhook = spec.alerts.webhook.as_ref().and_then(|webhook| webhook.url.as_deref());
    for (url, place, reason) in [
        (slack, "spec.alerts.slack.url", "InvalidSlackUrl"),
        (webhook, "spec.alerts.webhook.url", "InvalidWebhookUrl"),
    ] {
        if url.is_some_and(|url| settings::webhook_url(url, allow_http).is_none()) {
            found.add(place, Reason::Stalled(reason), NotAWebhookUrl(place.to_owned()).to_string());
        }
    }
}
