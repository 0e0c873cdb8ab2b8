//! The operator as a process of its own, and what it says of itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::memory::Memory;
use crate::results::Calls;
use crate::rows::Rows;

/// How long it may take to start or to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often its memory is looked at while it is watched.
const LOOK: Duration = Duration::from_millis(200);

/// A running operator.
pub(crate) struct Operator {
    child: Child,
    pid: u32,
    admin: String,
}

impl Operator {
    /// Starts one, and waits until it leads and has seen all Tenants.
    pub(crate) async fn start(cluster: &Cluster, rows: &Rows, resync_seconds: u64) -> Result<Self> {
        let admin = free_address().await?;
        let child = Command::new(env!("CARGO_BIN_EXE_flagmeter-operator"))
            .env("KUBECONFIG", &cluster.kubeconfig)
            .env("DATABASE_URL", &rows.url)
            .env("FLAGMETER_ENCRYPTION_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
            .env("FLAGMETER_ADMIN_LISTEN", &admin)
            .env("FLAGMETER_RESYNC_SECONDS", resync_seconds.to_string())
            .env("FLAGMETER_LOG", "warn")
            .env("POD_NAME", "operator-0")
            .env("POD_NAMESPACE", &cluster.namespace)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start the operator")?;
        let pid = child.id().context("the operator has ended already")?;
        let operator = Self { child, pid, admin };
        let started = Instant::now();
        loop {
            let leads = operator.sum("flagmeter_operator_leader", |_| true).await.is_ok_and(|sum| sum == 1);
            if leads && operator.get("/readyz").await?.starts_with("HTTP/1.1 200") {
                return Ok(operator);
            }
            ensure!(started.elapsed() < PATIENCE, "the operator did not lead in {PATIENCE:?}");
            sleep(LOOK).await;
        }
    }

    /// What it asked the API server for since its start, by its own account.
    pub(crate) async fn calls(&self) -> Result<Calls> {
        let mut calls = BTreeMap::new();
        for (labels, value) in self.series("flagmeter_operator_api_calls_total").await? {
            let name = format!("{} {}", label(&labels, "verb"), label(&labels, "resource"));
            calls.insert(name, value);
        }
        Ok(Calls(calls))
    }

    /// Reconciles since its start.
    pub(crate) async fn reconciles(&self) -> Result<u64> {
        self.sum("flagmeter_operator_reconciles_total", |_| true).await
    }

    /// Its memory now.
    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::of(self.pid)
    }

    /// Processor time since its start.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // After the name, which may have spaces: the 12th and 13th field, in hundredths of a second.
        let (_, fields) = stat.rsplit_once(") ").context("the process's stat has no name")?;
        let ticks: Vec<f64> =
            fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        Ok(ticks.iter().sum::<f64>() / 100.0)
    }

    /// Watches its memory until told to end.
    pub(crate) fn watch_memory(&self) -> Peak {
        let (pid, stop) = (self.pid, CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut peak = Memory::of(pid)?;
            while !stopped.is_cancelled() {
                peak = peak.max(Memory::of(pid)?);
                sleep(LOOK).await;
            }
            Ok(peak)
        });
        Peak { stop, task }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let asked = Command::new("kill").arg(self.pid.to_string()).status().await?;
        ensure!(asked.success(), "the operator had ended already");
        let status = timeout(PATIENCE, self.child.wait()).await.context("it still runs")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    async fn sum(&self, metric: &str, wanted: impl Fn(&str) -> bool) -> Result<u64> {
        let series = self.series(metric).await?;
        Ok(series.iter().filter(|(labels, _)| wanted(labels)).map(|(_, value)| value).sum())
    }

    /// A metric's labels, as they are written, and values.
    async fn series(&self, metric: &str) -> Result<Vec<(String, u64)>> {
        let answer = self.get("/metrics").await?;
        let lines = answer.lines().filter_map(|line| line.strip_prefix(metric));
        lines
            .filter(|rest| rest.starts_with(['{', ' ']))
            .map(|rest| {
                let (labels, value) = rest.rsplit_once(' ').context("a metric without a value")?;
                Ok((labels.to_owned(), value.parse().context("a metric that is not a whole number")?))
            })
            .collect()
    }

    /// What its admin port answers.
    async fn get(&self, path: &str) -> Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: operator\r\nconnection: close\r\n\r\n");
        let mut stream = match TcpStream::connect(&self.admin).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return Ok(String::new()),
            Err(error) => bail!(error),
        };
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

/// The largest memory while it is watched.
pub(crate) struct Peak {
    stop: CancellationToken,
    task: JoinHandle<Result<Memory>>,
}

impl Peak {
    /// Ends the watch.
    pub(crate) async fn end(self) -> Result<Memory> {
        self.stop.cancel();
        self.task.await?
    }
}

/// A label's value in the text of a metric's labels.
pub(crate) fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let after = labels.split_once(&format!("{name}=\"")).map(|(_, after)| after);
    after.and_then(|after| after.split_once('"')).map_or("", |(value, _)| value)
}

async fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string())
}

/// Where a file of the benchmark's own goes.
pub(crate) fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("flagmeter-{}-{name}", std::process::id()))
}
