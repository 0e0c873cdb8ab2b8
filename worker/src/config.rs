//! The worker's settings.

use std::net::SocketAddr;

use flagmeter_runtime::env::{Env, Faults, Secret};
use flagmeter_runtime::telemetry::LogSettings;

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
        let log = LogSettings::read(&mut env);
        env.finish(|| {
            Some(Self {
                database_url: database_url?,
                valkey_url: valkey_url?,
                admin_listen: admin_listen?,
                consumer: consumer?,
                log: log?,
            })
        })
    }
}
