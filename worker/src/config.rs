//! The worker's settings.

use std::net::SocketAddr;

use flagmeter_runtime::env::{Env, Faults, Secret};
use flagmeter_runtime::telemetry::LogSettings;
use flagmeter_store::postgres::retention::Limits;

/// What the environment says. README.md has a row for each variable.
#[derive(Debug)]
pub struct Config {
    /// `DATABASE_URL`.
    pub database_url: Secret<String>,
    /// `VALKEY_URL`.
    pub valkey_url: Secret<String>,
    /// `FLAGMETER_ADMIN_LISTEN`.
    pub admin_listen: SocketAddr,
    /// `POD_NAME`: this worker's name in the queue's consumer group. After a restart under the same
    /// name it goes on with what it had in hand.
    pub consumer: String,
    /// `FLAGMETER_EVENTS_DAYS`, `FLAGMETER_EVENTS_MAX_BYTES`, `FLAGMETER_EVENT_IDS_DAYS`,
    /// `FLAGMETER_EVENT_IDS_MAX_BYTES`, `FLAGMETER_ROLLUPS_DAYS`.
    pub keep: Limits,
    /// `FLAGMETER_LOG`, `FLAGMETER_LOG_FORMAT`.
    pub log: LogSettings,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    ///
    /// [`Faults`]: everything that is missing or wrong.
    pub fn read() -> Result<Self, Faults> {
        let mut env = Env::process();
        let database_url = env.required("DATABASE_URL");
        let valkey_url = env.required("VALKEY_URL");
        let admin_listen = env.with_default("FLAGMETER_ADMIN_LISTEN", "0.0.0.0:9090");
        let consumer = env.with_default("POD_NAME", "worker");
        let keep = limits(&mut env);
        let log = LogSettings::read(&mut env);
        env.finish(|| {
            Some(Self {
                database_url: database_url?,
                valkey_url: valkey_url?,
                admin_listen: admin_listen?,
                consumer: consumer?,
                keep: keep?,
                log: log?,
            })
        })
    }
}

fn limits(env: &mut Env) -> Option<Limits> {
    let events_days = env.with_default("FLAGMETER_EVENTS_DAYS", "35");
    let events_bytes = env.with_default("FLAGMETER_EVENTS_MAX_BYTES", "8589934592");
    let event_ids_days = env.with_default("FLAGMETER_EVENT_IDS_DAYS", "35");
    let event_ids_bytes = env.with_default("FLAGMETER_EVENT_IDS_MAX_BYTES", "4294967296");
    let rollups_days = env.with_default("FLAGMETER_ROLLUPS_DAYS", "400");
    Some(Limits {
        events_days: events_days?,
        events_bytes: events_bytes?,
        event_ids_days: event_ids_days?,
        event_ids_bytes: event_ids_bytes?,
        rollups_days: rollups_days?,
    })
}
