//! The whole system as its tests see it: what `cargo xtask up` started, through HTTP, kubectl and psql.
//!
//! - [`System`] is the system that `FLAGMETER_ENV_JSON` describes.
//! - [`client`] sends events the way a client should; [`receiver`] takes alerts.
//! - [`held`] keeps something from going on in PostgreSQL.
//! - [`until`] waits for a condition, with a deadline.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test ends at the first thing that is not as it should be"
)]

pub mod client;
pub mod held;
pub mod receiver;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::held::Held;

/// How long a test waits for something that should take seconds.
const PATIENCE: Duration = Duration::from_mins(2);

/// A system that runs.
#[derive(Clone, Deserialize)]
pub struct System {
    /// Where the API is.
    pub api_url: String,
    /// What opens everything there.
    admin_token: String,
    /// The administrator's.
    kubeconfig: PathBuf,
    database_url: String,
    valkey_url: String,
    namespace: String,
    tools: BTreeMap<String, PathBuf>,
    /// The folder of the state that it runs from.
    #[serde(skip)]
    state: PathBuf,
}

impl System {
    /// The system that `FLAGMETER_ENV_JSON` describes.
    #[must_use]
    pub fn running() -> Self {
        let path = std::env::var_os("FLAGMETER_ENV_JSON").map(PathBuf::from).expect(
            "FLAGMETER_ENV_JSON names the env.json of a running system; `cargo xtask test system` starts one",
        );
        let text = std::fs::read(&path).expect("the system's env.json can be read");
        let system: Self = serde_json::from_slice(&text).expect("env.json is as it should be");
        Self { state: path.parent().unwrap().to_owned(), ..system }
    }

    /// What `kubectl ARGUMENTS` in the release's namespace prints.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments, "");
        assert!(
            output.status.success(),
            "kubectl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// `kubectl ARGUMENTS` with `input`, whatever comes of it.
    #[must_use]
    pub fn try_kubectl(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(&self.tools["kubectl"]);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--namespace", &self.namespace])
            .args(arguments);
        run(command, input)
    }

    /// What kubectl says of one resource, such as `deployment/flagmeter-worker`.
    #[must_use]
    pub fn resource(&self, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", name, "-o", "json"])).unwrap()
    }

    /// Creates the Tenant `name`, or changes its quota, and waits until the operator has it and
    /// events are taken for it.
    pub fn apply_tenant(&self, name: &str, quota: i64) {
        self.apply_tenant_of(name, quota, &json!({}));
    }

    /// The same with further fields of the spec.
    pub fn apply_tenant_of(&self, name: &str, quota: i64, spec: &Value) {
        let mut tenant = json!({
            "apiVersion": "flagmeter.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": { "name": name },
            "spec": spec,
        });
        tenant["spec"]["monthlyQuota"] = quota.into();
        self.apply(&tenant);
        let _ = self.kubectl(&[
            "wait",
            "--for=condition=Ready",
            &format!("tenant.flagmeter.dev/{name}"),
            "--timeout=60s",
        ]);
        until("the api knows the tenant", || (self.usage(name)?["monthlyQuota"] == quota).then_some(()));
    }

    /// The same, whose alerts go to the Slack channel of this URL.
    pub fn apply_tenant_told_at(&self, url: &str, name: &str, quota: i64, spec: &Value) {
        let secret = format!("{name}-slack");
        self.apply(&json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": secret, "labels": { "flagmeter.dev/used-by": name } },
            "stringData": { "url": url },
        }));
        let mut spec = spec.clone();
        spec["alerts"]["slack"] = json!({ "secretRef": { "name": secret, "key": "url" } });
        self.apply_tenant_of(name, quota, &spec);
    }

    /// `kubectl apply` of a resource.
    pub fn apply(&self, resource: &Value) {
        let applied = self.try_kubectl(&["apply", "-f", "-"], &resource.to_string());
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    }

    /// What `GET /usage/TENANT` answers, if it is a success.
    #[must_use]
    pub fn usage(&self, tenant: &str) -> Option<Value> {
        let answer = self.client().get(&format!("/usage/{tenant}")).ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// What `flagmeter explain-scale ARGUMENTS` says, which must be JSON.
    #[must_use]
    pub fn explain_scale(&self, arguments: &[&str]) -> Value {
        let mut command = Command::new(self.state.join("tools/flagmeter"));
        command.arg("explain-scale").args(arguments).env("VALKEY_URL", &self.valkey_url);
        let output = run(command, "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Upgrades the release: its own values, and `arguments`.
    pub fn upgrade(&self, arguments: &[&str]) {
        let chart = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../charts/flagmeter");
        let mut command = self.helm("upgrade");
        command
            .args([&chart, &PathBuf::from("--values"), &chart.join("values-dev.yaml")])
            .arg("--reset-values")
            .args(arguments);
        let output = run(command, "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Removes the release, with what it does before.
    pub fn uninstall(&self) {
        let output = run(self.helm("uninstall"), "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// `helm VERB` for the release, which waits for what it does.
    fn helm(&self, verb: &str) -> Command {
        let home = self.state.join("helm");
        let mut command = Command::new(&self.tools["helm"]);
        command
            .args([verb, "flagmeter", "--kubeconfig"])
            .arg(&self.kubeconfig)
            .args(["--namespace", &self.namespace, "--wait", "--timeout", "3m"])
            .env("HELM_CACHE_HOME", home.join("cache"))
            .env("HELM_CONFIG_HOME", home.join("config"))
            .env("HELM_DATA_HOME", home.join("data"));
        command
    }

    /// A client with the admin token.
    #[must_use]
    pub fn client(&self) -> client::Client {
        self.client_with(&self.admin_token)
    }

    /// A client with another token or key.
    #[must_use]
    pub fn client_with(&self, key: &str) -> client::Client {
        client::Client::new(&self.api_url, key)
    }

    /// What a request without a client's help says of who sends it: the `Authorization` header's value.
    #[must_use]
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.admin_token)
    }

    /// The rows of a query, without its heading.
    #[must_use]
    pub fn sql(&self, query: &str) -> Vec<String> {
        let output = run(self.psql(), query);
        assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Runs `statement` and keeps its transaction open until what this answers is dropped.
    #[must_use]
    pub fn hold(&self, statement: &str) -> Held {
        Held::start(self.psql(), statement)
    }

    fn psql(&self) -> Command {
        let mut command = Command::new(&self.tools["psql"]);
        command
            .args([
                "--no-psqlrc",
                "--set=ON_ERROR_STOP=1",
                "--tuples-only",
                "--no-align",
                "--quiet",
                "--dbname",
            ])
            .arg(&self.database_url);
        command
    }

    /// Events and tokens of `tenant` by the books, which must balance: events, event tokens, rollup
    /// tokens, period tokens.
    #[must_use]
    pub fn book(&self, tenant: &str) -> (i64, i64) {
        let of = |what: &str, table: &str| {
            let rows =
                self.sql(&format!("SELECT coalesce(sum({what}), 0) FROM {table} WHERE tenant = '{tenant}'"));
            rows[0].parse::<i64>().unwrap()
        };
        let (events, tokens) = (of("1", "events"), of("tokens", "events"));
        assert_eq!(of("total_tokens", "rollups"), tokens, "rollups of {tenant}");
        assert_eq!(of("total_tokens", "usage_periods"), tokens, "usage_periods of {tenant}");
        assert_eq!(of("total_tokens", "usage_features"), tokens, "usage_features of {tenant}");
        assert_eq!(of("events", "usage_periods"), events, "events in usage_periods of {tenant}");
        (events, tokens)
    }

    /// The processes of a Deployment's pods, as the process node registered them.
    #[must_use]
    pub fn processes(&self, deployment: &str) -> Vec<u32> {
        let prefix = format!("pod-{deployment}-");
        let files = std::fs::read_dir(self.state.join("run")).unwrap().map(|file| file.unwrap().path());
        let of_deployment =
            files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix));
        // A file that is gone by now belonged to a process that is, too.
        let texts = of_deployment.filter_map(|path| std::fs::read(path).ok());
        let pids = texts.filter_map(|text| serde_json::from_slice::<Value>(&text).ok());
        pids.filter_map(|process| u32::try_from(process["pid"].as_u64()?).ok()).collect()
    }

    /// The largest memory of a Deployment's processes, in bytes (resident set).
    #[must_use]
    pub fn memory(&self, deployment: &str) -> u64 {
        let resident = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
        };
        self.processes(deployment).into_iter().filter_map(resident).max().unwrap_or_default()
    }

    /// Limits Valkey's memory, in bytes.
    pub fn limit_valkey(&self, bytes: u64) {
        // redis://[user]:password@host:port
        let (user, address) = self.valkey_url.trim_start_matches("redis://").split_once('@').unwrap();
        let (_, password) = user.split_once(':').unwrap();
        let mut valkey = std::net::TcpStream::connect(address.trim_end_matches('/')).unwrap();
        write!(valkey, "AUTH {password}\r\nCONFIG SET maxmemory {bytes}\r\nQUIT\r\n").unwrap();
        let mut answer = String::new();
        valkey.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "+OK\r\n+OK\r\n+OK\r\n");
    }

    /// Ends one process of a Deployment, by SIGKILL.
    pub fn kill_one(&self, deployment: &str) {
        let pid = until("a process to kill", || self.processes(deployment).first().copied());
        self.kill(deployment, &[pid]);
    }

    /// Ends all processes of a Deployment, by SIGKILL.
    pub fn kill_all(&self, deployment: &str) {
        let pids = until("a process to kill", || {
            Some(self.processes(deployment)).filter(|processes| !processes.is_empty())
        });
        self.kill(deployment, &pids);
    }

    /// Ends processes, and waits until the process node has seen it: what is registered then runs, or is their
    /// successor.
    fn kill(&self, deployment: &str, pids: &[u32]) {
        for pid in pids {
            let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
            assert!(killed.success(), "kill -KILL {pid}");
        }
        until("the process node sees that they ended", || {
            let registered = self.processes(deployment);
            pids.iter().all(|pid| !registered.contains(pid)).then_some(())
        });
    }

    /// Kills a server (`postgres`, `valkey`) and starts it again.
    pub fn kill_and_restart(&self, server: &str) {
        self.kill_for(server, Duration::ZERO);
    }

    /// Kills a server, and starts it again after so long.
    pub fn kill_for(&self, server: &str, away: Duration) {
        let xtask = std::env::var_os("FLAGMETER_XTASK")
            .expect("FLAGMETER_XTASK names the xtask that started the system");
        let mut command = Command::new(xtask);
        let away = away.as_secs().to_string();
        command.arg("--state").arg(&self.state).args(["restart", server, "--kill", "--away", &away]);
        let output = run(command, "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn run(mut command: Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that does not read its input closes it, which is its right.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Waits until `probe` finds something, and answers it.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The time, in whole microseconds.
#[must_use]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_microsecond(i64::try_from(since.as_micros()).unwrap()).unwrap()
}

/// A tenant's name that no other test and no earlier run has.
#[must_use]
pub fn unique(name: &str) -> String {
    format!("{name}-{:x}", now().as_millisecond())
}
