//! The chart on a real API server.

use chart_tests::{RELEASE, REQUIRED_VALUES, Release, Tool, chart, render, repository, template};
use serde_json::{Value, json};

#[test]
fn the_server_takes_everything_that_is_rendered() {
    let release = Release::install();
    let arguments = ["--values", &chart(REQUIRED_VALUES), "--namespace", &release.namespace];
    let values = json!({ "rbac": { "aggregateRoles": true }, "api": { "replicas": 2 } });
    let manifests = template(RELEASE, &arguments, &values).expect_success("render the chart");
    let apply = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename", "-"];
    let applied = release.kubectl(&apply, &manifests).expect_success("apply the chart");
    assert_eq!(applied.lines().count(), manifests.matches("\nkind: ").count(), "{applied}");
}

#[test]
fn every_pod_passes_the_restricted_level() {
    let release = Release::install();
    let create =
        |pod: &Value| release.kubectl(&["create", "--dry-run=server", "--filename", "-"], &pod.to_string());
    for (name, template) in render(&json!({})).pod_templates() {
        let mut pod = template.clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!(name);
        let _ = create(&pod).expect_success(&format!("create a pod of {name}"));

        // The level is really enforced here.
        pod["spec"]["securityContext"]["runAsNonRoot"] = json!(false);
        let message = create(&pod).expect_refusal("create a pod that may run as root");
        assert!(message.contains("violates PodSecurity \"restricted:latest\""), "{message}");
    }
}

#[test]
fn a_scale_by_hand_survives_an_upgrade() {
    let release = Release::install();
    let scaled = release.kubectl(&["scale", "deployment/flagmeter-worker", "--replicas=3"], "");
    let _ = scaled.expect_success("scale the worker");
    release.upgrade(&json!({ "log": { "level": "debug" } }));
    let show = ["get", "deployment/flagmeter-worker", "--output", "json"];
    let worker = release.kubectl(&show, "").expect_success("get the worker");
    let worker: Value = serde_json::from_str(&worker).unwrap();
    assert_eq!(worker["spec"]["replicas"], 3);
    let level = json!({ "name": "FLAGMETER_LOG", "value": "debug" });
    assert!(
        worker["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().contains(&level),
        "the upgrade changed nothing: {worker}",
    );
}

/// Whether a part of the release may do something, as the server's own answer.
fn may(release: &Release, part: &str, action: &[&str], namespace: &str) -> bool {
    let account = format!("--as=system:serviceaccount:{}:{RELEASE}-{part}", release.namespace);
    let question = [&["auth", "can-i", "--namespace", namespace, &account], action].concat();
    let answer = Tool::Kubectl.run(&question, "");
    match answer.stdout.trim() {
        "yes" => true,
        "no" => false,
        _ => panic!("no answer to {question:?}: {}", answer.stderr),
    }
}

#[test]
fn the_operator_may_do_what_it_does_and_nothing_beyond() {
    let release = Release::install();
    let worker = "deployments.apps/flagmeter-worker";
    let allowed: [&[&str]; 22] = [
        // Scaling: one Deployment's number.
        &["get", worker],
        &["patch", worker, "--subresource=scale"],
        &["list", "horizontalpodautoscalers.autoscaling"],
        &["create", "configmaps"],
        &["get", "configmaps/flagmeter-scaler"],
        &["patch", "configmaps/flagmeter-scaler"],
        &["list", "tenants.flagmeter.dev"],
        &["watch", "tenants.flagmeter.dev"],
        // The finalizer stands on the resource itself.
        &["patch", "tenants.flagmeter.dev"],
        &["patch", "tenants.flagmeter.dev", "--subresource=status"],
        &["get", "secrets"],
        &["list", "secrets"],
        &["watch", "secrets"],
        &["create", "secrets"],
        &["patch", "secrets"],
        &["create", "events.events.k8s.io"],
        &["patch", "events.events.k8s.io"],
        &["create", "leases.coordination.k8s.io"],
        &["get", "leases.coordination.k8s.io/flagmeter-operator"],
        &["patch", "leases.coordination.k8s.io/flagmeter-operator"],
        // Everybody may.
        &["create", "selfsubjectaccessreviews.authorization.k8s.io"],
        &["get", "/readyz"],
    ];
    for action in allowed {
        assert!(may(&release, "operator", action, &release.namespace), "{action:?}");
    }
    let forbidden: [&[&str]; 20] = [
        &["patch", worker],
        // What is patched need not be read.
        &["get", worker, "--subresource=scale"],
        &["get", "tenants.flagmeter.dev"],
        &["delete", worker],
        &["get", "deployments.apps/flagmeter-api"],
        &["patch", "deployments.apps/flagmeter-api", "--subresource=scale"],
        &["patch", "horizontalpodautoscalers.autoscaling"],
        &["create", "tenants.flagmeter.dev"],
        &["delete", "tenants.flagmeter.dev"],
        &["update", "secrets"],
        &["delete", "secrets"],
        &["get", "configmaps"],
        &["get", "pods"],
        &["create", "pods"],
        &["create", "pods", "--subresource=exec"],
        &["get", "deployments.apps"],
        &["patch", "deployments.apps", "--subresource=scale"],
        &["patch", "leases.coordination.k8s.io/another"],
        &["create", "roles.rbac.authorization.k8s.io"],
        &["create", "serviceaccounts", "--subresource=token"],
    ];
    for action in forbidden {
        assert!(!may(&release, "operator", action, &release.namespace), "{action:?}");
    }
    for action in [&["get", "secrets"], &["list", "tenants.flagmeter.dev"], &["get", "namespaces"]] {
        assert!(!may(&release, "operator", action, "kube-system"), "{action:?} in another namespace");
    }
}

#[test]
fn api_and_worker_may_do_nothing() {
    let release = Release::install();
    for part in ["api", "worker"] {
        for resource in ["tenants.flagmeter.dev", "secrets", "pods", "leases.coordination.k8s.io"] {
            for verb in ["get", "list", "create", "patch", "delete"] {
                let allowed = may(&release, part, &[verb, resource], &release.namespace);
                assert!(!allowed, "{part} may {verb} {resource}");
            }
        }
    }
}

#[test]
fn the_server_takes_the_sample_tenants() {
    let release = Release::install();
    let crd = chart("files/tenants.yaml");
    let apply = ["apply", "--server-side", "--force-conflicts", "--filename", &crd];
    let _ = Tool::Kubectl.run(&apply, "").expect_success("apply the Tenant CRD");
    let wait = ["wait", "--for=condition=Established", "--timeout=60s", "--filename", &crd];
    let _ = Tool::Kubectl.run(&wait, "").expect_success("wait for the Tenant CRD");

    let samples = repository("examples/tenants.yaml").to_string_lossy().into_owned();
    // Strict: a field that the CRD does not know is an error, not a warning.
    let apply = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", &samples];
    let applied = release.kubectl(&apply, "").expect_success("apply the sample tenants");
    assert_eq!(applied.matches("tenant.flagmeter.dev/").count(), 3, "{applied}");
}
