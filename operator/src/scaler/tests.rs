use flagmeter_core::scaling::Limits;
use flagmeter_core::scaling::sample::{Doubt, Owner};
use flagmeter_runtime::env::Env;
use http::{Method, Request, Response};
use k8s_openapi::api::apps::v1::Deployment;
use kube::client::Body;
use prometheus::Registry;
use serde_json::{Value, json};

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

/// A scaler, and the played API server: each of `answers` to the call of this method and end of its path, in order.
async fn played<T>(
    answers: &[(Method, &str, u16, Value)],
    work: impl AsyncFnOnce(&Scaler) -> T,
) -> (T, Vec<Value>) {
    let (service, mut server) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let mut env = Env::of([("FLAGMETER_SCALE_DEPLOYMENT", "worker"), ("VALKEY_URL", "redis://127.0.0.1:1")]);
    let scaler = Scaler::new(
        Client::new(service, "shop"),
        EventQueue::new("redis://127.0.0.1:1").unwrap(),
        Metrics::register(&Registry::new()).unwrap(),
        Clock::fixed("2026-11-25T12:00:00Z".parse().unwrap()),
        "shop".to_owned(),
        "operator-0".to_owned(),
        Settings::read(&mut env).unwrap().unwrap(),
    );
    let play = async {
        let mut bodies = Vec::new();
        for (method, path, code, answer) in answers {
            let (request, respond) = server.next_request().await.expect("a call");
            assert_eq!(request.method(), method);
            assert!(request.uri().path().ends_with(path), "{}, not {path}", request.uri());
            let body = request.into_body().collect_bytes().await.unwrap();
            bodies.push(serde_json::from_slice(&body).unwrap_or_default());
            let answer = Body::from(serde_json::to_vec(answer).unwrap());
            respond.send_response(Response::builder().status(*code).body(answer).unwrap());
        }
        bodies
    };
    tokio::join!(work(&scaler), play)
}

fn refusal(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "status": "Failure", "reason": reason, "message": reason, "code": code })
}

#[tokio::test]
async fn a_scale_by_hand_in_between_is_not_overwritten() {
    let mut workers = deployment(&json!({}));
    workers.metadata.resource_version = Some("7".to_owned());
    let decision = Decision { current: 3, replicas: 4, reason: Reason::Grown, estimate: None };
    let kept = History::default().kept("2026-11-25T12:00:00Z".parse().unwrap());
    let scale = "/deployments/worker/scale";
    for (code, answer, expected) in [
        (409, refusal(409, "Conflict"), Some(false)),
        (200, json!({ "metadata": {}, "spec": { "replicas": 4 } }), Some(true)),
        (403, refusal(403, "Forbidden"), None),
    ] {
        let answers = [
            (Method::PATCH, "/configmaps/flagmeter-scaler", 200, json!({})),
            (Method::PATCH, scale, code, answer),
        ];
        let act = async |scaler: &Scaler| scaler.act(&workers, &decision, kept.clone()).await;
        let (written, bodies) = played(&answers, act).await;
        assert_eq!(written.ok(), expected, "{code}");
        assert_eq!(bodies[1]["metadata"]["resourceVersion"], "7", "what was read is what is written over");
    }
}

#[tokio::test]
async fn whoever_else_scales_the_workers_is_found() {
    let target = |kind: &str, name: &str| json!({ "kind": kind, "name": name });
    let list = |target: Value| {
        let spec = json!({ "scaleTargetRef": target, "maxReplicas": 3 });
        json!({ "metadata": {}, "items": [{ "metadata": { "name": "theirs" }, "spec": spec }] })
    };
    let none = || json!({ "metadata": {}, "items": [] });
    let (autoscalers, objects) = ("/horizontalpodautoscalers", "/scaledobjects");
    let found = async |answers: &[(Method, &str, u16, Value)]| {
        let owner = async |scaler: &Scaler| scaler.owner(&deployment(&json!({}))).await;
        played(answers, owner).await.0.unwrap()
    };
    let get = |path, code, answer| (Method::GET, path, code, answer);
    let autoscaler = Some(Owner::HorizontalPodAutoscaler("theirs".to_owned()));
    assert_eq!(found(&[get(autoscalers, 200, list(target("Deployment", "worker")))]).await, autoscaler);
    let anothers = get(autoscalers, 200, list(target("Deployment", "api")));
    let object = Some(Owner::ScaledObject("theirs".to_owned()));
    // A ScaledObject's target is a Deployment where it does not say.
    let scaled = get(objects, 200, list(json!({ "name": "worker" })));
    assert_eq!(found(&[anothers.clone(), scaled]).await, object);
    let set = get(objects, 200, list(target("StatefulSet", "worker")));
    assert_eq!(found(&[anothers, set]).await, None);
    // No KEDA, and no right to look.
    let unknown = get(objects, 404, refusal(404, "NotFound"));
    assert_eq!(found(&[get(autoscalers, 200, none()), unknown.clone()]).await, None);
    assert_eq!(found(&[get(autoscalers, 403, refusal(403, "Forbidden")), unknown]).await, None);
}
