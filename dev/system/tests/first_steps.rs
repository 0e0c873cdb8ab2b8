//! What the README promises to somebody who has just started it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::{System, unique, until};

#[test]
fn the_sample_tenants_are_ready_and_show_what_they_used() {
    let system = System::running();
    for tenant in ["acme-corp", "globex", "initech"] {
        let shown = until("the tenant shows what it used", || {
            let resource = system.resource(&format!("tenant.flagmeter.dev/{tenant}"));
            resource["status"]["usage"]["totalTokens"].as_i64().filter(|used| *used > 0)?;
            Some(resource)
        });
        let status = &shown["status"];
        assert_eq!(status["observedGeneration"], shown["metadata"]["generation"], "{status}");
        let ready = |condition: &&Value| condition["type"] == "Ready";
        assert_eq!(
            status["conditions"].as_array().unwrap().iter().find(ready).unwrap()["status"],
            "True",
            "{status}"
        );
        let quota = shown["spec"]["monthlyQuota"].as_i64().unwrap();
        let used = status["usage"]["totalTokens"].as_i64().unwrap();
        assert_eq!(status["usage"]["percent"], used * 100 / quota, "{status}");
    }
    let table = system.kubectl(&["get", "tenants.flagmeter.dev"]);
    for column in ["QUOTA", "USED", "USED%", "RESETS", "READY", "AGE"] {
        assert!(table.lines().next().unwrap().split_whitespace().any(|name| name == column), "{table}");
    }
}

#[test]
fn an_event_is_in_the_usage_on_the_page_and_on_its_live_stream_within_a_second() {
    let system = System::running();
    let tenant = unique("live");
    system.apply_tenant(&tenant, 1_000);
    let client = system.client();

    let address = system.api_url.strip_prefix("http://").unwrap();
    let authorization = system.authorization();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET /live HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\nAuthorization: {authorization}\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    // The percent that the stream shows with the first row of the tenant in which `used` tokens are used.
    let mut percent_at = |used: &str| {
        let messages = lines
            .by_ref()
            .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
        let mut rows = messages.flat_map(|message| message["rows"].as_array().cloned().unwrap_or_default());
        rows.find(|row| row["tenant"] == tenant.as_str() && row["used"] == used).unwrap()["percent"].as_i64()
    };
    assert_eq!(percent_at("0"), Some(0));

    let sent = Instant::now();
    let answer = client.post(&json!({ "tenant": tenant, "feature": "gpt-4", "tokens": 815 })).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(answer.json()["durability"], "fsync");
    assert_eq!(percent_at("815"), Some(81));
    let until_live = sent.elapsed();

    let usage = system.usage(&tenant).unwrap();
    assert_eq!((&usage["totalTokens"], &usage["quotaPercent"]), (&json!(815), &json!(81)), "{usage}");
    let page = client.get("/").unwrap().body;
    assert!(page.contains(&format!(r#"data-tenant="{tenant}""#)) && page.contains(">815<"), "{page}");
    assert!(until_live < Duration::from_secs(1), "it took {until_live:?}");
}

#[test]
fn a_quota_that_is_applied_changes_the_percent() {
    let system = System::running();
    let tenant = unique("quota");
    system.apply_tenant(&tenant, 1_000);
    system.client().post(&json!({ "tenant": tenant, "feature": "gpt-4", "tokens": 500 })).unwrap();
    until("half is used", || (system.usage(&tenant)?["quotaPercent"] == 50).then_some(()));
    system.apply_tenant(&tenant, 2_000);
    let usage = system.usage(&tenant).unwrap();
    assert_eq!((&usage["quotaPercent"], &usage["remainingTokens"]), (&json!(25), &json!(1_500)), "{usage}");
}

#[test]
fn kubectl_waits_for_a_quota_to_be_used_up_and_for_there_to_be_some_again() {
    let system = System::running();
    let tenant = unique("wait");
    system.apply_tenant(&tenant, 10);
    let wait = |condition: &str| {
        let (resource, condition) =
            (format!("tenants.flagmeter.dev/{tenant}"), format!("--for=condition={condition}"));
        let _ = system.kubectl(&["wait", &condition, &resource, "--timeout=60s"]);
    };
    wait("QuotaAvailable");
    let event = json!({ "tenant": tenant, "feature": "gpt-4", "tokens": 10 });
    assert_eq!(system.client().post(&event).unwrap().status, 202);
    wait("QuotaAvailable=false");
    system.apply_tenant(&tenant, 20);
    wait("QuotaAvailable");
}

#[test]
fn an_event_for_a_tenant_that_is_not_there_is_refused_until_it_is() {
    let system = System::running();
    let tenant = unique("later");
    let client = system.client();
    let event = json!({ "tenant": tenant, "feature": "gpt-4", "tokens": 1 });
    let refused = client.post(&event).unwrap();
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("unknown_tenant")));
    system.apply_tenant(&tenant, 1_000);
    assert_eq!(client.post(&event).unwrap().status, 202);
}

#[test]
fn a_tenant_resource_that_says_something_impossible_is_refused_at_apply() {
    let system = System::running();
    let long = "a".repeat(64);
    let slack = |target: &str| format!("monthlyQuota: 1, alerts: {{ slack: {{ {target} }} }}");
    let cases = [
        // name, spec, part of the message
        ("bad", "monthlyQuota: 0".to_owned(), "should be greater than or equal to 1"),
        ("bad", "monthlyQuota: 9007199254740992".to_owned(), "should be less than or equal to"),
        ("bad", "monthlyQuota: 1, billingDay: 32".to_owned(), "should be less than or equal to 31"),
        ("bad", "monthlyQuota: 1, timeZone: Europe/Berlino".to_owned(), "time zone"),
        ("bad", slack("url: 'ftp://hooks.example.com/x'"), "url must be an https URL"),
        (
            "bad",
            slack("url: 'https://hooks.example.com/x', secretRef: { name: s, key: k }"),
            "exactly one of url and secretRef",
        ),
        ("bad", slack("enabled: true"), "exactly one of url and secretRef"),
        (long.as_str(), "monthlyQuota: 1".to_owned(), "at most 63 lower-case letters"),
    ];
    for (name, spec, message) in cases {
        let tenant = format!(
            "apiVersion: flagmeter.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n"
        );
        let output = system.try_kubectl(&["apply", "-f", "-"], &tenant);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(message), "{spec}: {error}");
    }
}

#[test]
fn the_key_in_a_tenants_secret_opens_what_is_its_own_and_ends_with_the_secret() {
    let system = System::running();
    let (tenant, other) = (unique("key"), unique("other"));
    system.apply_tenant(&tenant, 1_000);
    system.apply_tenant(&other, 1_000);
    let secret = format!("{tenant}-flagmeter-key");
    let read = || {
        let template = "go-template={{.data.key | base64decode}}";
        let output = system.try_kubectl(&["get", "secret", &secret, "-o", template], "");
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    let key = until("the Secret is made", read);
    let client = system.client_with(&key);
    let event = json!({ "tenant": tenant, "feature": "gpt-4", "tokens": 1 });
    until("the key is good", || (client.post(&event).unwrap().status == 202).then_some(()));
    assert_eq!(client.get(&format!("/usage/{tenant}")).unwrap().status, 200);
    let refused = client.get(&format!("/usage/{other}")).unwrap();
    assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("wrong_tenant")));
    let stranger = system.client_with("fm_x").post(&event).unwrap();
    assert_eq!((stranger.status, &stranger.json()["code"]), (401, &json!("invalid_key")));

    // A new key, without a gap.
    let resource = format!("tenant.flagmeter.dev/{tenant}");
    let _ = system.kubectl(&["annotate", &resource, "--overwrite", "flagmeter.dev/rotate-key=once"]);
    let rotated = until("the key is rotated", || read().filter(|rotated| *rotated != key));
    let current = system.client_with(&rotated);
    until("the new key is good", || (current.post(&event).unwrap().status == 202).then_some(()));
    assert_eq!(client.post(&event).unwrap().status, 202, "the former one goes on for a day");

    let _ = system.kubectl(&["delete", "secret", &secret]);
    for client in [&client, &current] {
        until("the key has ended", || (client.post(&event).unwrap().status == 401).then_some(()));
    }
    let again = until("another key is made", || read().filter(|again| *again != key && *again != rotated));
    let client = system.client_with(&again);
    until("the new key is good", || (client.post(&event).unwrap().status == 202).then_some(()));
}
