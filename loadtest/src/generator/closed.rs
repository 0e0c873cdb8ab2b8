//! A closed loop: as many requests under way as there are connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use super::connection::Connection;
use super::tally::{Load, Tally};
use crate::traffic::Traffic;

/// Sends `traffic` over so many connections for `duration`.
pub(crate) async fn closed(
    address: SocketAddr,
    traffic: &Arc<Traffic>,
    connections: usize,
    duration: Duration,
) -> Result<Load> {
    let mut ready = Vec::with_capacity(connections);
    for _ in 0..connections {
        ready.push(Connection::open(address).await.context("failed to connect")?);
    }
    let tally = Tally::start()?;
    let start = Instant::now();
    let mut users = JoinSet::new();
    for (number, mut connection) in ready.into_iter().enumerate() {
        let (traffic, tally) = (Arc::clone(traffic), tally.clone());
        users.spawn(async move {
            // Each begins elsewhere, or all would send the same tenant's events.
            let mut position = number * traffic.len() / connections;
            while start.elapsed() < duration {
                let request = traffic.at(position);
                position += 1;
                let begun = Instant::now();
                let answer = connection.exchange(&request.bytes).await;
                tally.record(request, &answer, begun.elapsed());
                if answer.is_err() {
                    return;
                }
            }
        });
    }
    users.join_all().await;
    tally.end(start.elapsed())
}
