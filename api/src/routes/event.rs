//! `GET /events/:tenant/:id` and `DELETE /events/:tenant/:id`: what became of an event, and taking it back.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use flagmeter_core::event::{EventId, FeatureName, TenantName, TokenCount, UsageEvent};
use flagmeter_store::StoreError;
use flagmeter_store::postgres::lookup::{self, Conflict, Counted, Found};
use jiff::Timestamp;
use serde::Serialize;

use super::events::one;
use crate::error::ApiError;
use crate::routes::Route;
use crate::state::AppState;

pub(crate) fn router() -> Router<Arc<AppState>> {
    Router::new().route(Route::Event.path(), get(find).delete(take_back))
}

/// What is known of an event. Instants are RFC 3339 in UTC.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    tenant: String,
    id: String,
    #[serde(flatten)]
    state: EventState,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "state")]
enum EventState {
    /// It counts.
    Counted(Details),
    /// It did, until it was taken back.
    Reversed {
        #[serde(flatten)]
        details: Details,
        reversed_at: Timestamp,
    },
    /// It could not be counted.
    DeadLettered { reason: String, at: Timestamp },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    feature: String,
    tokens: i64,
    timestamp: Timestamp,
    received_at: Timestamp,
    /// What came under the same id and said something else; the first such. It does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<ConflictDetails>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConflictDetails {
    feature: String,
    tokens: i64,
    received_at: Timestamp,
}

impl From<Found> for EventState {
    fn from(found: Found) -> Self {
        let counted = match found {
            Found::DeadLettered { reason, at } => return Self::DeadLettered { reason, at },
            Found::Counted(counted) => counted,
        };
        let conflict =
            |Conflict { feature, tokens, received_at }| ConflictDetails { feature, tokens, received_at };
        let details = Details {
            feature: counted.feature,
            tokens: counted.tokens,
            timestamp: counted.occurred_at,
            received_at: counted.received_at,
            conflict: counted.conflict.map(conflict),
        };
        match counted.reversed_at {
            Some(reversed_at) => Self::Reversed { details, reversed_at },
            None => Self::Counted(details),
        }
    }
}

/// What became of an event.
async fn find(
    State(state): State<Arc<AppState>>,
    Path((tenant, id)): Path<(String, String)>,
) -> Result<impl IntoResponse, ApiError> {
    let found = look_for(&state, &tenant, &id).await?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(Answer { tenant, id, state: found.into() })))
}

/// Takes an event back: a row against it is counted, through the same queue, once however often this is
/// asked. The event itself stays, and its id stays taken.
async fn take_back(
    State(state): State<Arc<AppState>>,
    Path((tenant, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let Found::Counted(counted) = look_for(&state, &tenant, &id).await? else {
        return Err(ApiError::EventNotFound);
    };
    let reversal = reversal(&tenant, &id, &counted).ok_or(ApiError::EventNotFound)?;
    let receipt = state.batcher.push(vec![reversal]).await.map_err(ApiError::QueueUnavailable)?;
    Ok(one(id, receipt.durability))
}

/// The event against `counted`: it says the same, in the same minute. A row that is itself against another
/// has fewer than no tokens, and cannot be taken back.
fn reversal(tenant: &str, id: &str, counted: &Counted) -> Option<UsageEvent> {
    Some(UsageEvent {
        tenant: TenantName::try_from(tenant).ok()?,
        feature: FeatureName::try_from(counted.feature.as_str()).ok()?,
        tokens: TokenCount::try_from(counted.tokens).ok()?,
        id: None,
        occurred_at: counted.occurred_at,
        reverses: Some(EventId::of(id)),
    })
}

/// The event, among what is counted. That there is none can only be said once everything that was queued
/// before is counted; so the queue is asked first.
async fn look_for(state: &AppState, tenant: &str, id: &str) -> Result<Found, ApiError> {
    state.directory.find(tenant)?.ok_or(ApiError::TenantNotFound)?;
    let waiting = state.queue.oldest().await;
    let found =
        lookup::find(&state.pool, tenant, EventId::of(id)).await.map_err(|error| unavailable(&error))?;
    match (found, waiting) {
        (Some(found), _) => Ok(found),
        (None, Ok(None)) => Err(ApiError::EventNotFound),
        (None, Ok(Some(_))) => Err(ApiError::StillCounting),
        (None, Err(error)) => Err(unavailable(&error)),
    }
}

fn unavailable(error: &StoreError) -> ApiError {
    tracing::error!(error = error as &dyn std::error::Error, "failed to look for an event");
    ApiError::StoreUnavailable
}
