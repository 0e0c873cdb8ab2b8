//! How soon an accepted event is counted, and seen: from its 202 to the commit, and to `GET /usage`.
//!
//! Beside a constant load one event at a time is sent, and looked for until it is there. The next one is sent at another
//! place in the worker's rhythm.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use flagmeter_store::PgPool;

use crate::generator::{Connection, Load, open};
use crate::row::{Goal, Row};
use crate::traffic::{Traffic, get_usage, post_probe, tenant};

/// Events a second beside which it is measured.
const RATES: [u32; 3] = [10, 200, 2_000];

/// How long an event may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(1);

/// How soon events were counted and seen, in milliseconds, one list for each of [`RATES`].
#[derive(Default)]
pub(super) struct Freshness {
    rounds: u32,
    committed: [Vec<f64>; RATES.len()],
    seen: [Vec<f64>; RATES.len()],
}

/// Where an event is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Table,
    Usage,
}

impl Freshness {
    /// Measures beside each of the rates; answers the loads, and how many events were sent besides.
    pub(super) async fn measure(
        &mut self,
        address: SocketAddr,
        pool: &PgPool,
        run: Duration,
    ) -> Result<(Vec<Load>, u64)> {
        let traffic = Arc::new(Traffic::single());
        self.rounds += 1;
        // The api remembers what it has seen of the round before.
        let mut probes = Probes::open(address, pool, format!("probe-{}", self.rounds)).await?;
        let mut loads = Vec::new();
        for (number, rate) in RATES.into_iter().enumerate() {
            let probing = async {
                let start = Instant::now();
                while start.elapsed() < run {
                    self.committed[number].push(probes.send(Place::Table).await?);
                    self.seen[number].push(probes.send(Place::Usage).await?);
                }
                Ok::<_, anyhow::Error>(())
            };
            let (load, done) = tokio::join!(open(address, &traffic, 16, rate, run), probing);
            done?;
            loads.push(load?);
        }
        Ok((loads, probes.sent))
    }

    /// A row for each figure.
    pub(super) fn rows(self) -> Vec<Row> {
        let rows = |values: [Vec<f64>; RATES.len()],
                    key: &'static str,
                    what: &'static str,
                    goals: [(f64, f64); 2]| {
            RATES.into_iter().zip(values).flat_map(move |(rate, values)| {
                [(0.50, "p50"), (0.99, "p99")].into_iter().zip(goals).map(
                    move |((quantile, name), (floor, aim))| {
                        let key = format!("{key}_{name}_{rate}");
                        let what = format!("from the 202 to {what}, {name}, beside {rate} events/s");
                        Goal::at_most(&key, &what, floor, aim).in_unit("ms").row(vec![at(&values, quantile)])
                    },
                )
            })
        };
        rows(self.committed, "commit", "the commit", [(60.0, 40.0), (120.0, 80.0)])
            .chain(rows(self.seen, "usage", "GET /usage", [(200.0, 120.0), (500.0, 250.0)]))
            .collect()
    }
}

/// The value that a part of all is not above.
fn at(values: &[f64], quantile: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    let place = (sorted.len() as f64 * quantile) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Sends one event after another.
struct Probes {
    connection: Connection,
    pool: PgPool,
    tenant: String,
    feature: String,
    sent: u64,
}

impl Probes {
    async fn open(address: SocketAddr, pool: &PgPool, feature: String) -> Result<Self> {
        let connection = Connection::open(address).await?;
        Ok(Self { connection, pool: pool.clone(), tenant: tenant(0), feature, sent: 0 })
    }

    /// Sends an event, and answers how many milliseconds after its 202 it was found.
    async fn send(&mut self, place: Place) -> Result<f64> {
        // At another moment of the worker's rhythm each time: 37 and 101 share no factor.
        tokio::time::sleep(Duration::from_millis(self.sent * 37 % 101)).await;
        let status = self.connection.exchange(&post_probe(&self.tenant, &self.feature).bytes).await?;
        if status != 202 {
            bail!("a probe was answered {status}");
        }
        let accepted = Instant::now();
        self.sent += 1;
        while self.found(place).await? < self.sent {
            if accepted.elapsed() > LIMIT {
                bail!("an event was not found after {} s", LIMIT.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(accepted.elapsed().as_secs_f64() * 1_000.0)
    }

    /// How many probes are there.
    async fn found(&mut self, place: Place) -> Result<u64> {
        if place == Place::Table {
            let found: i64 = sqlx::query_scalar(
                "SELECT COALESCE(sum(total_tokens), 0)::bigint FROM usage_features WHERE tenant = $1 AND feature = $2",
            )
            .bind(&self.tenant)
            .bind(&self.feature)
            .fetch_one(&self.pool)
            .await
            .context("failed to look for an event")?;
            return Ok(found.unsigned_abs());
        }
        self.connection.exchange(&get_usage(0).bytes).await?;
        let usage: serde_json::Value = serde_json::from_slice(self.connection.body())?;
        let features = usage["features"].as_array().context("GET /usage names no features")?;
        let probe = features.iter().find(|feature| feature["feature"] == self.feature.as_str());
        Ok(probe.and_then(|probe| probe["totalTokens"].as_u64()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let found = [0.5, 0.99, 1.0].map(|quantile| at(&values, quantile).to_string());
        assert_eq!(found, ["51", "100", "100"]);
        assert!(at(&[], 0.5).is_nan());
    }
}
