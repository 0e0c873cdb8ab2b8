//! The release: the namespace with its Secrets, and the chart, installed as anybody would.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow};
use serde_json::{Value, json};

use crate::checkout;
use crate::execution::Execution;
use crate::progress::Step;
use crate::servers::{Name, Postgres, Valkey};
use crate::system::{System, last_words};
use crate::tools::Tool;
use crate::waiting::wait_for;

/// Where the release lives.
pub(crate) const NAMESPACE: &str = "flagmeter";
const RELEASE: &str = "flagmeter";
/// The image whose containers the process node runs.
pub(crate) const IMAGE: &str = "ghcr.io/flagmeter/flagmeter";
/// The Service port that people use.
pub(crate) const API_PORT: &str = "flagmeter-api/http";

/// How long the pods may take to be ready: helm's limit, and a bit more for helm itself.
const READY_LIMIT: &str = "3m";
const HELM_LIMIT: Duration = Duration::from_mins(4);
const FORWARD_LIMIT: Duration = Duration::from_secs(30);

/// Makes the namespace and the Secrets that the chart refers to.
pub(crate) fn prepare(system: &System) -> Result<()> {
    let settings = &system.settings;
    let secrets = &settings.secrets;
    let database = |role, password| Postgres::url(settings, role, password, "flagmeter");
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        secret("flagmeter-database", &json!({
            "migrate-url": database("flagmeter", &secrets.flagmeter),
            "api-url": database("flagmeter_api", &secrets.flagmeter_api),
            "worker-url": database("flagmeter_worker", &secrets.flagmeter_worker),
            "operator-url": database("flagmeter_operator", &secrets.flagmeter_operator),
        })),
        secret("flagmeter-valkey", &json!({"url": Valkey::url(settings)})),
        secret("flagmeter-admin", &json!({"token": secrets.admin_token})),
        secret("flagmeter-encryption", &json!({"key": secrets.encryption_key})),
    ]});
    system.kubectl()?.apply(&objects.to_string())
}

fn secret(name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": data,
    })
}

/// Installs or upgrades the chart and waits until its pods are ready.
///
/// # Errors
///
/// Also what the pods that are not ready say in their logs.
pub(crate) fn install(system: &System, step: &Step<'_>) -> Result<()> {
    forget_interrupted(system)?;
    let chart = checkout::path("charts/flagmeter");
    let values = chart.join("values-dev.yaml");
    let home = system.state.folder().join("helm");
    let mut helm = Command::new(system.settings.tools.path(Tool::Helm)?);
    helm.args(["upgrade", "--install", RELEASE])
        .args([&chart, Path::new("--values"), &values, Path::new("--kubeconfig"), &system.state.kubeconfig()])
        .args(["--namespace", NAMESPACE, "--wait", "--timeout", READY_LIMIT])
        .args(["--set-string", &format!("alerts.publicUrl=http://127.0.0.1:{}", system.settings.ports.api)])
        .env("KUBECACHEDIR", system.state.folder().join("kubectl-cache"))
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"));
    let watch = || system.check_all(&Name::ALL);
    Execution::new(helm, HELM_LIMIT)
        .on_line(&|line| step.note(line))
        .watched(&watch)
        .run()
        .map(drop)
        .map_err(|error| with_pods(system, &error))
}

/// A helm that was killed leaves its revision pending, and every later one refuses to go on.
fn forget_interrupted(system: &System) -> Result<()> {
    let pending =
        format!("owner=helm,name={RELEASE},status in (pending-install,pending-upgrade,pending-rollback)");
    let arguments =
        ["delete", "secrets", "--namespace", NAMESPACE, "--selector", &pending, "--ignore-not-found"];
    system.kubectl()?.run(&arguments).map(drop)
}

/// An error with the state of the pods that are not ready, and their last words.
pub(crate) fn with_pods(system: &System, error: &Error) -> Error {
    let arguments = ["get", "pods", "--namespace", NAMESPACE, "--output", "json"];
    let Ok(pods) = system.kubectl().and_then(|kubectl| kubectl.json(&arguments)) else {
        return anyhow!("{error:#}");
    };
    let mut error = anyhow!("{error:#}");
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let statuses =
            ["initContainerStatuses", "containerStatuses"].map(|list| pod["status"][list].as_array());
        for container in statuses.into_iter().flatten().flatten() {
            if container["ready"] == json!(true) {
                continue;
            }
            let container_name = container["name"].as_str().unwrap_or_default();
            let log = system.state.logs().join("pods").join(name).join(format!("{container_name}.log"));
            let state = &container["state"];
            error = last_words(&log, &anyhow!("{error:#}\npod {name}, container {container_name}: {state}"));
        }
    }
    error
}

/// The address on which the release's API answers.
pub(crate) fn api_address(system: &System) -> Result<String> {
    let watch = || system.check_all(&Name::ALL);
    wait_for("the process node to forward the API's port", FORWARD_LIMIT, watch, || {
        let path = system.state.forwards();
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let mut forwards: BTreeMap<String, String> = serde_json::from_str(&text)?;
        forwards.remove(API_PORT).with_context(|| format!("{} is not in {}", API_PORT, path.display()))
    })
}
