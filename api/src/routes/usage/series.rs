//! `GET /usage/:tenant/series`: tokens by minute, hour, day or month.

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use flagmeter_core::event::FeatureName;
use flagmeter_core::window::{self, Question, Window};
use flagmeter_store::postgres::directory::Tenant;
use flagmeter_store::postgres::series;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::form::{self, Form};
use super::unread;
use crate::csv::{Cell, Table};
use crate::error::ApiError;
use crate::freshness::Freshness;
use crate::routes::parameters::Parameters;
use crate::routes::path::Path;
use crate::state::AppState;
use crate::tokens::Tokens;

/// How long a request may take in all, its wait for a turn included: somewhat less than [`Limits::answer`], so that it
/// is told why.
///
/// [`Limits::answer`]: crate::config::Limits::answer
const TIME: Duration = Duration::from_secs(14);

/// What is asked for, known to be possible.
struct Asked {
    window: Window,
    zone: TimeZone,
    feature: Option<FeatureName>,
    windows: Vec<Range<Timestamp>>,
}

/// The answer. Instants are RFC 3339 in the zone's offset.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    tenant: &'a str,
    /// The one feature that was asked for, or null.
    feature: Option<&'a str>,
    window: &'static str,
    time_zone: &'a str,
    from: String,
    to: String,
    /// The sum of the points.
    total_tokens: Tokens,
    as_of: Timestamp,
    lag_milliseconds: Option<i64>,
    points: Vec<Point>,
}

/// One for each window, also where nothing was used.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Point {
    start: String,
    /// The first instant of the next.
    end: String,
    total_tokens: Tokens,
}

/// Adds up rollups. What is asked for is bounded before anything is read.
pub(super) async fn series(
    State(state): State<Arc<AppState>>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let tenant = state.directory.find(&tenant)?.ok_or(ApiError::TenantNotFound)?;
    let asked = Asked::read(query.as_deref(), &tenant, state.clock.now(), state.limits.rollups_days)?;
    let begun = Instant::now();
    let _turn = state.readings.take(&tenant.id).await.ok_or(ApiError::TooManyReadings)?;
    let fresh = Freshness::of_next_reading(&state.queue, state.clock).await;
    let feature = asked.feature.as_ref().map(FeatureName::as_str);
    let limit = series::LIMIT.min(TIME.saturating_sub(begun.elapsed()));
    let sums = series::exact_sums(&state.pool, tenant.id.as_str(), feature, &asked.windows, limit).await;
    let sums = sums.map_err(|error| unread(&error))?;
    let wanted = Form::wanted(&headers);
    form::made(move || {
        let points = asked.points(&sums);
        match wanted {
            Form::Json => form::answer(Json(asked.answer(&tenant, fresh, points))),
            Form::Csv => form::table(asked.table(&tenant, &points), fresh),
        }
    })
    .await
}

impl Asked {
    /// Reads a query. What it leaves open are the days of the open billing period in the tenant's zone.
    fn read(query: Option<&str>, tenant: &Tenant, now: Timestamp, kept_days: u16) -> Result<Self, ApiError> {
        let mut parameters = Parameters::of(query, &["from", "to", "window", "feature", "timeZone"]);
        let window = parameters.take("window", str::parse).unwrap_or(Window::Day);
        let feature = parameters.take("feature", |text| FeatureName::try_from(text));
        let zone =
            parameters.take("timeZone", zone).unwrap_or_else(|| tenant.calendar.terms().time_zone.clone());
        let from = parameters.take("from", |text| bound(text, &zone));
        let to = parameters.take("to", |text| bound(text, &zone));
        parameters.finish()?;
        let question = Question { window, zone, from, to };
        let windows = question.windows(now, kept_days, |instant| tenant.calendar.period(instant));
        let windows = windows.inspect_err(|refusal| parameters.refuse(refusal.parameter(), refusal));
        parameters.finish()?;
        Ok(Self { window, zone: question.zone, feature, windows: windows.unwrap_or_default() })
    }

    fn points(&self, sums: &[i128]) -> Vec<Point> {
        let point = |(window, sum): (&Range<Timestamp>, &i128)| Point {
            start: self.shown(window.start),
            end: self.shown(window.end),
            total_tokens: Tokens(*sum),
        };
        self.windows.iter().zip(sums).map(point).collect()
    }

    fn answer<'a>(&'a self, tenant: &'a Tenant, fresh: Freshness, points: Vec<Point>) -> Answer<'a> {
        let bound = |point: Option<&Point>, bound: fn(&Point) -> &String| point.map(bound).cloned();
        Answer {
            tenant: tenant.id.as_str(),
            feature: self.feature.as_ref().map(FeatureName::as_str),
            window: self.window.as_str(),
            time_zone: self.zone.iana_name().unwrap_or("UTC"),
            from: bound(points.first(), |point| &point.start).unwrap_or_default(),
            to: bound(points.last(), |point| &point.end).unwrap_or_default(),
            total_tokens: Tokens(points.iter().map(|point| point.total_tokens.0).sum()),
            as_of: fresh.as_of,
            lag_milliseconds: fresh.lag_milliseconds,
            points,
        }
    }

    fn table(&self, tenant: &Tenant, points: &[Point]) -> Table {
        let mut table = Table::new(["tenant", "feature", "start", "end", "totalTokens"]);
        let feature = self.feature.as_ref().map_or("", FeatureName::as_str);
        for Point { start, end, total_tokens } in points {
            let (tenant, feature) = (Cell::Text(tenant.id.as_str()), Cell::Text(feature));
            table.row([tenant, feature, Cell::Text(start), Cell::Text(end), Cell::Number(total_tokens.0)]);
        }
        table
    }

    fn shown(&self, instant: Timestamp) -> String {
        if self.zone == TimeZone::UTC {
            instant.to_string()
        } else {
            instant.display_with_offset(self.zone.to_offset(instant)).to_string()
        }
    }
}

fn bound(text: &str, zone: &TimeZone) -> Result<Timestamp, impl Display + use<>> {
    window::bound(text, zone).ok_or(
        "must be a date or an RFC 3339 time, such as 2026-01-31 or 2026-01-31T12:00:00Z; a + in it is written %2B",
    )
}

fn zone(name: &str) -> Result<TimeZone, impl Display + use<>> {
    let zone = TimeZone::get(name).ok().filter(|zone| !zone.is_unknown());
    zone.ok_or("must be the name of a time zone, such as Europe/Berlin or UTC")
}
