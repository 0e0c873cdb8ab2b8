//! What is answered 202 counts once, whatever is killed.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use system_tests::receiver::Receiver;
use system_tests::{System, unique, until};

/// Connections.
const CLIENTS: usize = 16;

/// Events of each: 10,000 in all.
const EVENTS: usize = 625;

/// Tokens of each.
const TOKENS: i64 = 7;

/// The quota of those who send again what was not accepted: all that they use. They reach each threshold on their way.
const QUOTA: i64 = 35_000;

/// In percent of it.
const THRESHOLDS: [i64; 10] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100];

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
            let event = json!({ "tenant": careful, "feature": "gpt-4", "tokens": TOKENS, "id": id });
            seen.with_id.lock().unwrap().insert(connection.post_until_accepted(&event));
        } else {
            let event = json!({ "tenant": careless, "feature": "gpt-4", "tokens": TOKENS });
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

/// Kills the workers while one of them records that `tenant` crossed a threshold: what it has counted is not committed,
/// and whoever gets the same events next crosses the threshold again. Answers when that was.
fn kill_while_crossing(system: &System, tenant: &str) -> String {
    // Whoever inserts one of these rows waits for whoever did before, and inserts it after all once that is undone.
    let held = system.hold(&format!(
        "INSERT INTO alerts (tenant, period_start, period_end, threshold, monthly_quota, total_tokens, kind)
         SELECT id, period_start, period_end, threshold, tenants.monthly_quota, 0, 'crossed'
         FROM tenants JOIN usage_periods ON tenant = id, unnest(thresholds) AS threshold
         WHERE id = '{tenant}'
         ON CONFLICT DO NOTHING"
    ));
    let waiting = until("a worker crosses a threshold", || {
        let backends = system.sql(&format!(
            "SELECT pid FROM pg_stat_activity WHERE {} = ANY (pg_blocking_pids(pid))",
            held.backend
        ));
        (!backends.is_empty()).then(|| backends.join(","))
    });
    let recorded = |until: &str| {
        system
            .sql(&format!("SELECT count(*) FROM alerts WHERE tenant = '{tenant}' AND created_at <= {until}"))
    };
    let before = recorded("now()");
    system.kill_all("flagmeter-worker");
    let killed_at = system.sql("SELECT now()").remove(0);
    drop(held);
    until("what the killed worker was at is undone", || {
        let query = format!("SELECT pid FROM pg_stat_activity WHERE pid IN ({waiting})");
        system.sql(&query).is_empty().then_some(())
    });
    assert_eq!(recorded(&format!("'{killed_at}'")), before, "it recorded what it did not count");
    killed_at
}

/// Each threshold was recorded once, and each message told once; more often only by a worker that was killed.
fn assert_alerted_once(system: &System, tenant: &str, receiver: &Receiver, last_kill: &str) {
    let rows = |query: &str| {
        let numbers = |row: &String| row.split('|').map(|number| number.parse().unwrap()).collect();
        system.sql(query).iter().map(numbers).collect::<Vec<Vec<i64>>>()
    };
    let recorded = rows(&format!(
        "SELECT id, threshold, total_tokens, coalesce(superseded_by, 0), monthly_quota
         FROM alerts WHERE tenant = '{tenant}' ORDER BY threshold, id"
    ));
    let thresholds: Vec<i64> = recorded.iter().map(|row| row[1]).collect();
    assert_eq!(thresholds, THRESHOLDS, "{recorded:?}");
    for (place, row) in recorded.iter().enumerate() {
        let [_, threshold, total, superseded_by, quota] = row[..] else { panic!("{row:?}") };
        assert!(quota == QUOTA && total * 100 >= threshold * QUOTA && total <= QUOTA, "{recorded:?}");
        // Of those that one batch crossed the highest is told.
        let with_it = recorded[place..].iter().rfind(|higher| higher[2] == total).unwrap();
        assert_eq!(superseded_by, if with_it == row { 0 } else { with_it[0] }, "{recorded:?}");
    }

    // What a killed worker had in hand is another's once a minute is over; here it is over.
    let _ = system.sql(&format!(
        "UPDATE alert_deliveries SET next_attempt_at = now()
         FROM alerts
         WHERE alerts.id = alert AND tenant = '{tenant}' AND state = 'pending' AND updated_at < '{last_kill}'"
    ));
    let told: Vec<i64> = recorded.iter().filter(|row| row[3] == 0).map(|row| row[2]).collect();
    let deliveries = until("all messages are delivered", || {
        let delivered = rows(&format!(
            "SELECT total_tokens, attempts FROM alert_deliveries JOIN alerts ON alerts.id = alert
             WHERE tenant = '{tenant}' AND channel = 'slack' AND state = 'delivered' ORDER BY total_tokens"
        ));
        (delivered.len() >= told.len()).then_some(delivered)
    });
    assert!(deliveries.iter().map(|row| row[0]).eq(told.iter().copied()), "{told:?} {deliveries:?}");
    let totals: Vec<i64> = receiver.messages().iter().map(total).collect();
    assert!(totals.iter().all(|total| told.contains(total)), "{totals:?} {told:?}");
    for delivery in &deliveries {
        let copies = totals.iter().filter(|total| **total == delivery[0]).count();
        assert!((1..=delivery[1]).contains(&i64::try_from(copies).unwrap()), "{copies} of {delivery:?}");
    }
    println!("{} thresholds, {} messages, {} sent", recorded.len(), told.len(), totals.len());
}

/// The tokens used by the time of which a message tells: "acme has used 20 % of its quota: 7,004 of 35,000 tokens (20 %)."
fn total(message: &Value) -> i64 {
    let text = message["text"].as_str().unwrap();
    let (_, used) = text.split_once("quota: ").unwrap();
    used.split_once(" of ").unwrap().0.replace(',', "").parse().unwrap()
}

#[test]
fn every_acknowledged_event_counts_once_while_worker_valkey_and_postgresql_are_killed() {
    let system = System::running();
    let (careful, careless) = (unique("careful"), unique("careless"));
    let receiver = Receiver::start();
    let alerts = json!({ "alerts": { "thresholds": THRESHOLDS } });
    system.apply_tenant_told_at(&receiver.url(&careful), &careful, QUOTA, &alerts);
    system.apply_tenant(&careless, 1_000_000);
    let seen = Seen::default();
    let last_kill = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (system, seen, careful, careless) = (&system, &seen, &careful, &careless);
            scope.spawn(move || send(system, client, careful, careless, seen));
        }
        let after = |events: usize| {
            until("the clients get on", || (seen.done.load(Ordering::Relaxed) >= events).then_some(()));
        };
        after(1_000);
        let _ = kill_while_crossing(&system, &careful);
        after(2_500);
        system.kill_and_restart("valkey");
        after(4_000);
        let _ = kill_while_crossing(&system, &careful);
        after(5_500);
        system.kill_and_restart("postgres");
        after(7_000);
        kill_while_crossing(&system, &careful)
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
    assert_eq!(system.book(&careful), (events, events * TOKENS));

    assert_eq!(events * TOKENS, QUOTA);
    assert_alerted_once(&system, &careful, &receiver, &last_kill);

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
    assert_eq!(system.book(&careless), (events, events * TOKENS));
    println!(
        "10,000 events: {unknown} without an answer, {} of them counted",
        counted.len() - without_id.len()
    );
}
