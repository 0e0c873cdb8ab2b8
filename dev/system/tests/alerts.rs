//! From usage to the message that says so, through the whole system.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use system_tests::{System, unique, until};

/// Takes messages in Slack's place for as long as the test runs.
struct Receiver {
    port: u16,
    messages: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let messages = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&messages);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    match line.trim().to_ascii_lowercase().split_once(": ") {
                        Some(("content-length", value)) => length = value.parse().unwrap(),
                        None if line.trim().is_empty() => break,
                        Some(_) | None => {}
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                kept.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                    .unwrap();
            }
        });
        Self { port, messages }
    }

    fn messages(&self) -> Vec<Value> {
        self.messages.lock().unwrap().clone()
    }
}

fn apply(system: &System, tenant: &str, quota: i64, port: u16) {
    let resources = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Secret", "metadata": { "name": format!("{tenant}-slack") },
          "stringData": { "url": format!("http://127.0.0.1:{port}/services/{tenant}") } },
        { "apiVersion": "flagmeter.dev/v1alpha1", "kind": "Tenant", "metadata": { "name": tenant },
          "spec": { "displayName": "Acme & Co", "monthlyQuota": quota, "timeZone": "Europe/Berlin",
                    "alerts": { "slack": { "secretRef": { "name": format!("{tenant}-slack"), "key": "url" } } } } },
    ] });
    let applied = system.try_kubectl(&["apply", "-f", "-"], &resources.to_string());
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    until("the quota is in force", || (system.usage(tenant)?["monthlyQuota"] == quota).then_some(()));
}

#[test]
fn a_tenant_at_80_percent_is_one_message_until_its_quota_changes() {
    let system = System::running();
    let receiver = Receiver::start();
    let tenant = unique("alerted");
    apply(&system, &tenant, 10_000, receiver.port);
    let client = system.client();
    let use_up = |tokens: i64, total: i64| {
        let answer = client.post(&json!({ "tenant": tenant, "feature": "gpt-4", "tokens": tokens })).unwrap();
        assert_eq!(answer.status, 202, "{}", answer.body);
        until("it is counted", || (system.usage(&tenant)?["totalTokens"] == total).then_some(()));
    };
    let alerts = || {
        let rows = system.sql(&format!(
            "SELECT threshold FROM alerts WHERE tenant = '{tenant}' AND kind = 'crossed' ORDER BY id"
        ));
        rows.iter().map(|row| row.parse::<i64>().unwrap()).collect::<Vec<_>>()
    };
    let delivered = |count: usize| {
        until("the message is delivered", || {
            let query = format!(
                "SELECT state FROM alert_deliveries JOIN alerts ON alerts.id = alert WHERE tenant = '{tenant}' AND kind = 'crossed'"
            );
            let states = system.sql(&query);
            (states.len() == count && states.iter().all(|state| state == "delivered")).then_some(())
        });
        assert_eq!(receiver.messages().len(), count, "{:?}", receiver.messages());
    };

    use_up(7_999, 7_999);
    assert!(alerts().is_empty(), "79.99 % is not 80 %");
    use_up(1, 8_000);
    assert_eq!(alerts(), [80]);
    delivered(1);
    let text = receiver.messages()[0]["text"].as_str().unwrap().to_owned();
    assert!(
        text.starts_with("Acme &amp; Co has used 80 % of its quota: 8,000 of 10,000 tokens (80 %)."),
        "{text}"
    );
    let condition = [
        "wait",
        "--for=condition=AlertDelivered",
        &format!("tenant.flagmeter.dev/{tenant}"),
        "--timeout=60s",
    ];
    let _ = system.kubectl(&condition);

    use_up(1_500, 9_500);
    assert_eq!(alerts(), [80], "once is enough");
    delivered(1);

    apply(&system, &tenant, 20_000, receiver.port);
    use_up(7_000, 16_500);
    assert_eq!(alerts(), [80, 80], "another quota is another alert");
    delivered(2);
}
