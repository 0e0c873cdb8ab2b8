//! What the API server refuses and fills in, by the definition alone.

use flagmeter_crds::Tenant;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, Error};
use serde_json::{Value, json};

use crate::cluster::{Cluster, from, in_namespace};

/// Creates a Tenant as JSON, so that it can be wrong.
async fn create(cluster: &Cluster, name: &str, spec: &Value) -> Result<DynamicObject, Error> {
    let kind = ApiResource::erase::<Tenant>(&());
    let tenants: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &kind);
    let tenant = from(json!({
        "apiVersion": "flagmeter.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": { "name": name },
        "spec": spec,
    }));
    tenants.create(&PostParams::default(), &tenant).await
}

/// That the API server refuses the spec for this field, and says what is allowed.
async fn assert_refused(cluster: &Cluster, spec: &Value, field: &str, allowed: &str) {
    let refusal = create(cluster, "acme", spec).await;
    let Err(Error::Api(status)) = refusal else { panic!("{spec} was taken: {refusal:?}") };
    assert_eq!(status.code, 422, "{spec}: {}", status.message);
    assert!(status.message.contains(field), "{spec}: {}", status.message);
    assert!(status.message.contains(allowed), "{spec}: {}", status.message);
}

#[tokio::test]
async fn a_bad_tenant_is_refused_with_what_is_allowed() {
    in_namespace(|cluster| async move {
        let with = |field: &str, value: Value| {
            let mut spec = json!({ "monthlyQuota": 1_000 });
            spec[field] = value;
            spec
        };
        let slack = |target: Value| with("alerts", json!({ "slack": target }));
        let thresholds = |percents: Value| with("alerts", json!({ "thresholds": percents }));
        let webhook = |target: Value| with("alerts", json!({ "webhook": target }));
        let boosts = |boosts: Value| with("quotaBoosts", boosts);
        let (from, until) = ("2026-03-10T00:00:00Z", "2026-03-20T00:00:00Z");
        let boost = |tokens: i64, until: &str| json!({ "tokens": tokens, "from": from, "until": until });
        let url = "https://hooks.slack.com/services/T0/B0/x";
        let long_url = format!("https://hooks.slack.com/{}", "x".repeat(2_048));
        let reference = json!({ "name": "acme-slack" });
        let cases = [
            // spec, field, what is allowed
            (with("monthlyQuota", json!(0)), "spec.monthlyQuota", "greater than or equal to 1"),
            (with("monthlyQuota", json!(-1)), "spec.monthlyQuota", "greater than or equal to 1"),
            (with("monthlyQuota", json!(1.5)), "spec.monthlyQuota", "integer"),
            (with("monthlyQuota", json!("1000")), "spec.monthlyQuota", "integer"),
            (
                with("monthlyQuota", json!(9_007_199_254_740_992_i64)),
                "spec.monthlyQuota",
                "less than or equal to 9007199254740991",
            ),
            (json!({}), "spec.monthlyQuota", "Required value"),
            (with("billingDay", json!(0)), "spec.billingDay", "greater than or equal to 1"),
            (with("billingDay", json!(32)), "spec.billingDay", "less than or equal to 31"),
            (with("displayName", json!("")), "spec.displayName", "at least 1 chars"),
            (with("displayName", json!("x".repeat(257))), "spec.displayName", "may not be more than 256"),
            (with("timeZone", json!("Europe/Berlino")), "spec.timeZone", "Europe/Berlin"),
            (with("timeZone", json!("Local")), "spec.timeZone", "the name of an IANA time zone"),
            (with("timeZone", json!("")), "spec.timeZone", "at least 1 chars"),
            (
                slack(json!({ "url": "ftp://hooks.slack.com/services/T0/B0/x" })),
                "spec.alerts.slack.url",
                "must be an https URL",
            ),
            (slack(json!({ "url": "not a url" })), "spec.alerts.slack.url", "must be an https URL"),
            (slack(json!({ "url": "https://" })), "spec.alerts.slack.url", "must be an https URL"),
            (slack(json!({ "url": long_url })), "spec.alerts.slack.url", "may not be more than 2048"),
            (
                slack(json!({ "url": url, "secretRef": reference })),
                "spec.alerts.slack",
                "exactly one of url and secretRef must be set",
            ),
            (
                slack(json!({ "enabled": false })),
                "spec.alerts.slack",
                "exactly one of url and secretRef must be set",
            ),
            (slack(json!({ "secretRef": {} })), "spec.alerts.slack.secretRef.name", "Required value"),
            (thresholds(json!([0])), "spec.alerts.thresholds[0]", "greater than or equal to 1"),
            (thresholds(json!([1_001])), "spec.alerts.thresholds[0]", "less than or equal to 1000"),
            (thresholds(json!([80, 80])), "spec.alerts.thresholds[1]", "Duplicate value"),
            (
                thresholds(json!((1..=11).collect::<Vec<_>>())),
                "spec.alerts.thresholds",
                "must have at most 10 items",
            ),
            (
                webhook(json!({ "url": "ftp://example.com", "secretRef": reference })),
                "spec.alerts.webhook.url",
                "must be an https URL",
            ),
            (
                webhook(json!({ "url": url, "urlSecretRef": reference, "secretRef": reference })),
                "spec.alerts.webhook",
                "exactly one of url and urlSecretRef must be set",
            ),
            (
                webhook(json!({ "secretRef": reference })),
                "spec.alerts.webhook",
                "exactly one of url and urlSecretRef must be set",
            ),
            (
                webhook(json!({ "url": "https://example.com" })),
                "spec.alerts.webhook.secretRef",
                "Required value",
            ),
            (boosts(json!([boost(0, until)])), "spec.quotaBoosts[0].tokens", "greater than or equal to 1"),
            (boosts(json!([boost(1, from)])), "spec.quotaBoosts[0]", "from must be before until"),
            (boosts(json!([boost(1, "tomorrow")])), "spec.quotaBoosts[0].until", "date-time"),
            (boosts(json!(vec![boost(1, until); 17])), "spec.quotaBoosts", "must have at most 16 items"),
        ];
        for (spec, field, allowed) in cases {
            assert_refused(&cluster, &spec, field, allowed).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_text_that_hides_something_and_a_name_that_no_secret_has_are_refused_with_a_sentence() {
    in_namespace(|cluster| async move {
        for hidden in ["\0", "\n", "\t", "\u{7f}", "\u{85}", "\u{200f}", "\u{2029}", "\u{202e}", "\u{2067}"] {
            let text = format!("Acme{hidden}Corp");
            let named = json!({ "monthlyQuota": 1, "displayName": text });
            assert_refused(&cluster, &named, "spec.displayName", "must be one line without control characters").await;
            let boost = json!({ "tokens": 1, "from": "2026-03-10T00:00:00Z", "until": "2026-03-20T00:00:00Z", "reason": text });
            let boosted = json!({ "monthlyQuota": 1, "quotaBoosts": [boost] });
            assert_refused(&cluster, &boosted, "spec.quotaBoosts[0].reason", "must be one line").await;
        }
        for name in ["a/b", "..", "Acme", "a?b"] {
            let slack = json!({ "slack": { "secretRef": { "name": name } } });
            let spec = json!({ "monthlyQuota": 1, "alerts": slack });
            assert_refused(&cluster, &spec, "spec.alerts.slack.secretRef.name", "must be that of a Secret").await;
        }
        let spec = json!({ "monthlyQuota": 1, "displayName": "Söhne 株式会社 👩\u{200d}👧" });
        create(&cluster, "acme", &spec).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_name_that_is_no_tenant_id_is_refused() {
    in_namespace(|cluster| async move {
        let spec = json!({ "monthlyQuota": 1_000 });
        for name in ["a".repeat(64), "acme.corp".to_owned()] {
            let refusal = create(&cluster, &name, &spec).await;
            let Err(Error::Api(status)) = refusal else { panic!("{name} was taken: {refusal:?}") };
            assert_eq!(status.code, 422, "{name}: {}", status.message);
            assert!(status.message.contains("at most 63 lower-case letters"), "{name}: {}", status.message);
        }
        for name in ["a".repeat(63), "a".to_owned(), "7-eleven".to_owned()] {
            create(&cluster, &name, &spec).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_left_out_has_a_default() {
    in_namespace(|cluster| async move {
        let slack = json!({ "slack": { "secretRef": { "name": "acme-slack" } } });
        let spec = json!({ "monthlyQuota": 9_007_199_254_740_991_i64, "alerts": slack });
        let tenant = create(&cluster, "acme", &spec).await.unwrap();
        let expected = json!({
            "monthlyQuota": 9_007_199_254_740_991_i64,
            "billingDay": 1,
            "timeZone": "UTC",
            "alerts": {
                "thresholds": [80],
                "slack": { "enabled": true, "secretRef": { "name": "acme-slack", "key": "url" } },
            },
            "suspended": false,
            "deletionPolicy": "Retain",
        });
        assert_eq!(tenant.data["spec"], expected);
        assert_eq!(tenant.data["status"]["observedGeneration"], json!(-1));

        let tenant = create(&cluster, "bare", &json!({ "monthlyQuota": 1 })).await.unwrap();
        let expected = json!({
            "monthlyQuota": 1,
            "billingDay": 1,
            "timeZone": "UTC",
            "alerts": { "thresholds": [80] },
            "suspended": false,
            "deletionPolicy": "Retain",
        });
        assert_eq!(tenant.data["spec"], expected);
    })
    .await;
}
