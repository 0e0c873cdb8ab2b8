//! `POST /events`: takes an event in.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use flagmeter_core::event::{self, UsageEvent};
use flagmeter_runtime::clock::Clock;
use serde::Serialize;
use uuid::Uuid;

use crate::batcher::Batcher;
use crate::directory::Directory;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::state::AppState;

/// The largest body, in bytes: 1 MiB.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 20;

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/events", post(ingest)).layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// What a client is told of an event that will count.
#[derive(Serialize)]
struct Accepted {
    /// Under this id the event is kept.
    id: Uuid,
    status: &'static str,
    /// `fsync`: it is on disk.
    durability: &'static str,
}

/// Takes one event in.
///
/// 202 means that the event is in the queue, as durable as the answer says; whoever is told anything
/// else sends it again, with the same `id`.
async fn ingest(
    State(batcher): State<Batcher>,
    State(directory): State<Directory>,
    State(clock): State<Clock>,
    State(metrics): State<Metrics>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    if !is_json(&headers) {
        return Err(ApiError::UnsupportedMediaType);
    }
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    let event = event::decode(&body, clock.now()).map_err(ApiError::NotAnEvent)?;
    let event = of_known_tenant(&directory, event)?;
    let receipt = batcher.push(event).await.map_err(ApiError::QueueUnavailable)?;
    metrics.accepted();
    let accepted = Accepted { id: receipt.id, status: "accepted", durability: receipt.durability.as_str() };
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// `application/json`, with whatever parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
}

fn unreadable(rejection: &BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::BodyTooLarge(MAX_BODY_BYTES);
    }
    // The client hung up; nobody reads this answer.
    ApiError::RequestTimeout(crate::REQUEST_TIMEOUT.as_secs())
}

fn of_known_tenant(directory: &Directory, event: UsageEvent) -> Result<UsageEvent, ApiError> {
    match directory.find(event.tenant.as_str())? {
        Some(_) => Ok(event),
        None => Err(ApiError::UnknownTenant(event.tenant.into())),
    }
}
