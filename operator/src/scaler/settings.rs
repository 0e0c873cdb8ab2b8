//! What can be set.

use std::time::Duration;

use flagmeter_core::scaling::Limits;
use flagmeter_runtime::env::{Env, Secret};

/// Which workers are scaled, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `FLAGMETER_SCALE_DEPLOYMENT`: the workers' Deployment.
    pub deployment: String,
    /// `VALKEY_URL`: the queue.
    pub valkey_url: Secret<String>,
    /// `FLAGMETER_SCALE_INTERVAL_SECONDS`: how often the queue is sampled.
    pub interval: Duration,
    /// The policy: `FLAGMETER_SCALE_MIN`, `_MAX`, and the others, each as its field.
    pub limits: Limits,
}

impl Settings {
    /// Reads the settings; the inner `None` if nothing is to be scaled, because no Deployment is named.
    pub fn read(env: &mut Env) -> Option<Option<Self>> {
        let Some(deployment) = env.optional("FLAGMETER_SCALE_DEPLOYMENT")? else {
            return Some(None);
        };
        let valkey_url = env.required("VALKEY_URL");
        let interval = env.with_default("FLAGMETER_SCALE_INTERVAL_SECONDS", "5");
        if interval.is_some_and(|seconds: u64| !(1..=60).contains(&seconds)) {
            env.fault("FLAGMETER_SCALE_INTERVAL_SECONDS", &"must be from 1 to 60");
        }
        let limits = limits(env);
        let checked = limits?.checked().map_err(|fault| {
            env.fault(&variable(fault.field), &format_args!("must be {}", fault.must));
        });
        Some(Some(Self {
            deployment,
            valkey_url: valkey_url?,
            interval: Duration::from_secs(interval?),
            limits: checked.ok()?,
        }))
    }
}

fn limits(env: &mut Env) -> Option<Limits> {
    let default = Limits::default();
    let mut number = |field: &str, default: u32| env.with_default(&variable(field), &default.to_string());
    let min = number("min", default.min);
    let max = number("max", default.max);
    let window_seconds = number("windowSeconds", default.window_seconds);
    let step_seconds = number("stepSeconds", default.step_seconds);
    let pause_seconds = number("pauseSeconds", default.pause_seconds);
    let retry_seconds = number("retrySeconds", default.retry_seconds);
    let idle_seconds = number("idleSeconds", default.idle_seconds);
    let failures = number("failures", default.failures);
    let mut factor = |field: &str, default: f64| env.with_default(&variable(field), &default.to_string());
    let prior_rate = factor("priorRate", default.prior_rate);
    let headroom = factor("headroom", default.headroom);
    let drain_seconds = factor("drainSeconds", default.drain_seconds);
    let wait_seconds = factor("waitSeconds", default.wait_seconds);
    let fallback = env.optional(&variable("fallback"));
    Some(Limits {
        min: min?,
        max: max?,
        prior_rate: prior_rate?,
        headroom: headroom?,
        drain_seconds: drain_seconds?,
        wait_seconds: wait_seconds?,
        window_seconds: window_seconds?,
        step_seconds: step_seconds?,
        pause_seconds: pause_seconds?,
        retry_seconds: retry_seconds?,
        idle_seconds: idle_seconds?,
        fallback: fallback?,
        failures: failures?,
    })
}

/// The variable of a field of the policy: `FLAGMETER_SCALE_WINDOW_SECONDS` is `windowSeconds`.
fn variable(field: &str) -> String {
    let mut name = "FLAGMETER_SCALE_".to_owned();
    for letter in field.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
