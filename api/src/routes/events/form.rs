//! In which form a request's events are, by its headers.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use flagmeter_core::event::{self, Arrival, Body, Form, Refusal};

use super::MAX_EVENTS;
use crate::error::ApiError;

/// How a body is to be read.
pub(super) enum RequestForm<'a> {
    /// The events are in the body.
    Body(Form),
    /// The event's data is the body, and the rest is in `ce-` headers (CloudEvents, binary mode).
    Binary(&'a HeaderMap),
}

/// The form of a request.
///
/// # Errors
///
/// [`ApiError::UnsupportedMediaType`].
pub(super) fn of(headers: &HeaderMap) -> Result<RequestForm<'_>, ApiError> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    let is = |other: &str| media_type.eq_ignore_ascii_case(other);
    if is("application/json") {
        let binary = headers.contains_key("ce-specversion");
        return Ok(if binary { RequestForm::Binary(headers) } else { RequestForm::Body(Form::Json) });
    }
    let forms = [
        ("application/x-ndjson", Form::Lines),
        ("application/cloudevents+json", Form::CloudEvent),
        ("application/cloudevents-batch+json", Form::CloudEvents),
    ];
    let form = forms.into_iter().find(|(name, _)| is(name)).ok_or(ApiError::UnsupportedMediaType)?;
    Ok(RequestForm::Body(form.1))
}

impl RequestForm<'_> {
    /// The events of `body`.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub(super) fn decode(&self, body: &[u8], arrival: Arrival) -> Result<Body, Refusal> {
        match self {
            Self::Body(form) => event::decode(body, *form, arrival, MAX_EVENTS),
            Self::Binary(headers) => {
                let attribute = |name: &str| headers.get(format!("ce-{name}"))?.to_str().ok();
                event::decode_binary(body, &attribute, arrival)
            }
        }
    }
}
