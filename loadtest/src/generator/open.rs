//! An open loop: requests start at a constant rate, whatever becomes of those before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connection::Connection;
use super::schedule::{arrival, arrivals};
use super::tally::{Load, Tally};
use crate::traffic::Traffic;

/// Sends `traffic` at a constant rate for `duration`, in turn over so many connections. A latency counts from
/// the instant at which the request should have started.
pub(crate) async fn open(
    address: SocketAddr,
    traffic: &Arc<Traffic>,
    connections: usize,
    per_second: u32,
    duration: Duration,
) -> Result<Load> {
    let tally = Tally::start()?;
    let mut lines = Vec::with_capacity(connections);
    let mut users = JoinSet::new();
    for _ in 0..connections {
        let mut connection = Connection::open(address).await.context("failed to connect")?;
        let (line, mut due) = mpsc::unbounded_channel::<(usize, Instant)>();
        lines.push(line);
        let (traffic, tally) = (Arc::clone(traffic), tally.clone());
        users.spawn(async move {
            while let Some((position, intended)) = due.recv().await {
                let request = traffic.at(position);
                let answer = connection.exchange(&request.bytes).await;
                tally.record(request, &answer, intended.elapsed());
                if answer.is_err() {
                    match Connection::open(address).await {
                        Ok(another) => connection = another,
                        Err(_) => return,
                    }
                }
            }
        });
    }
    let start = Instant::now();
    // A thread of its own: the runtime's timer rounds up to milliseconds, which is what is measured here.
    let pacer = thread::spawn(move || {
        for index in 0..arrivals(per_second, duration) {
            let intended = start + arrival(per_second, index);
            thread::sleep(intended.saturating_duration_since(Instant::now()));
            let position = usize::try_from(index).unwrap_or_default();
            // A line whose connection could not be opened again has ended; the run shows it as a lack of answers.
            let _ = lines[position % lines.len()].send((position, intended));
        }
    });
    users.join_all().await;
    let load = tally.end(start.elapsed());
    // It has ended: the last line it held is closed.
    let _ = pacer.join();
    load
}
