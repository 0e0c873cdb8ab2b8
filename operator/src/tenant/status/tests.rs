use super::*;

use flagmeter_core::period::BillingPeriod;
use serde_json::json;

/// In the period from 15 March to 15 April 2026.
const NOW: &str = "2026-03-20T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn acme(status: Option<TenantStatus>) -> Tenant {
    let mut tenant: Tenant = serde_json::from_value(json!({
        "apiVersion": "flagmeter.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": { "name": "acme", "namespace": "shop", "uid": "uid-1", "generation": 3 },
        "spec": { "monthlyQuota": 1_000 },
    }))
    .unwrap();
    tenant.status = status;
    tenant
}

fn unavailable(secret: &str) -> Problem {
    let [name, key, tenant, namespace] = [secret, "url", "acme", "shop"].map(str::to_owned);
    Problem::SecretUnavailable { name, key, tenant, namespace }
}

fn usage(total_tokens: i64) -> Usage {
    let period = BillingPeriod { start: at("2026-03-15T00:00:00Z"), end: at("2026-04-15T00:00:00Z") };
    Usage { period, total_tokens }
}

/// The status after a reconcile that told what there was to tell, with a budget that is never used up.
fn told_after(tenant: &Tenant, outcome: &Outcome<'_>, seen: Option<&Usage>, now: Timestamp) -> TenantStatus {
    let show = seen.is_some_and(|seen| news(tenant, seen, now) != News::None);
    after(tenant, outcome, seen, show, now)
}

/// The statuses of Ready, Reconciling and Stalled, and their reason.
fn summary(status: &TenantStatus) -> (Vec<&str>, &str) {
    let statuses = status.conditions.iter().map(|condition| condition.status.as_str()).collect();
    (statuses, &status.conditions[0].reason)
}

/// The status of a tenant in force that has used `total_tokens`, told at `time`.
fn told(total_tokens: i64, time: &str) -> TenantStatus {
    told_after(&acme(None), &Outcome::InForce, Some(&usage(total_tokens)), at(time))
}

#[test]
fn the_conditions_are_those_of_kstatus() {
    let taken = Problem::TenantIdTaken { id: "acme".into(), namespace: "other".into(), detached: false };
    let cases = [
        (Outcome::InForce, ["True", "False", "False"], "Synced"),
        (Outcome::Stalled(&taken), ["False", "False", "True"], "TenantIdTaken"),
        (Outcome::Retrying(&Error::Overtaken), ["False", "True", "False"], "Retrying"),
    ];
    for (outcome, statuses, reason) in cases {
        let status = told_after(&acme(None), &outcome, None, at(NOW));
        assert_eq!(summary(&status), (statuses.to_vec(), reason));
        assert_eq!(status.conditions.len(), 3, "QuotaAvailable needs usage");
        let types: Vec<&str> = status.conditions.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, ["Ready", "Reconciling", "Stalled"]);
        assert_eq!(status.observed_generation, Some(3));
        assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(3)));
    }
}

#[test]
fn a_transition_time_is_kept_until_the_condition_changes() {
    let first = told_after(&acme(None), &Outcome::InForce, None, at("2026-03-20T10:00:00Z"));
    let second = told_after(&acme(Some(first.clone())), &Outcome::InForce, None, at(NOW));
    assert_eq!(first, second);
    assert!(is_told(&acme(Some(first.clone())), &second));

    let missing = unavailable("acme-slack");
    let third = told_after(&acme(Some(first)), &Outcome::Stalled(&missing), None, at(NOW));
    let times: Vec<String> =
        third.conditions.iter().map(|condition| condition.last_transition_time.0.to_string()).collect();
    assert_eq!(times, [NOW, "2026-03-20T10:00:00Z", NOW], "Reconciling was and is False");
}

#[test]
fn conditions_of_others_are_no_reason_to_write() {
    let mut status = told(0, NOW);
    let mut other = status.conditions[0].clone();
    other.type_ = "AlertDelivered".into();
    let wanted = status.clone();
    status.conditions.insert(0, other);
    assert!(is_told(&acme(Some(status)), &wanted));
}

#[test]
fn usage_is_written_at_most_once_a_minute_unless_it_is_the_first() {
    let cases = [
        // told, when, seen, due
        (0, "2026-03-20T11:59:59Z", 0, false),
        (0, "2026-03-20T11:59:59Z", 5, true),
        (5, "2026-03-20T11:59:59Z", 16, false),
        (5, "2026-03-20T11:59:01Z", 16, false),
        (5, "2026-03-20T11:59:00Z", 16, true),
        // The percent is the same, and the tokens are not.
        (5, "2026-03-20T11:59:01Z", 6, false),
        (5, "2026-03-20T11:59:00Z", 6, true),
        (5, "2026-03-20T11:00:00Z", 5, false),
        // The quota is used up, or is no longer.
        (990, "2026-03-20T11:59:59Z", 1_000, true),
        (1_005, "2026-03-20T11:59:59Z", 999, true),
    ];
    for (before, time, seen, due) in cases {
        let tenant = acme(Some(told(before, time)));
        let status = told_after(&tenant, &Outcome::InForce, Some(&usage(seen)), at(NOW));
        let shown = status.usage.clone().unwrap();
        assert_eq!(shown.total_tokens, if due { seen } else { before }, "{before} at {time}, then {seen}");
        assert_eq!(is_told(&tenant, &status), !due, "{before} at {time}, then {seen}");
    }
}

#[test]
fn a_new_period_and_an_edited_quota_show_at_once() {
    let tenant = acme(Some(told(500, "2026-03-20T11:59:59Z")));
    let next = Usage {
        period: BillingPeriod { start: at("2026-04-15T00:00:00Z"), end: at("2026-05-15T00:00:00Z") },
        total_tokens: 0,
    };
    let shown = told_after(&tenant, &Outcome::InForce, Some(&next), at(NOW)).usage.unwrap();
    assert_eq!((shown.total_tokens, shown.percent), (0, 0));
    assert_eq!(shown.period_end.0, next.period.end);

    let mut edited = tenant;
    edited.metadata.generation = Some(4);
    edited.spec.monthly_quota = 600;
    let shown = told_after(&edited, &Outcome::InForce, Some(&usage(500)), at(NOW)).usage.unwrap();
    assert_eq!((shown.total_tokens, shown.percent), (500, 83));
}

#[test]
fn a_boost_is_in_the_quota_that_is_shown_and_its_end_shows_at_once() {
    let mut tenant = acme(None);
    let boost = json!([{ "tokens": 500, "from": "2026-03-16T00:00:00Z", "until": "2026-03-20T12:00:30Z" }]);
    tenant.spec.quota_boosts = serde_json::from_value(boost).unwrap();
    let status = told_after(&tenant, &Outcome::InForce, Some(&usage(1_200)), at(NOW));
    let shown = status.usage.clone().unwrap();
    assert_eq!((shown.effective_quota, shown.percent), (Some(1_500), 80));
    tenant.status = Some(status);
    let (before, after) = (at("2026-03-20T12:00:29Z"), at("2026-03-20T12:00:30Z"));
    assert_eq!(news(&tenant, &usage(1_200), before), News::None);
    assert_eq!(news(&tenant, &usage(1_200), after), News::Urgent);
    let status = told_after(&tenant, &Outcome::InForce, Some(&usage(1_200)), after);
    let shown = status.usage.clone().unwrap();
    assert_eq!((shown.effective_quota, shown.percent), (Some(1_000), 120));
    assert_eq!(find(&Tenant { status: Some(status), ..tenant }, "QuotaAvailable").unwrap().status, "False");
}

#[test]
fn usage_stays_while_it_cannot_be_read_and_is_not_shown_to_a_stranger() {
    let tenant = acme(Some(told(500, NOW)));
    let status = told_after(&tenant, &Outcome::Retrying(&Error::Overtaken), None, at(NOW));
    assert_eq!(status.usage, tenant.status.as_ref().unwrap().usage);
    let taken = Problem::TenantIdTaken { id: "acme".into(), namespace: "other".into(), detached: false };
    let status = told_after(&tenant, &Outcome::Stalled(&taken), Some(&usage(500)), at(NOW));
    assert_eq!(status.usage, None);
}

#[test]
fn a_problem_is_news_once() {
    let missing = unavailable("acme-slack");
    assert!(!is_known(&acme(None), &missing));
    let status = told_after(&acme(None), &Outcome::Stalled(&missing), None, at(NOW));
    let tenant = acme(Some(status));
    assert!(is_known(&tenant, &missing));
    assert!(!is_known(&tenant, &unavailable("other")));
    assert!(!is_ready(&tenant));
}

/// Words that stand in the code as a reason does, and are none.
const NO_REASONS: [&str; 12] = [
    "Deliver",
    "Unknown",
    "True",
    "False",
    "Ready",
    "Reconciling",
    "Stalled",
    "QuotaAvailable",
    "AlertDelivered",
    "Reconcile",
    "Pod",
    "Acme",
];

/// The words in camel case that `text` has between two `quote`s.
fn words(text: &str, quote: char) -> std::collections::BTreeSet<&str> {
    let word = |part: &&str| {
        part.starts_with(|first: char| first.is_ascii_uppercase())
            && part.chars().all(|letter| letter.is_ascii_alphabetic())
            && part.chars().any(|letter| letter.is_ascii_lowercase())
    };
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .flat_map(|line| line.split(quote).skip(1).step_by(2).filter(word).collect::<Vec<_>>())
        .collect()
}

#[test]
fn the_page_for_operations_has_every_reason_and_no_other() {
    let code = [
        include_str!("../status.rs"),
        include_str!("quota.rs"),
        include_str!("../plan.rs"),
        include_str!("../../../../crds/src/settings.rs"),
        include_str!("../report.rs"),
        include_str!("../deliveries.rs"),
        include_str!("../unfollowed.rs"),
    ];
    let mut reasons: std::collections::BTreeSet<&str> =
        code.iter().flat_map(|text| words(text, '"')).collect();
    for word in NO_REASONS {
        reasons.remove(word);
    }
    let page = include_str!("../../../../docs/operations.md");
    let rows = page.lines().filter(|line| line.starts_with("| `")).collect::<Vec<_>>();
    let documented: std::collections::BTreeSet<&str> = rows
        .iter()
        .filter_map(|row| words(row, '`').into_iter().find(|word| row.starts_with(&format!("| `{word}`"))))
        .collect();
    assert_eq!(documented, reasons);
}
