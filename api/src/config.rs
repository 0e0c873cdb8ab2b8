//! The api's settings.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use flagmeter_runtime::env::{Env, Faults, Secret};
use flagmeter_runtime::telemetry::LogSettings;

use crate::auth::{AdminToken, Mode, Policy};
use crate::batcher::FLUSH_EVENTS;
use crate::serve::{Peers, TrustedProxies};

/// What the environment says. README.md has a row for each variable.
#[derive(Debug)]
pub struct Config {
    /// `FLAGMETER_LISTEN`.
    pub listen: SocketAddr,
    /// `FLAGMETER_ADMIN_LISTEN`.
    pub admin_listen: SocketAddr,
    /// `DATABASE_URL`.
    pub database_url: Secret<String>,
    /// `VALKEY_URL`.
    pub valkey_url: Secret<String>,
    /// `FLAGMETER_AUTH` and `FLAGMETER_ADMIN_TOKEN`: what callers are asked for.
    pub auth: Policy,
    /// `FLAGMETER_DRAIN_SECONDS`: how long it goes on serving after it was told to stop, so that
    /// whoever sends it requests has time to hear of it.
    pub drain: Duration,
    /// `FLAGMETER_KEEP_ALIVE_SECONDS`: how long a connection may be idle between two requests.
    pub idle: Duration,
    /// What may be asked of it.
    pub limits: Limits,
    /// `FLAGMETER_MAX_CONNECTIONS_PER_PEER` and `FLAGMETER_TRUSTED_PROXIES`: how many connections one peer may have.
    pub peers: Peers,
    /// `FLAGMETER_LOG`, `FLAGMETER_LOG_FORMAT`.
    pub log: LogSettings,
}

/// What may be asked of the api.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `FLAGMETER_MAX_EVENTS`: in one request.
    pub events: usize,
    /// `FLAGMETER_MAX_BODY_BYTES`: the largest body.
    pub body_bytes: usize,
    /// `FLAGMETER_QUEUE_MAX_EVENTS`: no more are taken in while so many wait.
    pub queued_events: u64,
    /// `FLAGMETER_MAX_FEATURES`: how many a tenant may have in a billing period.
    pub features: usize,
    /// `FLAGMETER_ROLLUPS_DAYS`: for how many days the workers keep minutes.
    pub rollups_days: u16,
    /// How long an answer may take that is neither a POST's nor a stream.
    pub answer: Duration,
}

/// What `FLAGMETER_MAX_EVENTS` may be: a flush takes one request more than it would, and workers have memory for
/// [entries](flagmeter_core::packed::LARGEST_ENTRY_EVENTS) of both.
const EVENTS: RangeInclusive<usize> = 1..=10_000;
const _: () = assert!(FLUSH_EVENTS + *EVENTS.end() <= flagmeter_core::packed::LARGEST_ENTRY_EVENTS);

/// What `FLAGMETER_MAX_BODY_BYTES` may be: eight of the largest fit into the budget for bodies.
const BODY_BYTES: RangeInclusive<usize> = 64 << 10..=8 << 20;

/// What `FLAGMETER_KEEP_ALIVE_SECONDS` may be.
const KEEP_ALIVE_SECONDS: RangeInclusive<usize> = 5..=3_600;

/// Well above what a statement of PostgreSQL may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    ///
    /// [`Faults`]: everything that is missing or wrong.
    pub fn read(mut env: Env) -> Result<Self, Faults> {
        let listen = env.with_default("FLAGMETER_LISTEN", "0.0.0.0:3000");
        let admin_listen = env.with_default("FLAGMETER_ADMIN_LISTEN", "0.0.0.0:9090");
        let database_url = env.required("DATABASE_URL");
        let valkey_url = env.required("VALKEY_URL");
        let auth = policy(&mut env);
        let drain: Option<u16> = env.with_default("FLAGMETER_DRAIN_SECONDS", "5");
        // More than the 60 s after which most proxies give up an idle connection, AWS' and nginx among them, and nginx's
        // own 75 s for its clients.
        let idle = within(&KEEP_ALIVE_SECONDS, "FLAGMETER_KEEP_ALIVE_SECONDS", "120", &mut env);
        let events = within(&EVENTS, "FLAGMETER_MAX_EVENTS", "1000", &mut env);
        let body_bytes = within(&BODY_BYTES, "FLAGMETER_MAX_BODY_BYTES", "1048576", &mut env);
        let features = env.with_default("FLAGMETER_MAX_FEATURES", "1000");
        let queued_events = env.with_default("FLAGMETER_QUEUE_MAX_EVENTS", "5000000");
        let rollups_days = env.with_default("FLAGMETER_ROLLUPS_DAYS", "400");
        let per_peer = env.with_default("FLAGMETER_MAX_CONNECTIONS_PER_PEER", "1024");
        let trusted: Option<TrustedProxies> = env.with_default("FLAGMETER_TRUSTED_PROXIES", "");
        let log = LogSettings::read(&mut env);
        env.finish(|| {
            Some(Self {
                listen: listen?,
                admin_listen: admin_listen?,
                database_url: database_url?,
                valkey_url: valkey_url?,
                auth: auth?,
                drain: Duration::from_secs(drain?.into()),
                idle: Duration::from_secs(idle? as u64),
                limits: Limits {
                    events: events?,
                    body_bytes: body_bytes?,
                    queued_events: queued_events?,
                    features: features?,
                    rollups_days: rollups_days?,
                    answer: ANSWER_TIMEOUT,
                },
                peers: Peers::new(per_peer?, trusted?),
                log: log?,
            })
        })
    }
}

/// A number that has bounds.
fn within(allowed: &RangeInclusive<usize>, name: &str, default: &str, env: &mut Env) -> Option<usize> {
    let number = env.with_default(name, default)?;
    if !allowed.contains(&number) {
        env.fault(name, &format_args!("must be from {} to {}", allowed.start(), allowed.end()));
    }
    Some(number)
}

/// What callers are asked for; there is no asking for keys without a token that opens everything.
fn policy(env: &mut Env) -> Option<Policy> {
    match env.with_default("FLAGMETER_AUTH", "required")? {
        Mode::Disabled => Some(Policy::Disabled),
        Mode::Required => {
            let token: Secret<String> = env.required("FLAGMETER_ADMIN_TOKEN")?;
            let token = AdminToken::try_from(&token);
            token.map(Policy::Required).map_err(|fault| env.fault("FLAGMETER_ADMIN_TOKEN", &fault)).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORES: [(&str, &str); 2] = [("DATABASE_URL", "postgres://h/d"), ("VALKEY_URL", "redis://h")];

    fn read(auth: &str, token: &str) -> Result<Config, Faults> {
        let [database, valkey] = STORES;
        Config::read(Env::of([database, valkey, ("FLAGMETER_AUTH", auth), ("FLAGMETER_ADMIN_TOKEN", token)]))
    }

    #[test]
    fn keys_need_an_admin_token_which_is_never_shown() {
        let config = read("required", "a-token-of-enough-letters").unwrap();
        assert!(matches!(config.auth, Policy::Required(_)));
        assert!(!format!("{config:?}").contains("a-token"), "{config:?}");
        assert!(matches!(read("disabled", "").unwrap().auth, Policy::Disabled));
        for (auth, token, expected) in [
            ("required", "", "FLAGMETER_ADMIN_TOKEN must be set"),
            ("required", "s3cret", "FLAGMETER_ADMIN_TOKEN must have at least 16 characters"),
            ("off", "", "FLAGMETER_AUTH is not valid: it is `required` or `disabled`"),
        ] {
            let fault = read(auth, token).unwrap_err().to_string();
            assert!(fault.contains(expected) && !fault.contains("s3cret"), "{fault}");
        }
    }

    #[test]
    fn a_peer_has_a_quarter_of_the_connections_unless_the_settings_say_otherwise() {
        let [database, valkey] = STORES;
        let read = |limit, proxies| {
            let settings =
                [("FLAGMETER_MAX_CONNECTIONS_PER_PEER", limit), ("FLAGMETER_TRUSTED_PROXIES", proxies)];
            let [limit, proxies] = settings;
            Config::read(Env::of([database, valkey, ("FLAGMETER_AUTH", "disabled"), limit, proxies]))
        };
        assert_eq!(read("", "").unwrap().peers, Peers::new(1_024, TrustedProxies::default()));
        let proxies: TrustedProxies = "10.42.0.0/16".parse().unwrap();
        assert_eq!(read("0", "10.42.0.0/16").unwrap().peers, Peers::new(0, proxies));
        let fault = read("many", "proxy").unwrap_err().to_string();
        for expected in [
            "FLAGMETER_MAX_CONNECTIONS_PER_PEER is not valid",
            "FLAGMETER_TRUSTED_PROXIES is not valid: it is a list",
        ] {
            assert!(fault.contains(expected), "{fault}");
        }
    }

    #[test]
    fn an_idle_connection_outlives_those_of_proxies_and_the_setting_has_bounds() {
        let [database, valkey] = STORES;
        let read = |seconds| {
            let idle = ("FLAGMETER_KEEP_ALIVE_SECONDS", seconds);
            Config::read(Env::of([database, valkey, ("FLAGMETER_AUTH", "disabled"), idle]))
        };
        assert!(read("").unwrap().idle > Duration::from_secs(75), "{:?}", read("").unwrap().idle);
        assert_eq!(read("620").unwrap().idle, Duration::from_secs(620), "Google's load balancers: 600 s");
        for wrong in ["4", "3601"] {
            let fault = read(wrong).unwrap_err().to_string();
            assert!(fault.contains("FLAGMETER_KEEP_ALIVE_SECONDS must be from 5 to 3600"), "{fault}");
        }
    }

    #[test]
    fn a_request_s_limits_have_bounds() {
        let [database, valkey] = STORES;
        let limits = |events, bytes| {
            let (events, bytes) = (("FLAGMETER_MAX_EVENTS", events), ("FLAGMETER_MAX_BODY_BYTES", bytes));
            Config::read(Env::of([database, valkey, ("FLAGMETER_AUTH", "disabled"), events, bytes]))
        };
        let usual = limits("", "").unwrap().limits;
        assert_eq!((usual.events, usual.body_bytes), (1_000, 1 << 20));
        let largest = limits("10000", "8388608").unwrap().limits;
        assert_eq!((largest.events, largest.body_bytes), (10_000, 8 << 20));
        let fault = limits("10001", "65535").unwrap_err().to_string();
        for expected in [
            "FLAGMETER_MAX_EVENTS must be from 1 to 10000",
            "FLAGMETER_MAX_BODY_BYTES must be from 65536 to 8388608",
        ] {
            assert!(fault.contains(expected), "{fault}");
        }
    }
}
