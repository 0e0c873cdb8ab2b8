//! From usage to the message that says so, through the whole system.

use serde_json::json;
use system_tests::receiver::Receiver;
use system_tests::{System, unique, until};

#[test]
fn a_tenant_at_80_percent_is_one_message_until_its_quota_changes() {
    let system = System::running();
    let receiver = Receiver::start();
    let tenant = unique("alerted");
    let apply = |quota| {
        let spec = json!({ "displayName": "Acme & Co", "timeZone": "Europe/Berlin" });
        system.apply_tenant_told_at(&receiver.url(&tenant), &tenant, quota, &spec);
    };
    apply(10_000);
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

    apply(20_000);
    use_up(7_000, 16_500);
    assert_eq!(alerts(), [80, 80], "another quota is another alert");
    delivered(2);
}
