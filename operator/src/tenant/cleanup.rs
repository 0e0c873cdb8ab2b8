//! Deletes the rows of a Tenant that goes with everything that was counted, a slice of time at a time.
//!
//! One deletion works at a time, so that many do not keep the disk from those who count. How far it came is
//! remembered by this process alone: after a restart it begins again, and finds less to do.

use std::collections::HashMap;
use std::time::Duration;

use flagmeter_store::postgres::deletion::{self, Deletion};
use flagmeter_store::postgres::tenants::OPERATOR;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Context, Error};

/// How long a reconcile works on it before it says how far it has come.
const SLICE: Duration = Duration::from_secs(5);

/// The deletions that have begun, by the resource's uid.
#[derive(Debug, Default)]
pub(super) struct Cleanups(Mutex<HashMap<String, Deletion>>);

/// What came of a slice.
#[derive(Debug)]
pub(super) enum Cleanup {
    /// All is gone, and the id is free.
    Done,
    /// There is more. The sentence says how far it has come.
    Going(String),
    /// It is another's turn.
    Waiting,
}

impl Cleanups {
    /// The tenant may go without. Where another's deletion is under way, this one is left: it does no harm, and nothing
    /// must keep a tenant that may go.
    pub(super) fn forget(&self, uid: &str) {
        if let Ok(mut begun) = self.0.try_lock() {
            begun.remove(uid);
        }
    }
}

/// Deletes what belongs to the resource `uid` for a while. What belongs to another is not touched.
pub(super) async fn clean_up(ctx: &Context, id: &str, uid: &str) -> Result<Cleanup, Error> {
    let Ok(mut begun) = ctx.cleanups.0.try_lock() else { return Ok(Cleanup::Waiting) };
    if !ctx.answers.of(deletion::begin(&ctx.db, id, uid, OPERATOR)).await.map_err(Error::CleanUp)? {
        begun.remove(uid);
        return Ok(Cleanup::Done);
    }
    if !begun.contains_key(uid) {
        let deletion = ctx.answers.of(Deletion::of(&ctx.db, id)).await.map_err(Error::CleanUp)?;
        tracing::info!(tenant.name = id, "deleting all that is kept of {id}");
        begun.insert(uid.to_owned(), deletion);
    }
    let Some(deletion) = begun.get_mut(uid) else { return Ok(Cleanup::Waiting) };
    let started = Instant::now();
    while ctx.answers.of(deletion.step(&ctx.db)).await.map_err(Error::CleanUp)? {
        if started.elapsed() >= SLICE {
            let (done, of) = deletion.places();
            return Ok(Cleanup::Going(format!(
                "{} rows are deleted so far, and {done} of {of} tables and partitions are done",
                deletion.rows()
            )));
        }
    }
    let rows = deletion.rows();
    ctx.answers.of(deletion::end(&ctx.db, id, uid, OPERATOR)).await.map_err(Error::CleanUp)?;
    begun.remove(uid);
    tracing::info!(tenant.name = id, rows, "deleted all that was kept of {id}");
    // Its last listener is gone when the operator stops.
    let _ = ctx.freed.send(id.to_owned());
    Ok(Cleanup::Done)
}
