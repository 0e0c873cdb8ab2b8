//! `flagmeter lint` and the API server give the same answers.

mod cases;

use flagmeter_crds::Tenant;
use flagmeter_crds::lint::{Document, Linter, Problem, Reason, Verdict};
use http::{Request, header};
use kube::{Error, Resource as _};
use serde_json::{Value, json};

use crate::cluster::{Cluster, in_namespace};

/// What is said of a Tenant: the field, the kind of problem, the message.
type Told = (Option<String>, String, String);

/// What the API server answered.
#[derive(Debug)]
enum Answer {
    /// 201.
    Taken,
    /// 400: it cannot be read.
    Unread(String),
    /// 422: it can, and is invalid.
    Invalid(Vec<Told>),
}

/// Asks the API server about a Tenant, which it does not keep. Of what kubectl sends, fields that are not known are
/// refused.
async fn ask(cluster: &Cluster, content_type: &str, body: String) -> Answer {
    let path = Tenant::url_path(&(), Some(&cluster.namespace));
    let request = Request::post(format!("{path}?dryRun=All&fieldValidation=Strict"))
        .header(header::CONTENT_TYPE, content_type)
        .body(body.into_bytes())
        .unwrap();
    let status = match cluster.client.request::<Value>(request).await {
        Ok(_) => return Answer::Taken,
        Err(Error::Api(status)) => status,
        Err(error) => panic!("{error}"),
    };
    match status.code {
        400 => Answer::Unread(status.message),
        422 => Answer::Invalid(
            status
                .details
                .unwrap()
                .causes
                .into_iter()
                .map(|cause| {
                    (Some(cause.field).filter(|field| field != "<nil>"), cause.reason, cause.message)
                })
                .collect(),
        ),
        code => panic!("{code}: {}", status.message),
    }
}

fn told(problem: &Problem) -> Told {
    (problem.field.clone(), problem.reason.as_str().to_owned(), problem.message.clone())
}

/// Whether lint says what the API server says.
fn assert_same(what: &str, answer: Answer, problems: &[Problem]) {
    let unread: Vec<&Problem> =
        problems.iter().filter(|problem| problem.reason == Reason::BadRequest).collect();
    match answer {
        Answer::Taken => {
            let refused: Vec<&Problem> =
                problems.iter().filter(|problem| !matches!(problem.reason, Reason::Stalled(_))).collect();
            assert!(refused.is_empty(), "{what} was taken, and lint says {refused:?}");
        }
        Answer::Unread(message) => {
            assert!(!unread.is_empty(), "{what}: lint does not say {message}");
            let said: String = unread.iter().map(|problem| problem.message.as_str()).collect();
            for word in ["unknown field ", "duplicate field ", "cannot unmarshal"] {
                assert_eq!(message.matches(word).count(), said.matches(word).count(), "{what}: {message}");
            }
            for problem in unread {
                assert!(message.contains(&problem.message), "{what}: {message}, lint: {}", problem.message);
            }
        }
        Answer::Invalid(mut theirs) => {
            let mut ours: Vec<Told> = problems.iter().map(told).collect();
            ours.sort();
            theirs.sort();
            assert_eq!(ours, theirs, "left lint, right the API server, of {what}");
        }
    }
}

async fn compare(cluster: &Cluster, tenant: &Value) {
    let answer = ask(cluster, "application/json", tenant.to_string()).await;
    assert_same(&tenant.to_string(), answer, &Linter::new().unwrap().check(tenant));
}

fn named(metadata: &Value, spec: &Value) -> Value {
    json!({ "apiVersion": "flagmeter.dev/v1alpha1", "kind": "Tenant", "metadata": metadata, "spec": spec })
}

#[tokio::test]
async fn lint_says_of_every_field_what_the_api_server_says() {
    in_namespace(|cluster| async move {
        for (field, values) in cases::fields() {
            for value in values {
                let mut spec = json!({ "monthlyQuota": 1_000 });
                spec[field] = value;
                compare(&cluster, &named(&json!({ "name": "acme" }), &spec)).await;
            }
        }
        for spec in [
            json!({}),
            json!(null),
            json!("x"),
            json!([]),
            json!({
                "monthlyQuota": 1, "billingDay": 32, "displayName": "", "timeZone": "Europe/Berlino",
                "alerts": { "thresholds": [0], "slack": {} },
            }),
            json!({ "monthlyQuota": 1, "timeZone": "X", "alerts": { "slack": {}, "webhook": { "url": "x", "secretRef": { "name": "x" } } } }),
            json!({ "monthlyQuota": 1, "foo": 1, "alerts": { "bar": 1, "slack": { "x": 1, "secretRef": { "name": "x", "y": 2 } } }, "quotaBoosts": [{ "zz": 1 }] }),
        ] {
            compare(&cluster, &named(&json!({ "name": "acme" }), &spec)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn lint_says_of_the_rest_of_an_object_what_the_api_server_says() {
    in_namespace(|cluster| async move {
        let spec = json!({ "monthlyQuota": 1_000 });
        let long = "a".repeat(64);
        for metadata in [
            json!({ "name": long }), json!({ "name": "acme.corp" }), json!({ "name": "Acme" }), json!({ "name": "-acme" }), json!({ "name": "acme-" }),
            json!({ "name": "a/b" }), json!({ "name": "" }), json!({ "name": null }), json!({ "name": 7 }), json!({ "name": ["a"] }),
            json!({ "name": "a".repeat(254) }), json!({}), json!(null), json!("x"), json!([]), json!({ "generateName": "acme-" }),
            json!({ "generateName": "a.b-" }), json!({ "name": "a", "generateName": "A-" }), json!({ "name": "a", "foo": 1 }), json!({ "name": "a", "labels": { "a": 1 } }),
            json!({ "name": "a", "labels": ["x"] }), json!({ "name": "a", "labels": { "a": null } }), json!({ "name": "a", "annotations": { "a": true } }),
            json!({ "name": "a", "labels": { "a b": "c d", "x": "y".repeat(64), "é": "é" } }), json!({ "name": "a", "annotations": { "a b": "c d", "A": "x" } }),
            json!({ "name": "a", "annotations": { "a": "x".repeat(270_000) } }),
            json!({ "name": "a", "labels": { "Example.com/a": "x", "/a": "y", "a/b/c": "z", "": "q", "example.com/": "r", long: "b", format!("{}/a", "x".repeat(254)): "c" } }),
            json!({ "name": "a", "creationTimestamp": null, "uid": "x", "resourceVersion": "", "generation": 3, "managedFields": [], "finalizers": ["example.com/x"], "ownerReferences": [] }),
        ] {
            compare(&cluster, &named(&metadata, &spec)).await;
        }
        for (name, spec) in [("Acme", json!({ "monthlyQuota": 0 })), ("a.b", json!({ "monthlyQuota": 1, "timeZone": "X" }))] {
            compare(&cluster, &named(&json!({ "name": name }), &spec)).await;
        }
        let mut tenant = named(&json!({ "name": "acme" }), &spec);
        for (field, value) in [("foo", json!(1)), ("status", json!({ "foo": 1 })), ("status", json!({ "observedGeneration": "x" }))] {
            let mut odd = tenant.clone();
            odd[field] = value;
            compare(&cluster, &odd).await;
        }
        tenant.as_object_mut().unwrap().remove("spec");
        compare(&cluster, &tenant).await;
    })
    .await;
}

#[tokio::test]
async fn a_field_given_twice_is_refused_in_the_same_words() {
    in_namespace(|cluster| async move {
        let text = r#"{"apiVersion": "flagmeter.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec":
            {"monthlyQuota": 1, "monthlyQuota": 2, "alerts": {"thresholds": [1], "thresholds": [2]}}}"#;
        let Verdict::Tenant(problems) = Linter::new().unwrap().judge(&Document::read(text).unwrap()[0]) else {
            panic!("it is a Tenant");
        };
        assert_same(text, ask(&cluster, "application/json", text.to_owned()).await, &problems);
    })
    .await;
}
