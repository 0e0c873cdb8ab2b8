//! `/live`: the dashboard's rows as server-sent events, whenever one changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures::stream;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::metrics::Counted;
use crate::routes::Route;
use crate::routes::dashboard::Row;
use crate::state::AppState;
use crate::usage::Snapshot;

/// Pages that are kept live at once; one more is asked to come again, and shows its numbers as they
/// were when it was loaded. Each costs a connection, and the rows it shows.
const MAX_STREAMS: usize = 256;

/// A page gets at most one message in this time: more cannot be read.
const PACE: Duration = Duration::from_millis(500);

/// A page that has gone is noticed when it does not take what is sent to it, so something is sent at least this often.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What asks a proxy to pass each message on when it comes, instead of collecting some KiB of them (nginx and others).
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

/// And not to compress them, which collects even more (RFC 9111, section 5.2.2.6).
const UNCHANGED: (HeaderName, &str) = (CACHE_CONTROL, "no-store, no-transform");

pub(crate) fn router() -> Router<Arc<AppState>> {
    let (places, newest) = (Arc::new(Semaphore::new(MAX_STREAMS)), Newest::default());
    let live = async move |state: State<Arc<AppState>>| live(state, places, newest);
    Router::new().route(Route::Live.path(), get(live))
}

/// The rows of a snapshot, in the order of their tenants' ids.
struct Rows {
    snapshot: Arc<Snapshot>,
    rows: Vec<Row>,
}

/// Those of the newest snapshot, which are made once for all pages.
type Newest = Arc<ArcSwapOption<Rows>>;

/// One page's stream.
struct Viewer {
    state: Arc<AppState>,
    newest: Newest,
    pace: tokio::time::Interval,
    shown: Option<Arc<Rows>>,
    _permit: tokio::sync::OwnedSemaphorePermit,
    _counted: Counted,
}

fn live(
    State(state): State<Arc<AppState>>,
    places: Arc<Semaphore>,
    newest: Newest,
) -> Result<impl IntoResponse, ApiError> {
    let permit = places.try_acquire_owned().map_err(|_| ApiError::NotReady)?;
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let counted = state.metrics.live_stream();
    let viewer = Viewer { state, newest, pace, shown: None, _permit: permit, _counted: counted };
    let messages = Sse::new(stream::unfold(viewer, Viewer::next));
    // `Sse` has its own `no-cache`, which these take the place of.
    Ok(([UNBUFFERED, UNCHANGED], messages.keep_alive(KeepAlive::new().interval(KEEP_ALIVE))))
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
        let rows = self.rows()?;
        let before = self.shown.replace(Arc::clone(&rows));
        let before = before.as_ref().map(|before| before.rows.as_slice()).unwrap_or_default();
        let differs = |row: &&Row| {
            let place = before.binary_search_by(|known| known.tenant.cmp(&row.tenant));
            place.ok().and_then(|place| before.get(place)) != Some(*row)
        };
        let changed: Vec<&Row> = rows.rows.iter().filter(differs).collect();
        if changed.is_empty() && before.len() == rows.rows.len() {
            return None;
        }
        let as_of = rows.snapshot.as_of.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
        let tenants: Vec<&str> = rows.rows.iter().map(|row| row.tenant.as_str()).collect();
        let message = serde_json::json!({ "asOf": as_of, "tenants": tenants, "rows": changed });
        // Text and numbers always are JSON.
        Event::default().event("usage").json_data(message).ok()
    }

    /// The rows as they are now. Snapshots come five times a second, with or without news.
    fn rows(&self) -> Option<Arc<Rows>> {
        let snapshot = self.state.usage.newest()?;
        let made = self.newest.load_full().filter(|made| Arc::ptr_eq(&made.snapshot, &snapshot));
        Some(made.unwrap_or_else(|| {
            let rows = Row::all(&self.state.directory.all(), &snapshot, self.state.clock.now());
            let made = Arc::new(Rows { snapshot, rows });
            self.newest.store(Some(Arc::clone(&made)));
            made
        }))
    }
}
