//! `/live`: the dashboard's rows as server-sent events, whenever one changes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures::stream::{self, Stream};
use prometheus::IntGauge;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::directory::Directory;
use crate::error::ApiError;
use crate::routes::Route;
use crate::routes::dashboard::Row;
use crate::state::AppState;

/// Pages that are kept live at once; one more is asked to come again, and shows its numbers as they
/// were when it was loaded. Each costs a connection and a copy of its rows.
const MAX_STREAMS: usize = 256;

/// A page gets at most one message in this time: more cannot be read.
const PACE: Duration = Duration::from_millis(500);

pub(crate) fn router() -> Router<Arc<AppState>> {
    let places = Arc::new(Semaphore::new(MAX_STREAMS));
    Router::new().route(Route::Live.path(), get(async move |state: State<Arc<AppState>>| live(state, places)))
}

/// One page's stream.
struct Viewer {
    state: Arc<AppState>,
    pace: tokio::time::Interval,
    shown: HashMap<String, Row>,
    _permit: tokio::sync::OwnedSemaphorePermit,
    _counted: Counted,
}

/// A stream that is counted until it ends.
struct Counted(IntGauge);

impl Counted {
    fn one(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn live(
    State(state): State<Arc<AppState>>,
    places: Arc<Semaphore>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let permit = places.try_acquire_owned().map_err(|_| ApiError::NotReady)?;
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let counted = Counted::one(state.metrics.live_streams());
    let viewer = Viewer { state, pace, shown: HashMap::new(), _permit: permit, _counted: counted };
    Ok(Sse::new(stream::unfold(viewer, Viewer::next)).keep_alive(KeepAlive::default()))
}

impl Viewer {
    /// The next message: the rows that differ from what this page shows. Ends when the api stops,
    /// so that the page connects to another.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        let draining: CancellationToken = self.state.draining.clone();
        loop {
            tokio::select! {
                () = draining.cancelled() => return None,
                _ = self.pace.tick() => {}
            }
            let Some(message) = self.message() else { continue };
            return Some((Ok(message), self));
        }
    }

    fn message(&mut self) -> Option<Event> {
        let snapshot = self.state.usage.newest()?;
        let directory: &Directory = &self.state.directory;
        let rows = Row::all(&directory.all(), &snapshot, self.state.clock.now());
        let all = rows.len();
        let changed: Vec<&Row> =
            rows.iter().filter(|row| self.shown.get(&row.tenant) != Some(*row)).collect();
        if changed.is_empty() && self.shown.len() == all {
            return None;
        }
        let as_of = snapshot.as_of.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
        let tenants: Vec<&str> = rows.iter().map(|row| row.tenant.as_str()).collect();
        let message = serde_json::json!({ "asOf": as_of, "tenants": tenants, "rows": changed });
        self.shown = rows.into_iter().map(|row| (row.tenant.clone(), row)).collect();
        // Text and numbers always are JSON.
        Event::default().event("usage").json_data(message).ok()
    }
}
