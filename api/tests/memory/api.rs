//! The api's program, in a group of limited memory.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command};
use std::sync::Mutex as StdMutex;
use std::time::{Duration, Instant};

use flagmeter_store::{PgPool, testing};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sqlx::ConnectOptions;
use tokio::sync::{Mutex, MutexGuard};

use crate::attack::{Connection, get};
use crate::cgroup::Memory;

/// How long a test waits for something that takes a fraction of it.
const PATIENCE: Duration = Duration::from_mins(1);

/// File descriptors that a test needs: one for each connection, and some.
const FILES: u64 = 5_000;

/// These tests are measured, and each opens thousands of connections: one after the other.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= FILES, "a process may open {hard} files only; these tests need {FILES} (`ulimit -Hn`)");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(FILES), hard).unwrap();
    ONE.lock().await
}

/// An api that runs.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    pub(crate) memory: Memory,
    child: StdMutex<Child>,
}

impl Api {
    /// An api that knows the tenant `acme`, may be asked by anybody, and has this much memory.
    pub(crate) async fn start(pool: &PgPool, limit: u64) -> Self {
        let known = sqlx::query("SELECT FROM tenants").fetch_optional(pool).await.unwrap();
        if known.is_none() {
            testing::add_tenant(pool, "acme").await;
        }
        let [address, admin] = free_addresses();
        let mut command = Command::new(env!("CARGO_BIN_EXE_flagmeter-api"));
        command
            .env("DATABASE_URL", pool.connect_options().to_url_lossy().as_str())
            .env("FLAGMETER_AUTH", "disabled")
            .env("FLAGMETER_LISTEN", address.to_string())
            .env("FLAGMETER_ADMIN_LISTEN", admin.to_string())
            .env("FLAGMETER_LOG", "error")
            // As the chart does.
            .env("MIMALLOC_PURGE_DELAY", "0");
        let (child, memory) = Memory::of(&command, limit);
        let api = Self { address, memory, child: StdMutex::new(child) };
        until("the api answers", async || {
            let mut connection = Connection::open(address, 0).await.ok()?;
            connection.send(get("/usage/acme").as_bytes()).await.ok()?;
            (connection.answer().await.ok()? == 200).then_some(())
        })
        .await;
        api
    }

    /// Whether it still runs.
    pub(crate) fn lives(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_none()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if let Ok(mut child) = self.child.lock() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

/// Waits until `probe` finds something, and answers it.
pub(crate) async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
