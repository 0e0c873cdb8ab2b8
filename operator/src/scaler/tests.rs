use flagmeter_core::scaling::Limits;
use flagmeter_core::scaling::sample::{Doubt, Owner};
use flagmeter_runtime::env::Env;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::observe::fleet;
use super::*;

fn deployment(status: &serde_json::Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": { "name": "worker", "generation": 3 },
        "spec": { "replicas": 3, "selector": {}, "template": {} },
        "status": status,
    }))
    .unwrap()
}

#[test]
fn a_deployment_is_what_its_status_says() {
    let cases = [
        (
            json!({ "observedGeneration": 3, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3 }),
            3,
            false,
        ),
        (
            json!({ "observedGeneration": 3, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 1 }),
            1,
            false,
        ),
        // A pod more while new ones replace old ones.
        (
            json!({ "observedGeneration": 3, "replicas": 4, "updatedReplicas": 1, "readyReplicas": 4 }),
            3,
            true,
        ),
        (
            json!({ "observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3 }),
            3,
            true,
        ),
        (json!({ "observedGeneration": 3 }), 0, false),
    ];
    for (status, ready, rolling_out) in cases {
        let seen = fleet(&deployment(&status), None);
        assert_eq!((seen.replicas, seen.ready, seen.rolling_out), (3, ready, rolling_out), "{status}");
    }
}

#[test]
fn nothing_is_scaled_unless_a_deployment_is_named_and_every_fault_names_its_variable() {
    let mut env = Env::of([]);
    assert!(Settings::read(&mut env).unwrap().is_none());
    let mut env = Env::of([
        ("FLAGMETER_SCALE_DEPLOYMENT", "worker"),
        ("VALKEY_URL", "redis://:hunter2@valkey"),
        ("FLAGMETER_SCALE_MAX", "4"),
        ("FLAGMETER_SCALE_DRAIN_SECONDS", "12.5"),
        ("FLAGMETER_SCALE_FALLBACK", "2"),
    ]);
    let settings = Settings::read(&mut env).unwrap().unwrap();
    let expected = Limits { max: 4, drain_seconds: 12.5, fallback: Some(2), ..Limits::default() };
    assert_eq!((settings.limits, settings.interval), (expected, Duration::from_secs(5)));
    assert!(!format!("{settings:?}").contains("hunter2"));

    let mut env = Env::of([
        ("FLAGMETER_SCALE_DEPLOYMENT", "worker"),
        ("FLAGMETER_SCALE_WINDOW_SECONDS", "4"),
        ("FLAGMETER_SCALE_INTERVAL_SECONDS", "0"),
    ]);
    let none = Settings::read(&mut env);
    let faults = env.finish(|| none).unwrap_err().to_string();
    for expected in [
        "VALKEY_URL must be set",
        "FLAGMETER_SCALE_WINDOW_SECONDS must be from 5 to 3600",
        "FLAGMETER_SCALE_INTERVAL_SECONDS must be from 1 to 60",
    ] {
        assert!(faults.contains(expected), "{expected}: {faults}");
    }
}

#[test]
fn people_hear_of_changes_and_once_of_what_stands_against_them() {
    let decision = |replicas, reason| Decision { current: 2, replicas, reason, estimate: None };
    let silent = decision(2, Reason::Held(Doubt::Unreachable));
    assert!(is_news(&silent, None) && !is_news(&silent, Some("ValkeyUnreachable")));
    assert!(!is_news(&decision(2, Reason::Held(Doubt::RollingOut)), None));
    assert!(!is_news(&decision(2, Reason::Steady), None));
    assert!(is_news(&decision(3, Reason::Grown), Some("Grown")));
    let other = decision(2, Reason::NotOurs(Owner::Annotation));
    assert!(is_news(&other, Some("Steady")) && !is_news(&other, Some("OtherOwner")));
}
