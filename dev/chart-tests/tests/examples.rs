//! The sample input.

use std::collections::{BTreeMap, BTreeSet};

use chart_tests::{read, yaml};
use serde_json::Value;

#[test]
fn the_sample_events_are_about_the_sample_tenants_and_count_once_when_sent_again() {
    let quotas: BTreeMap<String, u64> = yaml(&read("examples/tenants.yaml"))
        .iter()
        .filter(|object| object["kind"] == "Tenant")
        .map(|tenant| {
            let name = tenant["metadata"]["name"].as_str().unwrap().to_owned();
            (name, tenant["spec"]["monthlyQuota"].as_u64().unwrap())
        })
        .collect();
    let events: Vec<Value> =
        read("examples/events.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    let ids: BTreeSet<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len(), "an id is there twice");
    let mut used: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &events {
        assert!(event.get("timestamp").is_none(), "{event} would be too old one day");
        *used.entry(event["tenant"].as_str().unwrap()).or_default() += event["tokens"].as_u64().unwrap();
    }
    let percents: BTreeMap<&str, u64> =
        used.iter().map(|(tenant, tokens)| (*tenant, tokens * 100 / quotas[*tenant])).collect();
    // As examples/README.md says.
    assert_eq!(percents, BTreeMap::from([("acme-corp", 71), ("globex", 33), ("initech", 88)]));
}
