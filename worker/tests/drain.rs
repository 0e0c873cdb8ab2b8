//! The worker's loop over a real PostgreSQL and a real Valkey.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagmeter_core::event::UsageEvent;
use flagmeter_core::packed::Unreadable;
use flagmeter_core::quota::MAX_TOKENS;
use flagmeter_runtime::admin::Readiness;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::postgres::audit::{Book, books};
use flagmeter_store::postgres::batch::Counter;
use flagmeter_store::postgres::dead_letters;
use flagmeter_store::postgres::retention::Limits;
use flagmeter_store::queue::EventQueue;
use flagmeter_store::{PgPool, testing};
use flagmeter_worker::drain::{DATABASE, Drain, QUEUE, Work};
use flagmeter_worker::metrics::Metrics;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a test waits for something that takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A queue of this test's own, as its name.
fn stream() -> String {
    format!("flagmeter:test:{}", Uuid::now_v7())
}

/// A worker that runs.
struct Worker {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
    registry: prometheus::Registry,
    readiness: Readiness,
}

impl Worker {
    /// What it says of the queue's length, in entries.
    fn queue_entries(&self) -> Option<u64> {
        self.metric("flagmeter_worker_queue_entries")
    }

    /// A metric, named with its labels.
    fn metric(&self, name: &str) -> Option<u64> {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }
}

/// Starts a worker. Its connections are its own, and die with it, as a process's do.
fn start(database: &PgPool, stream: &str, consumer: &str) -> Worker {
    let connections = sqlx::postgres::PgPoolOptions::new().max_connections(2);
    let pool = connections.connect_lazy_with(database.connect_options().as_ref().clone());
    let registry = prometheus::Registry::new();
    let readiness = Readiness::of(&[DATABASE, QUEUE]);
    let drain = Drain {
        reader: testing::queue_named(stream).unwrap(),
        queue: testing::queue_named(stream).unwrap(),
        counter: Counter::new(pool.clone()),
        pool,
        consumer: consumer.to_owned(),
        clock: Clock::fixed(testing::NOON.parse().unwrap()),
        metrics: Metrics::register(&registry).unwrap(),
        readiness: readiness.clone(),
        work: Work::default(),
        keep: Limits::default(),
        left_behind: Duration::from_secs(1),
    };
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let task = tokio::spawn(async move { drain.run(&stop).await });
    Worker { task, shutdown, registry, readiness }
}

async fn push(queue: &EventQueue, number: u128, tenant: &str) {
    let entry = testing::entry(number, [testing::event(tenant, 1), testing::event(tenant, 10)]);
    queue.push(&entry.batch.encode(), 2).await.unwrap();
}

async fn until(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !probe().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The tenant's book, which must balance.
async fn book(pool: &PgPool, tenant: &str) -> Book {
    let book = books(pool).await.unwrap().into_iter().find(|book| book.tenant == tenant).unwrap();
    assert!(book.balances(), "{book:?}");
    book
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn what_is_queued_is_counted_and_leaves_the_queue(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let stream = stream();
    let queue = testing::queue_named(&stream).unwrap();
    for number in 1..=100 {
        push(&queue, number, "acme").await;
    }
    let worker = start(&pool, &stream, "a");
    until("the queue is empty", async || queue.depth().await.unwrap() == 0).await;
    assert_eq!(book(&pool, "acme").await.event_tokens, 1_100);
    worker.shutdown.cancel();
    worker.task.await.unwrap();
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn what_waits_in_many_small_entries_is_counted_by_one_transaction(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let stream = stream();
    let queue = testing::queue_named(&stream).unwrap();
    for number in 1..=1_000 {
        push(&queue, number, "acme").await;
    }
    let worker = start(&pool, &stream, "a");
    until("the queue is empty", async || queue.depth().await.unwrap() == 0).await;
    assert_eq!(book(&pool, "acme").await.events, 2_000);
    let transactions: i64 =
        sqlx::query_scalar("SELECT count(DISTINCT xmin::text) FROM events").fetch_one(&pool).await.unwrap();
    assert_eq!(transactions, 1);
    worker.shutdown.cancel();
    worker.task.await.unwrap();
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_worker_that_is_killed_again_and_again_counts_each_event_once(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let stream = stream();
    let queue = Arc::new(testing::queue_named(&stream).unwrap());
    queue.create_group().await.unwrap();
    let pushing = Arc::clone(&queue);
    let pushed = tokio::spawn(async move {
        for number in 1..=600 {
            push(&pushing, number, "acme").await;
        }
    });
    let mut kills = 0;
    let mut worker = start(&pool, &stream, "a");
    while !pushed.is_finished() || queue.depth().await.unwrap() > 0 {
        // Each lives a little longer than the one before, so that they are cut off at different steps,
        // and the last ones live long enough to finish. The next goes on under the same name.
        kills += 1;
        let life = Duration::from_millis(5 * kills);
        assert!(life < PATIENCE / 10, "the queue does not get empty");
        let _ = tokio::time::timeout(life, &mut worker.task).await;
        worker.task.abort();
        worker = start(&pool, &stream, "a");
    }
    pushed.await.unwrap();
    worker.shutdown.cancel();
    worker.task.await.unwrap();
    assert!(kills >= 3, "only {kills} kills");
    let book = book(&pool, "acme").await;
    assert_eq!((book.events, book.event_tokens), (1_200, 6_600));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn entries_that_cannot_be_read_are_kept_and_block_nothing(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let stream = stream();
    let queue = testing::queue_named(&stream).unwrap();
    queue.push(b"not an entry", 1).await.unwrap();
    push(&queue, 1, "acme").await;
    queue.push(&[], 1).await.unwrap();
    let mut damaged = testing::entry(2, [testing::event("acme", 100)]).batch.encode();
    damaged[30] ^= 1;
    queue.push(&damaged, 1).await.unwrap();
    push(&queue, 3, "acme").await;
    let worker = start(&pool, &stream, "a");
    until("the queue is empty", async || queue.depth().await.unwrap() == 0).await;
    assert_eq!(book(&pool, "acme").await.event_tokens, 22);
    let letters: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT reason, payload FROM dead_letters ORDER BY id")
            .fetch_all(&pool)
            .await
            .unwrap();
    let expected = [
        ("unknown_version", b"not an entry".to_vec()),
        ("malformed", Vec::new()),
        ("wrong_checksum", damaged),
    ];
    assert_eq!(letters, expected.map(|(reason, payload)| (reason.to_owned(), payload)));
    worker.shutdown.cancel();
    worker.task.await.unwrap();
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_entry_that_cannot_be_read_is_counted_once_however_often_its_hand_is_tried(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    for statement in [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE SQLSTATE '57P03'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON applied_batches EXECUTE FUNCTION refuse()",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let stream = stream();
    let queue = testing::queue_named(&stream).unwrap();
    queue.create_group().await.unwrap();
    queue.push(b"not an entry", 1).await.unwrap();
    push(&queue, 1, "acme").await;
    let worker = start(&pool, &stream, "a");
    let failures = r#"flagmeter_worker_failures_total{step="apply"}"#;
    until("the hand was tried again", async || worker.metric(failures) >= Some(3)).await;
    sqlx::query("DROP TRIGGER refuse ON applied_batches").execute(&pool).await.unwrap();
    until("the queue is empty", async || queue.depth().await.unwrap() == 0).await;
    assert_eq!(worker.metric("flagmeter_worker_entries_unreadable_total"), Some(1));
    assert_eq!(book(&pool, "acme").await.event_tokens, 11);
    worker.shutdown.cancel();
    worker.task.await.unwrap();
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_worker_whose_password_is_wrong_says_so_and_not_that_postgresql_is_away(pool: PgPool) {
    let wrong = pool.connect_options().as_ref().clone().password("wrong");
    let refused = sqlx::postgres::PgPoolOptions::new().connect_lazy_with(wrong);
    let worker = start(&refused, &stream(), "a");
    until("its readiness says so", async || {
        worker.readiness.report().contains(
            "[-] database: PostgreSQL refuses the login: correct the user, the password or the database in DATABASE_URL",
        )
    })
    .await;
    worker.shutdown.cancel();
    worker.task.await.unwrap();
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_worker_that_waits_for_postgresql_goes_on_saying_how_much_waits(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let stream = stream();
    let queue = testing::queue_named(&stream).unwrap();
    let mut held = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    push(&queue, 1, "acme").await;
    let worker = start(&pool, &stream, "a");
    // Long enough in hand to count as left behind, so that it takes over its own entries, and waits with them too.
    for entries in [1, 2, 3] {
        until("the metric follows the queue", async || worker.queue_entries() == Some(entries)).await;
        push(&queue, u128::from(entries) + 1, "acme").await;
    }
    held.rollback().await.unwrap();
    until("the queue is empty", async || queue.depth().await.unwrap() == 0).await;
    assert_eq!(book(&pool, "acme").await.event_tokens, 44);
    worker.shutdown.cancel();
    worker.task.await.unwrap();
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_worker_told_to_stop_finishes_what_it_has_and_leaves_the_rest(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let stream = stream();
    let queue = testing::queue_named(&stream).unwrap();
    queue.create_group().await.unwrap();
    // Several transactions' worth.
    for number in 1..=400 {
        let events: [_; 300] = std::array::from_fn(|_| testing::event("acme", 1));
        queue.push(&testing::entry(number, events).batch.encode(), 300).await.unwrap();
    }
    let worker = start(&pool, &stream, "a");
    until("some are counted", async || queue.depth().await.unwrap() < 400).await;
    worker.shutdown.cancel();
    worker.task.await.unwrap();
    // Nothing is in anybody's hands: what is not counted waits for the next worker.
    assert_eq!(queue.pending("a", None, 10).await.unwrap(), []);
    let left = queue.depth().await.unwrap();
    let counted = book(&pool, "acme").await.events;
    assert!(left > 0);
    assert_eq!(u64::try_from(counted).unwrap() + left * 300, 120_000);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn while_one_tenant_sends_events_that_cannot_be_counted_the_others_are_counted_within_a_second(
    pool: PgPool,
) {
    for tenant in ["acme", "poisonous"] {
        testing::add_tenant(&pool, tenant).await;
    }
    let stream = stream();
    let queue = testing::queue_named(&stream).unwrap();
    let worker = start(&pool, &stream, "a");
    let occurred_at = "2026-05-16T12:00:00Z".parse().unwrap();
    let largest = UsageEvent { occurred_at, ..testing::event("poisonous", MAX_TOKENS) };
    let list = |number| {
        let mut entry = testing::entry(1_000 + number, []);
        entry.batch.events = vec![largest.clone(); 1_000];
        entry.batch.encode()
    };
    for number in 1..=20_u128 {
        if number % 4 == 1 {
            queue.push(&list(number), 1_000).await.unwrap();
        }
        let sent = Instant::now();
        push(&queue, number, "acme").await;
        let counted = i64::try_from(number).unwrap() * 2;
        until("the other's event is counted", async || {
            let events = sqlx::query_scalar::<_, Option<i64>>(
                "SELECT sum(events)::bigint FROM usage_periods WHERE tenant = 'acme'",
            );
            events.fetch_one(&pool).await.unwrap() == Some(counted)
        })
        .await;
        assert!(sent.elapsed() < Duration::from_secs(1), "{number}: {:?}", sent.elapsed());
    }
    until("the queue is empty", async || queue.depth().await.unwrap() == 0).await;
    assert_eq!(book(&pool, "poisonous").await.dead_letters, 4_999);
    worker.shutdown.cancel();
    worker.task.await.unwrap();
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_entry_that_an_older_worker_could_not_read_is_counted_once_by_one_that_can(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let entry = testing::entry(1, [testing::event("acme", 0), testing::event("acme", 7)]);
    let keep = async |entry_id: &str, payload: &[u8], reason: Unreadable| {
        dead_letters::add_unreadable(&pool, entry_id, payload, reason).await.unwrap();
    };
    // The same entry twice, since the api may push one twice; one that was counted by another worker; and one that nobody
    // can read.
    keep("1-0", &entry.batch.encode(), Unreadable::Malformed).await;
    keep("2-0", &entry.batch.encode(), Unreadable::Version(1)).await;
    let counted = testing::entry(2, [testing::event("acme", 100)]);
    keep("3-0", &counted.batch.encode(), Unreadable::Malformed).await;
    Counter::new(pool.clone()).apply(&[counted]).await.unwrap();
    keep("4-0", b"nothing", Unreadable::Malformed).await;

    let worker = start(&pool, &stream(), "a");
    let letters = async || -> Vec<String> {
        sqlx::query_scalar("SELECT entry_id FROM dead_letters ORDER BY id").fetch_all(&pool).await.unwrap()
    };
    until("only what nobody can read is left", async || letters().await == ["4-0"]).await;
    let book = book(&pool, "acme").await;
    assert_eq!((book.events, book.event_tokens), (3, 107));
    worker.shutdown.cancel();
    worker.task.await.unwrap();
}
