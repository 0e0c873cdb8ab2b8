//! Each value of the chart, and what it changes.

use std::collections::BTreeSet;

use chart_tests::{Objects, chart, read, render, template, yaml};
use serde_json::{Value, json};

/// A value set to something else than its default, and where that is seen.
struct Case {
    path: String,
    value: Value,
    /// What has to be set beside it.
    beside: Value,
    seen: Vec<(String, String, Value)>,
}

impl Case {
    fn new(path: &str, value: Value) -> Self {
        Self { path: path.to_owned(), value, beside: json!({}), seen: Vec::new() }
    }

    /// In the object `Kind/name`.
    fn object(mut self, object: &str, path: &str, expected: &Value) -> Self {
        self.seen.push((object.to_owned(), path.to_owned(), expected.clone()));
        self
    }

    /// In the pod template of one part.
    fn pod(self, part: &str, path: &str, expected: &Value) -> Self {
        self.object(&format!("Deployment/flagmeter-{part}"), &format!("spec/template/{path}"), expected)
    }

    /// In the pod templates of all parts.
    fn pods(self, path: &str, expected: &Value) -> Self {
        ["api", "worker", "operator"].iter().fold(self, |case, part| case.pod(part, path, expected))
    }

    /// In the container of one part.
    fn container(self, part: &str, path: &str, expected: &Value) -> Self {
        self.pod(part, &format!("spec/containers/{part}/{path}"), expected)
    }

    /// In the container that migrates, before the operator.
    fn migrations(self, path: &str, expected: &Value) -> Self {
        self.pod("operator", &format!("spec/initContainers/migrate/{path}"), expected)
    }

    /// In all four containers.
    fn containers(self, path: &str, expected: &Value) -> Self {
        ["api", "worker", "operator"]
            .iter()
            .fold(self, |case, part| case.container(part, path, expected))
            .migrations(path, expected)
    }
}

const CRD: &str = "CustomResourceDefinition/tenants.flagmeter.dev";

fn cases() -> Vec<Case> {
    [
        release_cases(),
        secret_cases(),
        auth_cases(),
        alert_cases(),
        api_cases(),
        worker_cases(),
        part_cases("operator"),
        watch_cases(),
        pod_cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn watch_cases() -> Vec<Case> {
    let variable = "env/FLAGMETER_WATCH_NAMESPACES/value";
    let role = "ClusterRole/flagmeter-flagmeter-operator";
    vec![
        Case::new("operator.watchNamespaces", json!(["shop", "lab"]))
            .container("operator", variable, &json!("shop,lab,flagmeter"))
            .object(
                "ClusterRole/flagmeter-flagmeter-operator-finish",
                "rules",
                &json!([{ "apiGroups": ["flagmeter.dev"], "resources": ["tenants", "tenants/status"], "verbs": ["patch"] }]),
            ),
        Case::new("operator.drainOnUninstall", json!(false)).object(
            "Job/flagmeter-operator-drain",
            "metadata",
            &json!(null),
        ),
        Case::new("operator.reportUnfollowed", json!(true)).object(
            "ClusterRole/flagmeter-flagmeter-operator-unfollowed",
            "rules",
            &json!([
                { "apiGroups": ["flagmeter.dev"], "resources": ["tenants"], "verbs": ["list"] },
                { "apiGroups": ["flagmeter.dev"], "resources": ["tenants/status"], "verbs": ["patch"] },
            ]),
        ),
        Case::new("operator.clusterWide", json!(true)).container("operator", variable, &json!("*")).object(
            role,
            "rules/1/verbs",
            &json!(["patch"]),
        ),
    ]
}

fn release_cases() -> Vec<Case> {
    let digest = format!("1.2.3@sha256:{}", "0".repeat(64));
    let viewer = "ClusterRole/flagmeter-flagmeter-tenants-view";
    let editor = "ClusterRole/flagmeter-flagmeter-tenants-edit";
    let service = "Service/usage-api";
    vec![
        Case::new("image.repository", json!("registry.example/flagmeter"))
            .containers("image", &json!("registry.example/flagmeter:0.1.0")),
        Case::new("image.tag", json!(digest))
            .containers("image", &json!(format!("ghcr.io/flagmeter/flagmeter:{digest}"))),
        Case::new("image.pullPolicy", json!("Always")).containers("imagePullPolicy", &json!("Always")),
        Case::new("fullnameOverride", json!("usage")).object(service, "metadata/name", &json!("usage-api")),
        Case::new("log.level", json!("debug")).containers("env/FLAGMETER_LOG/value", &json!("debug")),
        Case::new("log.format", json!("text")).containers("env/FLAGMETER_LOG_FORMAT/value", &json!("text")),
        Case::new("listenHost", json!("[::]"))
            .container("api", "env/FLAGMETER_LISTEN/value", &json!("[::]:3000"))
            .container("api", "env/FLAGMETER_ADMIN_LISTEN/value", &json!("[::]:9090"))
            .container("worker", "env/FLAGMETER_ADMIN_LISTEN/value", &json!("[::]:9090"))
            .container("operator", "env/FLAGMETER_ADMIN_LISTEN/value", &json!("[::]:9090")),
        Case::new("crds.install", json!(false)).object(CRD, "", &Value::Null),
        Case::new("crds.keep", json!(false)).object(CRD, "metadata/annotations", &Value::Null),
        Case::new("rbac.aggregateRoles", json!(true))
            .object(viewer, "rules/0/verbs", &json!(["get", "list", "watch"]))
            .object(editor, "rules/0/resources", &json!(["tenants"])),
    ]
}

fn secret_cases() -> Vec<Case> {
    let other = json!("other");
    let case = |path: &str| Case::new(path, other.clone());
    let of = |variable: &str, field: &str| format!("env/{variable}/valueFrom/secretKeyRef/{field}");
    let database_key = of("DATABASE_URL", "key");
    let (valkey_secret, valkey_key) = (of("VALKEY_URL", "name"), of("VALKEY_URL", "key"));
    let encryption = "FLAGMETER_ENCRYPTION_KEY";
    vec![
        case("database.existingSecret").containers(&of("DATABASE_URL", "name"), &other),
        case("database.keys.migrate").migrations(&database_key, &other),
        case("database.keys.api").container("api", &database_key, &other),
        case("database.keys.worker").container("worker", &database_key, &other),
        case("database.keys.operator").container("operator", &database_key, &other),
        case("valkey.existingSecret").container("api", &valkey_secret, &other).container(
            "worker",
            &valkey_secret,
            &other,
        ),
        case("valkey.key").container("api", &valkey_key, &other).container("worker", &valkey_key, &other),
        case("encryption.existingSecret").container("operator", &of(encryption, "name"), &other).container(
            "worker",
            &of(encryption, "name"),
            &other,
        ),
        case("encryption.key").container("operator", &of(encryption, "key"), &other).container(
            "worker",
            &of(encryption, "key"),
            &other,
        ),
    ]
}

fn auth_cases() -> Vec<Case> {
    let other = json!("other");
    let token = |field: &str| format!("env/FLAGMETER_ADMIN_TOKEN/valueFrom/secretKeyRef/{field}");
    let overlap = "env/FLAGMETER_ROTATION_OVERLAP_SECONDS/value";
    vec![
        Case::new("auth.mode", json!("disabled"))
            .container("api", "env/FLAGMETER_AUTH/value", &json!("disabled"))
            .container("api", "env/FLAGMETER_ADMIN_TOKEN", &Value::Null),
        Case::new("auth.adminTokenSecret.name", other.clone()).container("api", &token("name"), &other),
        Case::new("auth.adminTokenSecret.key", other.clone()).container("api", &token("key"), &other),
        Case::new("auth.rotationOverlapSeconds", json!(60)).container("operator", overlap, &json!("60")),
    ]
}

fn alert_cases() -> Vec<Case> {
    let allowed = "env/FLAGMETER_ALLOW_PRIVATE_WEBHOOKS/value";
    let url = json!("https://meter.example.com");
    vec![
        Case::new("alerts.publicUrl", url.clone()).container(
            "worker",
            "env/FLAGMETER_PUBLIC_URL/value",
            &url,
        ),
        Case::new("alerts.allowPrivateAddresses", json!(true))
            .container("worker", allowed, &json!("true"))
            .container("operator", allowed, &json!("true")),
    ]
}

fn api_cases() -> Vec<Case> {
    let service = "Service/flagmeter-api";
    let mut cases = part_cases("api");
    cases.extend([
        Case::new("api.drainSeconds", json!(40))
            .container("api", "env/FLAGMETER_DRAIN_SECONDS/value", &json!("40"))
            .pod("api", "spec/terminationGracePeriodSeconds", &json!(60)),
        Case::new("api.keepAliveSeconds", json!(620)).container(
            "api",
            "env/FLAGMETER_KEEP_ALIVE_SECONDS/value",
            &json!("620"),
        ),
        // Larger than what a template's number holds exactly as text.
        Case::new("api.queueMaxEvents", json!(20_000_000)).container(
            "api",
            "env/FLAGMETER_QUEUE_MAX_EVENTS/value",
            &json!("20000000"),
        ),
        Case::new("api.maxEvents", json!(10_000)).container(
            "api",
            "env/FLAGMETER_MAX_EVENTS/value",
            &json!("10000"),
        ),
        Case::new("api.maxBodyBytes", json!(8_388_608)).container(
            "api",
            "env/FLAGMETER_MAX_BODY_BYTES/value",
            &json!("8388608"),
        ),
        Case::new("api.maxFeatures", json!(50)).container(
            "api",
            "env/FLAGMETER_MAX_FEATURES/value",
            &json!("50"),
        ),
        Case::new("api.maxConnectionsPerPeer", json!(0)).container(
            "api",
            "env/FLAGMETER_MAX_CONNECTIONS_PER_PEER/value",
            &json!("0"),
        ),
        Case::new("api.trustedProxies", json!(["10.42.0.0/16", "fd00::1"])).container(
            "api",
            "env/FLAGMETER_TRUSTED_PROXIES/value",
            &json!("10.42.0.0/16,fd00::1"),
        ),
        Case::new("api.service.type", json!("NodePort")).object(service, "spec/type", &json!("NodePort")),
        Case::new("api.service.port", json!(80)).object(service, "spec/ports/http/port", &json!(80)),
        Case::new("api.service.annotations", json!({ "owner": "platform" })).object(
            service,
            "metadata/annotations",
            &json!({ "owner": "platform" }),
        ),
    ]);
    cases
}

fn worker_cases() -> Vec<Case> {
    let keep = |value: &str, variable: &str, number: u64| {
        Case::new(&format!("worker.keep.{value}"), json!(number)).container(
            "worker",
            &format!("env/{variable}/value"),
            &json!(number.to_string()),
        )
    };
    let mut cases = part_cases("worker");
    cases[0].beside = json!({ "worker": { "autoscaling": { "enabled": false } } });
    cases.extend(scaling_cases());
    cases.extend([
        keep("eventsDays", "FLAGMETER_EVENTS_DAYS", 7),
        keep("eventsMaxBytes", "FLAGMETER_EVENTS_MAX_BYTES", 123_456_789_012),
        keep("eventIdsDays", "FLAGMETER_EVENT_IDS_DAYS", 8),
        keep("eventIdsMaxBytes", "FLAGMETER_EVENT_IDS_MAX_BYTES", 123_456_789_013),
        keep("deadLettersDays", "FLAGMETER_DEAD_LETTERS_DAYS", 9),
        keep("deadLettersMaxBytes", "FLAGMETER_DEAD_LETTERS_MAX_BYTES", 123_456_789_014),
        keep("rollupsDays", "FLAGMETER_ROLLUPS_DAYS", 800).container(
            "api",
            "env/FLAGMETER_ROLLUPS_DAYS/value",
            &json!("800"),
        ),
    ]);
    cases
}

fn scaling_cases() -> Vec<Case> {
    let variable = |name: &str| format!("env/FLAGMETER_SCALE_{name}/value");
    let case = |value: &str, name: &str, number: Value| {
        let expected = json!(number.to_string());
        let path = format!("worker.autoscaling.{value}");
        Case::new(&path, number).container("operator", &variable(name), &expected)
    };
    vec![
        Case::new("worker.autoscaling.enabled", json!(false))
            .container("operator", &variable("DEPLOYMENT"), &Value::Null)
            .container("operator", "env/VALKEY_URL", &Value::Null),
        case("minReplicas", "MIN", json!(2)),
        case("maxReplicas", "MAX", json!(5)),
        case("eventsPerSecond", "PRIOR_RATE", json!(20_000_000)),
        case("headroom", "HEADROOM", json!(1.5)),
        case("waitSeconds", "WAIT_SECONDS", json!(0.5)),
        case("drainSeconds", "DRAIN_SECONDS", json!(10)),
        case("intervalSeconds", "INTERVAL_SECONDS", json!(1)),
        case("windowSeconds", "WINDOW_SECONDS", json!(60)),
        case("stepSeconds", "STEP_SECONDS", json!(30)),
        case("pauseSeconds", "PAUSE_SECONDS", json!(60)),
        case("retrySeconds", "RETRY_SECONDS", json!(60)),
        case("idleSeconds", "IDLE_SECONDS", json!(60)),
        case("fallbackReplicas", "FALLBACK", json!(2)),
        case("failures", "FAILURES", json!(3)),
    ]
}

/// The values that every part has.
fn part_cases(part: &str) -> Vec<Case> {
    let case = |value: &str, other| Case::new(&format!("{part}.{value}"), other);
    let deployment = format!("Deployment/flagmeter-{part}");
    let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "disk", "operator": "Exists" }] }] } } });
    let spread = json!({ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": { "mine": "yes" } } });
    vec![
        case("replicas", json!(0)).object(&deployment, "spec/replicas", &json!(0)),
        case("resources", json!({ "limits": { "memory": "1Gi" } })).container(
            part,
            "resources/limits/memory",
            &json!("1Gi"),
        ),
        case("affinity", affinity.clone()).pod(part, "spec/affinity", &affinity),
        case("topologySpreadConstraints", json!([spread])).pod(
            part,
            "spec/topologySpreadConstraints",
            &json!([spread]),
        ),
    ]
}

fn pod_cases() -> Vec<Case> {
    let pull_secrets = json!([{ "name": "registry" }]);
    let annotations = json!({ "example.com/team": "platform" });
    let nodes = json!({ "kubernetes.io/arch": "arm64" });
    let tolerations = json!([{ "key": "edge", "operator": "Exists" }]);
    let class = json!("important");
    vec![
        Case::new("imagePullSecrets", pull_secrets.clone()).pods("spec/imagePullSecrets", &pull_secrets),
        Case::new("podAnnotations", annotations.clone()).pods("metadata/annotations", &annotations),
        Case::new("nodeSelector", nodes.clone()).pods("spec/nodeSelector", &nodes),
        Case::new("tolerations", tolerations.clone()).pods("spec/tolerations", &tolerations),
        Case::new("priorityClassName", class.clone()).pods("spec/priorityClassName", &class),
    ]
}

/// `value` at the dotted `path`.
fn nested(path: &str, value: &Value) -> Value {
    path.rsplit('.').fold(value.clone(), |inner, key| json!({ key: inner }))
}

/// Adds what is in `more`.
fn merge(values: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        match values.get_mut(key) {
            Some(inner) => merge(inner, value),
            None => values[key] = value.clone(),
        }
    }
}

/// Dotted paths of all values; what users fill in freely is one value.
fn paths(values: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    for (key, value) in values.as_object().into_iter().flatten() {
        let path = format!("{prefix}{key}");
        let is_section = value.as_object().is_some_and(|section| !section.is_empty()) && key != "resources";
        if is_section {
            paths(value, &format!("{path}."), found);
        } else {
            found.insert(path);
        }
    }
}

/// Of values.yaml, given as its text.
fn documented_paths(values: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    paths(&yaml(values)[0], "", &mut found);
    found
}

#[test]
fn each_value_changes_what_it_says() {
    let defaults = render(&json!({}));
    for case in cases() {
        let mut values = nested(&case.path, &case.value);
        merge(&mut values, &case.beside);
        let changed = render(&values);
        assert!(!case.seen.is_empty(), "{} is not looked for", case.path);
        for (object, path, expected) in case.seen {
            let place = format!("{} in {object} at {path}", case.path);
            assert_eq!(*changed.at(&object, &path), expected, "{place}");
            assert_ne!(*defaults.at(&object, &path), expected, "{place}: that is the default too");
        }
    }
}

#[test]
fn no_value_is_without_a_test() {
    let tested: BTreeSet<String> = cases().iter().map(|case| case.path.clone()).collect();
    assert_eq!(tested, documented_paths(&read("charts/flagmeter/values.yaml")));
}

#[test]
fn every_value_has_a_comment_and_a_line_in_the_readme() {
    let (text, readme) = (read("charts/flagmeter/values.yaml"), read("charts/flagmeter/README.md"));
    let mut sections: Vec<(usize, &str)> = Vec::new();
    let mut above = "";
    let mut seen = BTreeSet::new();
    let values = documented_paths(&text);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some((key, _)) = line.trim_start().split_once(':').filter(|(key, _)| !key.starts_with('#')) {
            sections.retain(|(outer, _)| *outer < indent);
            sections.push((indent, key));
            let path = sections.iter().map(|(_, key)| *key).collect::<Vec<_>>().join(".");
            if values.contains(&path) {
                assert!(above.trim_start().starts_with('#'), "{path} has no comment above it");
                assert!(readme.contains(&format!("`{path}`")), "{path} is not in the chart's README");
                seen.insert(path);
            }
        }
        above = line;
    }
    assert_eq!(seen, values);
}

#[test]
fn the_own_address_is_known_before_the_listen_address_refers_to_it() {
    let rendered = template("flagmeter", &["--values", &chart("values-dev.yaml")], &json!({}));
    let objects = Objects::parse(&rendered.expect_success("render values-dev.yaml"));
    let listen =
        objects.at("Deployment/flagmeter-api", "spec/template/spec/containers/api/env/FLAGMETER_LISTEN");
    assert_eq!(listen["value"], "$(POD_IP):3000");
    for container in objects.containers() {
        assert_eq!(container["env"][0]["name"], "POD_IP", "{}", container["name"]);
    }
}

#[test]
fn a_spread_constraint_is_about_the_parts_own_pods_unless_it_says_otherwise() {
    let constraint = json!({ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway" });
    let objects = render(&nested("worker.topologySpreadConstraints", &json!([constraint])));
    let worker = "Deployment/flagmeter-worker";
    assert_eq!(
        objects.at(worker, "spec/template/spec/topologySpreadConstraints/0/labelSelector"),
        objects.at(worker, "spec/selector"),
    );
}

#[test]
fn a_default_can_be_taken_away() {
    let objects = render(&json!({ "api": { "resources": { "limits": null } } }));
    let resources = objects.at("Deployment/flagmeter-api", "spec/template/spec/containers/api/resources");
    assert_eq!(*resources, json!({ "requests": { "cpu": "100m", "memory": "64Mi" } }));
}

#[test]
fn names_fit_however_long_the_release_is_called() {
    let release = "a-release-whose-name-is-as-long-as-helm-allows-53-a-a";
    assert_eq!(release.len(), 53);
    let rendered = template(release, &["--values", &chart(chart_tests::REQUIRED_VALUES)], &json!({}));
    let objects = Objects::parse(&rendered.expect_success("render a long name"));
    let names: BTreeSet<_> = objects
        .of_kind("Deployment")
        .map(|deployment| deployment["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 3);
    for name in names {
        assert!(name.len() <= 63 && !name.contains("--"), "{name}");
    }
}

#[test]
fn as_part_of_another_chart_it_puts_up_with_what_helm_hands_down() {
    let objects = render(&json!({ "global": { "anything": true } }));
    assert_eq!(objects.of_kind("Deployment").count(), 3);
}

#[test]
fn the_chart_never_says_how_many_workers_there_are_while_the_operator_does() {
    let worker = "Deployment/flagmeter-worker";
    assert_eq!(*render(&json!({})).at(worker, "spec/replicas"), Value::Null);
    let without = render(&json!({ "worker": { "autoscaling": { "enabled": false } } }));
    assert_eq!(*without.at(worker, "spec/replicas"), Value::Null);
    // Without scaling the operator has no rights on Deployments or ConfigMaps.
    let rules = without.at("Role/flagmeter-operator", "rules").to_string();
    assert!(!rules.contains("deployments") && !rules.contains("configmaps"), "{rules}");
}
