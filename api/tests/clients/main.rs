//! HTTP as real clients and proxies speak it: the api's own program, Python's http.client, Node's fetch, and nginx.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

mod api;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use flagmeter_store::PgPool;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::api::{PATIENCE, TOKEN, tool, until};

/// How often each client sends each request.
const TIMES: usize = 100;

/// More events than any test sends.
const MANY: u64 = 5_000_000;

/// A request that is refused.
struct Refused {
    key: &'static str,
    bytes: usize,
    chunked: bool,
    /// Status and code.
    answer: &'static str,
}

const TOO_LARGE: Refused = refused(TOKEN, (3 << 20) / 2, "413 body_too_large");

const fn refused(key: &'static str, bytes: usize, answer: &'static str) -> Refused {
    Refused { key, bytes, chunked: false, answer }
}

/// What a script of this folder says of a request.
async fn ask(name: &str, request: &Value) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name);
    let of_python = file.extension().is_some_and(|extension| extension == "py");
    let program = if of_python { "python3".into() } else { tool("FLAGMETER_NODE") };
    let mut command = Command::new(program);
    command.arg(file).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut client = command.spawn().unwrap();
    client.stdin.take().unwrap().write_all(request.to_string().as_bytes()).await.unwrap();
    let output = tokio::time::timeout(2 * PATIENCE, client.wait_with_output()).await.unwrap().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every client is answered every request, over the api's own port and through nginx.
async fn all_are_answered(api: SocketAddr, requests: &[Refused]) {
    let (proxy, _nginx) = api::proxy(api).await;
    let mut lost = Vec::new();
    for request in requests {
        for client in ["client.py", "client.mjs"] {
            for (host, path) in [(api, "/events"), (proxy, "/events"), (proxy, "/unbuffered/events")] {
                let (bytes, chunked) = (request.bytes, request.chunked);
                // nginx itself, when an answer comes before the body that it passes on, closes its client's connection
                // without saying so, and the client loses its next request.
                if path.starts_with("/unbuffered") && bytes > 500_000 {
                    continue;
                }
                let authorization = format!("Bearer {}", request.key);
                let headers = json!({ "Authorization": authorization, "Content-Type": "application/json" });
                let sent = json!({
                    "host": host.to_string(), "method": "POST", "path": path, "headers": headers,
                    "bytes": bytes, "chunked": chunked, "times": TIMES,
                });
                let answers = ask(client, &sent).await;
                let way = format!("{client} to {host}{path}, {bytes} bytes, chunked: {chunked}: {answers}");
                println!("{way}");
                if answers != json!({ request.answer: TIMES }) {
                    lost.push(way);
                }
            }
        }
    }
    assert!(lost.is_empty(), "{lost:#?}");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn every_client_hears_that_its_body_is_too_large(pool: PgPool) {
    let (address, _api) = api::start(&pool, MANY).await;
    all_are_answered(address, &[TOO_LARGE, Refused { chunked: true, ..TOO_LARGE }]).await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn every_client_hears_that_its_key_is_not_valid_whatever_it_sends(pool: PgPool) {
    let (address, _api) = api::start(&pool, MANY).await;
    let wrong = |bytes| refused("no-key-of-anybody", bytes, "401 invalid_key");
    let chunked = Refused { chunked: true, ..wrong(50_000) };
    all_are_answered(address, &[wrong(500), wrong(50_000), wrong(500_000), chunked]).await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn every_client_hears_that_the_queue_is_full(pool: PgPool) {
    let (address, _api) = api::start(&pool, 1).await;
    let event = r#"{"tenant":"acme","feature":"f","tokens":1}"#;
    until("the queue is full", async || {
        raw(address, &post(event)).await.contains("queue_full").then_some(())
    })
    .await;
    let full = |bytes| refused(TOKEN, bytes, "503 queue_full");
    all_are_answered(address, &[full(500), full(50_000), full(500_000)]).await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn the_page_stays_live_behind_nginx_with_and_without_compression(pool: PgPool) {
    let (address, _api) = api::start(&pool, MANY).await;
    let (proxy, _nginx) = api::proxy(address).await;
    let ways = [(address, "/live"), (proxy, "/live"), (proxy, "/gzip/live")].map(async |(host, path)| {
        let headers = json!({ "Authorization": format!("Bearer {TOKEN}"), "Accept-Encoding": "gzip" });
        // The second is what keeps a stream alive on which there is nothing to say.
        let asked = json!({ "host": host.to_string(), "path": path, "headers": headers, "messages": 2 });
        let answer = ask("live.py", &asked).await;
        assert_eq!(answer["status"], 200, "{path}: {answer}");
        assert!(answer["text"].as_str().unwrap().contains("event: usage"), "{path}: {answer}");
        assert_eq!(answer["headers"]["cache-control"], "no-store, no-transform", "{path}: {answer}");
        // nginx keeps it to itself.
        let asks = (host == address).then_some("no");
        assert_eq!(answer["headers"]["x-accel-buffering"].as_str(), asks, "{path}: {answer}");
    });
    futures::future::join_all(ways).await;
}

/// What is answered to these bytes, until the connection is closed.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let answer = async {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(bytes).await?;
        connection.shutdown().await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap_or_default()
}

/// A request with this event.
fn post(event: &str) -> Vec<u8> {
    let length = event.len();
    format!(
        "POST /events HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{event}"
    )
    .into_bytes()
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn what_is_no_whole_request_is_answered_400_with_what_is_wrong(pool: PgPool) {
    let (address, _api) = api::start(&pool, MANY).await;
    let key = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n");
    let chunked = format!("Host: test\r\n{key}Transfer-Encoding: chunked\r\n\r\n");
    for (request, code, detail) in [
        (format!("GET /usage/acme HTTP/1.1\r\n{key}\r\n"), "invalid_header", "host must come once"),
        (
            format!("GET /usage/acme HTTP/1.1\r\nHost: a\r\nHost: b\r\n{key}\r\n"),
            "invalid_header",
            "host must come once",
        ),
        (format!("POST /events HTTP/1.1\r\n{chunked}nonsense\r\n[]"), "invalid_body", "chunks"),
        (format!("POST /events HTTP/1.1\r\n{chunked}2\r\n[]junk\r\n0\r\n\r\n"), "invalid_body", "chunks"),
        (format!("POST /events HTTP/1.1\r\n{chunked}ff\r\n[]"), "invalid_body", "ended before"),
        (
            format!("POST /events HTTP/1.1\r\nHost: test\r\n{key}Content-Length: 99\r\n\r\n[]"),
            "invalid_body",
            "ended before",
        ),
    ] {
        let answer = raw(address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request}: {answer}");
        for part in [&format!("\"code\":\"{code}\""), detail, "cache-control: no-store"] {
            assert!(answer.contains(part), "{request}: {answer}");
        }
    }
    // HTTP/1.0 has no Host.
    let old = raw(address, format!("GET /usage/acme HTTP/1.0\r\n{key}\r\n").as_bytes()).await;
    assert!(old.starts_with("HTTP/1.0 200 "), "{old}");
}
