//! The api's program, and nginx before it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flagmeter_store::{PgPool, testing};
use sqlx::ConnectOptions;
use uuid::Uuid;

/// The admin token.
pub(crate) const TOKEN: &str = "a-token-of-enough-letters";

/// How long a test waits for something that takes a fraction of it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A program that is ended with its test.
pub(crate) struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An api that knows the tenant `acme`, asks for keys, and takes in no more while `queued` events wait.
pub(crate) async fn start(pool: &PgPool, queued: u64) -> (SocketAddr, Program) {
    testing::add_tenant(pool, "acme").await;
    let [address, admin] = [(); 2].map(|()| free_address());
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagmeter-api"));
    command
        .env("DATABASE_URL", pool.connect_options().to_url_lossy().as_str())
        .env("FLAGMETER_ADMIN_TOKEN", TOKEN)
        .env("FLAGMETER_LISTEN", address.to_string())
        .env("FLAGMETER_ADMIN_LISTEN", admin.to_string())
        .env("FLAGMETER_QUEUE_MAX_EVENTS", queued.to_string())
        .env("FLAGMETER_LOG", "error");
    let api = Program(command.spawn().unwrap());
    until("the api is ready", async || {
        let answer =
            crate::raw(admin, b"GET /readyz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    (address, api)
}

/// An nginx before the api, as its documentation has it: connections to the api are kept. What it is asked for below
/// `/unbuffered` it passes on while it comes, and below `/gzip` it compresses the answers.
pub(crate) async fn proxy(api: SocketAddr) -> (SocketAddr, Program) {
    let address = free_address();
    let folder = std::env::temp_dir().join(format!("flagmeter-nginx-{}", Uuid::now_v7()));
    std::fs::create_dir_all(&folder).unwrap();
    let settings = format!(
        "daemon off; master_process off; error_log stderr crit; pid nginx.pid;
        events {{ worker_connections 256; }}
        http {{
            access_log off;
            client_max_body_size 0;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            upstream api {{ server {api}; keepalive 16; }}
            server {{
                listen {address};
                location / {{ proxy_pass http://api; }}
                location /unbuffered/ {{ proxy_pass http://api/; proxy_request_buffering off; }}
                location /gzip/ {{
                    proxy_pass http://api/;
                    gzip on; gzip_proxied any; gzip_types *; gzip_min_length 0;
                }}
            }}
        }}"
    );
    let file = folder.join("flagmeter.conf");
    std::fs::write(&file, settings).unwrap();
    let mut command = Command::new(tool("FLAGMETER_NGINX"));
    command.arg("-p").arg(&folder).arg("-c").arg(&file).stdin(Stdio::null());
    let nginx = Program(command.spawn().unwrap());
    until("nginx listens", async || TcpStream::connect(address).ok()).await;
    (address, nginx)
}

/// The tool that a variable names.
pub(crate) fn tool(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    path.unwrap_or_else(|| panic!("{variable} names no program; `cargo xtask test store` fetches it")).into()
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
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
