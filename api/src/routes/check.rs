//! `GET /check/:tenant?tokens=n`: whether so many tokens more are within the quota.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::http::header::{HeaderName, HeaderValue};
use axum::response::Response;
use axum::routing::get;
use flagmeter_core::check::{Denial, Standing};
use flagmeter_core::event::TokenCount;
use flagmeter_core::period::BillingPeriod;
use jiff::Timestamp;
use serde::Serialize;

use super::parameters::Parameters;
use super::{Route, json, path};
use crate::error::ApiError;
use crate::state::AppState;

/// What there is in all, and in which time (draft-ietf-httpapi-ratelimit-headers-10, section 3).
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What is left of it (section 4).
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The largest integer that a header may have (RFC 9651, section 3.3.1); a quota may be larger.
const MAX_INTEGER: i64 = 999_999_999_999_999;

pub(crate) fn router() -> Router<Arc<AppState>> {
    Router::new().route(Route::Check.path(), get(check))
}

/// The answer. Instants are RFC 3339 in UTC.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    tenant: &'a str,
    /// Whether `tokens` more are within the quota.
    allowed: bool,
    /// Why not: `quota_exceeded` or `suspended`; null if they are.
    reason: Option<&'static str>,
    /// What was asked about.
    tokens: i64,
    /// With what is known to be queued taken off; never below 0.
    remaining_tokens: i64,
    /// Taken in by this api, and perhaps not in the numbers of `asOf`.
    queued_tokens: i64,
    monthly_quota: i64,
    /// When the next period starts.
    resets_at: &'a str,
    as_of: &'a str,
    lag_milliseconds: Option<i64>,
}

async fn check(State(state): State<Arc<AppState>>, uri: Uri) -> Result<Response, ApiError> {
    answer(&state, &uri)
}

/// A lookup in memory. It answers 200 in either case: what follows is the caller's to decide.
///
/// # Errors
///
/// [`ApiError`]: no such tenant, a query that says nothing, or nothing was read yet.
pub(crate) fn answer(state: &AppState, uri: &Uri) -> Result<Response, ApiError> {
    let tenant = path::tenant(uri)?;
    let tenant = state.directory.find(&tenant)?.ok_or(ApiError::TenantNotFound)?;
    let tokens = tokens(uri.query())?;
    let snapshot = state.usage.newest().ok_or(ApiError::NotReady)?;
    let now = state.clock.now();
    let open = tenant.open(now);
    let usage = snapshot.usage(&tenant, &open.period);
    let standing = Standing {
        quota: tenant.quota.at(now),
        used: usage.total_tokens,
        queued: tenant.queued().tokens(&open.period, snapshot.complete_until()),
        suspended: tenant.suspended,
    };
    let denial = standing.allows(tokens).err();
    let answer = Answer {
        tenant: tenant.id.as_str(),
        allowed: denial.is_none(),
        reason: denial.map(Denial::as_str),
        tokens,
        remaining_tokens: standing.remaining(),
        queued_tokens: standing.queued,
        monthly_quota: standing.quota,
        resets_at: &open.end,
        as_of: snapshot.as_of_text(),
        lag_milliseconds: snapshot.lag_milliseconds,
    };
    let mut response = json(&answer)?;
    let headers = response.headers_mut();
    for (name, value) in limit(&standing, &open.period, now) {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    Ok(response)
}

/// The tokens of a query; 1 if it has none, which asks whether anything is left.
fn tokens(query: Option<&str>) -> Result<i64, ApiError> {
    let Some(query) = query else { return Ok(1) };
    let mut parameters = Parameters::of(Some(query), &["tokens"]);
    let tokens = parameters.take("tokens", |text| {
        let tokens = text.parse::<i64>().ok().filter(|tokens| *tokens > 0);
        tokens
            .and_then(|tokens| TokenCount::try_from(tokens).ok())
            .ok_or("must be a whole number from 1 to 9007199254740991")
    });
    parameters.finish()?;
    Ok(tokens.map_or(1, TokenCount::get))
}

/// The quota as headers. `tokens` is not among the registered units of a quota, and the only true one.
fn limit(standing: &Standing, period: &BillingPeriod, now: Timestamp) -> [(HeaderName, String); 2] {
    let quota = standing.quota.min(MAX_INTEGER);
    let left = if standing.suspended { 0 } else { standing.remaining().min(MAX_INTEGER) };
    let window = period.end.duration_since(period.start).as_secs();
    // Not before the period has ended.
    let wait = period.end.as_second() - now.as_second();
    [
        (POLICY, format!(r#""quota";q={quota};qu="tokens";w={window}"#)),
        (LIMIT, format!(r#""quota";r={left};t={wait}"#)),
    ]
}
