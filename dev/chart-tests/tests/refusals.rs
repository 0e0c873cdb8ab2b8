//! Values that cannot be meant, and what is said about them.

use chart_tests::{REQUIRED_VALUES, chart, read, template};
use serde_json::{Value, json};

fn refusal(values: &Value) -> String {
    let rendered = template("flagmeter", &["--values", &chart(REQUIRED_VALUES)], values);
    rendered.expect_refusal(&format!("render {values}"))
}

#[test]
fn a_wrong_value_is_refused_with_its_place_and_what_is_allowed() {
    let cases = [
        // misspelt, at the top and further down
        (json!({ "workers": {} }), "additional properties 'workers' not allowed"),
        (json!({ "worker": { "replica": 2 } }), "at '/worker': additional properties 'replica' not allowed"),
        (json!({ "api": { "service": { "ports": 1 } } }), "at '/api/service': additional properties"),
        (json!({ "database": { "keys": { "cli": "x" } } }), "at '/database/keys': additional properties"),
        // of the wrong type
        (
            json!({ "worker": { "replicas": "two" } }),
            "at '/worker/replicas': got string, want null or integer",
        ),
        (json!({ "worker": { "replicas": 1.5 } }), "at '/worker/replicas'"),
        (json!({ "crds": { "keep": "yes" } }), "at '/crds/keep': got string, want boolean"),
        (json!({ "api": { "drainSeconds": "5s" } }), "at '/api/drainSeconds': got string, want integer"),
        (json!({ "tolerations": {} }), "at '/tolerations': got object, want array"),
        (
            json!({ "podAnnotations": { "number": 1 } }),
            "at '/podAnnotations/number': got number, want string",
        ),
        // two that contradict each other
        (
            json!({ "worker": { "replicas": 2 } }),
            "worker.replicas and worker.autoscaling.enabled cannot both be set",
        ),
        (
            json!({ "worker": { "autoscaling": { "minReplicas": 3 } } }),
            "worker.autoscaling.minReplicas (3) must be no more than maxReplicas (2)",
        ),
        (
            json!({ "worker": { "autoscaling": { "fallbackReplicas": 3 } } }),
            "worker.autoscaling.fallbackReplicas must be from minReplicas to maxReplicas",
        ),
        (
            json!({ "worker": { "keep": { "eventsDays": 35, "rollupsDays": 71 } } }),
            "worker.keep.rollupsDays (71) must be at least 72",
        ),
        // out of range, or not one of the choices
        (
            json!({ "worker": { "autoscaling": { "headroom": 0.5 } } }),
            "at '/worker/autoscaling/headroom': minimum",
        ),
        (json!({ "worker": { "replicas": -1 } }), "at '/worker/replicas': minimum: got -1, want 0"),
        (json!({ "api": { "drainSeconds": 301 } }), "at '/api/drainSeconds': maximum: got 301, want 300"),
        (json!({ "api": { "keepAliveSeconds": 4 } }), "at '/api/keepAliveSeconds': minimum: got 4, want 5"),
        (json!({ "api": { "service": { "port": 65536 } } }), "at '/api/service/port': maximum"),
        (json!({ "api": { "service": { "type": "None" } } }), "'ClusterIP', 'NodePort', 'LoadBalancer'"),
        (json!({ "log": { "format": "xml" } }), "at '/log/format': value must be one of 'json', 'text'"),
        (json!({ "image": { "pullPolicy": "Sometimes" } }), "'Always', 'IfNotPresent', 'Never'"),
        // not shaped like what it stands for
        (json!({ "image": { "tag": "two words" } }), "at '/image/tag'"),
        (json!({ "image": { "repository": "Registry/Flagmeter" } }), "at '/image/repository'"),
        (json!({ "listenHost": "localhost:3000" }), "at '/listenHost'"),
        (
            json!({ "database": { "existingSecret": "postgres://user@host" } }),
            "at '/database/existingSecret'",
        ),
        (json!({ "alerts": { "publicUrl": "meter.example.com" } }), "at '/alerts/publicUrl'"),
        (json!({ "valkey": { "key": "a key" } }), "at '/valkey/key'"),
        (
            json!({ "auth": { "mode": "off" } }),
            "at '/auth/mode': value must be one of 'required', 'disabled'",
        ),
        (json!({ "auth": { "rotationOverlapSeconds": -1 } }), "at '/auth/rotationOverlapSeconds': minimum"),
        (json!({ "auth": { "adminTokenSecret": { "token": "x" } } }), "at '/auth/adminTokenSecret'"),
        (
            json!({ "operator": { "resources": { "limits": { "memory": "much" } } } }),
            "at '/operator/resources",
        ),
    ];
    for (values, expected) in cases {
        let message = refusal(&values);
        assert!(message.contains(expected), "{values} is refused with:\n{message}");
    }
}

#[test]
fn missing_secrets_are_all_named_with_what_has_to_be_in_them() {
    let message = template("flagmeter", &[], &json!({})).expect_refusal("render the chart without Secrets");
    for expected in [
        "each to the name of a Secret in namespace flagmeter",
        "- database.existingSecret: a Secret with the PostgreSQL connection strings under the keys migrate-url, api-url, worker-url and operator-url",
        "- valkey.existingSecret: a Secret with the Valkey connection string under the key url",
        "- encryption.existingSecret: a Secret with the base64 text of 32 random bytes under the key key",
        "- auth.adminTokenSecret.name: a Secret with the admin token, at least 16 characters, under the key token",
    ] {
        assert!(message.contains(expected), "not said: {expected}\n{message}");
    }
}

#[test]
fn what_is_set_is_not_asked_for_again() {
    let message = refusal(&json!({ "database": { "existingSecret": "" } }));
    assert!(message.contains("database.existingSecret"), "{message}");
    assert!(!message.contains("valkey.existingSecret"), "{message}");
}

#[test]
fn an_older_kubernetes_is_refused() {
    let arguments = ["--values", &chart(REQUIRED_VALUES), "--kube-version", "1.33.9"];
    let message = template("flagmeter", &arguments, &json!({})).expect_refusal("render for Kubernetes 1.33");
    assert!(message.contains(">=1.34.0-0"), "{message}");
    let arguments = ["--values", &chart(REQUIRED_VALUES), "--kube-version", "1.34.1+k3s1"];
    let _ = template("flagmeter", &arguments, &json!({})).expect_success("render for k3s 1.34");
}

#[test]
fn the_schema_leaves_no_section_open() {
    let schema: Value = serde_json::from_str(&read("charts/flagmeter/values.schema.json")).unwrap();
    assert!(open_sections(&schema, "").is_empty(), "{:?}", open_sections(&schema, ""));
}

/// Where the schema lists properties, but lets others through.
fn open_sections(schema: &Value, place: &str) -> Vec<String> {
    let is_open = schema["properties"].is_object()
        && schema["type"] == "object"
        && schema["additionalProperties"] != false;
    let own = is_open.then(|| place.to_owned());
    let inner = schema.as_object().into_iter().flatten();
    own.into_iter()
        .chain(inner.flat_map(|(key, value)| open_sections(value, &format!("{place}/{key}"))))
        .collect()
}
