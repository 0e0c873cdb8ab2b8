//! Workers come with the load and go with it, and no event is lost by it.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::{System, unique, until};

/// So that the test takes a minute: the same rule, with less patience.
const POLICY: &str =
    "intervalSeconds=1,drainSeconds=5,windowSeconds=8,stepSeconds=2,pauseSeconds=5,eventsPerSecond=700";

/// A PostgreSQL that is slow in some way, until this is dropped.
struct Slow<'a>(&'a System, &'static str);

impl<'a> Slow<'a> {
    /// A millisecond or two longer for each event.
    fn for_each_event(system: &'a System) -> Self {
        Self::with(system, "events", "FOR EACH ROW", "PERFORM pg_sleep(0.001)")
    }

    /// 90 ms longer for each transaction of a worker, however few events it counts.
    fn for_each_transaction(system: &'a System) -> Self {
        Self::with(system, "rollups", "FOR EACH STATEMENT", "PERFORM pg_sleep(0.09)")
    }

    /// A second longer for each transaction, and one transaction at a time, from its first statement on: it counts as
    /// much for one worker as for three.
    fn and_one_at_a_time(system: &'a System) -> Self {
        let body = "PERFORM pg_advisory_xact_lock(4711); PERFORM pg_sleep(1)";
        Self::with(system, "applied_batches", "FOR EACH STATEMENT", body)
    }

    fn with(system: &'a System, table: &'static str, each: &str, body: &str) -> Self {
        let _ = system.sql(&format!(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body}; RETURN NEW; END';
             GRANT EXECUTE ON FUNCTION slow() TO flagmeter_worker;
             CREATE TRIGGER slow BEFORE INSERT ON {table} {each} EXECUTE FUNCTION slow();"
        ));
        Self(system, table)
    }
}

impl Drop for Slow<'_> {
    fn drop(&mut self) {
        let Self(system, table) = self;
        let _ = system.sql(&format!("DROP TRIGGER slow ON {table}; DROP FUNCTION slow();"));
    }
}

/// A release whose policy is another, until this is dropped.
struct Upgraded<'a>(&'a System);

impl<'a> Upgraded<'a> {
    fn with(system: &'a System, policy: &str) -> Self {
        let values: Vec<_> = policy.split(',').map(|value| format!("worker.autoscaling.{value}")).collect();
        system.upgrade(&["--set", &values.join(",")]);
        let window = policy.split(',').find_map(|value| value.strip_prefix("windowSeconds="));
        let window: i64 = window.unwrap().parse().unwrap();
        until("it is by this policy that is decided", || {
            let explained = system.explain_scale(&["--json", "--samples", "1"]);
            (explained["limits"]["windowSeconds"] == window).then_some(())
        });
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

/// Requests at an even pace.
#[derive(Clone, Copy)]
struct Pace {
    connections: u32,
    /// A second, of all connections together.
    requests: f64,
    /// Of each request: one is sent as itself, more as a list.
    events: i64,
}

/// 1,000 events/s, when a worker does some 500 of them.
const LISTS: Pace = Pace { connections: 2, requests: 50.0, events: 20 };

/// 200 events/s, each for itself.
const TRICKLE: Pace = Pace { connections: 4, requests: 200.0, events: 1 };

/// Has the clients stop, also if what is watched is not as it should be.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends at `pace` while `watch` does; answers how many events were accepted.
fn under_load(system: &System, tenant: &str, pace: Pace, watch: impl FnOnce()) -> i64 {
    let (stop, accepted) = (AtomicBool::new(false), AtomicI64::new(0));
    let event = json!({ "tenant": tenant, "feature": "gpt-4", "tokens": 3 });
    let body = match pace.events {
        1 => event,
        more => Value::Array(vec![event; usize::try_from(more).unwrap()]),
    };
    std::thread::scope(|scope| {
        let send = || {
            let client = system.client();
            let begin = Instant::now();
            let mut requests = 0.0;
            while !stop.load(Ordering::Relaxed) {
                let due = Duration::from_secs_f64(requests * f64::from(pace.connections) / pace.requests);
                std::thread::sleep(due.saturating_sub(begin.elapsed()));
                let answer = client.post(&body).unwrap();
                assert_eq!(answer.status, 202, "{}", answer.body);
                accepted.fetch_add(pace.events, Ordering::Relaxed);
                requests += 1.0;
            }
        };
        let clients: Vec<_> = (0..pace.connections).map(|_| scope.spawn(send)).collect();
        {
            let _stopping = Stop(&stop);
            watch();
        }
        for client in clients {
            client.join().unwrap();
        }
    });
    accepted.into_inner()
}

/// What the operator recorded of the last `seconds`, oldest first.
fn records(system: &System, seconds: i64) -> Vec<Value> {
    let since = (system_tests::now() - jiff::SignedDuration::from_secs(seconds)).to_string();
    let explained = system.explain_scale(&["--json", "--samples", "2000"]);
    let records = explained["records"].as_array().unwrap().iter();
    records.filter(|record| record["sample"]["at"].as_str() > Some(since.as_str())).cloned().collect()
}

#[test]
fn two_hundred_events_a_second_in_small_transactions_are_one_worker_s_work() {
    let system = System::running();
    let tenant = unique("trickle");
    system.apply_tenant(&tenant, 1_000_000_000);
    if workers(&system) > 1 {
        // Earlier tests left them; with less patience they go sooner.
        let _upgraded = Upgraded::with(&system, POLICY);
        until("nothing needs a second worker", || (workers(&system) == 1).then_some(()));
    }
    let slow = Slow::for_each_transaction(&system);
    let accepted = under_load(&system, &tenant, TRICKLE, || {
        // Three minutes, since that is the window in which the rule makes up its mind.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_mins(3) {
            let (there, wanted) = (system.processes("flagmeter-worker").len(), workers(&system));
            assert!(
                there <= 1 && wanted == 1,
                "{there} of {wanted} after {:?}: {}",
                begin.elapsed(),
                why(&system)
            );
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    drop(slow);
    until("all events are counted", || (system.usage(&tenant)?["totalTokens"] == accepted * 3).then_some(()));
    assert_eq!(system.book(&tenant), (accepted, accepted * 3));
    assert!(accepted >= 180 * 150, "{accepted} were sent, which is not the load that is meant");
    // What was seen is a worker that is busy with small transactions, and not a slow one.
    let seen = records(&system, 170);
    let estimates: Vec<&Value> = seen.iter().map(|record| &record["decision"]["estimate"]).collect();
    assert!(seen.iter().all(|record| record["decision"]["replicas"] == 1), "{seen:#?}");
    let numbers = |name: &str| estimates.iter().filter_map(|one| one[name].as_f64()).collect::<Vec<_>>();
    assert!(numbers("serviceRate").is_sorted(), "it was believed to become slower: {estimates:?}");
    assert!(numbers("batch").iter().all(|batch| *batch < 100.0), "{estimates:?}");
    assert!(numbers("batch").len() > 20, "{estimates:?}");
}

/// What was recorded, a line for each: when, workers that are ready, events that wait, μ, and the reason.
fn told(records: &[Value]) -> String {
    let line = |record: &Value| {
        let (sample, estimate) = (&record["sample"], &record["decision"]["estimate"]);
        let (ready, reason) = (&sample["fleet"]["ready"], &record["decision"]["reason"]);
        format!("{} {ready} {} {} {reason}", sample["at"], estimate["backlog"], estimate["serviceRate"])
    };
    records.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The last decision, in words.
fn why(system: &System) -> Value {
    system.explain_scale(&["--json"])["sentence"].clone()
}

/// Events of the flood: what the rule needs to see that more workers drain it no sooner, a debug build being slow.
const FLOOD: i64 = 800_000;

#[test]
fn a_flood_that_more_workers_drain_no_sooner_is_left_to_as_many_as_it_takes() {
    let system = System::running();
    let tenant = unique("flood");
    system.apply_tenant(&tenant, 1_000_000_000);
    // Others are started after 10 s only, so that it is known by then what one does alone while the flood is there.
    let upgraded = Upgraded::with(&system, &format!("{POLICY},waitSeconds=10,retrySeconds=60"));
    until("nothing needs a second worker", || (workers(&system) == 1).then_some(()));
    let begin = Instant::now();
    let slow = Slow::and_one_at_a_time(&system);
    let event = json!({ "tenant": tenant, "feature": "gpt-4", "tokens": 3 });
    let list = Value::Array(vec![event; 1_000]);
    let client = system.client();
    for _ in 0..FLOOD / 1_000 {
        let answer = client.post(&list).unwrap();
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
    let flooded = begin.elapsed();
    println!("{FLOOD} events were sent in {flooded:?}");
    let backlog = || {
        let explained = system.explain_scale(&["--json", "--samples", "1"]);
        explained["decision"]["estimate"]["backlog"].as_u64()
    };
    until("one worker is left to drain the rest", || {
        let waits = backlog()?;
        let recorded = records(&system, i64::try_from(begin.elapsed().as_secs()).unwrap());
        assert!(waits > 0, "the flood was over before:\n{}", told(&recorded));
        let no_gain = |record: &Value| record["decision"]["reason"]["noGain"].is_object();
        (recorded.iter().any(no_gain) && workers(&system) == 1).then_some(())
    });
    until("all events are counted", || (system.usage(&tenant)?["totalTokens"] == FLOOD * 3).then_some(()));
    drop(slow);
    assert_eq!(system.book(&tenant), (FLOOD, FLOOD * 3));
    // That more made nothing faster is not for the next test to remember.
    system.upgrade(&["--set", "worker.autoscaling.retrySeconds=1"]);
    until("more may be tried again", || {
        let explained = system.explain_scale(&["--json", "--samples", "1"]);
        let recorded = &explained["limits"]["retrySeconds"];
        (*recorded == 1 && explained["decision"]["estimate"]["bound"] == "minimum").then_some(())
    });
    drop(upgraded);
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

    let slow = Slow::for_each_event(&system);
    let mut most = 0;
    let accepted = under_load(&system, &tenant, LISTS, || {
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
