//! The committed definition is what the types say, and says what they mean.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

use std::path::Path;

use flagmeter_crds::manifest;
use serde_json::{Value, json};

#[test]
fn the_committed_definition_is_the_generated_one() {
    let expected = manifest::yaml().unwrap();
    for path in manifest::PATHS {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        let committed = std::fs::read_to_string(file).unwrap_or_default();
        assert!(committed == expected, "{path} is not what the types say; run `{}`", manifest::REGENERATE);
    }
}

#[test]
fn the_text_reads_back_as_the_definition() {
    let read: Value = serde_saphyr::from_str(&manifest::yaml().unwrap()).unwrap();
    assert_eq!(read, manifest::definition().unwrap());
}

#[test]
fn the_schema_holds_the_rules() {
    let spec = spec();
    let fields = &spec["properties"];
    let cases = [
        // field, keyword, value
        ("/monthlyQuota", "minimum", json!(1.0)),
        ("/monthlyQuota", "maximum", json!(9_007_199_254_740_991.0)),
        ("/billingDay", "minimum", json!(1.0)),
        ("/billingDay", "maximum", json!(31.0)),
        ("/billingDay", "default", json!(1)),
        ("/displayName", "minLength", json!(1)),
        ("/displayName", "maxLength", json!(256)),
        ("/timeZone", "default", json!("UTC")),
        ("/timeZone", "maxLength", json!(64)),
        ("/quotaBoosts", "maxItems", json!(16)),
        ("/quotaBoosts/items/properties/tokens", "maximum", json!(9_007_199_254_740_991.0)),
        ("/alerts", "default", json!({ "thresholds": [80] })),
        ("/alerts/properties/thresholds", "default", json!([80])),
        ("/alerts/properties/thresholds", "maxItems", json!(10)),
        ("/alerts/properties/thresholds", "x-kubernetes-list-type", json!("set")),
        ("/alerts/properties/thresholds/items", "maximum", json!(1000.0)),
        ("/alerts/properties/webhook/properties/enabled", "default", json!(true)),
        ("/alerts/properties/webhook/properties/urlSecretRef/properties/key", "default", json!("url")),
        ("/alerts/properties/webhook/properties/secretRef/properties/key", "default", json!("secret")),
        ("/alerts/properties/slack/properties/enabled", "default", json!(true)),
        ("/alerts/properties/slack/properties/url", "maxLength", json!(2048)),
        ("/alerts/properties/slack/properties/secretRef/properties/key", "default", json!("url")),
    ];
    for (field, keyword, value) in cases {
        let schema = fields.pointer(field).unwrap_or_else(|| panic!("no field {field}"));
        assert_eq!(schema[keyword], value, "{keyword} of {field}");
    }
    assert_eq!(spec["required"], json!(["monthlyQuota"]));
}

#[test]
fn every_rule_says_what_is_allowed() {
    let rules = [
        ("", "metadata.name is the tenant's id"),
        ("/properties/spec/properties/timeZone", "timeZone must be the name of an IANA time zone"),
        (
            "/properties/spec/properties/alerts/properties/slack",
            "exactly one of url and secretRef must be set",
        ),
        ("/properties/spec/properties/alerts/properties/slack/properties/url", "url must be an https URL"),
        (
            "/properties/spec/properties/alerts/properties/webhook",
            "exactly one of url and urlSecretRef must be set",
        ),
        ("/properties/spec/properties/alerts/properties/webhook/properties/url", "url must be an https URL"),
        ("/properties/spec/properties/quotaBoosts/items", "from must be before until"),
    ];
    let schema = schema();
    for (field, message) in rules {
        let rule = &schema.pointer(field).unwrap()["x-kubernetes-validations"][0];
        let text = rule["message"].as_str().unwrap_or_default();
        assert!(text.starts_with(message), "{field}: {rule}");
    }
}

#[test]
fn every_field_is_described_and_none_may_be_null() {
    fn check(path: &str, schema: &Value) {
        assert!(schema.get("nullable").is_none(), "{path} is nullable");
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let description = field["description"].as_str().unwrap_or_default();
            assert!(!description.is_empty() && !description.contains('\n'), "{path}: {description:?}");
            check(&path, field);
        }
    }
    check("tenant.spec", &spec());
    check("tenant.status", &schema()["properties"]["status"]);
}

#[test]
fn a_tenant_that_nobody_looked_at_is_not_current() {
    assert_eq!(schema()["properties"]["status"]["default"], json!({ "observedGeneration": -1 }));
}

fn schema() -> Value {
    let definition = manifest::definition().unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn spec() -> Value {
    schema()["properties"]["spec"].clone()
}
