//! `POST /events`: takes events in, one or many, in any of the forms that `form` knows.

mod form;
mod preferences;

use std::iter;

use axum::body::{Bytes, HttpBody};
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Json};
use flagmeter_core::event::{
    Body as Events, Checked, EventId, Fault, IgnoredField, Read, Reading, UsageEvent,
};
use flagmeter_core::packed::id_in;
use flagmeter_core::problem::{Code, Errors, EventProblem};
use flagmeter_core::quota::MAX_TOKENS;
use flagmeter_store::queue::Durability;
use futures::FutureExt as _;
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use self::preferences::{Handling, Preferences};
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
    /// Fields that it has and no event does: nobody looked at them.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ignored: &'a [IgnoredField],
}

/// What a client is told of a list.
#[derive(Serialize)]
struct AcceptedMany {
    /// How many events will count.
    accepted: usize,
    status: &'static str,
    durability: &'static str,
    /// The ids under which they are found, in the order of the request, and null for those that were not taken; if the
    /// client asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<Option<String>>>,
    /// Fields that some have and no event does: nobody looked at them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ignored: Vec<IgnoredField>,
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
    let preferences = Preferences::of(&headers);
    let body = state.bodies.read(&headers, caller.tenant(), body).await?;
    let reading = Reading {
        arrival: state.ids.arrival(now).ok_or(ApiError::QueueUnavailable(NotQueued::Full))?,
        limit: state.limits.events,
        strict: preferences.handling == Handling::Strict,
        ids: preferences.ids,
    };
    let Read { body: read, ignored } = form.decode(&body.bytes, &reading).map_err(ApiError::Unreadable)?;
    // The events are all that is needed of it from here on. A list's ids take as much memory, and are held in its place.
    let held = Some(body).filter(|_| preferences.ids);
    let key = idempotency_key(&headers)?;
    let (event, id) = match read {
        Events::One(event, id) => (event, id),
        Events::Many(events, ids) => {
            let wanted = Wanted { list: true, ids: preferences.ids };
            let sorted = sort(events.into_iter(), wanted, key, state, caller, now)?;
            // Boxed, or each connection would have room for it while it waits for a body.
            let answer = Box::pin(take_list(state, preferences, sorted, ids, ignored)).await;
            drop(held);
            return answer;
        }
    };
    drop(held);
    let wanted = Wanted { list: false, ids: false };
    let Sorted { events, errors, brought, tally, .. } =
        sort(iter::once(event), wanted, key, state, caller, now)?;
    if !errors.is_empty() {
        return Err(ApiError::AllInvalid(errors));
    }
    let receipt = state.batcher.push(events).await?;
    state.metrics.accepted(1);
    brought.keep();
    tally.accepted(receipt.queued_at);
    let mut own = Uuid::encode_buffer();
    let own = receipt.first_id.hyphenated().encode_lower(&mut own);
    // Those of the request have the memory for those of the answer.
    headers.clear();
    preferences.of_one().applied_to(&mut headers);
    Ok(one(headers, id.as_deref().unwrap_or(own), receipt.durability, &ignored))
}

/// Takes in a list, whose client wrote `ids`, or those of its events that can be taken.
async fn take_list(
    state: &AppState,
    preferences: Preferences,
    sorted: Sorted<'_>,
    ids: Vec<Option<String>>,
    ignored: Vec<IgnoredField>,
) -> Result<Response, ApiError> {
    let Sorted { events, taken, errors, brought, tally } = sorted;
    let is_lenient = preferences.handling == Handling::Lenient;
    if !errors.is_empty() && (!is_lenient || events.is_empty()) {
        return Err(if events.is_empty() { ApiError::AllInvalid(errors) } else { ApiError::Invalid(errors) });
    }
    let accepted = events.len();
    // A batch of CloudEvents may have none.
    let (own, durability) = if events.is_empty() {
        (Uuid::nil(), state.batcher.durability())
    } else {
        let receipt = state.batcher.push(events).await?;
        state.metrics.accepted(accepted);
        brought.keep();
        tally.accepted(receipt.queued_at);
        (receipt.own_id, receipt.durability)
    };
    let answer = AcceptedMany {
        accepted,
        status: "accepted",
        durability: durability.as_str(),
        ids: preferences.ids.then(|| kept_under(ids, taken, own)),
        ignored,
        errors,
    };
    let mut response = (StatusCode::ACCEPTED, Json(answer)).into_response();
    preferences.applied_to(response.headers_mut());
    Ok(response)
}

/// The ids under which a list's events are found: those that their client `written` has, or those that they got. `own` is
/// that of the first that has none, if it is the first of those `taken`.
fn kept_under(written: Vec<Option<String>>, taken: Vec<Taken>, own: Uuid) -> Vec<Option<String>> {
    let mut place = 0;
    let kept = taken.into_iter().zip(written).map(|(taken, written)| {
        let Taken::Under(id) = taken else { return None };
        let own = id_in(own, place);
        place += 1;
        Some(written.unwrap_or_else(|| id.map_or(own, EventId::uuid).to_string()))
    });
    kept.collect()
}

/// The answer for a single event, with `headers` besides its own.
pub(super) fn one(
    headers: HeaderMap,
    id: &str,
    durability: Durability,
    ignored: &[IgnoredField],
) -> Response {
    let answer = AcceptedOne { id, status: "accepted", durability: durability.as_str(), ignored };
    // Text always is JSON.
    let text = serde_json::to_vec(&answer).unwrap_or_default();
    let mut response = Response::new(text.into());
    *response.status_mut() = StatusCode::ACCEPTED;
    *response.headers_mut() = headers;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What is wanted of a request's events.
#[derive(Clone, Copy)]
struct Wanted {
    /// Whether they are a list, whose faults have a place in it.
    list: bool,
    /// Whether the answer has their ids.
    ids: bool,
}

/// What became of an event of a list.
enum Taken {
    /// It cannot be taken.
    Not,
    /// It can, under this id if it has one.
    Under(Option<EventId>),
}

/// A request's events.
struct Sorted<'a> {
    /// Those that can be taken.
    events: Vec<UsageEvent>,
    /// What becomes of each, if their ids are wanted.
    taken: Vec<Taken>,
    /// What is wrong with the others.
    errors: Errors,
    /// The features that nobody had before.
    brought: Brought<'a>,
    /// The tokens.
    tally: Tally<'a>,
}

/// Sorts a request's events. Those without an id get the one that their place in the request makes with its `key`.
fn sort<'a>(
    list: impl ExactSizeIterator<Item = Checked>,
    wanted: Wanted,
    key: Option<&str>,
    state: &'a AppState,
    caller: &Caller,
    now: Timestamp,
) -> Result<Sorted<'a>, NotKnownYet> {
    let (mut events, mut errors) = (Vec::with_capacity(list.len()), Errors::default());
    let (mut taken, mut wrong_tenant) = (Vec::new(), false);
    let (mut brought, mut tally) = (state.features.brought(), Tally::new(&state.usage));
    for (place, event) in list.enumerate() {
        let index = wanted.list.then_some(place);
        if wanted.ids {
            taken.push(Taken::Not);
        }
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
                    if let Some(last) = taken.last_mut() {
                        *last = Taken::Under(event.id);
                    }
                    events.push(event);
                }
                Ok(_) => errors.push(too_many_features(index, state.features.limit())),
            },
        }
    }
    tally.note();
    if wrong_tenant {
        state.metrics.turned_away(Reason::WrongTenant);
    }
    Ok(Sorted { events, taken, errors, brought, tally })
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
    let detail = format!(
        "`{}` is suspended; set `suspended: false` in its Tenant to have its events taken again",
        event.tenant
    );
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
