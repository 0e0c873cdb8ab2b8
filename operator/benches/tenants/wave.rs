//! Applies Tenants, and sees when each is in PostgreSQL and Ready.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flagmeter_crds::Tenant;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::ResourceExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::Cluster;
use crate::rows::Rows;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_mins(10);

/// How often PostgreSQL is asked what was written: no time is known better than to this.
const LOOK: Duration = Duration::from_millis(10);

/// How long the first edit waits for the next.
const PAUSE: Duration = Duration::from_millis(50);

/// How long it took, in order, from the answer to an apply on.
pub(crate) struct Times {
    /// Until the row was written.
    pub(crate) row: Vec<Duration>,
    /// Until the Tenant was Ready; empty for edits.
    pub(crate) ready: Vec<Duration>,
    /// From the first apply to the last answer.
    pub(crate) applied: Duration,
    /// From the first apply to the last Tenant that is Ready, or, for edits, the last row.
    pub(crate) all: Duration,
}

/// Applies `count` Tenants, `at_once` in flight, and waits until all are Ready.
pub(crate) async fn run(cluster: &Cluster, rows: &Rows, count: usize, at_once: usize) -> Result<Times> {
    let started = Instant::now();
    let requests = async {
        let each = (0..count).map(async |number| {
            let name = name(number);
            cluster.apply(&name, 1_000_000).await?;
            anyhow::Ok((name, Instant::now()))
        });
        let applied: HashMap<_, _> = stream::iter(each).buffer_unordered(at_once).try_collect().await?;
        anyhow::Ok((applied, started.elapsed()))
    };
    let work =
        async { tokio::try_join!(requests, written(rows, "created", 0, count), ready(cluster, count)) };
    let ((applied, all_applied), written, ready) =
        timeout(PATIENCE, work).await.context("the Tenants are not all Ready")??;
    let since = |times: &HashMap<String, Instant>| sorted(times, &applied);
    let last = ready.values().max().copied().unwrap_or(started);
    Ok(Times { row: since(&written), ready: since(&ready), applied: all_applied, all: last - started })
}

/// Edits `edits` of the `count` Tenants, one after the other, and waits until each is in its row.
pub(crate) async fn edit(cluster: &Cluster, rows: &Rows, count: usize, edits: usize) -> Result<Times> {
    ensure!(edits <= count, "each Tenant can be edited once");
    let started = Instant::now();
    let requests = async {
        let mut applied = HashMap::new();
        // Spread over all of them.
        for number in (0..edits).map(|edit| edit * count / edits.max(1)) {
            let name = name(number);
            cluster.apply(&name, 2_000_000).await?;
            applied.insert(name, Instant::now());
            sleep(PAUSE).await;
        }
        anyhow::Ok((applied, started.elapsed()))
    };
    let work = async { tokio::try_join!(requests, written(rows, "changed", 0, edits)) };
    let ((applied, all_applied), written) =
        timeout(PATIENCE, work).await.context("the edits are not all in PostgreSQL")??;
    let last = written.values().max().copied().unwrap_or(started);
    Ok(Times {
        row: sorted(&written, &applied),
        ready: Vec::new(),
        applied: all_applied,
        all: last - started,
    })
}

/// When `count` tenants were first seen in the trail.
async fn written(rows: &Rows, kind: &str, after: i64, count: usize) -> Result<HashMap<String, Instant>> {
    let (mut seen, mut last) = (HashMap::new(), after);
    while seen.len() < count {
        sleep(LOOK).await;
        let now = Instant::now();
        for line in rows.written(kind, last).await? {
            last = last.max(line.id);
            seen.entry(line.tenant).or_insert(now);
        }
    }
    Ok(seen)
}

/// When `count` Tenants were first seen to be Ready.
async fn ready(cluster: &Cluster, count: usize) -> Result<HashMap<String, Instant>> {
    let mut events =
        pin!(watcher(cluster.tenants(), watcher::Config::default()).default_backoff().applied_objects());
    let mut seen = HashMap::new();
    let mut names = HashSet::new();
    while seen.len() < count {
        let tenant = events.try_next().await?.context("the watch ended")?;
        names.insert(tenant.name_any());
        if is_ready(&tenant) {
            seen.entry(tenant.name_any()).or_insert_with(Instant::now);
        }
    }
    Ok(seen)
}

fn is_ready(tenant: &Tenant) -> bool {
    let conditions = tenant.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// How long it took from `applied` to `seen`, in ascending order. What was seen before the apply was answered took no
/// time.
fn sorted(seen: &HashMap<String, Instant>, applied: &HashMap<String, Instant>) -> Vec<Duration> {
    let took = |(name, at): (&String, &Instant)| Some(at.saturating_duration_since(*applied.get(name)?));
    let mut times: Vec<Duration> = seen.iter().filter_map(took).collect();
    times.sort_unstable();
    times
}

fn name(number: usize) -> String {
    format!("tenant-{number:05}")
}
