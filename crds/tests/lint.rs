//! What lint says of a Tenant. That the API server says the same is tested on one, in the operator's tests.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

use flagmeter_crds::lint::{Document, Linter, Problem, Verdict};
use serde_json::{Value, json};

fn tenant(spec: &Value) -> Value {
    json!({
        "apiVersion": "flagmeter.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": { "name": "acme" },
        "spec": spec,
    })
}

fn check(spec: &Value) -> Vec<Problem> {
    Linter::new().unwrap().check(&tenant(spec))
}

fn judge(text: &str) -> Verdict {
    Linter::new().unwrap().judge(&Document::read(text).unwrap()[0])
}

#[test]
fn what_is_valid_has_no_problem() {
    let least = json!({ "monthlyQuota": 1 });
    let most = json!({
        "displayName": "Acme", "monthlyQuota": 9_007_199_254_740_991_i64, "billingDay": 31,
        "timeZone": "America/Argentina/Buenos_Aires", "suspended": true, "deletionPolicy": "Delete",
        "alerts": {
            "thresholds": [80, 100],
            "slack": { "url": "https://hooks.slack.com/services/T0/B0/x" },
            "webhook": { "enabled": false, "url": "https://example.com/hook", "secretRef": { "name": "acme" } },
        },
        "quotaBoosts": [{ "tokens": 5, "from": "2026-03-10T00:00:00Z", "until": "2026-03-10T01:00:00Z" }],
    });
    // As absent.
    let nulls =
        json!({ "monthlyQuota": 1, "displayName": null, "billingDay": null, "alerts": { "slack": null } });
    for spec in [least, most, nulls] {
        assert_eq!(check(&spec), [], "{spec}");
    }
}

#[test]
fn a_problem_has_the_words_of_the_api_server() {
    let problems = check(&json!({ "monthlyQuota": 0, "timeZone": "Europe/Berlino", "foo": 1 }));
    let told: Vec<_> = problems
        .iter()
        .map(|problem| (problem.reason.as_str(), problem.field.as_deref().unwrap(), problem.message.as_str()))
        .collect();
    let expected = [
        ("BadRequest", "spec.foo", "unknown field \"spec.foo\""),
        (
            "FieldValueInvalid",
            "spec.monthlyQuota",
            "Invalid value: 0: spec.monthlyQuota in body should be greater than or equal to 1",
        ),
        (
            "FieldValueInvalid",
            "spec.timeZone",
            "Invalid value: \"string\": unknown time zone Europe/Berlino evaluating rule: timeZone must be the name \
             of an IANA time zone, such as UTC or Europe/Berlin",
        ),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_only_the_operator_refuses_has_its_reason() {
    // The API server takes 80 and 80.0 for two numbers, and a space for a part of a URL's path.
    let url = "https://hooks.slack.com/services/T0 B0";
    let problems = check(&json!({
        "monthlyQuota": 1,
        "alerts": { "thresholds": [80, 80.0], "slack": { "url": url } },
    }));
    let told: Vec<_> =
        problems.iter().map(|problem| (problem.reason.as_str(), problem.place.as_str())).collect();
    assert_eq!(
        told,
        [("InvalidSpec", "spec.alerts.thresholds"), ("InvalidSlackUrl", "spec.alerts.slack.url")]
    );
}

#[test]
fn an_instant_that_the_api_server_takes_is_no_problem() {
    for until in [
        "2026-03-20T00:00:00+00:60",
        "9999-12-31T23:59:59Z",
        "2026-03-20T00:00:00.0123456789Z",
        "2026-03-20T00:00:00,5Z",
    ] {
        let boost = json!({ "tokens": 1, "from": "0000-01-01T00:00:00Z", "until": until });
        assert_eq!(check(&json!({ "monthlyQuota": 1, "quotaBoosts": [boost] })), [], "{until}");
    }
}

#[test]
fn a_text_that_hides_something_is_refused_with_a_sentence() {
    for hidden in
        ["\0", "\n", "\r", "\t", "\u{1b}", "\u{7f}", "\u{85}", "\u{200e}", "\u{2028}", "\u{202e}", "\u{2066}"]
    {
        let text = format!("Acme{hidden}Corp");
        let boost = json!({ "tokens": 1, "from": "2026-03-10T00:00:00Z", "until": "2026-03-20T00:00:00Z", "reason": text });
        for (spec, field) in [
            (json!({ "monthlyQuota": 1, "displayName": text }), "spec.displayName"),
            (json!({ "monthlyQuota": 1, "quotaBoosts": [boost] }), "spec.quotaBoosts[0].reason"),
        ] {
            let problems = check(&spec);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].field.as_deref(), Some(field));
            assert!(
                problems[0].message.contains("must be one line without control characters"),
                "{problems:?}"
            );
        }
    }
    for secret in ["a/b", "../x", "Acme", "a\0b", "a b"] {
        let slack = json!({ "slack": { "secretRef": { "name": secret } } });
        let problems = check(&json!({ "monthlyQuota": 1, "alerts": slack }));
        assert_eq!(problems.len(), 1, "{secret:?}: {problems:?}");
        assert!(problems[0].message.contains("name must be that of a Secret"), "{problems:?}");
    }
}

#[test]
fn an_http_url_is_judged_by_the_setting_and_not_by_the_api_server() {
    let url = "http://receiver.shop.svc:8080/acme";
    let spec = json!({
        "monthlyQuota": 1,
        "alerts": { "slack": { "url": url }, "webhook": { "url": url, "secretRef": { "name": "acme" } } },
    });
    let tenant = json!({
        "apiVersion": "flagmeter.dev/v1alpha1", "kind": "Tenant", "metadata": { "name": "acme" }, "spec": spec,
    });
    let linter = Linter::new().unwrap();
    let problems = linter.check(&tenant);
    let reasons: Vec<_> = problems.iter().map(|problem| problem.reason.as_str()).collect();
    assert_eq!(
        reasons,
        ["InvalidSlackUrl", "InvalidWebhookUrl"],
        "the operator's, so that the API server takes them"
    );
    let text = problems[0].shown();
    assert!(
        text.ends_with("http is taken only where the chart's alerts.allowPrivateAddresses is true"),
        "{text}"
    );
    assert!(!text.contains("receiver"), "{text}");
    assert_eq!(linter.allowing_http(true).check(&tenant), []);
}

#[test]
fn what_is_shown_is_one_line_of_bounded_length_without_urls() {
    let shown = |spec: Value| check(&spec)[0].shown();
    let url = "ftp://hooks.slack.com/services/T0/B0/s3cret";
    let text = shown(json!({ "monthlyQuota": 1, "alerts": { "slack": { "url": url } } }));
    assert!(text.starts_with("Invalid value: \"..\": url must be an https URL"), "{text}");
    assert!(shown(json!({ "monthlyQuota": 1, "deletionPolicy": "x".repeat(100_000) })).len() < 1_100);
    let zone = check(&json!({ "monthlyQuota": 1, "timeZone": "Europe\nBerlin" }));
    assert_eq!(zone.len(), 2);
    assert!(zone.iter().all(|problem| problem.shown().lines().count() == 1), "{zone:?}");
}

#[test]
fn a_document_is_a_tenant_something_misnamed_or_somebody_elses() {
    let misnamed = |text: &str| match judge(text) {
        Verdict::Misnamed(problem) => problem.message,
        verdict => panic!("{text:?}: {verdict:?}"),
    };
    assert_eq!(
        misnamed("{apiVersion: flagmeter.dev/v1, kind: Tenant}"),
        "no matches for kind \"Tenant\" in version \"flagmeter.dev/v1\""
    );
    assert_eq!(
        misnamed("{apiVersion: flagmeter.dev/v1alpha1, kind: tenant}"),
        "no matches for kind \"tenant\" in version \"flagmeter.dev/v1alpha1\""
    );
    assert_eq!(misnamed("apiVersion: flagmeter.dev/v1alpha1"), "kind not set");
    assert_eq!(misnamed("kind: Tenant"), "apiVersion not set");
    for other in
        ["{apiVersion: v1, kind: Secret}", "{apiVersion: capsule.clastix.io/v1, kind: Tenant}", "5", "[a]"]
    {
        assert_eq!(judge(other), Verdict::Other, "{other}");
    }
    let Verdict::Tenant(problems) = judge(
        "{apiVersion: flagmeter.dev/v1alpha1, kind: Tenant, metadata: {name: a}, spec: {monthlyQuota: 1, monthlyQuota: 2}}",
    ) else {
        panic!("it is a Tenant")
    };
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].message, "duplicate field \"spec.monthlyQuota\"");
}

#[test]
fn every_example_of_this_repository_is_valid() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/tenants.yaml")).unwrap();
    let mut tenants = 0;
    for document in Document::read(&text).unwrap() {
        match Linter::new().unwrap().judge(&document) {
            Verdict::Tenant(problems) => {
                assert_eq!(problems, [], "{}", document.value);
                tenants += 1;
            }
            verdict => assert_eq!(verdict, Verdict::Other, "{}", document.value),
        }
    }
    assert!(tenants >= 3);
}
