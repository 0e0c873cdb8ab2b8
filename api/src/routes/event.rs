//! `GET /events/:tenant/:id` and `DELETE /events/:tenant/:id`: what became of an event, and taking it back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use flagmeter_core::event::{EventId, FeatureName, TenantName, TokenCount, UsageEvent};
use flagmeter_store::StoreError;
use flagmeter_store::postgres::lookup::{self, Conflict, Counted, Found};
use flagmeter_store::queue::{Durability, EventQueue};
use jiff::Timestamp;
use serde::Serialize;

use super::events::one;
use crate::error::ApiError;
use crate::routes::Route;
use crate::routes::parameters::Parameters;
use crate::routes::path::Path;
use crate::state::AppState;

/// How long it is waited for that all is counted which was taken in before. A worker that keeps up needs a tenth.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is asked whether it is.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
    RawQuery(query): RawQuery,
) -> Result<impl IntoResponse, ApiError> {
    Parameters::none(query.as_deref())?;
    let found = look_for(&state, &tenant, &id).await?;
    Ok(Json(Answer { tenant, id, state: found.into() }))
}

/// Takes an event back: a row against it is counted, through the same queue, once however often this is
/// asked. The event itself stays, and its id stays taken. That goes for a suspended tenant's events, too: what was
/// counted wrongly is put right.
async fn take_back(
    State(state): State<Arc<AppState>>,
    Path((tenant, id)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    // `?dryRun=true` must not take anything back.
    Parameters::none(query.as_deref())?;
    state.gate.check()?;
    let Found::Counted(counted) = look_for(&state, &tenant, &id).await? else {
        return Err(ApiError::EventNotFound);
    };
    if counted.reversed_at.is_some() {
        // It is in PostgreSQL already, which has it on disk.
        return Ok(one(HeaderMap::new(), &id, Durability::Fsync, &[]));
    }
    let reversal = reversal(&tenant, &id, &counted).ok_or(ApiError::EventNotFound)?;
    let receipt = state.batcher.push(vec![reversal]).await?;
    state.metrics.accepted(1);
    Ok(one(HeaderMap::new(), &id, receipt.durability, &[]))
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

/// The event, among what is counted. That there is none can only be said once everything that was taken in before
/// this was asked is counted.
async fn look_for(state: &AppState, tenant: &str, id: &str) -> Result<Found, ApiError> {
    let tenant = state.directory.find(tenant)?.ok_or(ApiError::TenantNotFound)?;
    // A queue that is silent must not keep anyone from what is counted.
    let newest = tokio::time::timeout(PATIENCE, state.queue.newest()).await;
    if let Some(found) = look(state, &tenant.id, id).await? {
        return Ok(found);
    }
    let newest = newest.map_err(|_| ApiError::StillCounting)?;
    let Some(newest) = newest.map_err(|error| unavailable(&error))? else {
        return Err(ApiError::EventNotFound);
    };
    if !is_counted_soon(&state.queue, &newest).await? {
        return Err(ApiError::StillCounting);
    }
    look(state, &tenant.id, id).await?.ok_or(ApiError::EventNotFound)
}

/// One look, at its turn.
async fn look(state: &AppState, tenant: &TenantName, id: &str) -> Result<Option<Found>, ApiError> {
    let _turn = state.lookups.take(tenant).await.ok_or(ApiError::TooManyLookups)?;
    let found = lookup::find(&state.pool, tenant.as_str(), EventId::of(id)).await;
    found.map_err(|error| unavailable(&error))
}

/// Whether all up to an entry has left the queue, or does so in time.
async fn is_counted_soon(queue: &EventQueue, entry_id: &str) -> Result<bool, ApiError> {
    let end = Instant::now() + PATIENCE;
    loop {
        if queue.is_counted_up_to(entry_id).await.map_err(|error| unavailable(&error))? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn unavailable(error: &StoreError) -> ApiError {
    tracing::error!(error = error as &dyn std::error::Error, "failed to look for an event");
    if error.is_of_the_data() { ApiError::Internal } else { ApiError::StoreUnavailable }
}
