//! Events as the CloudEvents SDKs of Python, JavaScript and Go send them, to an api that listens.

use std::env;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output};

use flagmeter_store::{PgPool, testing};
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::until;

/// The api's program. It ends with the test.
struct Api {
    address: SocketAddr,
    child: Child,
}

impl Api {
    /// One that knows the tenant `acme`, and that anybody may send to.
    async fn start(pool: &PgPool) -> Self {
        testing::add_tenant(pool, "acme").await;
        let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [address, admin] = listeners.map(|listener| listener.local_addr().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_flagmeter-api"))
            .env("DATABASE_URL", pool.connect_options().to_url_lossy().as_str())
            .env("FLAGMETER_AUTH", "disabled")
            .env("FLAGMETER_LISTEN", address.to_string())
            .env("FLAGMETER_ADMIN_LISTEN", admin.to_string())
            .env("FLAGMETER_LOG", "error")
            .spawn()
            .unwrap();
        let api = Self { address, child };
        let types = "Content-Type: application/cloudevents-batch+json\r\nContent-Length: 2";
        for (request, expected) in [
            ("GET /usage/acme HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n".to_owned(), "HTTP/1.1 200"),
            // It knows how durable the queue is.
            (
                format!("POST /events HTTP/1.1\r\nHost: api\r\n{types}\r\nConnection: close\r\n\r\n[]"),
                "\"fsync\"",
            ),
        ] {
            until(expected, async || {
                answer(address, &request).await.filter(|answer| answer.contains(expected))
            })
            .await;
        }
        api
    }

    /// What it answers to each of the requests that a program sends.
    async fn asked_by(&self, mut program: Command) -> Vec<Value> {
        program.arg(format!("http://{}/events", self.address));
        let Output { status, stdout, stderr } =
            tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap();
        assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The whole answer to a request that ends its connection.
async fn answer(address: SocketAddr, request: &str) -> Option<String> {
    let mut connection = TcpStream::connect(address).await.ok()?;
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `cargo xtask test` names by a variable.
fn named(variable: &str) -> OsString {
    env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set: run this test by `cargo xtask test store`"))
}

fn source(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/sdks").join(path)
}

/// In each mode the event is taken, and it is the same event.
fn assert_taken(answers: &[Value], modes: &[&str], source: &str) {
    let mut seen: Vec<&str> = answers.iter().map(|answer| answer["mode"].as_str().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, modes);
    for answer in answers {
        let accepted = json!({ "accepted": 1, "status": "accepted", "durability": "fsync" });
        let expected = match answer["mode"].as_str().unwrap() {
            "batch" => accepted,
            "empty batch" => json!({ "accepted": 0, "status": "accepted", "durability": "fsync" }),
            _ => json!({ "id": format!("{source} 7"), "status": "accepted", "durability": "fsync" }),
        };
        assert_eq!((&answer["status"], &answer["body"]), (&json!(202), &expected), "{answer}");
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn events_that_the_python_sdk_sends_are_taken_in_every_mode(pool: PgPool) {
    let api = Api::start(&pool).await;
    let mut python = Command::new("python3");
    python.arg(source("python/send.py")).env("PYTHONPATH", named("FLAGMETER_SDK_PYTHON"));
    let modes = [
        "batch",
        "binary",
        "binary, former interface",
        "binary, typed",
        "structured",
        "structured, former interface",
        "structured, typed",
    ];
    assert_taken(&api.asked_by(python).await, &modes, "/sdk/python");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn events_that_the_javascript_sdk_sends_are_taken_in_every_mode(pool: PgPool) {
    let api = Api::start(&pool).await;
    let mut node = Command::new(named("FLAGMETER_NODE"));
    node.arg(source("javascript/send.mjs")).env("NODE_PATH", named("FLAGMETER_SDK_JAVASCRIPT"));
    let modes = ["batch", "binary", "binary, typed", "structured"];
    assert_taken(&api.asked_by(node).await, &modes, "/sdk/javascript");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn events_that_the_go_sdk_sends_are_taken_in_every_mode(pool: PgPool) {
    let api = Api::start(&pool).await;
    let modes = ["batch", "binary", "empty batch", "structured"];
    assert_taken(&api.asked_by(Command::new(named("FLAGMETER_SDK_GO"))).await, &modes, "/sdk/go");
}
