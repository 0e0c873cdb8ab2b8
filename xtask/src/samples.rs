//! The sample tenants and events of examples/, applied and sent as a person would.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ureq::Agent;

use crate::checkout;
use crate::environment::Environment;
use crate::kubectl::Kubectl;
use crate::progress::Step;
use crate::release::{NAMESPACE, with_pods};
use crate::servers::Name;
use crate::system::System;
use crate::waiting::wait_for;

/// The resource by its full name: `tenants` alone may be somebody else's.
const TENANTS: &str = "tenants.flagmeter.dev";
/// The one whose alerts `up --slack-sink` shows.
pub(crate) const ALERTED: &str = "acme-corp";
const READY_LIMIT: &str = "--timeout=90s";
const READY_EXECUTION_LIMIT: Duration = Duration::from_secs(100);
/// How long one event may be refused because the queue is away or full.
const SEND_LIMIT: Duration = Duration::from_mins(1);
const COUNT_LIMIT: Duration = Duration::from_mins(1);

/// Applies the tenants, waits until all are ready, and answers the key of each.
///
/// Once: somebody who changed or deleted one finds it so after the next `up`.
pub(crate) fn apply_tenants(system: &mut System, step: &Step<'_>) -> Result<BTreeMap<String, String>> {
    let kubectl = system.kubectl()?;
    if !system.settings.samples_sent {
        let file = checkout::path("examples/tenants.yaml").display().to_string();
        kubectl.run(&["apply", "--namespace", NAMESPACE, "--filename", &file])?;
    }
    let list = kubectl.json(&["get", TENANTS, "--namespace", NAMESPACE, "--output", "json"])?;
    let names =
        list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str());
    let names: Vec<String> = names.map(str::to_owned).collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    step.note("waiting until they are Ready");
    let watch = || system.check_all(&Name::ALL);
    let arguments =
        ["wait", "--for=condition=Ready", TENANTS, "--all", "--namespace", NAMESPACE, READY_LIMIT];
    kubectl
        .execution(&arguments)
        .limit(READY_EXECUTION_LIMIT)
        .watched(&watch)
        .run()
        .map_err(|error| with_pods(system, &error))?;
    names.into_iter().map(|name| key(&kubectl, &name).map(|key| (name, key))).collect()
}

/// A tenant's key, out of its Secret.
fn key(kubectl: &Kubectl, tenant: &str) -> Result<String> {
    let name = format!("{tenant}-flagmeter-key");
    let secret = kubectl.json(&["get", "secret", &name, "--namespace", NAMESPACE, "--output", "json"])?;
    let key = secret["data"]["key"].as_str().and_then(|text| STANDARD.decode(text).ok());
    key.and_then(|key| String::from_utf8(key).ok()).with_context(|| format!("the Secret {name} has no key"))
}

/// Lets the alerts of one sample tenant go to a receiver on this port, if the tenant is still there.
pub(crate) fn send_alerts_to(system: &System, port: u16) -> Result<()> {
    let kubectl = system.kubectl()?;
    let tenant = format!("{TENANTS}/{ALERTED}");
    let found =
        kubectl.run(&["get", &tenant, "--namespace", NAMESPACE, "--ignore-not-found", "--output", "name"])?;
    if found.trim().is_empty() {
        bail!(
            "there is no tenant {ALERTED} whose alerts could be shown; `cargo xtask up --fresh` makes it anew"
        );
    }
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "acme-slack",
            "namespace": NAMESPACE,
            "labels": { "flagmeter.dev/used-by": ALERTED },
        },
        "stringData": { "url": format!("http://127.0.0.1:{port}/services/{ALERTED}") },
    });
    kubectl.apply(&secret.to_string())?;
    let slack = json!({ "spec": { "alerts": { "slack": {
        "enabled": true,
        "url": null,
        "secretRef": { "name": "acme-slack", "key": "url" },
    } } } });
    let arguments =
        ["patch", &tenant, "--namespace", NAMESPACE, "--type", "merge", "--patch", &slack.to_string()];
    kubectl.run(&arguments).map(drop)
}

/// Sends the events, one a request, and waits until they are counted. Once: they have ids, so that an
/// interrupted attempt may be repeated.
pub(crate) fn send_events(system: &mut System, environment: &Environment, step: &Step<'_>) -> Result<usize> {
    let text =
        fs::read_to_string(checkout::path("examples/events.jsonl")).context("failed to read the samples")?;
    let events: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let client = Client { agent: agent(), environment, system };
    if system.settings.samples_sent {
        for tenant in environment.tenants.keys() {
            client.wait_until_counted(tenant, 0)?;
        }
        return Ok(0);
    }
    for (number, event) in events.iter().enumerate() {
        step.note(&format!("{number} of {}", events.len()));
        client.send(event)?;
    }
    step.note("waiting until they are counted");
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &events {
        let tenant = event["tenant"].as_str().context("a sample has no tenant")?;
        *totals.entry(tenant).or_default() += event["tokens"].as_u64().context("a sample has no tokens")?;
    }
    for (tenant, tokens) in totals {
        client.wait_until_counted(tenant, tokens)?;
    }
    system.settings.samples_sent = true;
    system.settings.save(&system.state)?;
    Ok(events.len())
}

struct Client<'a> {
    agent: Agent,
    environment: &'a Environment,
    system: &'a System,
}

impl Client<'_> {
    fn watch(&self) -> Result<()> {
        self.system.check_all(&Name::ALL)
    }

    /// The header of the tenant's key. One that is not in the cluster has none, and the API says so.
    fn authorization(&self, tenant: &str) -> String {
        let key = self.environment.tenants.get(tenant).map_or("", |tenant| &tenant.key);
        format!("Bearer {key}")
    }

    fn send(&self, event: &Value) -> Result<()> {
        let url = format!("{}/events", self.environment.api_url);
        let authorization = self.authorization(event["tenant"].as_str().unwrap_or_default());
        let attempt = || {
            let request = self.agent.post(&url).header("authorization", &authorization);
            let mut response = request.send_json(event)?;
            match response.status().as_u16() {
                202 => Ok(None),
                // A key is known within a second of its Secret.
                401 | 429 | 503 => bail!("the API answers {}", response.status()),
                // To send it again would not help.
                status => Ok(Some(format!("{status}: {}", response.body_mut().read_to_string()?))),
            }
        };
        let refusal = wait_for("the API to take a sample event", SEND_LIMIT, || self.watch(), attempt)
            .map_err(|error| with_pods(self.system, &error))?;
        match refusal {
            Some(answer) => bail!("the API refuses the sample {event}: {answer}"),
            None => Ok(()),
        }
    }

    fn wait_until_counted(&self, tenant: &str, tokens: u64) -> Result<()> {
        let url = format!("{}/usage/{tenant}", self.environment.api_url);
        let authorization = self.authorization(tenant);
        let counted = || {
            let mut response = self.agent.get(&url).header("authorization", &authorization).call()?;
            let body = response.body_mut().read_to_string()?;
            let usage: Value =
                serde_json::from_str(&body).with_context(|| format!("GET /usage answers {body}"))?;
            let total =
                usage["totalTokens"].as_u64().with_context(|| format!("GET /usage answers {body}"))?;
            if total < tokens {
                bail!("{total} of {tokens} tokens of {tenant} are counted");
            }
            Ok(())
        };
        wait_for("the sample events to be counted", COUNT_LIMIT, || self.watch(), counted)
            .map_err(|error| with_pods(self.system, &error))
    }
}

/// An HTTP client that never waits for long, and for which no status is an error.
pub(crate) fn agent() -> Agent {
    let timeout = Some(Duration::from_secs(10));
    Agent::config_builder().timeout_global(timeout).http_status_as_error(false).build().new_agent()
}
