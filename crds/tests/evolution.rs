//! The definition only grows: what was valid once stays valid, and means the same. `crds/history` holds what was
//! published.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end there")]

use std::fs;
use std::path::Path;

use flagmeter_crds::lint::{Document, Linter, Verdict};
use flagmeter_crds::{manifest, text, used_by};
use serde_json::Value;

/// Rules that came later and that nothing which was valid before can break: where, the rule, and why.
const IMPLIED: [(&str, &str, &str); 3] = [
    (
        "spec.alerts.webhook",
        "has(self.url) != has(self.urlSecretRef)",
        "url was required before, and urlSecretRef did not exist",
    ),
    ("spec.alerts.slack.url", URL_RULE, "the scheme had to be https before"),
    ("spec.alerts.webhook.url", URL_RULE, "the scheme had to be https before"),
];

/// The rule of both URLs.
const URL_RULE: &str =
    "isURL(self) && url(self).getScheme() in ['https', 'http'] && url(self).getHostname() != ''";

/// Rules that came later and that something which was valid before can break, on purpose: where, and why. What is stored
/// stays valid until the field itself is changed, for the API server holds only what has changed to them.
const REFUSED_SINCE: [(&str, &str); 4] = [
    (
        "spec.displayName",
        "a control character, or one that turns the direction of text, shows another name than it is",
    ),
    ("spec.quotaBoosts[].reason", "the same"),
    ("spec.alerts.slack.secretRef.name", "no Secret can have another name"),
    ("spec.alerts.webhook.secretRef.name", "the same"),
];

/// Every published definition with its Tenants, the oldest first.
fn history() -> Vec<(String, Value, Vec<Document>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("history");
    let read = |name: String| fs::read_to_string(folder.join(name)).unwrap();
    let mut history = Vec::new();
    for number in 1.. {
        let name = format!("v1alpha1-{number}");
        if !folder.join(format!("{name}.yaml")).exists() {
            break;
        }
        let definition: Value = serde_saphyr::from_str(&read(format!("{name}.yaml"))).unwrap();
        history.push((
            name.clone(),
            definition,
            Document::read(&read(format!("{name}.tenants.yaml"))).unwrap(),
        ));
    }
    assert!(history.len() >= 2);
    history
}

fn schema(definition: &Value) -> &Value {
    let version = &definition["spec"]["versions"][0];
    assert_eq!(
        (&version["name"], &version["served"], &version["storage"]),
        (&"v1alpha1".into(), &true.into(), &true.into())
    );
    &version["schema"]["openAPIV3Schema"]
}

#[test]
fn what_was_valid_once_is_valid_now() {
    let linter = Linter::new().unwrap();
    for (name, _, tenants) in history() {
        assert!(tenants.len() >= 3, "{name}");
        for tenant in tenants {
            assert_eq!(linter.judge(&tenant), Verdict::Tenant(Vec::new()), "{name}: {}", tenant.value);
        }
    }
}

#[test]
fn no_field_goes_and_no_bound_is_narrower_than_it_was() {
    let now = manifest::definition().unwrap();
    for (name, definition, _) in history() {
        for field in ["group", "scope"] {
            assert_eq!(now["spec"][field], definition["spec"][field], "{name}: {field}");
        }
        for names in ["kind", "plural", "singular", "shortNames", "categories"] {
            assert_eq!(now["spec"]["names"][names], definition["spec"]["names"][names], "{name}: {names}");
        }
        let mut narrower = Vec::new();
        compare("", schema(&definition), schema(&now), &mut narrower);
        assert!(narrower.is_empty(), "what {name} allowed is not allowed any more: {narrower:#?}");
    }
}

#[test]
fn a_comparison_sees_what_is_narrower() {
    let old = schema(&manifest::definition().unwrap()).clone();
    let narrow = |change: fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new["properties"]["spec"]);
        let mut narrower = Vec::new();
        compare("", &old, &new, &mut narrower);
        narrower
    };
    assert_eq!(narrow(|_| ()), Vec::<String>::new());
    for change in [
        |spec: &mut Value| drop(spec["properties"].as_object_mut().unwrap().remove("suspended")),
        |spec: &mut Value| spec["properties"]["billingDay"]["type"] = "string".into(),
        |spec: &mut Value| spec["properties"]["billingDay"]["maximum"] = 28.into(),
        |spec: &mut Value| spec["properties"]["monthlyQuota"]["minimum"] = 10.into(),
        |spec: &mut Value| spec["properties"]["displayName"]["maxLength"] = 100.into(),
        |spec: &mut Value| spec["properties"]["displayName"]["pattern"] = "^a".into(),
        |spec: &mut Value| spec["properties"]["deletionPolicy"]["enum"] = serde_json::json!(["Retain"]),
        |spec: &mut Value| spec["properties"]["timeZone"]["default"] = "Europe/Berlin".into(),
        |spec: &mut Value| spec["required"] = serde_json::json!(["monthlyQuota", "displayName"]),
        |spec: &mut Value| {
            spec["properties"]["quotaBoosts"]["items"]["x-kubernetes-validations"] =
                serde_json::json!([{ "rule": "false" }]);
        },
        |spec: &mut Value| spec["properties"]["quotaBoosts"]["x-kubernetes-list-type"] = "set".into(),
    ] {
        assert_eq!(narrow(change).len(), 1);
    }
}

/// Adds to `narrower` what `new` does not allow and `old` did.
fn compare(path: &str, old: &Value, new: &Value, narrower: &mut Vec<String>) {
    let mut say = |what: &str| narrower.push(format!("{path}: {what}"));
    for keyword in ["type", "format", "pattern", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"] {
        if old[keyword] != new[keyword] {
            say(&format!("{keyword} is {}, was {}", new[keyword], old[keyword]));
        }
    }
    for (keyword, is_lower_bound) in [
        ("minimum", true),
        ("minLength", true),
        ("minItems", true),
        ("maximum", false),
        ("maxLength", false),
        ("maxItems", false),
    ] {
        let narrow = match (old[keyword].as_f64(), new[keyword].as_f64()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(old), Some(new)) => {
                if is_lower_bound {
                    new > old
                } else {
                    new < old
                }
            }
        };
        if narrow {
            say(&format!("{keyword} is {}, was {}", new[keyword], old[keyword]));
        }
    }
    if let Some(gone) =
        old["enum"].as_array().and_then(|old| old.iter().find(|value| !contains(&new["enum"], value)))
    {
        say(&format!("{gone} is no longer possible"));
    }
    for required in new["required"].as_array().into_iter().flatten() {
        // A field that did not exist cannot be required of what exists, and one with a default is never absent.
        if !contains(&old["required"], required) {
            say(&format!("{required} is required now"));
        }
    }
    for validation in new["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let rule = &validation["rule"];
        let known =
            old["x-kubernetes-validations"].as_array().into_iter().flatten().any(|old| old["rule"] == *rule);
        let is_implied = IMPLIED.iter().any(|(place, implied, _)| *place == path && *implied == rule);
        let is_meant = [text::RULE, used_by::NAME_RULE].iter().any(|meant| *meant == rule)
            && REFUSED_SINCE.iter().any(|(place, _)| *place == path);
        if !known && !is_implied && !is_meant {
            say(&format!("there is a new rule, {rule}"));
        }
    }
    if let Some(default) = old.get("default").filter(|default| !keeps(default, &new["default"])) {
        say(&format!("the default is {}, was {default}", new["default"]));
    }
    for (name, old) in old["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match new["properties"].get(name) {
            Some(new) => compare(&path, old, new, narrower),
            None => narrower.push(format!("{path}: the field is gone")),
        }
    }
    if let Some(old) = old.get("items") {
        compare(&format!("{path}[]"), old, &new["items"], narrower);
    }
}

fn contains(list: &Value, value: &Value) -> bool {
    list.as_array().is_some_and(|list| list.contains(value))
}

/// Whether a default says at least what it said before.
fn keeps(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            old.iter().all(|(name, old)| new.get(name).is_some_and(|new| keeps(old, new)))
        }
        _ => old == new,
    }
}
