//! In which form a request's events are, by its headers.

use std::borrow::Cow;

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use flagmeter_core::event::{self, Form, Read, Reading, Refusal};
use percent_encoding::percent_decode;

use crate::error::ApiError;

/// How a body is to be read.
pub(super) enum RequestForm {
    /// The events are in the body.
    Body(Form),
    /// The event's data is the body, and the rest is in headers (CloudEvents, binary mode).
    Binary(Vec<(&'static str, String)>),
}

/// The headers of a CloudEvent in binary mode that an event has use for, and their attributes.
static ATTRIBUTES: [(HeaderName, &str); 6] = [
    (HeaderName::from_static("ce-specversion"), "specversion"),
    (HeaderName::from_static("ce-id"), "id"),
    (HeaderName::from_static("ce-source"), "source"),
    (HeaderName::from_static("ce-type"), "type"),
    (HeaderName::from_static("ce-subject"), "subject"),
    (HeaderName::from_static("ce-time"), "time"),
];

/// The form of a request.
///
/// # Errors
///
/// [`ApiError`]: a media type or an encoding that is not understood, or headers that contradict each other.
pub(super) fn of(headers: &HeaderMap) -> Result<RequestForm, ApiError> {
    let encoded = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).into_iter().any(encoded) {
        return Err(ApiError::UnsupportedEncoding);
    }
    let value = only(headers, &CONTENT_TYPE)?.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    let is = |other: &str| media_type.eq_ignore_ascii_case(other);
    let is_binary = headers.contains_key(&ATTRIBUTES[0].0);
    if is("application/json") {
        return if is_binary { attributes(headers) } else { Ok(RequestForm::Body(Form::Json)) };
    }
    let forms = [
        ("application/x-ndjson", Form::Lines),
        ("application/cloudevents+json", Form::CloudEvent),
        ("application/cloudevents-batch+json", Form::CloudEvents),
    ];
    if let Some((_, form)) = forms.into_iter().find(|(name, _)| is(name)) {
        return Ok(RequestForm::Body(form));
    }
    // Data whose type nobody names is JSON (CloudEvents 1.0, section "datacontenttype").
    let is_json = media_type.is_empty() || media_type.to_ascii_lowercase().ends_with("+json");
    if is_binary && is_json { attributes(headers) } else { Err(ApiError::UnsupportedMediaType) }
}

/// The value of a header that may come once.
///
/// # Errors
///
/// [`ApiError::InvalidHeader`]: it comes more often, and nobody knows which is meant.
pub(super) fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, ApiError> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(ApiError::InvalidHeader(format!("{name} must come only once"))),
        (value, None) => Ok(value),
    }
}

/// The attributes of a CloudEvent in binary mode, as text (CloudEvents 1.0, HTTP binding, section 3.1.3.2).
fn attributes(headers: &HeaderMap) -> Result<RequestForm, ApiError> {
    let mut attributes = Vec::with_capacity(ATTRIBUTES.len());
    for (header, attribute) in &ATTRIBUTES {
        let Some(value) = only(headers, header)? else { continue };
        let text = percent_decode(&unquoted(value.as_bytes())).decode_utf8().map(Cow::into_owned);
        let allowed = || format!("{header} must be UTF-8, percent-encoded where it is not ASCII");
        attributes.push((*attribute, text.map_err(|_| ApiError::InvalidHeader(allowed()))?));
    }
    Ok(RequestForm::Binary(attributes))
}

/// What a quoted string says (RFC 9110, section 5.6.4), or the value as it is.
pub(super) fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(quoted) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return value.into();
    };
    let mut escape = false;
    let is_meant = |byte: &u8| {
        escape = *byte == b'\\' && !escape;
        !escape
    };
    quoted.iter().copied().filter(is_meant).collect()
}

impl RequestForm {
    /// The events of `body`.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub(super) fn decode(&self, body: &[u8], reading: &Reading) -> Result<Read, Refusal> {
        match self {
            Self::Body(form) => event::decode(body, *form, reading),
            Self::Binary(attributes) => {
                let attribute = |name: &str| {
                    attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
                };
                event::decode_binary(body, &attribute, reading)
            }
        }
    }
}
