//! The operator as a process of its own, which can be killed.

use std::path::Path;
use std::process::Stdio;

use flagmeter_store::PgPool;
use sqlx::ConnectOptions as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::cluster::{Cluster, eventually};

/// A running operator. It is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    admin: String,
}

impl Process {
    /// Starts one under `identity`.
    pub(crate) async fn start(cluster: &Cluster, kubeconfig: &Path, db: &PgPool, identity: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = free.local_addr().unwrap().to_string();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_flagmeter-operator"))
            .env("KUBECONFIG", kubeconfig)
            .env("DATABASE_URL", db.connect_options().to_url_lossy().as_str())
            .env("FLAGMETER_ENCRYPTION_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
            .env("FLAGMETER_ADMIN_LISTEN", &admin)
            .env("POD_NAME", identity)
            .env("POD_NAMESPACE", &cluster.namespace)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, admin }
    }

    /// Waits until it stands for election.
    pub(crate) async fn is_ready(&self) {
        self.says("/readyz", "HTTP/1.1 200").await;
    }

    /// Waits until it leads.
    pub(crate) async fn leads(&self) {
        self.says("/metrics", "\nflagmeter_operator_leader 1\n").await;
    }

    /// Ends it as a power cut would: it can do nothing more.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until its admin port answers with this.
    async fn says(&self, path: &str, text: &str) {
        let says = async || self.get(path).await.ok()?.contains(text).then_some(());
        eventually(&format!("{path} says {text:?}"), says).await;
    }

    async fn get(&self, path: &str) -> std::io::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: operator\r\nconnection: close\r\n\r\n");
        let mut stream = TcpStream::connect(&self.admin).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}
