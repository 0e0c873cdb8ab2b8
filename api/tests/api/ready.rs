//! A whole api, with both of its ports, while Valkey is away, or a password is wrong.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use flagmeter_api::config::Config;
use flagmeter_runtime::env::Env;
use flagmeter_store::{PgPool, testing};
use serde_json::Value;
use sqlx::ConnectOptions as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::EVENT;
use crate::door::{Door, Doorway, free_address};
use crate::server::until;

/// How long an answer from memory may take on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(500);

/// An answer, as it came over the wire.
struct Reply {
    status: u16,
    head: String,
    body: String,
    took: Duration,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// It says that the event may not be counted, and when to come again.
    fn says_come_again(&self) {
        assert_eq!((self.status, &self.json()["code"]), (503, &"queue_unavailable".into()), "{}", self.body);
        assert!(self.head.contains("\r\nretry-after: 1\r\n"), "{}", self.head);
    }
}

/// The addresses of an api.
struct Api {
    http: SocketAddr,
    admin: SocketAddr,
}

impl Api {
    /// Runs an api while `script` goes on.
    async fn run(pool: &PgPool, valkey: &str, script: impl AsyncFnOnce(Self)) {
        let api = Self { http: free_address().await, admin: free_address().await };
        let database = pool.connect_options().to_url_lossy();
        let config = Config::read(Env::of([
            ("DATABASE_URL", database.as_str()),
            ("VALKEY_URL", valkey),
            ("FLAGMETER_AUTH", "disabled"),
            ("FLAGMETER_LISTEN", &api.http.to_string()),
            ("FLAGMETER_ADMIN_LISTEN", &api.admin.to_string()),
        ]));
        let running = flagmeter_api::run(config.unwrap(), CancellationToken::new());
        tokio::select! {
            outcome = Box::pin(running) => panic!("the api ended: {outcome:?}"),
            () = script(api) => {}
        }
    }

    /// A request over a connection of its own, which must not be refused.
    async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Reply {
        let start = Instant::now();
        let mut connection = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head: format!("{head}\r\n"), body: body.to_owned(), took: start.elapsed() }
    }

    async fn post(&self) -> Reply {
        Self::ask(self.http, "POST", "/events", EVENT).await
    }

    async fn usage(&self) -> Reply {
        Self::ask(self.http, "GET", "/usage/acme", "").await
    }

    async fn readyz(&self) -> Reply {
        Self::ask(self.admin, "GET", "/readyz", "").await
    }

    /// Whether the api says that `store` answers it.
    async fn is_up(&self, store: &str) -> bool {
        let metrics = Self::ask(self.admin, "GET", "/metrics", "").await.body;
        let name = format!("flagmeter_api_store_up{{store=\"{store}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap() == "1"
    }

    async fn is_ready(&self) {
        // Its ports open within a moment.
        until("the ports are open", async || {
            let open =
                TcpStream::connect(self.admin).await.is_ok() && TcpStream::connect(self.http).await.is_ok();
            open.then_some(())
        })
        .await;
        until("the api is ready", async || (self.readyz().await.status == 200).then_some(())).await;
    }

    /// Usage is answered at once, and of now; the api stays ready, and says what is away.
    async fn reads_on(&self, away: &str) {
        let before = self.usage().await;
        assert_eq!(before.status, 200, "{}", before.body);
        let as_of = before.json()["asOf"].clone();
        until("the usage is newer", async || {
            let (usage, ready) = (self.usage().await, self.readyz().await);
            assert_eq!((usage.status, ready.status), (200, 200), "{} {}", usage.body, ready.body);
            assert!(usage.took < AT_ONCE, "{:?}", usage.took);
            (usage.json()["asOf"] != as_of && ready.body.contains(away)).then_some(())
        })
        .await;
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn while_valkey_is_away_the_api_is_ready_answers_usage_and_tells_senders_to_come_again(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let valkey = Doorway::new(Door::Open).await;
    Api::run(&pool, &valkey.url, async |api: Api| {
        api.is_ready().await;
        assert_eq!(api.post().await.status, 202);
        for door in [Door::Shut, Door::Silent] {
            valkey.set(door);
            // The first that come wait for Valkey to come back, but not for long; all others are answered at once.
            let first = api.post().await;
            first.says_come_again();
            assert!(first.took < Duration::from_secs(8), "{door:?}: {:?}", first.took);
            api.reads_on("[!] queue: ").await;
            for _ in 0..20 {
                let next = api.post().await;
                next.says_come_again();
                assert!(next.took < AT_ONCE, "{door:?}: {:?}", next.took);
            }
            assert!(!api.is_up("valkey").await && api.is_up("postgresql").await);
            valkey.set(Door::Open);
            let back = Instant::now();
            until("events are taken again", async || (api.post().await.status == 202).then_some(())).await;
            assert!(back.elapsed() < Duration::from_millis(1_500), "{door:?}: {:?}", back.elapsed());
            until("the api says so", async || {
                (api.readyz().await.body.contains("[+] queue\n") && api.is_up("valkey").await).then_some(())
            })
            .await;
        }
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_valkey_that_is_only_restarted_turns_no_event_away(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let valkey = Doorway::new(Door::Open).await;
    Api::run(&pool, &valkey.url, async |api: Api| {
        api.is_ready().await;
        valkey.set(Door::Shut);
        let restarted = async {
            until("the api sees it", async || (!api.is_up("valkey").await).then_some(())).await;
            valkey.set(Door::Open);
        };
        let (during, ()) = tokio::join!(api.post(), restarted);
        assert_eq!(during.status, 202, "{}", during.body);
        assert_eq!(api.post().await.status, 202);
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_api_that_never_reached_valkey_does_not_take_the_place_of_one_that_did(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let valkey = Doorway::new(Door::Shut).await;
    Api::run(&pool, &valkey.url, async |api: Api| {
        until("the api knows its tenants", async || {
            TcpStream::connect(api.admin).await.ok()?;
            let ready = api.readyz().await;
            assert_eq!(ready.status, 503, "{}", ready.body);
            (ready.body.contains("[+] tenants") && ready.body.contains("[-] queue: ")).then_some(())
        })
        .await;
        // Who asks it all the same is answered.
        until("the usage is known", async || (api.usage().await.status == 200).then_some(())).await;
        api.post().await.says_come_again();
        valkey.set(Door::Open);
        api.is_ready().await;
        assert_eq!(api.post().await.status, 202);
    })
    .await;
}

/// What is said of a password of PostgreSQL that is wrong.
const WRONG_PASSWORD: &str =
    "PostgreSQL refuses the login: correct the user, the password or the database in DATABASE_URL";

/// The test's database with a password that is wrong.
fn with_wrong_password(pool: &PgPool) -> PgPool {
    let wrong = pool.connect_options().as_ref().clone().password("s3cret-and-wrong");
    sqlx::postgres::PgPoolOptions::new().connect_lazy_with(wrong)
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_api_whose_database_password_is_wrong_says_so_and_not_that_postgresql_is_away(pool: PgPool) {
    let valkey = Doorway::new(Door::Open).await;
    Api::run(&with_wrong_password(&pool), &valkey.url, async |api: Api| {
        until("its readiness says so", async || {
            TcpStream::connect(api.admin).await.ok()?;
            let body = api.readyz().await.body;
            assert!(!body.contains("PostgreSQL does not answer"), "{body}");
            body.contains(&format!("[!] usage: {WRONG_PASSWORD}: usage stays as it was read last\n"))
                .then_some(())
        })
        .await;
    })
    .await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_api_whose_valkey_password_is_wrong_is_not_ready_and_says_so(pool: PgPool) {
    let valkey = Doorway::new(Door::Open).await;
    let url = valkey.url.replacen("redis://", "redis://nobody:s3cret-and-wrong@", 1);
    Api::run(&pool, &url, async |api: Api| {
        until("its readiness says so", async || {
            TcpStream::connect(api.admin).await.ok()?;
            let ready = api.readyz().await;
            let expected =
                "[-] queue: Valkey refuses the login: correct the user or the password in VALKEY_URL\n";
            (ready.status == 503 && ready.body.contains(expected)).then_some(())
        })
        .await;
    })
    .await;
}

/// The program itself, which ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn the_log_has_the_causes_of_a_wrong_password_in_json_and_no_password(pool: PgPool) {
    let valkey = Doorway::new(Door::Open).await;
    let mut program = Command::new(env!("CARGO_BIN_EXE_flagmeter-api"));
    program
        .env_clear()
        .env("DATABASE_URL", with_wrong_password(&pool).connect_options().to_url_lossy().as_str())
        .env("VALKEY_URL", valkey.url.replacen("redis://", "redis://nobody:s3cret-and-wrong@", 1))
        .env("FLAGMETER_AUTH", "disabled")
        .env("FLAGMETER_LISTEN", free_address().await.to_string())
        .env("FLAGMETER_ADMIN_LISTEN", free_address().await.to_string())
        .stdout(Stdio::piped());
    let mut program = Program(program.spawn().unwrap());
    let (sender, lines) = mpsc::channel();
    let output = BufReader::new(program.0.stdout.take().unwrap());
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));

    let mut expected = vec![
        // what the message says, what is among the causes
        (WRONG_PASSWORD, "password authentication failed"),
        ("Valkey refuses the login", "password authentication failed"),
    ];
    let found = tokio::task::spawn_blocking(move || {
        let start = Instant::now();
        while !expected.is_empty() {
            assert!(start.elapsed() < Duration::from_secs(20), "not said: {expected:?}");
            let line = lines.recv_timeout(Duration::from_secs(20)).unwrap();
            assert!(!line.contains("s3cret"), "{line}");
            let event: Value = serde_json::from_str(&line).unwrap();
            let message = event["message"].as_str().unwrap();
            let causes = event["error.sources"].to_string().to_lowercase();
            expected.retain(|(said, cause)| {
                event["level"] != "WARN" || !message.contains(said) || !causes.contains(&cause.to_lowercase())
            });
        }
    });
    found.await.unwrap();
}
