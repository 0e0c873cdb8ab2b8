//! `POST /events`: takes events in, one or many, in any of the forms that `form` knows.

mod form;

use std::iter;

use axum::body::{Bytes, HttpBody};
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Json};
use flagmeter_core::event::{self, Checked, EventId, Fault, UsageEvent};
use flagmeter_core::problem::{Code, Errors, EventProblem};
use flagmeter_core::quota::MAX_TOKENS;
use flagmeter_store::queue::Durability;
use futures::FutureExt as _;
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::auth::{Caller, Reason};
use crate::batcher::NotQueued;
use crate::directory::NotKnownYet;
use crate::error::ApiError;
use crate::features::Brought;
use crate::queued::{Tally, TooManyTokens};
use crate::state::AppState;

/// Names a request, so that all of it may be sent again: each event without an id of its own gets
/// `KEY#0`, `KEY#1`, … (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How strictly a list is taken (RFC 7240, section 4.4): `handling=lenient`.
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The longest key, in bytes, so that its events' ids are at most as long as an id may be.
const MAX_KEY_BYTES: usize = 120;

/// Answers a request to this path, of whatever method, from `caller`.
pub(crate) fn answer<Body>(
    state: &AppState,
    caller: &Caller,
    request: Request<Body>,
) -> impl Future<Output = Response>
where
    Body: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    ingest(state, caller, request).map(|answer| answer.unwrap_or_else(ApiError::into_response))
}

/// What a client is told of a single event that will count.
#[derive(Serialize)]
struct AcceptedOne<'a> {
    /// Under this id the event is found: the client's, or the one it was given.
    id: &'a str,
    status: &'static str,
    /// `fsync`: it is on disk.
    durability: &'static str,
}

/// What a client is told of a list.
#[derive(Serialize)]
struct AcceptedMany {
    /// How many events will count.
    accepted: usize,
    status: &'static str,
    durability: &'static str,
    /// What is wrong with the others, if the client asked for lenient handling.
    #[serde(flatten)]
    errors: Errors,
}

/// Takes events in.
///
/// 202 means that they are in the queue, as durable as the answer says; whoever is told anything else
/// sends them again, with the same ids. Of a list, one invalid event refuses all, unless the client
/// prefers otherwise.
async fn ingest<Body>(state: &AppState, caller: &Caller, request: Request<Body>) -> Result<Response, ApiError>
where
    Body: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    if request.method() != Method::POST {
        return Ok(([(ALLOW, "POST")], ApiError::MethodNotAllowed).into_response());
    }
    state.gate.check()?;
    let now = state.clock.now();
    let (Parts { mut headers, .. }, body) = request.into_parts();
    let form = form::of(&headers)?;
    let body = state.bodies.read(&headers, caller.tenant(), body).await?;
    let arrival = state.ids.arrival(now).ok_or(ApiError::QueueUnavailable(NotQueued::Full))?;
    let read = form.decode(&body.bytes, arrival, state.limits.events).map_err(ApiError::Unreadable)?;
    // The events are all that is needed of it from here on.
    drop(body);
    let key = idempotency_key(&headers)?;
    let (sorted, single) = match read {
        event::Body::One(event, id) => (sort(iter::once(event), true, key, state, caller, now)?, Some(id)),
        event::Body::Many(events) => (sort(events.into_iter(), false, key, state, caller, now)?, None),
    };
    let Sorted { events, errors, wrong_tenant, brought, tally } = sorted;
    if wrong_tenant {
        state.metrics.turned_away(Reason::WrongTenant);
    }
    let lenient = single.is_none() && prefers_lenient(&headers);
    if !errors.is_empty() && (!lenient || events.is_empty()) {
        return Err(if events.is_empty() { ApiError::AllInvalid(errors) } else { ApiError::Invalid(errors) });
    }
    let accepted = events.len();
    let receipt = state.batcher.push(events).await?;
    state.metrics.accepted(accepted);
    brought.keep();
    tally.accepted(receipt.queued_at);
    if let Some(id) = single {
        let mut own = Uuid::encode_buffer();
        let own = receipt.first_id.hyphenated().encode_lower(&mut own);
        // Those of the request have the memory for those of the answer.
        headers.clear();
        return Ok(one(headers, id.as_deref().unwrap_or(own), receipt.durability));
    }
    let applied = lenient.then_some([(PREFERENCE_APPLIED, "handling=lenient")]);
    let durability = receipt.durability.as_str();
    let answer = AcceptedMany { accepted, status: "accepted", durability, errors };
    Ok((StatusCode::ACCEPTED, applied, Json(answer)).into_response())
}

/// The answer for a single event, with `headers` besides its own.
pub(super) fn one(headers: HeaderMap, id: &str, durability: Durability) -> Response {
    let answer = AcceptedOne { id, status: "accepted", durability: durability.as_str() };
    // Text always is JSON.
    let text = serde_json::to_vec(&answer).unwrap_or_default();
    let mut response = Response::new(text.into());
    *response.status_mut() = StatusCode::ACCEPTED;
    *response.headers_mut() = headers;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A request's events.
struct Sorted<'a> {
    /// Those that can be taken.
    events: Vec<UsageEvent>,
    /// What is wrong with the others.
    errors: Errors,
    /// Whether some are of another tenant than the key.
    wrong_tenant: bool,
    /// The features that nobody had before.
    brought: Brought<'a>,
    /// The tokens.
    tally: Tally<'a>,
}

/// Sorts a request's events. Those without an id get the one that their place in the request makes with its `key`.
fn sort<'a>(
    list: impl ExactSizeIterator<Item = Checked>,
    single: bool,
    key: Option<&str>,
    state: &'a AppState,
    caller: &Caller,
    now: Timestamp,
) -> Result<Sorted<'a>, NotKnownYet> {
    let (mut events, mut errors) = (Vec::with_capacity(list.len()), Errors::default());
    let mut wrong_tenant = false;
    let (mut brought, mut tally) = (state.features.brought(), Tally::new(&state.usage));
    for (place, event) in list.enumerate() {
        let index = (!single).then_some(place);
        let mut event = match event {
            Ok(event) => event,
            Err(faults) => {
                for fault in faults {
                    errors.push(invalid(index, fault));
                }
                continue;
            }
        };
        // First, so that a key says nothing of other tenants, not even whether they exist.
        if !caller.may_act_for(event.tenant.as_str()) {
            wrong_tenant = true;
            errors.push(of_another_tenant(index, &event));
            continue;
        }
        match state.directory.find(event.tenant.as_str())? {
            None => errors.push(unknown_tenant(index, &event)),
            Some(tenant) if tenant.suspended => errors.push(suspended(index, &event)),
            Some(tenant) => match tally.counts(&tenant, &event, now) {
                Err(TooManyTokens) => errors.push(too_many_tokens(index)),
                Ok(tokens) if brought.admit(&tenant, &event, now) => {
                    tally.add(tokens);
                    event.id = event.id.or_else(|| key.map(|key| EventId::of(&format!("{key}#{place}"))));
                    events.push(event);
                }
                Ok(_) => errors.push(too_many_features(index, state.features.limit())),
            },
        }
    }
    tally.note();
    Ok(Sorted { events, errors, wrong_tenant, brought, tally })
}

fn invalid(index: Option<usize>, fault: Fault) -> EventProblem {
    EventProblem { index, code: Code::InvalidEvent.as_str(), field: fault.field, detail: fault.detail }
}

fn of_another_tenant(index: Option<usize>, event: &UsageEvent) -> EventProblem {
    let detail = format!(
        "`{}` is not the tenant whose key this is; use its own key, or the admin token",
        event.tenant
    );
    EventProblem { index, code: Code::WrongTenant.as_str(), field: "tenant".to_owned(), detail }
}

fn unknown_tenant(index: Option<usize>, event: &UsageEvent) -> EventProblem {
    let detail = format!("`{}` is not known; create its Tenant resource, or correct the name", event.tenant);
    EventProblem { index, code: Code::UnknownTenant.as_str(), field: "tenant".to_owned(), detail }
}

fn suspended(index: Option<usize>, event: &UsageEvent) -> EventProblem {
    let detail =
        format!("`{}` is suspended: it takes no events until its Tenant resource says so", event.tenant);
    EventProblem { index, code: Code::TenantSuspended.as_str(), field: "tenant".to_owned(), detail }
}

fn too_many_features(index: Option<usize>, limit: usize) -> EventProblem {
    let detail =
        format!("must be one of the {limit} that the tenant has in this billing period; use fewer names");
    EventProblem { index, code: Code::TooManyFeatures.as_str(), field: "feature".to_owned(), detail }
}

fn too_many_tokens(index: Option<usize>) -> EventProblem {
    let detail = format!(
        "would bring the tenant's billing period beyond {MAX_TOKENS} tokens, the most that can be counted"
    );
    EventProblem { index, code: Code::InvalidEvent.as_str(), field: "tokens".to_owned(), detail }
}

fn prefers_lenient(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all(PREFER).into_iter().filter_map(|value| value.to_str().ok());
    let mut preferences = preferences.flat_map(|value| value.split(',')).filter_map(|one| {
        // What follows a `;` only says more of it.
        let (name, value) = one.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("handling").then_some(value.trim())
    });
    // The first of several holds, and a value may be quoted (section 2).
    preferences.next().is_some_and(|value| form::unquoted(value.as_bytes()).eq_ignore_ascii_case(b"lenient"))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = form::only(headers, &IDEMPOTENCY_KEY)? else { return Ok(None) };
    // The draft has it as a quoted string; most clients send it bare.
    let key = value.to_str().ok().map(|text| text.trim_matches('"')).unwrap_or_default();
    if (1..=MAX_KEY_BYTES).contains(&key.len()) {
        Ok(Some(key))
    } else {
        let allowed = format!("idempotency-key must be 1 to {MAX_KEY_BYTES} visible ASCII characters");
        Err(ApiError::InvalidHeader(allowed))
    }
}
