//! Users that come and go, each with a connection and one request under way.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::connection::Connection;
use super::schedule::users_at;
use super::tally::{Load, Tally};
use crate::traffic::Traffic;

/// The most users of the profile.
const MOST: usize = 1_000;

/// How often a user looks whether it is its time.
const LOOK: Duration = Duration::from_millis(50);

/// What came of the requests that ended in one second.
#[derive(Clone)]
pub(crate) struct Second {
    pub(crate) requests: u64,
    /// In microseconds.
    pub(crate) latencies: Histogram<u64>,
}

/// Runs the prototype's profile, in `duration` instead of its five minutes. `each_second` is called with the second
/// and how many users there are.
pub(crate) async fn users(
    address: SocketAddr,
    traffic: &Arc<Traffic>,
    duration: Duration,
    mut each_second: impl AsyncFnMut(usize, f64),
) -> Result<(Load, Vec<Second>)> {
    let tally = Tally::start()?;
    let empty = Second { requests: 0, latencies: Histogram::new_with_bounds(1, 60_000_000, 2)? };
    let count = usize::try_from(duration.as_secs()).unwrap_or_default() + 2;
    let seconds = Arc::new(Mutex::new(vec![empty; count]));
    let start = Instant::now();
    let now = move || {
        users_at(start.elapsed().as_secs_f64() * super::schedule::PROFILE_SECONDS / duration.as_secs_f64())
    };
    let mut all = JoinSet::new();
    for number in 0..MOST {
        let (traffic, tally, seconds) = (Arc::clone(traffic), tally.clone(), Arc::clone(&seconds));
        all.spawn(async move {
            let mut connection = None;
            let mut position = number * traffic.len() / MOST;
            while start.elapsed() < duration {
                if now() <= number as f64 {
                    connection = None;
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                let request = traffic.at(position);
                position += 1;
                let begun = Instant::now();
                let answer = exchange(&mut connection, address, &request.bytes).await;
                tally.record(request, &answer, begun.elapsed());
                let mut seconds = seconds.lock().unwrap_or_else(PoisonError::into_inner);
                let index = usize::try_from(start.elapsed().as_secs()).unwrap_or_default().min(count - 1);
                seconds[index].requests += 1;
                let microseconds = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                seconds[index].latencies.saturating_record(microseconds);
            }
        });
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut second = 0;
    while start.elapsed() < duration {
        ticks.tick().await;
        each_second(second, now()).await;
        second += 1;
    }
    all.join_all().await;
    let load = tally.end(start.elapsed())?;
    let mut seconds = std::mem::take(&mut *seconds.lock().unwrap_or_else(PoisonError::into_inner));
    seconds.truncate(count - 2);
    Ok((load, seconds))
}

/// Sends a request over the user's connection, or a new one.
async fn exchange(
    connection: &mut Option<Connection>,
    address: SocketAddr,
    request: &[u8],
) -> std::io::Result<u16> {
    let open = match connection.take() {
        Some(open) => connection.insert(open),
        None => connection.insert(Connection::open(address).await?),
    };
    let answer = open.exchange(request).await;
    if answer.is_err() {
        *connection = None;
    }
    answer
}
