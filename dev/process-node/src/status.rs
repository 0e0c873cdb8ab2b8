//! What a pod's status is, given the records of its containers. No I/O.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::record::{self, RestartPolicy};

/// The machine's address, as the Node and its pods tell it.
pub const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// All that is known of a pod here.
#[derive(Debug, Clone, PartialEq)]
pub struct PodRecord {
    /// The init containers, in order.
    pub init: Vec<ContainerStatus>,
    /// The containers.
    pub main: Vec<ContainerStatus>,
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// When this node first saw the pod.
    pub start_time: Time,
    /// No container will start again, whatever the restart policy says: the pod is being deleted.
    pub over: bool,
}

/// The status of `pod`, whose conditions were `before`.
#[must_use]
pub fn of(pod: &Pod, record: &PodRecord, before: &[PodCondition], now: &Time) -> PodStatus {
    let phase = phase(record, RestartPolicy::of(pod));
    // An init container is ready once it is done.
    let init =
        record.init.iter().map(|status| ContainerStatus { ready: succeeded(status), ..status.clone() });
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(phase, record, before, now)),
        init_container_statuses: Some(init.collect::<Vec<_>>()).filter(|init| !init.is_empty()),
        container_statuses: Some(record.main.clone()),
        host_ip: Some(HOST.to_string()),
        host_ips: Some(vec![HostIP { ip: HOST.to_string() }]),
        pod_ip: Some(record.ip.to_string()),
        pod_ips: Some(vec![PodIP { ip: record.ip.to_string() }]),
        start_time: Some(record.start_time.clone()),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

/// The phase, by a kubelet's rules.
fn phase(record: &PodRecord, policy: RestartPolicy) -> &'static str {
    let over = |status: &ContainerStatus, policy: RestartPolicy| {
        record::ended(status).is_some_and(|end| record.over || !policy.restarts(end.exit_code))
    };
    if let Some(init) = record.init.iter().find(|init| !succeeded(init)) {
        let failed = over(init, policy.for_init());
        return if failed { "Failed" } else { "Pending" };
    }
    if record.main.iter().all(|status| over(status, policy)) {
        let succeeded = record.main.iter().all(succeeded);
        return if succeeded { "Succeeded" } else { "Failed" };
    }
    // One that waits to start again, or has just ended, has run.
    let has_run = |status: &ContainerStatus| {
        let waits = status.state.as_ref().is_none_or(|state| state.waiting.is_some());
        !waits || status.last_state.is_some()
    };
    if record.main.iter().all(has_run) { "Running" } else { "Pending" }
}

/// The conditions; a transition time stays while the condition does.
fn conditions(phase: &str, record: &PodRecord, before: &[PodCondition], now: &Time) -> Vec<PodCondition> {
    let uninitialized = names(&record.init, succeeded);
    let unready = names(&record.main, |status| status.ready);
    let initialized = uninitialized.is_empty();
    let ready = unready.is_empty() && initialized;

    let condition = |kind: &str, holds: bool, why_not: (&str, String)| {
        let status = if holds { "True" } else { "False" };
        let same = before.iter().find(|old| old.type_ == kind && old.status == status);
        // Empty and not absent, because a patch leaves alone what is absent.
        let (reason, message) = if holds { Default::default() } else { why_not };
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: same
                .and_then(|old| old.last_transition_time.clone())
                .or_else(|| Some(now.clone())),
            ..PodCondition::default()
        }
    };
    let why_not_ready = || match phase {
        "Succeeded" => ("PodCompleted", String::new()),
        "Failed" => ("PodFailed", String::new()),
        _ => ("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
    };
    let why_not_initialized = (
        "ContainersNotInitialized",
        format!("containers with incomplete status: [{}]", uninitialized.join(" ")),
    );
    vec![
        condition("PodScheduled", true, ("", String::new())),
        condition("Initialized", initialized, why_not_initialized),
        condition("ContainersReady", ready, why_not_ready()),
        condition("Ready", ready, why_not_ready()),
    ]
}

fn succeeded(status: &ContainerStatus) -> bool {
    record::ended(status).is_some_and(|end| end.exit_code == 0)
}

fn names(statuses: &[ContainerStatus], fine: impl Fn(&ContainerStatus) -> bool) -> Vec<&str> {
    statuses.iter().filter(|status| !fine(status)).map(|status| status.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::{Container, PodSpec};

    use super::*;
    use crate::record::Exit;

    const OK: Exit = Exit { code: 0, signal: None };
    const KILLED: Exit = Exit { code: 137, signal: Some(9) };

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn pod(restart_policy: &str) -> Pod {
        Pod {
            spec: Some(PodSpec { restart_policy: Some(restart_policy.to_owned()), ..PodSpec::default() }),
            ..Pod::default()
        }
    }

    fn fresh(name: &str) -> ContainerStatus {
        let container = Container { name: name.to_owned(), ..Container::default() };
        record::first(&container, None, &at(0))
    }

    fn one_container() -> PodRecord {
        PodRecord {
            init: vec![],
            main: vec![fresh("api")],
            ip: Ipv4Addr::new(127, 64, 0, 1),
            start_time: at(0),
            over: false,
        }
    }

    fn phase_of(record: &PodRecord, policy: &str) -> String {
        of(&pod(policy), record, &[], &at(9)).phase.unwrap()
    }

    fn says(status: &PodStatus, kind: &str) -> (String, i64) {
        let conditions = status.conditions.as_ref().unwrap();
        let found = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        let since = found.last_transition_time.as_ref().unwrap();
        (found.status.clone(), since.0.as_second())
    }

    #[test]
    fn the_phase_follows_how_the_container_ended_and_the_restart_policy() {
        let cases = [
            // exit, what the three policies make of it
            (OK, "Running", "Succeeded", "Succeeded"),
            (KILLED, "Running", "Running", "Failed"),
        ];
        for (exit, always, on_failure, never) in cases {
            let mut record = one_container();
            assert_eq!(phase_of(&record, "Always"), "Pending");
            record::start(&mut record.main[0], 7, &at(1));
            assert_eq!(phase_of(&record, "Never"), "Running");
            record::end(&mut record.main[0], exit, &at(2));
            for (policy, phase) in [("Always", always), ("OnFailure", on_failure), ("Never", never)] {
                assert_eq!(phase_of(&record, policy), phase, "{exit:?} {policy}");
            }
            record.over = true;
            assert_eq!(phase_of(&record, "Always"), never, "{exit:?}, deleted");
        }
    }

    #[test]
    fn init_containers_hold_the_pod_pending_until_each_has_succeeded() {
        let mut record = one_container();
        record.init = vec![fresh("migrate")];
        record::start(&mut record.init[0], 7, &at(1));
        record::end(&mut record.init[0], KILLED, &at(2));
        assert_eq!(phase_of(&record, "Always"), "Pending");
        assert_eq!(phase_of(&record, "Never"), "Failed");

        record::start(&mut record.init[0], 8, &at(3));
        let status = of(&pod("Always"), &record, &[], &at(3));
        assert_eq!(says(&status, "Initialized"), ("False".to_owned(), 3));
        record::end(&mut record.init[0], OK, &at(4));
        let status = of(&pod("Always"), &record, status.conditions.as_ref().unwrap(), &at(4));
        assert_eq!(says(&status, "Initialized"), ("True".to_owned(), 4));
        assert_eq!(says(&status, "Ready"), ("False".to_owned(), 3));
    }

    #[test]
    fn a_container_that_crashes_waits_counts_its_restarts_and_keeps_its_last_end() {
        let mut record = one_container();
        record::start(&mut record.main[0], 7, &at(1));
        record.main[0].ready = true;
        let ready = of(&pod("Always"), &record, &[], &at(1));
        assert_eq!(says(&ready, "Ready"), ("True".to_owned(), 1));

        record::end(&mut record.main[0], KILLED, &at(2));
        record::wait(&mut record.main[0], "CrashLoopBackOff", None);
        let crashed = of(&pod("Always"), &record, ready.conditions.as_ref().unwrap(), &at(2));
        assert_eq!(crashed.phase.as_deref(), Some("Running"));
        assert_eq!(says(&crashed, "Ready"), ("False".to_owned(), 2));
        assert_eq!(says(&crashed, "PodScheduled"), ("True".to_owned(), 1));

        record::start(&mut record.main[0], 8, &at(3));
        let container = &record.main[0];
        assert_eq!(container.restart_count, 1);
        let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!((last.exit_code, last.signal), (137, Some(9)));
        assert_eq!(last.started_at, Some(at(1)));
    }

    #[test]
    fn what_ran_under_an_earlier_process_node_counts_as_killed() {
        let mut earlier = fresh("api");
        record::start(&mut earlier, 7, &at(1));
        let container = Container { name: "api".to_owned(), ..Container::default() };
        let mut record = one_container();
        record.main = vec![record::first(&container, Some(&earlier), &at(5))];
        assert_eq!(phase_of(&record, "Never"), "Failed");
        record::start(&mut record.main[0], 8, &at(6));
        assert_eq!(record.main[0].restart_count, 1);
        assert_eq!(phase_of(&record, "Always"), "Running");
    }
}
