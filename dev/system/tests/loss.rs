//! What is answered 202 counts once, whatever is killed.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use system_tests::{System, unique, until};

/// Connections.
const CLIENTS: usize = 16;

/// Events of each: 10,000 in all.
const EVENTS: usize = 625;

/// What the clients saw.
#[derive(Default)]
struct Seen {
    /// Requests that were answered, or will never be.
    done: AtomicUsize,
    /// Ids answered 202, of events that were sent with an id and again until they were.
    with_id: Mutex<BTreeSet<String>>,
    /// Ids answered 202, of events that were sent once and without an id.
    without_id: Mutex<BTreeSet<String>>,
    /// Events without an id for which there was no answer: they may count, once.
    unknown: AtomicUsize,
}

/// Half of the clients do as they should: their events carry an id, and are sent again until they
/// are accepted. The other half sends each once, and hopes.
fn send(system: &System, client: usize, careful: &str, careless: &str, seen: &Seen) {
    let connection = system.client();
    for number in 0..EVENTS {
        if client.is_multiple_of(2) {
            // A UUID, so that the event is kept under the id as it is.
            let id = format!("{client:08x}-0000-4000-8000-{number:012x}");
            let event = json!({ "tenant": careful, "feature": "gpt-4", "tokens": 7, "id": id });
            seen.with_id.lock().unwrap().insert(connection.post_until_accepted(&event));
        } else {
            let event = json!({ "tenant": careless, "feature": "gpt-4", "tokens": 7 });
            match connection.post(&event) {
                Ok(answer) if answer.status == 202 => {
                    seen.without_id.lock().unwrap().insert(answer.json()["id"].as_str().unwrap().to_owned());
                }
                // 503 says "may not have been counted".
                _ => drop(seen.unknown.fetch_add(1, Ordering::Relaxed)),
            }
        }
        seen.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The ids in `events`, each as often as it is there.
fn ids(system: &System, tenant: &str) -> Vec<String> {
    system.sql(&format!("SELECT id FROM events WHERE tenant = '{tenant}' ORDER BY id"))
}

#[test]
fn every_acknowledged_event_counts_once_while_worker_valkey_and_postgresql_are_killed() {
    let system = System::running();
    let (careful, careless) = (unique("careful"), unique("careless"));
    system.apply_tenant(&careful, 1_000_000);
    system.apply_tenant(&careless, 1_000_000);
    let seen = Seen::default();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (system, seen, careful, careless) = (&system, &seen, &careful, &careless);
            scope.spawn(move || send(system, client, careful, careless, seen));
        }
        let after = |events: usize| {
            until("the clients get on", || (seen.done.load(Ordering::Relaxed) >= events).then_some(()));
        };
        after(1_000);
        system.kill_one("flagmeter-worker");
        after(2_500);
        system.kill_and_restart("valkey");
        after(4_000);
        system.kill_one("flagmeter-worker");
        after(5_500);
        system.kill_and_restart("postgres");
        after(7_000);
        system.kill_one("flagmeter-worker");
    });

    let with_id = seen.with_id.into_inner().unwrap();
    let without_id = seen.without_id.into_inner().unwrap();
    let unknown = seen.unknown.into_inner();
    assert_eq!(with_id.len(), CLIENTS / 2 * EVENTS);
    assert_eq!(without_id.len() + unknown, CLIENTS / 2 * EVENTS);
    until("everything is counted", || {
        let counted = |tenant: &str, acknowledged: &BTreeSet<String>| {
            let ids: BTreeSet<String> = ids(&system, tenant).into_iter().collect();
            acknowledged.is_subset(&ids)
        };
        (counted(&careful, &with_id) && counted(&careless, &without_id)).then_some(())
    });

    // With an id: exactly what was sent, however often.
    let counted = ids(&system, &careful);
    assert_eq!(counted.len(), with_id.len());
    assert_eq!(counted.into_iter().collect::<BTreeSet<_>>(), with_id);
    let events = i64::try_from(with_id.len()).unwrap();
    assert_eq!(system.book(&careful), (events, events * 7));

    // Without: everything acknowledged, nothing twice, and at most those that were cut off beside it.
    let counted = ids(&system, &careless);
    let distinct: BTreeSet<String> = counted.iter().cloned().collect();
    assert_eq!(distinct.len(), counted.len());
    assert!(
        counted.len() <= without_id.len() + unknown,
        "{} of {} and {unknown}",
        counted.len(),
        without_id.len()
    );
    let events = i64::try_from(counted.len()).unwrap();
    assert_eq!(system.book(&careless), (events, events * 7));
    println!(
        "10,000 events: {unknown} without an answer, {} of them counted",
        counted.len() - without_id.len()
    );
}
