//! Deployments roll, scale and heal, and no event is lost by it.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use serde_json::json;
use system_tests::{System, unique, until};

/// Sends events from four connections while `disturb` works; answers how many were accepted.
/// Nothing but 202 is good enough: the clients do not try again.
fn while_events_flow(system: &System, tenant: &str, disturb: impl FnOnce()) -> i64 {
    let (stop, accepted) = (AtomicBool::new(false), AtomicI64::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let client = system.client();
                    while !stop.load(Ordering::Relaxed) {
                        let answer =
                            client.post(&json!({ "tenant": tenant, "feature": "gpt-4", "tokens": 3 }));
                        let answer = answer.inspect_err(|_| stop.store(true, Ordering::Relaxed)).unwrap();
                        assert_eq!(answer.status, 202, "{}", answer.body);
                        accepted.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let enough = |events| {
            until("events flow", || {
                let gone = clients.iter().any(std::thread::ScopedJoinHandle::is_finished);
                (gone || accepted.load(Ordering::Relaxed) >= events).then_some(())
            });
        };
        enough(100);
        disturb();
        enough(accepted.load(Ordering::Relaxed) + 100);
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap();
        }
    });
    accepted.into_inner()
}

fn all_counted(system: &System, tenant: &str, events: i64) {
    until("all events are counted", || (system.usage(tenant)?["totalTokens"] == events * 3).then_some(()));
    assert_eq!(system.book(tenant), (events, events * 3));
}

#[test]
fn three_workers_are_three_processes_and_the_way_back_to_one_loses_nothing() {
    let system = System::running();
    let tenant = unique("scale");
    system.apply_tenant(&tenant, 1_000_000);
    let scale = |replicas: usize| {
        let _ = system.kubectl(&["scale", "deployment/flagmeter-worker", &format!("--replicas={replicas}")]);
        let _ = system.kubectl(&["rollout", "status", "deployment/flagmeter-worker", "--timeout=90s"]);
        until("there are as many processes", || {
            (system.processes("flagmeter-worker").len() == replicas).then_some(())
        });
    };
    let accepted = while_events_flow(&system, &tenant, || {
        scale(3);
        scale(1);
    });
    all_counted(&system, &tenant, accepted);
}

#[test]
fn a_rolling_update_of_the_api_fails_no_request() {
    let system = System::running();
    let tenant = unique("roll");
    system.apply_tenant(&tenant, 1_000_000);
    let before = system.processes("flagmeter-api");
    let accepted = while_events_flow(&system, &tenant, || {
        let _ = system.kubectl(&["rollout", "restart", "deployment/flagmeter-api"]);
        let _ = system.kubectl(&["rollout", "status", "deployment/flagmeter-api", "--timeout=90s"]);
        until("the old processes are gone", || {
            let now = system.processes("flagmeter-api");
            (!now.is_empty() && now.iter().all(|pid| !before.contains(pid))).then_some(())
        });
    });
    all_counted(&system, &tenant, accepted);
}

#[test]
fn a_process_that_dies_is_started_again_and_its_restart_is_counted() {
    let system = System::running();
    let restarts = || {
        let pods = system.kubectl(&[
            "get", "pods", "-l", "app.kubernetes.io/component=operator",
            "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount} {.items[*].status.containerStatuses[0].ready}",
        ]);
        let mut words = pods.split_whitespace();
        let count = words.next()?.parse::<u32>().ok()?;
        (words.next()? == "true").then_some(count)
    };
    let before = until("the operator is ready", restarts);
    system.kill_one("flagmeter-operator");
    until("the operator is back", || restarts().filter(|count| *count == before + 1));
    // And it works: a new tenant becomes Ready.
    system.apply_tenant(&unique("healed"), 1_000);
}
