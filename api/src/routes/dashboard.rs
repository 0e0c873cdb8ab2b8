//! `/`: the tenants and what they used, and the two files the page is made of.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::get;
use flagmeter_core::number::grouped;
use flagmeter_core::projection::Projection;
use flagmeter_core::quota;
use jiff::Timestamp;
use serde::Serialize;

use crate::error::ApiError;
use crate::page::Page;
use crate::routes::Route;
use crate::state::AppState;
use crate::tenant::Known;
use crate::usage::Snapshot;

pub(crate) fn router() -> Router<Arc<AppState>> {
    let file = |media_type, text| ([(CONTENT_TYPE, media_type), (CACHE_CONTROL, "max-age=300")], text);
    Router::new()
        .route(Route::Dashboard.path(), get(dashboard))
        .route(
            "/static/style.css",
            get(async move || file("text/css", include_str!("../../static/style.css"))),
        )
        .route(
            "/static/live.js",
            get(async move || file("text/javascript", include_str!("../../static/live.js"))),
        )
}

/// A tenant's row, as text: the template and the page's script only put it in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    /// The tenant's id.
    pub(crate) tenant: String,
    name: String,
    used: String,
    quota: String,
    percent: i64,
    /// `low`, `high` from 80 percent, `over` from 100: a colour, with the number beside it.
    level: &'static str,
    /// The day on which the next period starts, in the tenant's zone.
    resets: String,
    /// The day on which the quota is likely to be used up, if that can be said.
    runs_out: String,
}

impl Row {
    fn of(tenant: &Known, snapshot: &Snapshot, now: Timestamp) -> Self {
        let current = snapshot.current(tenant, now);
        let (used, quota, recent) = (current.usage.total_tokens, tenant.quota.at(now), tenant.recent());
        let projection = Projection::of(used, &tenant.quota, &current.period, recent.as_deref(), now);
        let day = |instant| tenant.calendar.terms().time_zone.to_datetime(instant).date().to_string();
        let percent = quota::percent(used, quota);
        Self {
            tenant: tenant.id.to_string(),
            name: tenant.name.clone(),
            used: grouped(used),
            quota: grouped(quota),
            percent,
            level: match percent {
                ..80 => "low",
                80..100 => "high",
                _ => "over",
            },
            resets: day(current.period.end),
            runs_out: match projection {
                Projection::At(instant) => day(instant),
                Projection::Exhausted => "used up".to_owned(),
                Projection::Lasts => "not before it resets".to_owned(),
                Projection::NoUsage | Projection::TooLittleData | Projection::Irregular => "–".to_owned(),
            },
        }
    }

    /// The rows of all tenants, in the order of their ids.
    pub(crate) fn all(tenants: &[Arc<Known>], snapshot: &Snapshot, now: Timestamp) -> Vec<Self> {
        tenants.iter().map(|tenant| Self::of(tenant, snapshot, now)).collect()
    }
}

#[derive(Template)]
#[template(path = "dashboard.html")]
struct Dashboard {
    rows: Vec<Row>,
    as_of: String,
    /// Whoever reaches the port may do all.
    open: bool,
}

/// The page, complete without JavaScript; with it, the numbers stay live.
async fn dashboard(State(state): State<Arc<AppState>>) -> Result<Page<Dashboard>, ApiError> {
    let snapshot = state.usage.newest().ok_or(ApiError::NotReady)?;
    let rows = Row::all(&state.directory.all(), &snapshot, state.clock.now());
    Ok(Page(Dashboard {
        rows,
        as_of: snapshot.as_of.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        open: state.auth.is_disabled(),
    }))
}
