//! `GET /usage/:tenant`: what a tenant used in the open billing period; and what it used when, and before.

mod form;
mod periods;
mod series;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::get;
use flagmeter_core::projection::Projection;
use flagmeter_core::quota::{self, Boost};
use flagmeter_store::StoreError;
use jiff::Timestamp;
use serde::Serialize;

use crate::error::ApiError;
use crate::routes::parameters::Parameters;
use crate::routes::{Route, json, path};
use crate::state::AppState;
use crate::tokens::Tokens;

pub(crate) fn router() -> Router<Arc<AppState>> {
    Router::new()
        .route(Route::Series.path(), get(series::series))
        .route(Route::Periods.path(), get(periods::periods))
        .route(Route::Usage.path(), get(usage))
}

/// The answer. Instants are RFC 3339 in UTC.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    tenant: &'a str,
    /// The start of the newest minute with usage in the period, or null before the first.
    minute: Option<Timestamp>,
    total_tokens: Tokens,
    /// Rounded down; may pass 100, and with a small quota become as large as tokens do.
    quota_percent: Tokens,
    /// With the boosts of now.
    monthly_quota: i64,
    /// Without them.
    base_quota: i64,
    /// Raises of the quota that hold now, or will in this period.
    boosts: Vec<&'a Boost>,
    /// Never below 0.
    remaining_tokens: i64,
    period_start: &'a str,
    /// The first instant of the next period.
    period_end: &'a str,
    /// When the quota will be used up if usage goes on as it did; null if it will not be in this period, if it is, or
    /// if that would be a guess.
    projected_exhaustion: Option<Timestamp>,
    /// Which of these: `projected`, `lasts`, `exhausted`, `no_usage`, `too_little_data` or `irregular`.
    projection: &'static str,
    /// When this was true.
    as_of: &'a str,
    /// How long the oldest event had waited then that is not in these numbers; 0 if none waited, null if the
    /// queue did not say.
    lag_milliseconds: Option<i64>,
    /// In the order of their names; they add up to the total.
    features: Vec<Feature<&'a str>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Feature<Name> {
    feature: Name,
    total_tokens: Tokens,
}

async fn usage(State(state): State<Arc<AppState>>, uri: Uri) -> Result<Response, ApiError> {
    answer(&state, &uri)
}

/// A lookup in the newest snapshot.
///
/// # Errors
///
/// [`ApiError`]: no such tenant, a query, or nothing was read yet.
pub(crate) fn answer(state: &AppState, uri: &Uri) -> Result<Response, ApiError> {
    let tenant = path::tenant(uri)?;
    let tenant = state.directory.find(&tenant)?.ok_or(ApiError::TenantNotFound)?;
    Parameters::none(uri.query())?;
    let snapshot = state.usage.newest().ok_or(ApiError::NotReady)?;
    let now = state.clock.now();
    let open = tenant.open(now);
    let usage = snapshot.usage(&tenant, &open.period);
    let used = usage.total_tokens;
    let quota = tenant.quota.at(now);
    let boosts = tenant.quota.boosts.iter();
    let recent = tenant.recent();
    let projection = Projection::of(used, &tenant.quota, &open.period, recent.as_deref(), now);
    let features = usage.features.iter();
    let answer = Answer {
        tenant: tenant.id.as_str(),
        minute: usage.last_minute,
        total_tokens: used.into(),
        quota_percent: quota::percent(used, quota).into(),
        monthly_quota: quota,
        base_quota: tenant.quota.base,
        boosts: boosts.filter(|boost| now < boost.until && boost.from < open.period.end).collect(),
        remaining_tokens: quota::remaining(used, quota),
        period_start: &open.start,
        period_end: &open.end,
        projected_exhaustion: projection.exhaustion(),
        projection: projection.as_str(),
        as_of: snapshot.as_of_text(),
        lag_milliseconds: snapshot.lag_milliseconds,
        features: features
            .map(|(name, tokens)| Feature { feature: name.as_str(), total_tokens: (*tokens).into() })
            .collect(),
    };
    json(&answer)
}

/// What the caller is told of past usage that could not be read.
fn unread(error: &StoreError) -> ApiError {
    tracing::error!(error = error as &dyn std::error::Error, "failed to read past usage");
    if error.took_too_long() {
        ApiError::ReadingTooLarge
    } else if error.is_of_the_data() {
        ApiError::Internal
    } else {
        ApiError::StoreUnavailable
    }
}
