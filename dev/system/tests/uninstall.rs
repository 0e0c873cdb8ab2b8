//! The release is removed. By its name this runs after all the others: there is no system afterwards.

use serde_json::json;
use system_tests::{System, unique, until};

#[test]
fn after_an_uninstall_no_tenant_waits_for_an_operator_and_what_was_counted_is_there() {
    let system = System::running();
    let (going, kept) = (unique("going"), unique("kept"));
    system.apply_tenant_of(&going, 1_000_000, &json!({ "deletionPolicy": "Delete" }));
    system.apply_tenant(&kept, 1_000_000);
    for tenant in [&going, &kept] {
        let event = json!({ "tenant": tenant, "feature": "chat", "tokens": 3, "id": "1" });
        let _ = system.client().post_until_accepted(&event);
        until("it is counted", || (system.usage(tenant)?["totalTokens"] == 3).then_some(()));
    }
    let finalizers = |tenant: &str| {
        system.resource(&format!("tenant.flagmeter.dev/{tenant}"))["metadata"]["finalizers"].clone()
    };
    assert_eq!(finalizers(&going), json!(["flagmeter.dev/cleanup"]));

    system.uninstall();
    assert_eq!(
        finalizers(&going),
        json!(null),
        "the definition and the Tenants stay, and nothing holds them"
    );
    until("the operator is gone", || system.processes("flagmeter-operator").is_empty().then_some(()));
    let all = format!("tenant.flagmeter.dev/{going}");
    let _ = system.kubectl(&["delete", &all, &format!("tenant.flagmeter.dev/{kept}"), "--timeout=30s"]);
    for tenant in [&going, &kept] {
        assert_eq!(system.book(tenant), (1, 3));
    }
}
