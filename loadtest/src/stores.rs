//! PostgreSQL and Valkey as a run needs them, and FlagMeter's parts on them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use deadpool_redis::redis;
use flagmeter_runtime::env::{Env, Secret};
use flagmeter_store::PgPool;
use flagmeter_store::api_key::KeyHash;
use flagmeter_store::postgres;
use flagmeter_store::postgres::api_keys::{self, TenantKey};
use flagmeter_store::queue::EventQueue;
use redis::aio::MultiplexedConnection;
use tokio::net::TcpStream;

use crate::Measure;
use crate::baseline::Kind;
use crate::part::{Part, free_address};
use crate::traffic::{TENANTS, key, tenant};

/// How long a part may take until it works.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// How long the queue may take to be drained: the largest run leaves a few million events.
const DRAIN_LIMIT: Duration = Duration::from_mins(3);

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct Stores {
    pub(crate) pool: PgPool,
    /// As a worker's.
    pub(crate) counting: PgPool,
    pub(crate) queue: EventQueue,
    pub(crate) postgres_pid: u32,
    pub(crate) valkey_pid: u32,
    valkey: MultiplexedConnection,
    database_url: Secret<String>,
    valkey_url: Secret<String>,
    programs: PathBuf,
    logs: PathBuf,
}

/// What goes when a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forget {
    All,
    /// The ids that clients gave stay in the ledger.
    AllButIds,
}

/// A part that answers HTTP.
pub(crate) struct Server {
    pub(crate) part: Part,
    pub(crate) address: SocketAddr,
}

impl Stores {
    /// The stores that the environment names, emptied, with the tenants of every run.
    pub(crate) async fn prepare(measure: &Measure) -> Result<Self> {
        let mut env = Env::process();
        let database_url: Option<Secret<String>> = env.required("DATABASE_URL");
        let valkey_url: Option<Secret<String>> = env.required("VALKEY_URL");
        let (database_url, valkey_url) = env.finish(|| Some((database_url?, valkey_url?)))?;
        let own = std::env::current_exe().context("failed to find the programs")?;
        let valkey = redis::Client::open(valkey_url.expose().as_str())?
            .get_multiplexed_async_connection()
            .await
            .context("failed to reach Valkey")?;
        let stores = Self {
            pool: postgres::pool(database_url.expose(), "loadtest", 4)?,
            counting: postgres::counting_pool(database_url.expose(), "loadtest", 2)?,
            queue: EventQueue::new(valkey_url.expose())?,
            postgres_pid: measure.postgres_pid,
            valkey_pid: measure.valkey_pid,
            valkey,
            database_url,
            valkey_url,
            programs: own.parent().context("failed to find the programs")?.to_owned(),
            logs: measure.logs.clone(),
        };
        stores.queue.create_group().await?;
        // What a run leaves between two drains is bounded by its length, not by the box's usual limits.
        stores.configure("maxmemory", "2gb").await?;
        for number in 0..TENANTS {
            sqlx::query(
                "INSERT INTO tenants (id, name, monthly_quota, billing_day, time_zone, owner_namespace, owner_uid)
                 VALUES ($1, $1, 9007199254740991, 1, 'UTC', 'bench', $1) ON CONFLICT DO NOTHING",
            )
            .bind(tenant(number))
            .execute(&stores.pool)
            .await
            .context("failed to add the tenants")?;
        }
        stores.clear(Forget::All).await?;
        Ok(stores)
    }

    /// Forgets what was counted. The queue must be empty.
    pub(crate) async fn clear(&self, forget: Forget) -> Result<()> {
        let statement = match forget {
            Forget::All => {
                "TRUNCATE events, rollups, usage_periods, usage_features, applied_batches, event_conflicts,
                    dead_letters, forgotten, event_ids"
            }
            Forget::AllButIds => {
                "TRUNCATE events, rollups, usage_periods, usage_features, applied_batches, event_conflicts,
                    dead_letters, forgotten"
            }
        };
        sqlx::query(statement).execute(&self.pool).await.map(drop).context("failed to empty the tables")
    }

    /// How durable Valkey is from now on: `always` or `everysec`.
    pub(crate) async fn durability(&self, appendfsync: &str) -> Result<()> {
        self.configure("appendfsync", appendfsync).await
    }

    async fn configure(&self, name: &str, value: &str) -> Result<()> {
        let mut valkey = self.valkey.clone();
        let set: redis::RedisResult<()> =
            redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query_async(&mut valkey).await;
        set.with_context(|| format!("failed to set {name} of Valkey"))
    }

    /// Forgets what the baseline with a pool put into Valkey.
    pub(crate) async fn forget_list(&self) -> Result<()> {
        let mut valkey = self.valkey.clone();
        let removed: redis::RedisResult<()> =
            redis::cmd("UNLINK").arg(crate::baseline::LIST).query_async(&mut valkey).await;
        removed.context("failed to forget the baseline's list")
    }

    /// Waits until a worker has counted all that is in the queue.
    pub(crate) async fn drained(&self) -> Result<()> {
        let start = Instant::now();
        while self.queue.depth().await? > 0 {
            if start.elapsed() > DRAIN_LIMIT {
                bail!("the queue was not drained in {} s", DRAIN_LIMIT.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The command line's word on the books, as JSON.
    pub(crate) async fn audit(&self) -> Result<String> {
        let output = tokio::process::Command::new(self.programs.join("flagmeter"))
            .args(["audit", "--json"])
            .env("DATABASE_URL", self.database_url.expose())
            .kill_on_drop(true)
            .output()
            .await
            .context("failed to run flagmeter audit")?;
        // 1 is its word that they do not balance, which the caller finds too, and says by how much.
        if output.stdout.is_empty() {
            bail!("flagmeter audit failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// An api that asks nobody who they are.
    pub(crate) async fn start_api(&self) -> Result<Server> {
        self.start_api_with("api", &[("FLAGMETER_AUTH", "disabled")]).await
    }

    /// An api that asks for keys, which every tenant has.
    pub(crate) async fn start_guarded_api(&self) -> Result<Server> {
        for number in 0..TENANTS {
            let current = TenantKey { hash: KeyHash::of(&key(number)), expires_at: None };
            api_keys::replace(&self.pool, &tenant(number), &[current]).await?;
        }
        let settings = [("FLAGMETER_AUTH", "required"), ("FLAGMETER_ADMIN_TOKEN", "nobody-uses-this-token")];
        self.start_api_with("api-guarded", &settings).await
    }

    async fn start_api_with(&self, name: &str, settings: &[(&str, &str)]) -> Result<Server> {
        let (address, admin) = (free_address()?, free_address()?);
        let (listen, admin_listen) = (address.to_string(), admin.to_string());
        let mut environment = vec![
            ("DATABASE_URL", self.database_url.expose().as_str()),
            ("VALKEY_URL", self.valkey_url.expose()),
            ("FLAGMETER_LISTEN", &listen),
            // As the chart does.
            ("MIMALLOC_PURGE_DELAY", "0"),
            ("FLAGMETER_ADMIN_LISTEN", &admin_listen),
            ("FLAGMETER_DRAIN_SECONDS", "0"),
            ("FLAGMETER_QUEUE_MAX_EVENTS", "100000000"),
            ("FLAGMETER_LOG_FORMAT", "text"),
        ];
        environment.extend(settings);
        let part = Part::start(name, &self.programs.join("flagmeter-api"), &[], &environment, &self.logs)?;
        ready(admin).await.context("the api does not become ready")?;
        Ok(Server { part, address })
    }

    /// Starts a worker that calls itself `name`.
    pub(crate) async fn start_worker(&self, name: &str) -> Result<Part> {
        let admin = free_address()?;
        let environment = [
            ("DATABASE_URL", self.database_url.expose().as_str()),
            ("VALKEY_URL", self.valkey_url.expose()),
            ("FLAGMETER_ADMIN_LISTEN", &admin.to_string()),
            ("FLAGMETER_LOG_FORMAT", "text"),
            // No alert is ever sent: the tenants of a run have no channels.
            ("FLAGMETER_ENCRYPTION_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
            ("POD_NAME", name),
        ];
        let part = Part::start(name, &self.programs.join("flagmeter-worker"), &[], &environment, &self.logs)?;
        ready(admin).await.context("the worker does not become ready")?;
        Ok(part)
    }

    pub(crate) async fn start_baseline(&self, kind: Kind) -> Result<Server> {
        let address = free_address()?;
        let arguments = ["baseline", kind.name(), "--listen", &address.to_string()];
        let environment = [("VALKEY_URL", self.valkey_url.expose().as_str())];
        let part = Part::start("baseline", &std::env::current_exe()?, &arguments, &environment, &self.logs)?;
        let start = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            if start.elapsed() > READY_LIMIT {
                bail!("the baseline {} does not listen", kind.name());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Server { part, address })
    }
}

/// Waits until a part's admin port says that it is ready.
async fn ready(admin: SocketAddr) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < READY_LIMIT {
        if is_ready(admin).await.unwrap_or(false) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!("waited {} s", READY_LIMIT.as_secs())
}

async fn is_ready(admin: SocketAddr) -> std::io::Result<bool> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(&answer == b"HTTP/1.1 200")
}
