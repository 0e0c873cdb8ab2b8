//! The worker's settings.

use std::net::SocketAddr;

use flagmeter_core::event::MAX_AGE;
use flagmeter_runtime::env::{Env, Faults, Secret};
use flagmeter_runtime::telemetry::LogSettings;
use flagmeter_store::postgres::retention::Limits;
use flagmeter_store::sealed::Sealer;

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
    /// `FLAGMETER_EVENT_IDS_MAX_BYTES`, `FLAGMETER_ROLLUPS_DAYS`, `FLAGMETER_DEAD_LETTERS_DAYS`,
    /// `FLAGMETER_DEAD_LETTERS_MAX_BYTES`.
    pub keep: Limits,
    /// `FLAGMETER_ENCRYPTION_KEY`: 32 bytes in base64, under which webhook URLs are kept; the operator's.
    pub sealer: Sealer,
    /// `FLAGMETER_PUBLIC_URL`: where people find the page, for links in alerts; without a slash at its end.
    pub public_url: Option<String>,
    /// `FLAGMETER_ALLOW_PRIVATE_WEBHOOKS`: whether alerts may go to private addresses, and over http.
    pub allow_private_webhooks: bool,
    /// `FLAGMETER_LOG`, `FLAGMETER_LOG_FORMAT`.
    pub log: LogSettings,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    ///
    /// [`Faults`]: everything that is missing or wrong.
    pub fn read(mut env: Env) -> Result<Self, Faults> {
        let database_url = env.required("DATABASE_URL");
        let valkey_url = env.required("VALKEY_URL");
        let admin_listen = env.with_default("FLAGMETER_ADMIN_LISTEN", "0.0.0.0:9090");
        let consumer = env.with_default("POD_NAME", "worker");
        let keep = limits(&mut env);
        let sealer = env.required("FLAGMETER_ENCRYPTION_KEY");
        let public_url = env.optional("FLAGMETER_PUBLIC_URL").map(|url| url.map(|PublicUrl(url)| url));
        let allow_private_webhooks = env.with_default("FLAGMETER_ALLOW_PRIVATE_WEBHOOKS", "false");
        let log = LogSettings::read(&mut env);
        env.finish(|| {
            Some(Self {
                database_url: database_url?,
                valkey_url: valkey_url?,
                admin_listen: admin_listen?,
                consumer: consumer?,
                keep: keep?,
                sealer: sealer?,
                public_url: public_url?,
                allow_private_webhooks: allow_private_webhooks?,
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
    let dead_letters_days = env.with_default("FLAGMETER_DEAD_LETTERS_DAYS", "90");
    let dead_letters_bytes = env.with_default("FLAGMETER_DEAD_LETTERS_MAX_BYTES", "268435456");
    let limits = Limits {
        events_days: events_days?,
        events_bytes: events_bytes?,
        event_ids_days: event_ids_days?,
        event_ids_bytes: event_ids_bytes?,
        rollups_days: rollups_days?,
        dead_letters_days: dead_letters_days?,
        dead_letters_bytes: dead_letters_bytes?,
    };
    let least = limits.least_rollups_days();
    if limits.rollups_days < least {
        env.fault(
            "FLAGMETER_ROLLUPS_DAYS",
            &format_args!(
                "must be at least {least}: an event can be taken back for FLAGMETER_EVENTS_DAYS after it was received, and \
                 its minute may be {} days before that",
                MAX_AGE.as_hours() / 24
            ),
        );
    }
    Some(limits)
}

/// A URL that people open, in a form that links can be made of.
struct PublicUrl(String);

impl std::str::FromStr for PublicUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Option<http::Uri> = text.parse().ok();
        let sound = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some()
                && uri.query().is_none()
        });
        if sound && text.len() <= 1_024 {
            Ok(Self(text.trim_end_matches('/').to_owned()))
        } else {
            Err("must be an http or https URL without a query, such as https://meter.example.com")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (&str, &str) = ("FLAGMETER_ENCRYPTION_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    const STORES: [(&str, &str); 2] = [("DATABASE_URL", "postgres://db/f"), ("VALKEY_URL", "redis://queue")];

    #[test]
    fn alerts_go_to_public_addresses_unless_it_is_said_otherwise() {
        let config = Config::read(Env::of([STORES[0], STORES[1], KEY])).unwrap();
        assert_eq!((config.allow_private_webhooks, config.public_url), (false, None));
        let settings = [
            STORES[0],
            STORES[1],
            KEY,
            ("FLAGMETER_ALLOW_PRIVATE_WEBHOOKS", "true"),
            ("FLAGMETER_PUBLIC_URL", "https://meter.example.com/team/"),
        ];
        let config = Config::read(Env::of(settings)).unwrap();
        assert_eq!(config.public_url.as_deref(), Some("https://meter.example.com/team"));
        assert!(config.allow_private_webhooks);
    }

    #[test]
    fn minutes_are_kept_for_as_long_as_something_may_be_taken_from_them() {
        let days = |events, rollups| {
            let settings = [
                STORES[0],
                STORES[1],
                KEY,
                ("FLAGMETER_EVENTS_DAYS", events),
                ("FLAGMETER_ROLLUPS_DAYS", rollups),
            ];
            Config::read(Env::of(settings)).map(drop).map_err(|faults| faults.to_string())
        };
        for (events, rollups) in [("35", "72"), ("0", "37"), ("35", "400")] {
            assert_eq!(days(events, rollups), Ok(()), "{events} {rollups}");
        }
        let fault = days("35", "71").unwrap_err();
        assert!(
            fault.contains("FLAGMETER_ROLLUPS_DAYS must be at least 72: an event can be taken back"),
            "{fault}"
        );
    }

    #[test]
    fn every_fault_is_named_and_no_value_is_shown() {
        let settings = [
            STORES[0],
            STORES[1],
            ("FLAGMETER_ENCRYPTION_KEY", "c2VjcmV0"),
            ("FLAGMETER_PUBLIC_URL", "meter.example.com"),
            ("FLAGMETER_ALLOW_PRIVATE_WEBHOOKS", "yes"),
        ];
        let faults = Config::read(Env::of(settings)).unwrap_err().to_string();
        for name in ["FLAGMETER_ENCRYPTION_KEY", "FLAGMETER_PUBLIC_URL", "FLAGMETER_ALLOW_PRIVATE_WEBHOOKS"] {
            assert!(faults.contains(&format!("{name} is not valid")), "{faults}");
        }
        assert!(!faults.contains("c2VjcmV0") && !faults.contains("meter.example.com:"), "{faults}");
    }
}
