//! The notifier over a real PostgreSQL, and a receiver on loopback.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

mod receiver;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flagmeter_runtime::clock::Clock;
use flagmeter_store::sealed::{Column, Sealer};
use flagmeter_store::{PgPool, testing};
use flagmeter_worker::metrics::Deliveries;
use flagmeter_worker::notifier::post::Poster;
use flagmeter_worker::notifier::{LEASE, Line, Notifier, PAUSE};
use jiff::{SignedDuration, Timestamp};
use receiver::{Behaviour, Receiver};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const OK: Behaviour = Behaviour::Answer(200, "", "ok");
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLDER_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

/// How long a test waits for something that takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(30);

fn sealer() -> Sealer {
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().unwrap()
}

fn noon() -> Timestamp {
    testing::NOON.parse().unwrap()
}

fn later(seconds: i64) -> Timestamp {
    noon() + SignedDuration::from_secs(seconds)
}

/// A notifier whose clock stands at `at`, with these connections to PostgreSQL.
fn notifier(pool: &PgPool, at: Timestamp, poster: Poster) -> Notifier {
    measured(pool, at, poster, &prometheus::Registry::new())
}

/// One whose metrics are in `registry`.
fn measured(pool: &PgPool, at: Timestamp, poster: Poster, registry: &prometheus::Registry) -> Notifier {
    Notifier {
        pool: pool.clone(),
        sealer: sealer(),
        poster,
        line: Line::default(),
        clock: Clock::fixed(at),
        metrics: Deliveries::register(registry).unwrap(),
        public_url: None,
    }
}

/// Sends whatever is due at `at`, and answers how often it took something.
async fn send_due(pool: &PgPool, at: Timestamp) -> usize {
    let notifier = notifier(pool, at, Poster::new(true).within(Duration::from_secs(3)));
    let mut taken = 0;
    while notifier.send_one().await.unwrap() {
        taken += 1;
    }
    taken
}

async fn add_slack(pool: &PgPool, tenant: &str, url: &str) {
    testing::add_tenant(pool, tenant).await;
    sqlx::query("INSERT INTO slack_webhooks (tenant, url, enabled) VALUES ($1, $2, true)")
        .bind(tenant)
        .bind(sealer().seal(tenant, Column::SlackUrl, url).unwrap())
        .execute(pool)
        .await
        .unwrap();
}

/// A webhook whose secret is being changed until an hour after noon.
async fn add_webhook(pool: &PgPool, tenant: &str, url: &str) {
    testing::add_tenant(pool, tenant).await;
    let seal = |column, text: &str| sealer().seal(tenant, column, text).unwrap();
    sqlx::query(
        "INSERT INTO webhooks (tenant, url, secret, previous_secret, previous_until, enabled)
         VALUES ($1, $2, $3, $4, '2026-06-15T13:00:00Z', true)",
    )
    .bind(tenant)
    .bind(seal(Column::WebhookUrl, url))
    .bind(seal(Column::WebhookSecret, SECRET))
    .bind(seal(Column::WebhookSecret, OLDER_SECRET))
    .execute(pool)
    .await
    .unwrap();
}

/// Writes what the counting transaction writes when `tenant` reaches 80 % at noon.
async fn cross(pool: &PgPool, tenant: &str, channel: &str) -> i64 {
    let alert: i64 = sqlx::query_scalar(
        "INSERT INTO alerts (tenant, period_start, period_end, threshold, monthly_quota, total_tokens, kind, created_at)
         VALUES ($1, '2026-06-01T00:00:00Z', '2026-07-01T00:00:00Z', 80, 1000000, 812345, 'crossed', $2::timestamptz)
         RETURNING id",
    )
    .bind(tenant)
    .bind(noon().to_string())
    .fetch_one(pool)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO alert_deliveries (alert, channel, next_attempt_at, tried_since)
         VALUES ($1, $2, $3::timestamptz, $3::timestamptz)",
    )
    .bind(alert)
    .bind(channel)
    .bind(noon().to_string())
    .execute(pool)
    .await
    .unwrap();
    alert
}

/// State, attempts, seconds from noon to the next attempt, last error.
async fn outcome(pool: &PgPool, alert: i64) -> (String, i32, i64, String) {
    sqlx::query_as(
        "SELECT state, attempts, ceil(extract(epoch FROM next_attempt_at - $2::timestamptz))::bigint, coalesce(last_error, '')
         FROM alert_deliveries WHERE alert = $1",
    )
    .bind(alert)
    .bind(noon().to_string())
    .fetch_one(pool)
    .await
    .unwrap()
}

async fn until(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !probe().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_alert_is_one_message_however_often_it_is_looked_for(pool: PgPool) {
    let receiver = Receiver::start([OK]).await;
    add_slack(&pool, "acme", &receiver.url()).await;
    let alert = cross(&pool, "acme", "slack").await;
    assert_eq!(send_due(&pool, noon()).await, 1);
    assert_eq!(send_due(&pool, later(100_000)).await, 0);

    let received = receiver.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].line, "POST /services/T0/B0/s3cret-part HTTP/1.1");
    assert_eq!(received[0].headers["content-type"], "application/json");
    assert_eq!(received[0].headers["host"], format!("127.0.0.1:{}", receiver.port()));
    let text = received[0].json()["text"].as_str().unwrap().to_owned();
    assert!(
        text.starts_with("acme has used 81 % of its quota: 812,345 of 1,000,000 tokens (81 %)."),
        "{text}"
    );
    assert_eq!(outcome(&pool, alert).await.0, "delivered");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_password_in_a_url_is_sent_as_basic_authentication(pool: PgPool) {
    let receiver = Receiver::start([OK]).await;
    add_webhook(&pool, "acme", &format!("http://user:p%40ss@127.0.0.1:{}/x", receiver.port())).await;
    let alert = cross(&pool, "acme", "webhook").await;
    assert_eq!(send_due(&pool, noon()).await, 1);
    assert_eq!(outcome(&pool, alert).await.0, "delivered");
    let headers = &receiver.received()[0].headers;
    assert_eq!(headers["authorization"], "Basic dXNlcjpwQHNz");
    assert_eq!(headers["host"], format!("127.0.0.1:{}", receiver.port()));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn what_slack_answers_decides_what_happens_next(pool: PgPool) {
    let elsewhere = Receiver::start([OK]).await;
    let location: &'static str =
        Box::leak(format!("Location: http://127.0.0.1:{}/\r\n", elsewhere.port()).into_boxed_str());
    let cases = [
        // behaviour, state, least and most seconds to the next attempt, part of the error
        (Behaviour::Answer(400, "", "invalid_payload"), "failed", None, "report this"),
        (Behaviour::Answer(403, "", "action_prohibited"), "failed", None, "administrators"),
        (Behaviour::Answer(404, "", "no_service"), "failed", None, "make a new one"),
        (Behaviour::Answer(410, "", "channel_is_archived"), "failed", None, "archived"),
        (Behaviour::Answer(429, "", ""), "pending", Some((3, 5)), "429"),
        (Behaviour::Answer(429, "Retry-After: 30\r\n", ""), "pending", Some((30, 30)), "asked to wait 30 s"),
        (
            Behaviour::Answer(503, "Retry-After: Mon, 15 Jun 2026 12:02:00 GMT\r\n", ""),
            "pending",
            Some((120, 120)),
            "asked to wait 120 s",
        ),
        (Behaviour::Answer(429, "Retry-After: 7200\r\n", ""), "pending", Some((7_200, 7_200)), "429"),
        (
            Behaviour::Answer(429, "Retry-After: 99999999\r\n", ""),
            "failed",
            None,
            "given up: Slack answered 429",
        ),
        (Behaviour::Answer(500, "", "rollup_error"), "pending", Some((3, 5)), "500"),
        (Behaviour::Answer(302, location, ""), "failed", None, "not followed: edit the URL"),
        (Behaviour::Answer(301, location, ""), "failed", None, "`flagmeter alerts resend`"),
        (Behaviour::Hang, "pending", Some((3, 5)), "no answer within"),
        (Behaviour::Reset, "pending", Some((3, 5)), "broke"),
        (Behaviour::SlowBody(500), "pending", Some((3, 5)), "500"),
        (Behaviour::HugeBody, "pending", Some((3, 5)), "500"),
        // A success is known from its head.
        (Behaviour::SlowBody(200), "delivered", None, ""),
        (Behaviour::Answer(204, "", ""), "delivered", None, ""),
    ];
    for (number, (behaviour, state, wait, part)) in cases.into_iter().enumerate() {
        let tenant = format!("tenant-{number}");
        let receiver = Receiver::start([behaviour.clone()]).await;
        // The next receiver may get the same port, and what was held for this one is held by URL.
        add_slack(&pool, &tenant, &format!("{}/{number}", receiver.url())).await;
        let alert = cross(&pool, &tenant, "slack").await;
        assert_eq!(send_due(&pool, noon()).await, 1, "{behaviour:?}");
        let (found, attempts, seconds, error) = outcome(&pool, alert).await;
        assert_eq!(
            (found.as_str(), attempts, receiver.received().len()),
            (state, 1, 1),
            "{behaviour:?}: {error}"
        );
        assert!(
            wait.is_none_or(|(least, most)| (least..=most).contains(&seconds)),
            "{behaviour:?}: {seconds} s"
        );
        assert!(error.contains(part) && !error.contains("s3cret"), "{behaviour:?}: {error}");
    }
    assert!(elsewhere.received().is_empty(), "a redirect was followed");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_receiver_that_recovers_gets_the_message_under_the_same_id(pool: PgPool) {
    let receiver = Receiver::start([Behaviour::Answer(500, "", ""), Behaviour::Reset, OK]).await;
    add_webhook(&pool, "acme", &receiver.url()).await;
    let alert = cross(&pool, "acme", "webhook").await;
    for seconds in [0, 5, 15] {
        assert_eq!(send_due(&pool, later(seconds)).await, 1, "after {seconds} s");
    }
    assert_eq!((outcome(&pool, alert).await.0.as_str(), outcome(&pool, alert).await.1), ("delivered", 3));
    let ids: Vec<String> = receiver.received().iter().map(|one| one.headers["webhook-id"].clone()).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_day_after_it_was_due_a_message_is_given_up_and_not_before(pool: PgPool) {
    let receiver = Receiver::start([Behaviour::Answer(500, "", "")]).await;
    add_slack(&pool, "acme", &receiver.url()).await;
    let alert = cross(&pool, "acme", "slack").await;
    for seconds in [0, 86_340] {
        // By then it was tried so often that the waits are long.
        sqlx::query("UPDATE alert_deliveries SET attempts = 30").execute(&pool).await.unwrap();
        assert_eq!(send_due(&pool, later(seconds)).await, 1);
        assert_eq!(outcome(&pool, alert).await.0, "pending", "after {seconds} s");
    }
    assert_eq!(outcome(&pool, alert).await.2, 86_400, "the last attempt is at the day's end");
    assert_eq!(send_due(&pool, later(86_400)).await, 1);
    let (state, _, _, error) = outcome(&pool, alert).await;
    assert_eq!((state.as_str(), error.as_str()), ("failed", "given up: Slack answered 500"));
    assert_eq!(send_due(&pool, later(200_000)).await, 0);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn sixteen_notifiers_at_once_send_one_message(pool: PgPool) {
    let receiver = Receiver::start([OK]).await;
    add_slack(&pool, "acme", &receiver.url()).await;
    let alert = cross(&pool, "acme", "slack").await;
    let shutdown = CancellationToken::new();
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let own = testing::own_connection(&pool);
            let (notifier, shutdown) =
                (Arc::new(notifier(&own, noon(), Poster::new(true))), shutdown.clone());
            tokio::spawn(async move { notifier.run(&shutdown, PATIENCE).await })
        })
        .collect();
    until("it is delivered", async || outcome(&pool, alert).await.0 == "delivered").await;
    shutdown.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((receiver.received().len(), outcome(&pool, alert).await.1), (1, 1));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_worker_that_dies_between_answer_and_commit_costs_a_duplicate_of_the_same_id_at_most(pool: PgPool) {
    let (arrived, open) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let receiver = Receiver::start([Behaviour::Gate(arrived.clone(), open.clone()), OK]).await;
    add_webhook(&pool, "acme", &receiver.url()).await;
    let alert = cross(&pool, "acme", "webhook").await;

    // Its connections are its own, and die with it, as a process's do.
    let own = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(pool.connect_options().as_ref().clone().application_name("victim"));
    let victim = notifier(&own, noon(), Poster::new(true));
    let task = tokio::spawn(async move { victim.send_one().await });
    arrived.notified().await;
    // The commit waits for this lock, so the answer is there and what came of it is not written.
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM alert_deliveries FOR UPDATE").execute(&mut *lock).await.unwrap();
    open.notify_one();
    let waiting = "SELECT pid FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'victim' AND wait_event_type = 'Lock'";
    until("it waits for the lock", async || {
        sqlx::query(waiting).fetch_optional(&pool).await.unwrap().is_some()
    })
    .await;
    task.abort();
    let killed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'victim'";
    sqlx::query(killed).execute(&pool).await.unwrap();
    until("it is dead", async || sqlx::query(waiting).fetch_optional(&pool).await.unwrap().is_none()).await;
    lock.rollback().await.unwrap();

    assert_eq!(outcome(&pool, alert).await.0, "pending");
    assert_eq!(send_due(&pool, noon()).await, 0, "the dead worker's lease holds");
    assert_eq!(send_due(&pool, noon() + LEASE).await, 1);
    assert_eq!(outcome(&pool, alert).await.0, "delivered");
    assert_eq!(send_due(&pool, later(100_000)).await, 0);
    let received = receiver.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].headers["webhook-id"], received[1].headers["webhook-id"]);
    assert_eq!(received[0].body, received[1].body);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_worker_that_stops_does_not_wait_for_postgresql_for_longer_than_it_may(pool: PgPool) {
    let (arrived, open) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let receiver = Receiver::start([Behaviour::Gate(arrived.clone(), open.clone()), OK]).await;
    add_slack(&pool, "acme", &receiver.url()).await;
    cross(&pool, "acme", "slack").await;
    let (notifier, shutdown) =
        (Arc::new(notifier(&pool, noon(), Poster::new(true))), CancellationToken::new());
    let stop = shutdown.clone();
    let task = tokio::spawn(async move { notifier.run(&stop, Duration::from_millis(100)).await });
    arrived.notified().await;
    // What came of the message cannot be written for as long as the test holds its row.
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM alert_deliveries FOR UPDATE").execute(&mut *lock).await.unwrap();
    shutdown.cancel();
    open.notify_one();
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
    assert_eq!(receiver.received().len(), 1);
    lock.rollback().await.unwrap();
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn one_url_gets_about_a_message_a_second_whoever_sends_it_and_none_while_it_asks_for_rest(
    pool: PgPool,
) {
    let receiver = Receiver::start([OK, Behaviour::Answer(429, "Retry-After: 60\r\n", ""), OK]).await;
    let mut alerts = Vec::new();
    for tenant in ["acme", "globex", "initech"] {
        add_slack(&pool, tenant, &receiver.url()).await;
        alerts.push(cross(&pool, tenant, "slack").await);
    }
    let sent = async |at| {
        send_due(&pool, at).await;
        receiver.received().len()
    };
    assert_eq!(sent(noon()).await, 1);
    assert_eq!(sent(noon() + PAUSE / 2).await, 1);
    assert_eq!(sent(noon() + PAUSE).await, 2, "the second is told to wait a minute");
    assert_eq!(sent(noon() + PAUSE * 2).await, 2, "and so is the third, unasked");
    assert_eq!(sent(noon() + PAUSE + SignedDuration::from_secs(60)).await, 3);
    assert_eq!(sent(noon() + PAUSE * 2 + SignedDuration::from_secs(60)).await, 4);
    for alert in alerts {
        assert_eq!(outcome(&pool, alert).await.0, "delivered");
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_receiver_that_has_too_many_gets_no_other_message_before_the_one_it_refused(pool: PgPool) {
    let receiver = Receiver::start([Behaviour::Answer(429, "", ""), OK]).await;
    for tenant in ["acme", "globex"] {
        add_slack(&pool, tenant, &receiver.url()).await;
    }
    let first = cross(&pool, "acme", "slack").await;
    assert_eq!(send_due(&pool, noon()).await, 1);
    let wait = outcome(&pool, first).await.2;
    assert!(wait >= 3, "{wait}");
    let second = cross(&pool, "globex", "slack").await;
    assert_eq!(send_due(&pool, later(2)).await, 1);
    assert_eq!((receiver.received().len(), outcome(&pool, second).await.2), (1, wait));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_message_that_only_waits_for_others_is_given_up_after_a_day_too(pool: PgPool) {
    let receiver = Receiver::start([OK]).await;
    add_slack(&pool, "acme", &receiver.url()).await;
    let alert = cross(&pool, "acme", "slack").await;
    let hold = async |until: Timestamp| {
        let url = sealer().fingerprint("", &receiver.url());
        flagmeter_store::postgres::deliveries::hold(&pool, &url, until).await.unwrap();
    };
    for seconds in [0, 43_200] {
        hold(later(seconds + 43_200)).await;
        assert_eq!(send_due(&pool, later(seconds)).await, 1);
        let (state, attempts, next, _) = outcome(&pool, alert).await;
        assert_eq!((state.as_str(), attempts, next), ("pending", 0, seconds + 43_200));
    }
    hold(later(86_401)).await;
    assert_eq!(send_due(&pool, later(86_400)).await, 1);
    let (state, _, _, error) = outcome(&pool, alert).await;
    assert!(state == "failed" && error.starts_with("given up: "), "{state}: {error}");
    assert!(receiver.received().is_empty());
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn those_who_wait_for_a_url_come_one_after_another_and_only_whose_turn_it_is_has_its_usage_summed(
    pool: PgPool,
) {
    let receiver = Receiver::start([OK]).await;
    let mut alerts = Vec::new();
    for tenant in ["acme", "globex", "initech", "umbrella"] {
        add_slack(&pool, tenant, &receiver.url()).await;
        alerts.push(cross(&pool, tenant, "slack").await);
    }
    sqlx::query(
        "INSERT INTO rollups (tenant, feature, minute, total_tokens)
         SELECT id, 'gpt-4', $1::timestamptz - interval '1 hour', 1 FROM tenants",
    )
    .bind(testing::NOON)
    .execute(&pool)
    .await
    .unwrap();
    let own = testing::own_connection(&pool);
    assert_eq!(send_due(&own, noon()).await, 4);
    let mut waits = Vec::new();
    for alert in &alerts {
        let (state, _, seconds, _) = outcome(&pool, *alert).await;
        waits.extend((state == "pending").then_some(seconds));
    }
    waits.sort_unstable();
    assert_eq!((receiver.received().len(), waits), (1, vec![1, 2, 3]));
    for seconds in 1..=3 {
        assert_eq!(send_due(&own, later(seconds)).await, 1, "after {seconds} s");
    }
    assert_eq!(receiver.received().len(), 4);
    // What a connection did is known at once if it is asked to say so.
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(&own).await.unwrap();
    let read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'rollups'";
    let read: i64 = sqlx::query_scalar(read).fetch_one(&own).await.unwrap();
    assert_eq!(read, 4, "a row for each message");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_private_address_is_never_connected_to_unless_that_is_allowed(pool: PgPool) {
    let receiver = Receiver::start([OK]).await;
    let urls = [
        (format!("https://127.0.0.1:{}/", receiver.port()), "failed"),
        (format!("https://[::ffff:127.0.0.1]:{}/", receiver.port()), "failed"),
        (receiver.url(), "failed"),
        // What a name leads to may change, so that is tried again.
        (format!("https://localhost:{}/", receiver.port()), "pending"),
        (format!("https://2130706433:{}/", receiver.port()), "pending"),
        ("https://no-such-host.invalid/".to_owned(), "pending"),
    ];
    for (number, (url, expected)) in urls.iter().enumerate() {
        let tenant = format!("tenant-{number}");
        add_slack(&pool, &tenant, url).await;
        let alert = cross(&pool, &tenant, "slack").await;
        assert!(notifier(&pool, noon(), Poster::new(false)).send_one().await.unwrap());
        let (state, _, _, error) = outcome(&pool, alert).await;
        assert_eq!(state, *expected, "{url}: {error}");
        assert!(!error.is_empty() && !error.contains("127.0.0.1"), "{error}");
    }
    assert!(receiver.received().is_empty());
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn over_https_the_receiver_must_be_who_it_says(pool: PgPool) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let receiver = Receiver::start_tls(OK, tokio_rustls::TlsAcceptor::from(Arc::new(server))).await;
    let trusting = || Poster::trusting_only(certificate.der().clone(), true).unwrap();
    let cases = [
        ("localhost", trusting(), "delivered"),
        // The certificate is not for this name.
        ("127.0.0.1", trusting(), "pending"),
        // Nobody vouches for it.
        ("localhost", Poster::new(true), "pending"),
    ];
    for (number, (host, poster, expected)) in cases.into_iter().enumerate() {
        let tenant = format!("tenant-{number}");
        add_slack(&pool, &tenant, &format!("https://{host}:{}/{number}", receiver.port())).await;
        let alert = cross(&pool, &tenant, "slack").await;
        assert!(notifier(&pool, noon(), poster).send_one().await.unwrap());
        let (state, _, _, error) = outcome(&pool, alert).await;
        assert_eq!(
            (state.as_str(), error.starts_with("TLS failed")),
            (expected, expected == "pending"),
            "{error}"
        );
    }
    assert_eq!(receiver.received().len(), 1);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_message_says_when_the_quota_will_be_used_up_if_usage_is_steady(pool: PgPool) {
    let receiver = Receiver::start([Behaviour::Answer(500, "", ""), OK]).await;
    add_webhook(&pool, "acme", &receiver.url()).await;
    // 30,000 tokens a day: the 187,655 that are left last for six days and some hours.
    sqlx::query(
        "INSERT INTO rollups (tenant, feature, minute, total_tokens)
         SELECT 'acme', 'gpt-4', $1::timestamptz - interval '12 hours' - day * interval '1 day', 30000
         FROM generate_series(-1, 6) AS day",
    )
    .bind(testing::NOON)
    .execute(&pool)
    .await
    .unwrap();
    cross(&pool, "acme", "webhook").await;
    // Sent at once, or twenty hours later: it tells what was used then, and so when that will be all.
    for (number, seconds) in [0, 72_000].into_iter().enumerate() {
        assert_eq!(send_due(&pool, later(seconds)).await, 1);
        let said = receiver.received()[number].json();
        let exhaustion = said["data"]["projectedExhaustion"].as_str().unwrap();
        assert!(exhaustion.starts_with("2026-06-21T1"), "{said}");
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn what_cannot_be_sent_says_why(pool: PgPool) {
    let receiver = Receiver::start([OK]).await;
    add_slack(&pool, "off", &receiver.url()).await;
    sqlx::query("UPDATE slack_webhooks SET enabled = false").execute(&pool).await.unwrap();
    add_slack(&pool, "sealed", &receiver.url()).await;
    sqlx::query(
        "UPDATE slack_webhooks SET url = set_byte(url, 20, get_byte(url, 20) # 1) WHERE tenant = 'sealed'",
    )
    .execute(&pool)
    .await
    .unwrap();
    add_webhook(&pool, "unsigned", &receiver.url()).await;
    sqlx::query("UPDATE webhooks SET secret = $1")
        .bind(sealer().seal("unsigned", Column::WebhookSecret, "not a secret of that form").unwrap())
        .execute(&pool)
        .await
        .unwrap();
    for (tenant, channel, state, part) in [
        ("off", "slack", "skipped", "turned it off"),
        ("sealed", "slack", "pending", "FLAGMETER_ENCRYPTION_KEY"),
        ("unsigned", "webhook", "failed", "whsec_"),
    ] {
        let alert = cross(&pool, tenant, channel).await;
        assert_eq!(send_due(&pool, noon()).await, 1);
        let (found, _, _, error) = outcome(&pool, alert).await;
        assert!(found == state && error.contains(part), "{tenant}: {found}, {error}");
    }
    assert!(receiver.received().is_empty());
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_former_secret_that_does_not_open_is_left_out(pool: PgPool) {
    let receiver = Receiver::start([OK]).await;
    add_webhook(&pool, "acme", &receiver.url()).await;
    let other: Sealer = "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().unwrap();
    sqlx::query("UPDATE webhooks SET previous_secret = $1")
        .bind(other.seal("acme", Column::WebhookSecret, OLDER_SECRET).unwrap())
        .execute(&pool)
        .await
        .unwrap();
    let alert = cross(&pool, "acme", "webhook").await;
    assert_eq!(send_due(&pool, noon()).await, 1);
    assert_eq!(outcome(&pool, alert).await.0, "delivered");
    let message = receiver.received().remove(0);
    assert!(verify(&message, SECRET, &message.body));
    assert_eq!(message.headers["webhook-signature"].split(' ').count(), 1);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn the_metrics_say_what_came_of_each_attempt_and_to_nobody_where_it_went(pool: PgPool) {
    let receiver = Receiver::start([
        OK,
        Behaviour::Answer(500, "", "s3cret-part"),
        Behaviour::Answer(410, "", "s3cret-part"),
        OK,
    ])
    .await;
    // Each has a URL of its own, but the last, which has to wait for another's turn.
    for (number, tenant) in ["one", "two", "three", "four", "five"].into_iter().enumerate() {
        let number = if tenant == "five" { 3 } else { number };
        add_webhook(&pool, tenant, &format!("{}/{number}", receiver.url())).await;
        cross(&pool, tenant, "webhook").await;
    }
    add_slack(&pool, "off", &receiver.url()).await;
    sqlx::query("UPDATE slack_webhooks SET enabled = false").execute(&pool).await.unwrap();
    cross(&pool, "off", "slack").await;
    let registry = prometheus::Registry::new();
    let notifier = measured(&pool, noon(), Poster::new(true), &registry);
    while notifier.send_one().await.unwrap() {}

    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for (channel, outcome, number) in [
        ("webhook", "delivered", 2),
        ("webhook", "retried", 1),
        ("webhook", "failed", 1),
        ("webhook", "put_back", 1),
        ("webhook", "given_up", 0),
        ("slack", "skipped", 1),
        ("slack", "delivered", 0),
    ] {
        let line = format!(
            "flagmeter_worker_deliveries_total{{channel=\"{channel}\",outcome=\"{outcome}\"}} {number}\n"
        );
        assert!(text.contains(&line), "{line}{text}");
    }
    assert!(!text.contains("s3cret") && !text.contains("127.0.0.1"), "{text}");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_test_is_tried_once_and_marked_as_one(pool: PgPool) {
    let receiver = Receiver::start([Behaviour::Answer(500, "", ""), OK]).await;
    add_slack(&pool, "acme", &receiver.url()).await;
    for (seconds, state) in [(0, "failed"), (10, "delivered")] {
        let alert = cross(&pool, "acme", "slack").await;
        sqlx::query("UPDATE alerts SET kind = 'test'").execute(&pool).await.unwrap();
        assert_eq!(send_due(&pool, later(seconds)).await, 1);
        assert_eq!(outcome(&pool, alert).await.0, state);
    }
    let text = receiver.received()[1].json()["text"].to_string();
    assert!(text.contains("Test: alerts of acme arrive here"), "{text}");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn no_log_and_no_error_holds_a_url_or_a_secret(pool: PgPool) {
    /// Where the log goes.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let receiver =
        Receiver::start([Behaviour::Answer(500, "Retry-After: 1\r\n", "s3cret-part"), Behaviour::Reset])
            .await;
    let with_password = receiver.url().replace("http://", "http://user:s3cret-part@");
    for url in
        [receiver.url(), with_password, "http://s3cret-part.invalid/".to_owned(), "s3cret-part".to_owned()]
    {
        let tenant = format!("tenant-{}", url.len());
        add_webhook(&pool, &tenant, &url).await;
        let alert = cross(&pool, &tenant, "webhook").await;
        for seconds in [0, 10] {
            send_due(&pool, later(seconds)).await;
            let error = outcome(&pool, alert).await.3;
            assert!(!error.is_empty() && !error.contains("s3cret"), "{error}");
        }
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("an alert of tenant-") && log.contains("failed to deliver"), "{log}");
    let password = "dXNlcjpzM2NyZXQtcGFydA==";
    for secret in ["s3cret-part", password, &SECRET[6..], &OLDER_SECRET[6..]] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

/// Runs the example of docs/alerts.md over a message, with a secret.
fn verify(message: &receiver::Received, secret: &str, body: &[u8]) -> bool {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/alerts.md")).unwrap();
    let (_, rest) = page.split_once("```python\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let call = "import json, sys\nheaders, secret, body, now = json.load(sys.stdin)\nprint(verify(secret, headers, body.encode(), now))\n";
    let input =
        json!([message.headers, secret, String::from_utf8(body.to_vec()).unwrap(), noon().as_second()]);
    let mut python = Command::new("python3")
        .args(["-c", &format!("{example}\n{call}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout == b"True\n"
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_webhook_is_signed_so_that_the_documented_example_verifies_it_with_either_secret(pool: PgPool) {
    let receiver = Receiver::start([OK]).await;
    add_webhook(&pool, "acme", &receiver.url()).await;
    cross(&pool, "acme", "webhook").await;
    assert_eq!(send_due(&pool, noon()).await, 1);
    let message = receiver.received().remove(0);
    assert!(verify(&message, SECRET, &message.body));
    assert!(verify(&message, OLDER_SECRET, &message.body), "the secret is being changed");
    assert!(!verify(&message, "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldY", &message.body));
    assert!(!verify(&message, SECRET, &[&message.body[..], b" "].concat()));
    // Nothing that a stranger sends makes it fail.
    for (header, value) in [
        ("webhook-signature", "v1,ü"),
        ("webhook-signature", ""),
        ("webhook-timestamp", "now"),
        ("webhook-timestamp", "ü"),
        ("webhook-id", "ü"),
    ] {
        let mut message = message.clone();
        message.headers.insert(header.to_owned(), value.to_owned());
        assert!(!verify(&message, SECRET, &message.body), "{header}: {value}");
        message.headers.remove(header);
        assert!(!verify(&message, SECRET, &message.body), "without {header}");
    }

    let expected = json!({
        "type": "quota.threshold_crossed",
        "timestamp": testing::NOON,
        "data": {
            "tenant": "acme",
            "displayName": "acme",
            "threshold": 80,
            "percent": 81,
            "totalTokens": 812_345,
            "monthlyQuota": 1_000_000,
            "periodStart": "2026-06-01T00:00:00Z",
            "periodEnd": "2026-07-01T00:00:00Z",
            "timeZone": "UTC",
            "projectedExhaustion": Value::Null,
            "dashboard": Value::Null,
        },
    });
    assert_eq!(message.json(), expected);

    // An hour later the older secret is forgotten.
    sqlx::query("UPDATE alert_deliveries SET state = 'pending'").execute(&pool).await.unwrap();
    assert_eq!(send_due(&pool, later(3_600)).await, 1);
    let message = receiver.received().remove(1);
    assert_eq!(message.headers["webhook-signature"].split(' ').count(), 1);
}
