//! What each tenant used in the last days, read now and then: what a projection is made of.
//!
//! A tenant's days are read once, some hours at a time. From then on only the hours that may have changed are, and of
//! the others a few in turn, for what came late.

use std::time::Duration;

use flagmeter_core::projection::{self, Hours, Recent};
use flagmeter_store::StoreError;
use flagmeter_store::postgres::series;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, MissedTickBehavior};

use crate::directory::{Directory, Source};
use crate::tenant::Known;

/// How often it is looked whose days are due.
const LOOK: Duration = Duration::from_secs(1);

/// How old they may become.
const DUE: SignedDuration = SignedDuration::from_secs(60);

/// After a reading it rests so many times as long as that took: with many tenants and large tables it takes a
/// fiftieth of a core of PostgreSQL, and longer to come round. A projection is made of what is up to an hour old.
const REST: u32 = 50;

/// The same while a tenant's days are read for the first time: a tenth of a core, or a server that has just started
/// would have no projections for an hour.
const FIRST_REST: u32 = 10;

/// Keeps the last days of all tenants of `directory` known for as long as it is polled.
pub async fn follow(source: &Source<'_>, directory: &Directory) {
    let mut rounds = tokio::time::interval(LOOK);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        while match read_due(source, directory).await {
            Ok(unread) => unread,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "{}; forecasts of when a quota runs out stop once the usage they are made of is an hour old",
                    error.in_short()
                );
                false
            }
        } {}
    }
}

/// Reads what is due, tenant by tenant, and answers whether there is more to be read for the first time. A tenant whose
/// hours take too long to add up, or cannot be, has no projection; any other failure ends the round.
async fn read_due(source: &Source<'_>, directory: &Directory) -> Result<bool, StoreError> {
    let mut unread = false;
    for tenant in directory.all() {
        let now = source.clock.now();
        if tenant.recent().is_some_and(|recent| !is_due(&recent, now)) {
            continue;
        }
        let start = Instant::now();
        let mut rest = REST;
        match read(source, &tenant, now).await {
            Ok(hours) => {
                if !hours.is_whole() {
                    (unread, rest) = (true, FIRST_REST);
                }
                tenant.keep_recent(now, hours);
            }
            Err(error) if error.took_too_long() => {
                tracing::warn!(tenant = %tenant.id, "the usage of its last days takes too long to add up");
            }
            Err(error) if error.is_of_the_data() => {
                tracing::warn!(
                    tenant = %tenant.id,
                    error = &error as &dyn std::error::Error,
                    "the usage of its last days cannot be added up"
                );
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(start.elapsed() * rest).await;
    }
    Ok(unread)
}

/// The hours of the last days, as they are now.
async fn read(source: &Source<'_>, tenant: &Known, now: Timestamp) -> Result<Hours, StoreError> {
    let mut hours = tenant.hours().map_or_else(|| Hours::new(now), |known| (*known).clone());
    let windows = projection::hours(now);
    for part in hours.advance(now) {
        let place = part.start;
        let sums = series::sums(source.pool, tenant.id.as_str(), None, &windows[part], series::LIMIT).await?;
        hours.keep(place, &sums);
    }
    Ok(hours)
}

fn is_due(recent: &Recent, now: Timestamp) -> bool {
    now.duration_since(recent.until()) >= DUE
}
