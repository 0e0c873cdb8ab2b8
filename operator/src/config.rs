//! The operator's settings.

use std::net::SocketAddr;
use std::time::Duration;

use flagmeter_runtime::env::{Env, Faults, Secret};
use flagmeter_runtime::telemetry::LogSettings;
use flagmeter_store::sealed::Sealer;
use jiff::SignedDuration;

use crate::scaler;
use crate::tenant::Scope;

/// A former key that works longer than this was not meant to end.
const MAX_KEY_OVERLAP_SECONDS: u32 = 30 * 24 * 3_600;

/// Everything that the environment says.
#[derive(Debug)]
pub struct Config {
    /// `DATABASE_URL`.
    pub database_url: Secret<String>,
    /// `FLAGMETER_ENCRYPTION_KEY`: 32 bytes in base64, under which webhook URLs are kept.
    pub sealer: Sealer,
    /// `FLAGMETER_ADMIN_LISTEN`: where metrics and probes are served.
    pub admin_listen: SocketAddr,
    /// `POD_NAME`: who holds the lease, and reports events.
    pub pod_name: String,
    /// `POD_NAMESPACE`: where the lease is.
    pub pod_namespace: String,
    /// `FLAGMETER_WATCH_NAMESPACES`: whose Tenants and Secrets are watched: names with commas between them, or `*` for all
    /// namespaces; by default the operator's own.
    pub scopes: Vec<Scope>,
    /// `FLAGMETER_RESYNC_SECONDS`: how often a tenant is compared with its row when nothing happens,
    /// give or take a tenth.
    pub resync: Duration,
    /// `FLAGMETER_ALLOW_PRIVATE_WEBHOOKS`: whether alerts may go over http; to private addresses, the worker lets them.
    pub allow_private_webhooks: bool,
    /// `FLAGMETER_SCALE_DEPLOYMENT` and what belongs to it, if the workers are to be scaled.
    pub scaling: Option<scaler::Settings>,
    /// `FLAGMETER_ROTATION_OVERLAP_SECONDS`: how long a tenant's former key works beside the new one after a rotation.
    pub key_overlap: SignedDuration,
    /// `FLAGMETER_LOG` and `FLAGMETER_LOG_FORMAT`.
    pub log: LogSettings,
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    ///
    /// All [`Faults`] at once.
    pub fn read(mut env: Env) -> Result<Self, Faults> {
        let database_url = env.required("DATABASE_URL");
        let sealer = env.required("FLAGMETER_ENCRYPTION_KEY");
        let admin_listen = env.with_default("FLAGMETER_ADMIN_LISTEN", "0.0.0.0:9090");
        let pod_name = env.required("POD_NAME");
        let pod_namespace: Option<String> = env.required("POD_NAMESPACE");
        let watched: Option<String> = env.with_default("FLAGMETER_WATCH_NAMESPACES", "");
        let own = pod_namespace.as_deref().unwrap_or_default();
        let scopes = watched.and_then(|text| {
            Scope::parse(&text, own).map_err(|error| env.fault("FLAGMETER_WATCH_NAMESPACES", &error)).ok()
        });
        let resync = env.with_default("FLAGMETER_RESYNC_SECONDS", "300");
        let allow_private_webhooks = env.with_default("FLAGMETER_ALLOW_PRIVATE_WEBHOOKS", "false");
        let scaling = scaler::Settings::read(&mut env);
        let key_overlap = env.with_default("FLAGMETER_ROTATION_OVERLAP_SECONDS", "86400");
        if key_overlap.is_some_and(|seconds: u32| seconds > MAX_KEY_OVERLAP_SECONDS) {
            env.fault("FLAGMETER_ROTATION_OVERLAP_SECONDS", &"must be at most 2592000, which are 30 days");
        }
        let log = LogSettings::read(&mut env);
        if resync.is_some_and(|seconds: u64| !(1..=86_400).contains(&seconds)) {
            env.fault("FLAGMETER_RESYNC_SECONDS", &"must be from 1 to 86400");
        }
        env.finish(|| {
            Some(Self {
                database_url: database_url?,
                sealer: sealer?,
                admin_listen: admin_listen?,
                pod_name: pod_name?,
                pod_namespace: pod_namespace?,
                scopes: scopes?,
                resync: Duration::from_secs(resync?),
                allow_private_webhooks: allow_private_webhooks?,
                scaling: scaling?,
                key_overlap: SignedDuration::from_secs(key_overlap?.into()),
                log: log?,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn what_must_be_set_is_enough() {
        let config = Config::read(Env::of([
            ("DATABASE_URL", "postgres://localhost/flagmeter"),
            ("FLAGMETER_ENCRYPTION_KEY", KEY),
            ("POD_NAME", "operator-0"),
            ("POD_NAMESPACE", "flagmeter"),
        ]))
        .unwrap();
        assert_eq!(config.resync, Duration::from_mins(5));
        assert_eq!(config.admin_listen.port(), 9090);
        assert_eq!(config.scopes, [Scope::Namespace("flagmeter".into())]);
        let printed = format!("{config:?}");
        assert!(!printed.contains("localhost") && !printed.contains(KEY), "{printed}");
    }

    #[test]
    fn every_fault_is_named_and_no_value_is_shown() {
        let faults = Config::read(Env::of([
            ("FLAGMETER_ENCRYPTION_KEY", "c2VjcmV0"),
            ("FLAGMETER_RESYNC_SECONDS", "0"),
            ("FLAGMETER_ROTATION_OVERLAP_SECONDS", "2592001"),
            ("FLAGMETER_WATCH_NAMESPACES", "shop,*"),
        ]))
        .unwrap_err()
        .to_string();
        for expected in [
            "DATABASE_URL must be set",
            "FLAGMETER_ENCRYPTION_KEY is not valid: must be 32 bytes in base64",
            "FLAGMETER_RESYNC_SECONDS must be from 1 to 86400",
            "FLAGMETER_ROTATION_OVERLAP_SECONDS must be at most 2592000",
            "FLAGMETER_WATCH_NAMESPACES must be names of at most 100 namespaces",
            "POD_NAME must be set",
            "POD_NAMESPACE must be set",
        ] {
            assert!(faults.contains(expected), "{expected}: {faults}");
        }
        assert!(!faults.contains("c2VjcmV0"), "{faults}");
    }
}
