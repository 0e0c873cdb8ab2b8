//! Workers come with the load and go with it, and no event is lost by it.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::{System, unique, until};

/// Events of a request.
const EVENTS: i64 = 20;

/// Requests a second: 1,000 events/s, when a worker does some 500 of them.
const PACE: f64 = 50.0;

/// So that the test takes a minute: the same rule, with less patience.
const POLICY: &str =
    "intervalSeconds=1,drainSeconds=5,windowSeconds=8,stepSeconds=2,pauseSeconds=5,eventsPerSecond=700";

/// A PostgreSQL that takes a millisecond or two longer for each event, until this is dropped.
struct Slow<'a>(&'a System);

impl<'a> Slow<'a> {
    fn postgres(system: &'a System) -> Self {
        let _ = system.sql(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_sleep(0.001); RETURN NEW; END';
             GRANT EXECUTE ON FUNCTION slow() TO flagmeter_worker;
             CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow();",
        );
        Self(system)
    }
}

impl Drop for Slow<'_> {
    fn drop(&mut self) {
        let _ = self.0.sql("DROP TRIGGER slow ON events; DROP FUNCTION slow();");
    }
}

/// A release whose policy is another, until this is dropped.
struct Upgraded<'a>(&'a System);

impl<'a> Upgraded<'a> {
    fn with(system: &'a System, policy: &str) -> Self {
        let values: Vec<_> = policy.split(',').map(|value| format!("worker.autoscaling.{value}")).collect();
        system.upgrade(&["--set", &values.join(",")]);
        Self(system)
    }
}

impl Drop for Upgraded<'_> {
    fn drop(&mut self) {
        self.0.upgrade(&[]);
    }
}

fn workers(system: &System) -> i64 {
    system.resource("deployment/flagmeter-worker")["spec"]["replicas"].as_i64().unwrap()
}

/// Sends at an even pace from two connections while `watch` does; answers how many events were accepted.
fn under_load(system: &System, tenant: &str, watch: impl FnOnce()) -> i64 {
    let (stop, accepted) = (AtomicBool::new(false), AtomicI64::new(0));
    let event = json!({ "tenant": tenant, "feature": "gpt-4", "tokens": 3 });
    let events = Value::Array(vec![event; usize::try_from(EVENTS).unwrap()]);
    std::thread::scope(|scope| {
        let clients = [0, 1].map(|_| {
            scope.spawn(|| {
                let client = system.client();
                let begin = Instant::now();
                let mut requests = 0.0;
                while !stop.load(Ordering::Relaxed) {
                    let due = Duration::from_secs_f64(requests / (PACE / 2.0));
                    std::thread::sleep(due.saturating_sub(begin.elapsed()));
                    let answer = client.post(&events).unwrap();
                    assert_eq!(answer.status, 202, "{}", answer.body);
                    accepted.fetch_add(EVENTS, Ordering::Relaxed);
                    requests += 1.0;
                }
            })
        });
        watch();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap();
        }
    });
    accepted.into_inner()
}

#[test]
fn workers_come_with_the_load_and_go_with_it_and_no_event_is_lost() {
    let system = System::running();
    let tenant = unique("load");
    system.apply_tenant(&tenant, 1_000_000_000);
    let upgraded = Upgraded::with(&system, POLICY);
    // One is enough to begin with, whatever earlier tests left.
    until("nothing needs a second worker", || (workers(&system) == 1).then_some(()));
    let begin =
        system.explain_scale(&["--json"])["records"].as_array().unwrap().last().unwrap()["sample"]["at"]
            .clone();

    let slow = Slow::postgres(&system);
    let mut most = 0;
    let accepted = under_load(&system, &tenant, || {
        until("there are three workers", || {
            most = most.max(system.processes("flagmeter-worker").len());
            (most == 3).then_some(())
        });
    });
    // They drain what is left, as slow as PostgreSQL is.
    until("all events are counted", || (system.usage(&tenant)?["totalTokens"] == accepted * 3).then_some(()));
    drop(slow);
    until("one worker is left", || (system.processes("flagmeter-worker").len() == 1).then_some(()));
    assert_eq!(system.book(&tenant), (accepted, accepted * 3));

    // What was recorded is what happened.
    let explained = system.explain_scale(&["--json", "--samples", "1000"]);
    assert_eq!(explained["decision"]["replicas"], workers(&system), "{explained}");
    assert_eq!(explained["decision"]["replicas"], 1);
    let since = |record: &&Value| record["sample"]["at"].as_str() > begin.as_str();
    let records: Vec<&Value> = explained["records"].as_array().unwrap().iter().filter(since).collect();
    let number = |record: &Value, name: &str| record["decision"][name].as_i64().unwrap();
    let moves: Vec<bool> = records
        .iter()
        .filter(|record| number(record, "replicas") != number(record, "current"))
        .map(|record| number(record, "replicas") > number(record, "current"))
        .collect();
    let reversals = moves.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(moves[0] && reversals <= 1, "{moves:?}");
    assert_eq!(records.iter().map(|record| number(record, "replicas")).max(), Some(3));
    // A worker's speed was measured, and is what PostgreSQL's slowness makes of it.
    let estimate = &explained["decision"]["estimate"];
    let rate = estimate["serviceRate"].as_f64().unwrap();
    assert!(estimate["measured"] == true && (50.0..1_500.0).contains(&rate), "{estimate}");
    until("the ConfigMap says so, too", || {
        (system.resource("configmap/flagmeter-scaler")["data"]["replicas"] == "1").then_some(())
    });
    let events = system.kubectl(&["get", "events", "--field-selector=involvedObject.name=flagmeter-worker"]);
    assert!(events.contains("Grown") && events.contains("Shrunk"), "{events}");
    drop(upgraded);
}
