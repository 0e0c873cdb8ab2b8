//! `GET /usage/:tenant/periods`: the open billing period and those before it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use flagmeter_core::period::BillingPeriod;
use flagmeter_store::postgres::directory::Tenant;
use flagmeter_store::postgres::usage::{self, Period};
use jiff::Timestamp;
use serde::Serialize;

use super::form::{self, Form};
use super::{Feature, unread};
use crate::csv::{Cell, Table};
use crate::error::ApiError;
use crate::freshness::Freshness;
use crate::routes::parameters::Parameters;
use crate::routes::path::Path;
use crate::state::AppState;
use crate::tokens::Tokens;

/// Periods in an answer, if nobody says otherwise: a year.
const DEFAULT: u16 = 12;

/// At most: ten years.
const MOST: u16 = 120;

/// The answer. Instants are RFC 3339 in UTC.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    tenant: &'a str,
    as_of: Timestamp,
    lag_milliseconds: Option<i64>,
    /// The newest first.
    periods: Vec<PeriodAnswer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PeriodAnswer {
    period_start: Timestamp,
    /// The first instant of the next.
    period_end: Timestamp,
    /// Whether it has not ended yet.
    open: bool,
    total_tokens: Tokens,
    /// How many, those that take another back among them.
    events: i64,
    /// In the order of their names; they add up to the total.
    features: Vec<Feature<String>>,
}

impl<'a> Answer<'a> {
    fn of(tenant: &'a Tenant, periods: Vec<Period>, fresh: Freshness) -> Self {
        Self {
            tenant: tenant.id.as_str(),
            as_of: fresh.as_of,
            lag_milliseconds: fresh.lag_milliseconds,
            periods: periods.into_iter().map(|period| PeriodAnswer::of(period, fresh.as_of)).collect(),
        }
    }
}

impl PeriodAnswer {
    fn of(period: Period, now: Timestamp) -> Self {
        let feature = |(feature, tokens): (String, i64)| Feature { feature, total_tokens: tokens.into() };
        Self {
            period_start: period.start,
            period_end: period.end,
            open: period.end > now,
            total_tokens: period.total_tokens.into(),
            events: period.events,
            features: period.features.into_iter().map(feature).collect(),
        }
    }
}

/// A look-up of so many rows. Periods are kept as they were counted, whatever the tenant's billing day is today.
pub(super) async fn periods(
    State(state): State<Arc<AppState>>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let tenant = state.directory.find(&tenant)?.ok_or(ApiError::TenantNotFound)?;
    let limit = limit(query.as_deref())?;
    let _turn = state.readings.take(&tenant.id).await.ok_or(ApiError::TooManyReadings)?;
    let fresh = Freshness::of_next_reading(&state.queue, state.clock).await;
    let read = usage::periods(&state.pool, tenant.id.as_str(), fresh.as_of, limit).await;
    let periods = read.map_err(|error| unread(&error))?;
    let periods = with_open(periods, &tenant, fresh.as_of, limit);
    let wanted = Form::wanted(&headers);
    form::made(move || match wanted {
        Form::Json => form::answer(Json(Answer::of(&tenant, periods, fresh))),
        Form::Csv => form::table(table(&tenant, &periods), fresh),
    })
    .await
}

fn limit(query: Option<&str>) -> Result<u16, ApiError> {
    let mut parameters = Parameters::of(query, &["limit"]);
    let limit = parameters.take("limit", |text| {
        let limit = text.parse().ok().filter(|limit| (1..=MOST).contains(limit));
        limit.ok_or_else(|| format!("must be a whole number from 1 to {MOST}"))
    });
    parameters.finish()?;
    Ok(limit.unwrap_or(DEFAULT))
}

/// The open period comes first, also while nothing is counted in it.
fn with_open(mut periods: Vec<Period>, tenant: &Tenant, now: Timestamp, limit: u16) -> Vec<Period> {
    if periods.first().is_none_or(|newest| newest.end <= now) {
        let BillingPeriod { start, end } = tenant.calendar.period(now);
        periods.insert(0, Period { start, end, total_tokens: 0, events: 0, features: Vec::new() });
        periods.truncate(limit.into());
    }
    periods
}

/// A row for each feature of each period, and one without a feature where there is none.
fn table(tenant: &Tenant, periods: &[Period]) -> Table {
    let columns =
        ["tenant", "periodStart", "periodEnd", "periodTokens", "periodEvents", "feature", "featureTokens"];
    let mut table = Table::new(columns);
    for period in periods {
        let (start, end) = (period.start.to_string(), period.end.to_string());
        let mut add = |feature: &str, tokens| {
            table.row([
                Cell::Text(tenant.id.as_str()),
                Cell::Text(&start),
                Cell::Text(&end),
                Cell::Number(period.total_tokens.into()),
                Cell::Number(period.events.into()),
                Cell::Text(feature),
                Cell::Number(tokens),
            ]);
        };
        for (feature, tokens) in &period.features {
            add(feature, i128::from(*tokens));
        }
        if period.features.is_empty() {
            add("", 0);
        }
    }
    table
}
