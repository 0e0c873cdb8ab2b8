//! What is accepted while a server is away, or full, counts when it is back.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::{System, unique, until};

/// How long PostgreSQL is away.
const AWAY: Duration = Duration::from_mins(2);

/// How long Valkey is away: longer than it may take until nobody waits for it.
const VALKEY_AWAY: Duration = Duration::from_secs(12);

/// How much a worker's memory may grow meanwhile: a batch's worth, not a queue's.
const GROWTH_BYTES: u64 = 16 << 20;

/// What Valkey may use in the dev system.
const VALKEY_BYTES: u64 = 512 << 20;

/// Events in a request.
const BATCH: i64 = 20;

/// Sends events with ids, each batch until it is accepted, until told to stop.
fn send(system: &System, tenant: &str, number: usize, stop: &AtomicBool, accepted: &AtomicI64) {
    let connection = system.client();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let event = |place: i64| {
            let id = format!("{number}-{}", sent + place);
            json!({ "tenant": tenant, "feature": "chat", "tokens": 3, "id": id })
        };
        let _ = connection.post_until_accepted(&(0..BATCH).map(event).collect());
        sent += BATCH;
        accepted.fetch_add(BATCH, Ordering::Relaxed);
        // A load, and no race: the queue has room for what comes in two minutes.
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn all_counted(system: &System, tenant: &str, events: i64) {
    let count = format!("SELECT count(*) FROM events WHERE tenant = '{tenant}'");
    until("everything is counted", || (system.sql(&count) == [events.to_string()]).then_some(()));
    assert_eq!(system.book(tenant), (events, events * 3));
}

#[test]
fn while_postgresql_is_away_for_two_minutes_events_are_accepted_also_by_a_new_api_and_count_after() {
    let system = System::running();
    let tenant = unique("away");
    system.apply_tenant(&tenant, 1_000_000_000);
    let (stop, accepted) = (AtomicBool::new(false), AtomicI64::new(0));
    let flows = |what: &str, more: i64| {
        let goal = accepted.load(Ordering::Relaxed) + more;
        until(what, || (accepted.load(Ordering::Relaxed) >= goal).then_some(()));
    };
    let counted = |what: &str| {
        until(what, || (system.usage(&tenant)?["totalTokens"].as_i64()? > 0).then_some(()));
    };
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (system, tenant, stop, accepted) = (&system, &tenant, &stop, &accepted);
            scope.spawn(move || send(system, tenant, number, stop, accepted));
        }
        counted("events are counted before");
        let before = system.memory("flagmeter-worker");
        let outage = scope.spawn(|| system.kill_for("postgres", AWAY));
        flows("events flow without PostgreSQL", 1_000);
        system.kill_one("flagmeter-api");
        flows("a new api takes events without PostgreSQL", 1_000);
        let mut largest = 0;
        while !outage.is_finished() {
            flows("events flow for as long as PostgreSQL is away", 100);
            largest = largest.max(system.memory("flagmeter-worker"));
        }
        outage.join().unwrap();
        assert!(largest < before + GROWTH_BYTES, "a worker grew from {before} to {largest} bytes");
        flows("events flow after it", 200);
        stop.store(true, Ordering::Relaxed);
    });
    let accepted = accepted.into_inner();
    assert!(accepted > 20_000, "{accepted} are too few to tell");
    all_counted(&system, &tenant, accepted);
}

#[test]
fn while_valkey_is_away_usage_is_read_events_are_told_to_come_again_and_no_connection_is_refused() {
    let system = System::running();
    let tenant = unique("silent");
    system.apply_tenant(&tenant, 1_000_000_000);
    let event =
        |number: i64| json!({ "tenant": tenant, "feature": "chat", "tokens": 3, "id": format!("{number}") });
    let _ = system.client().post_until_accepted(&event(0));
    until("the event is counted", || (system.usage(&tenant)?["totalTokens"] == 3).then_some(()));
    let (mut sent, mut refused) = (1, 0);
    let returned = std::thread::scope(|scope| {
        let outage = scope.spawn(|| {
            system.kill_for("valkey", VALKEY_AWAY);
            Instant::now()
        });
        while !outage.is_finished() {
            // Connections of their own, as new clients have.
            let usage = system.client().get(&format!("/usage/{tenant}")).unwrap();
            assert_eq!(usage.status, 200, "{}", usage.body);
            assert!(usage.json()["totalTokens"].as_i64().unwrap() >= 3, "{}", usage.body);
            let answer = system.client().post(&event(sent)).unwrap();
            if answer.status == 202 {
                sent += 1;
            } else {
                let said = (answer.status, answer.json()["code"].clone(), answer.retry_after.as_deref());
                assert_eq!(said, (503, json!("queue_unavailable"), Some("1")), "{}", answer.body);
                refused += 1;
            }
            // A load, and no race.
            std::thread::sleep(Duration::from_millis(50));
        }
        outage.join().unwrap()
    });
    let _ = system.client().post_until_accepted(&event(sent));
    assert!(returned.elapsed() < Duration::from_secs(2), "{:?} after its return", returned.elapsed());
    // Most of the time senders get their answer at once, and not after the time that a flush is tried for.
    assert!(refused > 20, "{refused}");
    all_counted(&system, &tenant, sent + 1);
}

#[test]
fn a_valkey_that_is_full_refuses_events_lets_the_queue_be_drained_and_takes_events_again() {
    let system = System::running();
    let tenant = unique("full");
    system.apply_tenant(&tenant, 1_000_000_000);
    let client = system.client();
    let batch = |number: i64| -> serde_json::Value {
        let event = |place: i64| json!({ "tenant": tenant, "feature": "chat", "tokens": 3, "id": format!("{number}-{place}") });
        (0..BATCH).map(event).collect()
    };
    let mut accepted = 0;
    for number in 0..50 {
        let _ = client.post_until_accepted(&batch(number));
        accepted += BATCH;
    }
    // Less than it uses: it refuses every command that needs memory from this moment on.
    system.limit_valkey(1);
    let mut number = 50;
    let refused = until("events are refused", || {
        let answer = client.post(&batch(number)).unwrap();
        if answer.status == 202 {
            accepted += BATCH;
            number += 1;
            return None;
        }
        Some(answer)
    });
    assert_eq!(refused.status, 503, "{}", refused.body);
    until("the api says that the queue is full", || {
        (client.post(&batch(number)).unwrap().json()["code"] == "queue_full").then_some(())
    });
    all_counted(&system, &tenant, accepted);

    system.limit_valkey(VALKEY_BYTES);
    let _ = client.post_until_accepted(&batch(number));
    all_counted(&system, &tenant, accepted + BATCH);
}
