use super::*;

use flagmeter_core::quota::MAX_TOKENS;
use flagmeter_crds::{Alerts, MAX_URL_LENGTH};
use jiff::Timestamp;
use serde_json::json;

const URL: &str = "https://hooks.slack.com/services/T0/B0/x";
const OTHER_URL: &str = "https://hooks.slack.com/services/T0/B0/y";

fn sealer() -> Sealer {
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().unwrap()
}

/// A tenant whose Slack URL is in a Secret.
fn acme() -> Tenant {
    serde_json::from_value(json!({
        "apiVersion": "flagmeter.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": { "name": "acme", "namespace": "shop", "uid": "uid-1", "generation": 1 },
        "spec": {
            "displayName": "Acme Corp",
            "monthlyQuota": 1_000,
            "billingDay": 15,
            "timeZone": "Europe/Berlin",
            "alerts": { "slack": { "secretRef": { "name": "acme-slack" } } },
        },
    }))
    .unwrap()
}

fn unavailable(secret: &str) -> Problem {
    let [name, key, tenant, namespace] = [secret, "url", "acme", "shop"].map(str::to_owned);
    Problem::SecretUnavailable { name, key, tenant, namespace }
}

/// The row that [`acme`] asks for while its Secret holds `url`.
fn row(url: &str) -> TenantRow {
    TenantRow {
        id: "acme".into(),
        name: "Acme Corp".into(),
        monthly_quota: 1_000,
        boosts: Vec::new(),
        thresholds: vec![80],
        billing_day: 15,
        time_zone: "Europe/Berlin".into(),
        suspended: false,
        owner: Owner { namespace: "shop".into(), uid: "uid-1".into() },
        detached_at: None,
        slack: Some(SlackRow { fingerprint: Some(sealer().fingerprint("acme", url)), enabled: true }),
        webhook: None,
    }
}

/// `row` as found, last written by the operator as `recorded`.
fn found(row: TenantRow, recorded: &TenantRow) -> FoundTenant {
    FoundTenant { row, recorded: Some(recorded.as_recorded()), is_being_deleted: false }
}

fn observed(found: Option<FoundTenant>, slack_url: &str) -> Observed {
    Observed { found, slack_url: Some(Ok(slack_url.into())), ..Observed::default() }
}

/// What is written, and the problem.
fn planned(tenant: &Tenant, observed: &Observed) -> (Option<(ChangeKind, TenantRow)>, Option<Problem>) {
    let plan = plan(tenant, observed, &sealer());
    (plan.write.map(|write| (write.kind, write.after)), plan.problem)
}

#[test]
fn a_row_is_written_only_where_it_says_something_else_and_the_trail_says_why() {
    let wanted = row(URL);
    let changed = TenantRow { monthly_quota: 5, ..wanted.clone() };
    let of_another = |namespace: &str, uid: &str| TenantRow {
        owner: Owner { namespace: namespace.into(), uid: uid.into() },
        ..wanted.clone()
    };
    let detached = TenantRow { detached_at: Some(Timestamp::UNIX_EPOCH), ..wanted.clone() };
    let unreadable =
        TenantRow { slack: Some(SlackRow { fingerprint: None, enabled: true }), ..wanted.clone() };
    let cases = [
        ("no row", None, Some(ChangeKind::Created)),
        ("the same row", Some(found(wanted.clone(), &wanted)), None),
        ("an edited resource", Some(found(changed.clone(), &changed)), Some(ChangeKind::Changed)),
        ("an edited Secret", Some(found(row(OTHER_URL), &row(OTHER_URL))), Some(ChangeKind::Changed)),
        ("an edited row", Some(found(changed.clone(), &wanted)), Some(ChangeKind::DriftRepaired)),
        ("an edited URL", Some(found(unreadable.clone(), &wanted)), Some(ChangeKind::DriftRepaired)),
        (
            "a deleted webhook",
            Some(found(TenantRow { slack: None, ..wanted.clone() }, &wanted)),
            Some(ChangeKind::DriftRepaired),
        ),
        (
            "an edited row and resource",
            Some(found(detached_like(&changed), &row(OTHER_URL))),
            Some(ChangeKind::Changed),
        ),
        (
            "a detached row",
            Some(FoundTenant { row: detached, recorded: None, is_being_deleted: false }),
            Some(ChangeKind::Adopted),
        ),
        (
            "the row of an earlier resource",
            Some(found(of_another("shop", "uid-0"), &of_another("shop", "uid-0"))),
            Some(ChangeKind::Adopted),
        ),
    ];
    for (name, found, expected) in cases {
        let (write, problem) = planned(&acme(), &observed(found, URL));
        let expected = expected.map(|kind| (kind, wanted.clone()));
        assert_eq!((write, problem), (expected, None), "{name}");
    }
}

/// A row that differs from every other here.
fn detached_like(row: &TenantRow) -> TenantRow {
    TenantRow { name: "Somebody".into(), ..row.clone() }
}

#[test]
fn the_older_claim_holds_even_after_its_resource_is_gone() {
    let theirs = TenantRow { owner: Owner { namespace: "other".into(), uid: "uid-9".into() }, ..row(URL) };
    let theirs_detached = TenantRow { detached_at: Some(Timestamp::UNIX_EPOCH), ..theirs.clone() };
    for row in [theirs, theirs_detached] {
        let detached = row.detached_at.is_some();
        let (write, problem) = planned(&acme(), &observed(Some(found(row.clone(), &row)), URL));
        assert_eq!(write, None);
        assert_eq!(
            problem,
            Some(Problem::TenantIdTaken { id: "acme".into(), namespace: "other".into(), detached })
        );
    }
}

#[test]
fn a_spec_that_no_calendar_can_follow_changes_nothing() {
    let mut zone = acme();
    zone.spec.time_zone = "Europe/Berlino".into();
    let mut day = acme();
    day.spec.billing_day = 32;
    let mut quota = acme();
    quota.spec.monthly_quota = MAX_TOKENS + 1;
    for (tenant, reason) in [(zone, "InvalidTimeZone"), (day, "InvalidSpec"), (quota, "InvalidSpec")] {
        let (write, problem) = planned(&tenant, &observed(None, URL));
        assert_eq!((write, problem.map(|problem| problem.reason())), (None, Some(reason)));
    }
}

#[test]
fn a_tenant_without_its_secret_counts_all_the_same() {
    let missing = unavailable("acme-slack");
    let observed = |found| Observed { found, slack_url: Some(Err(missing.clone())), ..Observed::default() };

    let (write, problem) = planned(&acme(), &observed(None));
    assert_eq!(write, Some((ChangeKind::Created, TenantRow { slack: None, ..row(URL) })));
    assert_eq!(problem.as_ref(), Some(&missing));

    // The last URL that was known stays in use; what else the spec says is followed.
    let mut edited = acme();
    edited.spec.monthly_quota = 2_000;
    let (write, problem) = planned(&edited, &observed(Some(found(row(URL), &row(URL)))));
    assert_eq!(write, Some((ChangeKind::Changed, TenantRow { monthly_quota: 2_000, ..row(URL) })));
    assert_eq!(problem, Some(missing));
}

#[test]
fn what_a_secret_holds_must_be_an_https_url_and_is_never_shown() {
    let cases = [
        (URL, true),
        ("https://hooks.slack.com/services/T0/B0/x\n", true),
        ("http://hooks.slack.com/s3cret", false),
        ("https://", false),
        ("https:///s3cret", false),
        ("hooks.slack.com/s3cret", false),
        ("s3cret value", false),
        ("\u{fffd}s3cret", false),
        ("", false),
        (&format!("https://hooks.slack.com/s3cret{}", "x".repeat(MAX_URL_LENGTH)), false),
    ];
    for (text, valid) in cases {
        let plan = plan(&acme(), &observed(None, text), &sealer());
        assert_eq!(plan.problem.is_none(), valid, "{text:?}");
        let write = plan.write.unwrap();
        assert_eq!(write.slack_url, valid.then(|| text.trim().to_owned()), "{text:?}");
        if let Some(problem) = plan.problem {
            assert_eq!(problem.reason(), "InvalidSlackUrl");
            let shown = problem.to_string();
            assert!(shown.contains("\"acme-slack\"") && !shown.contains("s3cret"), "{shown}");
        }
    }
}

#[test]
fn http_is_taken_where_a_setting_allows_it() {
    let allowed = Observed { allow_http: true, ..observed(None, "http://receiver:8080/acme") };
    let plan = plan(&acme(), &allowed, &sealer());
    assert_eq!(plan.write.unwrap().slack_url.as_deref(), Some("http://receiver:8080/acme"));
    let other = Observed { allow_http: true, ..observed(None, "ftp://receiver/acme") };
    assert!(self::plan(&acme(), &other, &sealer()).problem.is_some());
}

#[test]
fn what_the_spec_leaves_out_has_a_default() {
    let mut tenant = acme();
    tenant.spec.display_name = None;
    tenant.spec.alerts = Alerts::default();
    let observed = Observed::default();
    let expected = TenantRow { name: "acme".into(), slack: None, ..row(URL) };
    assert_eq!(planned(&tenant, &observed).0, Some((ChangeKind::Created, expected)));
}

#[test]
fn a_webhook_whose_secret_is_gone_stays_in_use() {
    let mut tenant = acme();
    tenant.spec.alerts.webhook = Some(
        serde_json::from_value(
            json!({ "url": "https://example.com", "secretRef": { "name": "acme-webhook" } }),
        )
        .unwrap(),
    );
    let secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    let observed = |found, secret| Observed {
        webhook_url: Some(Ok("https://example.com".to_owned())),
        webhook_secret: Some(secret),
        ..observed(found, URL)
    };
    let (write, problem) = planned(&tenant, &observed(None, Ok(secret.to_owned())));
    let (_, stored) = write.unwrap();
    assert!(stored.webhook.is_some() && problem.is_none());

    let missing = unavailable("acme-webhook");
    let again = planned(&tenant, &observed(Some(found(stored.clone(), &stored)), Err(missing.clone())));
    assert_eq!(again, (None, Some(missing)), "nothing is written, and the problem says why");
    let plan =
        plan(&acme(), &observed(Some(found(stored.clone(), &stored)), Ok(secret.to_owned())), &sealer());
    assert_eq!(plan.write.unwrap().after.webhook, None, "the spec names none any more");
}

#[test]
fn thresholds_and_boosts_are_written_and_the_order_of_thresholds_is_no_change() {
    let mut tenant = acme();
    tenant.spec.alerts.thresholds = vec![100, 50];
    let boost = json!({ "tokens": 5, "from": "2026-03-10T00:00:00Z", "until": "2026-03-20T00:00:00Z" });
    tenant.spec.quota_boosts = serde_json::from_value(json!([boost])).unwrap();
    let (_, after) = planned(&tenant, &observed(None, URL)).0.unwrap();
    assert_eq!(after.thresholds, [50, 100]);
    assert_eq!(after.boosts[0].tokens, 5);
    tenant.spec.alerts.thresholds = vec![50, 100];
    assert_eq!(planned(&tenant, &observed(Some(found(after.clone(), &after)), URL)), (None, None));
    tenant.spec.quota_boosts[0].tokens = 0;
    assert_eq!(planned(&tenant, &observed(None, URL)).1.map(|problem| problem.reason()), Some("InvalidSpec"));
}
