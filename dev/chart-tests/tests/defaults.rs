//! What is rendered when nothing but the required values is set.

use chart_tests::{
    Objects, REQUIRED_VALUES, Tool, assert_same_as_committed, chart, read, render, repository, template, yaml,
};
use serde_json::{Value, json};

fn defaults() -> Objects {
    render(&json!({}))
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    let lint =
        |values: &str| Tool::Helm.run(&["lint", "--strict", &chart(""), "--values", &chart(values)], "");
    let _ = lint(REQUIRED_VALUES).expect_success("lint the chart with the required values");
    let _ = lint("values-dev.yaml").expect_success("lint the chart with values-dev.yaml");
}

#[test]
fn the_crd_and_the_rendered_defaults_are_those_that_were_reviewed() {
    // The chart cannot reach out of its folder, so it has a copy of the generated file.
    assert_same_as_committed(&repository("charts/flagmeter/files/tenants.yaml"), &read("crds/tenants.yaml"));

    let rendered = template("flagmeter", &["--values", &chart(REQUIRED_VALUES)], &json!({}));
    // Versions of helm differ in how many empty lines they leave between documents.
    let text: Vec<_> = rendered
        .expect_success("render the chart")
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| format!("{line}\n"))
        .collect();
    assert_same_as_committed(&repository("charts/flagmeter/tests/snapshots/defaults.yaml"), &text.concat());
}

#[test]
fn every_object_and_every_pod_carries_the_labels() {
    let objects = defaults();
    let metadata = objects.iter().map(|object| &object["metadata"]);
    let pods = objects.pod_templates().map(|(_, pod)| &pod["metadata"]);
    for metadata in metadata.chain(pods) {
        let labels = &metadata["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], "flagmeter", "{metadata}");
        assert_eq!(labels["app.kubernetes.io/instance"], "flagmeter", "{metadata}");
        assert_eq!(labels["app.kubernetes.io/version"], "0.1.0", "{metadata}");
        assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm", "{metadata}");
    }
}

#[test]
fn a_selector_names_one_part_and_nothing_that_an_upgrade_changes() {
    let objects = defaults();
    for part in ["api", "worker", "operator"] {
        let selector = objects.at(&format!("Deployment/flagmeter-{part}"), "spec/selector/matchLabels");
        let expected = json!({
            "app.kubernetes.io/name": "flagmeter",
            "app.kubernetes.io/instance": "flagmeter",
            "app.kubernetes.io/component": part,
        });
        assert_eq!(*selector, expected);
    }
    assert_eq!(
        objects.at("Service/flagmeter-api", "spec/selector"),
        objects.at("Deployment/flagmeter-api", "spec/selector/matchLabels"),
    );
}

#[test]
fn no_deployment_says_how_many_so_that_a_scale_by_hand_stays() {
    for deployment in defaults().of_kind("Deployment") {
        assert!(deployment["spec"].get("replicas").is_none(), "{}", deployment["metadata"]["name"]);
    }
}

#[test]
fn only_the_operator_has_rights_and_a_token() {
    let objects = defaults();
    assert_eq!(objects.of_kind("ClusterRole").count() + objects.of_kind("ClusterRoleBinding").count(), 0);
    let bound: Vec<_> = objects.of_kind("RoleBinding").map(|binding| &binding["subjects"]).collect();
    let operator =
        json!([{ "kind": "ServiceAccount", "name": "flagmeter-operator", "namespace": "flagmeter" }]);
    assert!(!bound.is_empty() && bound.iter().all(|subjects| *subjects == &operator), "{bound:?}");

    for account in objects.of_kind("ServiceAccount") {
        assert_eq!(account["automountServiceAccountToken"], false);
    }
    for (name, pod) in objects.pod_templates() {
        assert_eq!(pod["spec"]["serviceAccountName"], name);
        assert_eq!(pod["spec"]["automountServiceAccountToken"], name == "flagmeter-operator", "{name}");
    }
}

#[test]
fn no_secret_is_written_out() {
    let objects = defaults();
    assert_eq!(objects.of_kind("Secret").count(), 0);
    let variables =
        objects.containers().flat_map(|container| container["env"].as_array().into_iter().flatten());
    let mut from_secrets = 0;
    for variable in variables {
        let name = variable["name"].as_str().unwrap_or_default();
        let is_secret = ["URL", "KEY", "PASSWORD", "TOKEN"].iter().any(|word| name.contains(word));
        let from_secret = variable["valueFrom"]["secretKeyRef"]["name"].is_string();
        assert_eq!(is_secret, from_secret, "{variable}");
        from_secrets += usize::from(from_secret);
    }
    // PostgreSQL four times, the migrations included, Valkey three times, the encryption key twice, the admin token.
    assert_eq!(from_secrets, 10);
}

#[test]
fn each_part_knows_its_own_database_role_alone() {
    let objects = defaults();
    let key = |part: &str, list: &str, container: &str| {
        let path =
            format!("spec/template/spec/{list}/{container}/env/DATABASE_URL/valueFrom/secretKeyRef/key");
        objects.at(&format!("Deployment/flagmeter-{part}"), &path).clone()
    };
    assert_eq!(key("api", "containers", "api"), "api-url");
    assert_eq!(key("worker", "containers", "worker"), "worker-url");
    assert_eq!(key("operator", "containers", "operator"), "operator-url");
    // The api must start while PostgreSQL is away, so it waits for no migration.
    assert_eq!(key("api", "initContainers", "migrate"), Value::Null);
    assert_eq!(key("operator", "initContainers", "migrate"), "migrate-url");
    assert_eq!(key("worker", "initContainers", "migrate"), Value::Null);
}

#[test]
fn probes_ask_the_admin_port_which_clients_cannot_reach() {
    let objects = defaults();
    for part in ["api", "worker", "operator"] {
        let deployment = format!("Deployment/flagmeter-{part}");
        let at =
            |path: &str| objects.at(&deployment, &format!("spec/template/spec/containers/{part}/{path}"));
        assert_eq!(*at("ports/admin/containerPort"), 9090);
        assert_eq!(*at("startupProbe/httpGet"), json!({ "path": "/livez", "port": "admin" }));
        assert_eq!(*at("livenessProbe/httpGet"), json!({ "path": "/livez", "port": "admin" }));
        assert_eq!(*at("readinessProbe/httpGet"), json!({ "path": "/readyz", "port": "admin" }));
    }
    let services: Vec<_> = objects.of_kind("Service").map(|service| &service["spec"]["ports"]).collect();
    let http = json!([{ "name": "http", "port": 3000, "targetPort": "http", "appProtocol": "http" }]);
    assert_eq!(services, [&http]);
}

#[test]
fn the_crd_is_the_generated_one_and_stays_at_uninstall() {
    let objects = defaults();
    let crd = "CustomResourceDefinition/tenants.flagmeter.dev";
    let generated = yaml(&read("charts/flagmeter/files/tenants.yaml"));
    assert_eq!(
        with_one_kind_of_number(objects.at(crd, "spec")),
        with_one_kind_of_number(&generated[0]["spec"])
    );
    assert_eq!(objects.at(crd, "metadata/annotations")["helm.sh/resource-policy"], "keep");
}

/// The generated file writes limits as 31.0, Helm writes them as 31; to JSON they are one number.
fn with_one_kind_of_number(value: &Value) -> Value {
    match value {
        Value::Number(_) => value.as_f64().map_or(Value::Null, Value::from),
        Value::Array(items) => items.iter().map(with_one_kind_of_number).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), with_one_kind_of_number(value))).collect()
        }
        _ => value.clone(),
    }
}

#[test]
fn before_an_uninstall_a_job_lets_the_tenants_go_with_what_the_operator_has() {
    let objects = defaults();
    let job = "Job/flagmeter-operator-drain";
    let annotations = objects.at(job, "metadata/annotations");
    assert_eq!(annotations["helm.sh/hook"], "pre-delete");
    assert_eq!(annotations["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded");
    let pod = "spec/template/spec";
    assert_eq!(
        *objects.at(job, &format!("{pod}/containers/drain/command")),
        json!(["flagmeter-operator", "drain"])
    );
    for same in ["serviceAccountName", "automountServiceAccountToken", "securityContext"] {
        let path = format!("{pod}/{same}");
        assert_eq!(objects.at(job, &path), objects.at("Deployment/flagmeter-operator", &path), "{same}");
    }
    for same in ["env", "image", "securityContext", "resources"] {
        let of = |object: &str, container: &str| {
            objects.at(object, &format!("{pod}/containers/{container}/{same}")).clone()
        };
        assert_eq!(of(job, "drain"), of("Deployment/flagmeter-operator", "operator"), "{same}");
    }
}
