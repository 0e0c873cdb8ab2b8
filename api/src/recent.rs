//! What each tenant used in the last days, read now and then: what a projection is made of.

use std::time::Duration;

use flagmeter_core::projection::{self, Recent};
use flagmeter_store::StoreError;
use flagmeter_store::postgres::series;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, MissedTickBehavior};

use crate::directory::{Directory, Source};

/// How often it is looked whose days are due.
const LOOK: Duration = Duration::from_secs(1);

/// How old they may become.
const DUE: SignedDuration = SignedDuration::from_secs(60);

/// After a reading it rests so many times as long as that took: with many tenants and large tables it takes a
/// fiftieth of a core of PostgreSQL, and longer to come round. A projection is made of what is up to an hour old.
const REST: u32 = 50;

/// Keeps the last days of all tenants of `directory` known for as long as it is polled.
pub async fn follow(source: &Source<'_>, directory: &Directory) {
    let mut rounds = tokio::time::interval(LOOK);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        if let Err(error) = read_due(source, directory).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "no quota's end can be projected once what is known is an hour old"
            );
        }
    }
}

/// Reads what is due, tenant by tenant. One whose days take too long to add up has no projection; any other failure
/// ends the round.
async fn read_due(source: &Source<'_>, directory: &Directory) -> Result<(), StoreError> {
    for tenant in directory.all() {
        let now = source.clock.now();
        if tenant.recent().is_some_and(|recent| !is_due(&recent, now)) {
            continue;
        }
        let start = Instant::now();
        match series::sums(source.pool, tenant.id.as_str(), None, &projection::days(now)).await {
            Ok(sums) => tenant.keep_recent(Recent::new(now, &sums)),
            Err(error) if error.took_too_long() => {
                tracing::warn!(tenant = %tenant.id, "the usage of its last days takes too long to add up");
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(start.elapsed() * REST).await;
    }
    Ok(())
}

fn is_due(recent: &Recent, now: Timestamp) -> bool {
    now.duration_since(recent.until()) >= DUE
}
