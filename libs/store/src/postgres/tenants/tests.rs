use super::*;

const URL: &str = "https://hooks.slack.com/services/T0/B0/x";

fn sealer() -> Sealer {
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().unwrap()
}

/// A tenant of a namespace, with a Slack channel.
pub(crate) fn acme() -> TenantRow {
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
        slack: Some(SlackRow { fingerprint: Some(sealer().fingerprint("acme", URL)), enabled: true }),
        webhook: None,
    }
}

const NOW: &str = "2026-03-20T12:00:00Z";

/// A change that brings no secrets.
fn change_to<'a>(kind: ChangeKind, before: Option<&'a TenantRow>, after: &'a TenantRow) -> Change<'a> {
    Change { kind, before, after, sealed_url: None, sealed_webhook: None, now: NOW.parse().unwrap() }
}

async fn create(pool: &PgPool, row: &TenantRow) -> bool {
    let url = sealer().seal(&row.id, Column::SlackUrl, URL).unwrap();
    let change = Change { sealed_url: Some(&url), ..change_to(ChangeKind::Created, None, row) };
    write(pool, &change).await.unwrap()
}

async fn found(pool: &PgPool) -> FoundTenant {
    find(pool, &sealer(), "acme").await.unwrap().unwrap()
}

/// The trail's kinds, in order.
async fn kinds(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar!("SELECT kind FROM tenant_changes ORDER BY id").fetch_all(pool).await.unwrap()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_row_reads_back_as_it_was_written_and_the_url_is_nowhere_in_the_clear(pool: PgPool) {
    assert_eq!(find(&pool, &sealer(), "acme").await.unwrap(), None);
    assert!(create(&pool, &acme()).await);
    let found = found(&pool).await;
    assert_eq!(found.row, acme());
    assert_eq!(found.recorded, Some(acme().as_recorded()));

    let dump: String = sqlx::query_scalar(
        "SELECT string_agg(line, ' ') FROM (
             SELECT t::text AS line FROM tenants t
             UNION ALL SELECT encode(url, 'escape') FROM slack_webhooks
             UNION ALL SELECT c::text FROM tenant_changes c) lines",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(dump.contains("Acme Corp") && !dump.contains("hooks.slack.com"), "{dump}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_change_is_one_transaction_with_its_line_in_the_trail(pool: PgPool) {
    create(&pool, &acme()).await;
    let before = acme();
    let after = TenantRow { monthly_quota: 2_000, suspended: true, slack: None, ..acme() };
    let change = change_to(ChangeKind::Changed, Some(&before), &after);
    assert!(write(&pool, &change).await.unwrap());
    assert_eq!(found(&pool).await.row, after);
    assert_eq!(kinds(&pool).await, ["created", "changed"]);

    // What the database refuses leaves no trace in any of the three tables.
    let refused = TenantRow { monthly_quota: 0, ..acme() };
    let change = change_to(ChangeKind::Changed, Some(&after), &refused);
    assert!(write(&pool, &change).await.is_err());
    assert_eq!(found(&pool).await.row, after);
    assert_eq!(kinds(&pool).await, ["created", "changed"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_slack_row_can_be_switched_off_without_its_url(pool: PgPool) {
    create(&pool, &acme()).await;
    let before = acme();
    let mut after = acme();
    after.slack.as_mut().unwrap().enabled = false;
    let change = change_to(ChangeKind::Changed, Some(&before), &after);
    assert!(write(&pool, &change).await.unwrap());
    assert_eq!(found(&pool).await.row, after);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn whoever_was_slower_writes_nothing(pool: PgPool) {
    create(&pool, &acme()).await;
    assert!(!create(&pool, &acme()).await, "a second create");
    let mut seen = acme();
    seen.owner.uid = "uid-0".into();
    let after = TenantRow { monthly_quota: 2_000, ..acme() };
    let change = change_to(ChangeKind::Changed, Some(&seen), &after);
    assert!(!write(&pool, &change).await.unwrap(), "the row was another resource's");
    assert_eq!(found(&pool).await.row, acme());
    assert_eq!(kinds(&pool).await, ["created"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_row_is_detached_once_and_only_for_its_own_resource(pool: PgPool) {
    create(&pool, &acme()).await;
    let row = Attached { namespace: "shop".into(), id: "acme".into(), owner_uid: "uid-1".into() };
    assert_eq!(attached(&pool, Some("shop")).await.unwrap(), [row]);
    assert_eq!(attached(&pool, Some("other")).await.unwrap(), []);

    assert!(!detach(&pool, "acme", "uid-2").await.unwrap(), "another resource");
    assert!(detach(&pool, "acme", "uid-1").await.unwrap());
    assert!(!detach(&pool, "acme", "uid-1").await.unwrap(), "a second time");
    assert_eq!(attached(&pool, Some("shop")).await.unwrap(), []);
    let detached = found(&pool).await;
    assert!(detached.row.detached_at.is_some());
    assert_eq!(detached.recorded, None);

    // A resource made anew takes the row over.
    let mut after = acme();
    after.owner.uid = "uid-2".into();
    let change = change_to(ChangeKind::Adopted, Some(&detached.row), &after);
    assert!(write(&pool, &change).await.unwrap());
    assert_eq!(found(&pool).await.row, after);
    assert_eq!(kinds(&pool).await, ["created", "detached", "adopted"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn bytes_that_somebody_else_wrote_have_no_fingerprint(pool: PgPool) {
    create(&pool, &acme()).await;
    sqlx::query("UPDATE slack_webhooks SET url = decode(repeat('00', 40), 'hex')")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(found(&pool).await.row.slack, Some(SlackRow { fingerprint: None, enabled: true }));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn usage_is_that_of_the_open_period(pool: PgPool) {
    create(&pool, &TenantRow { time_zone: "UTC".into(), ..acme() }).await;
    sqlx::query(
        "INSERT INTO usage_periods (tenant, period_start, period_end, total_tokens, events, last_minute)
         VALUES ('acme', '2026-03-15Z', '2026-04-15Z', 700, 7, '2026-03-20Z'),
                ('acme', '2026-02-15Z', '2026-03-15Z', 900, 9, '2026-02-20Z'),
                ('globex', '2026-02-15Z', '2026-03-15Z', 5, 1, '2026-02-20Z')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let asked = ["acme".to_owned(), "globex".to_owned()];
    for (now, start, end, total_tokens) in [
        ("2026-03-14T23:59:59Z", "2026-02-15T00:00:00Z", "2026-03-15T00:00:00Z", 900),
        ("2026-03-15T00:00:00Z", "2026-03-15T00:00:00Z", "2026-04-15T00:00:00Z", 700),
        ("2026-04-15T00:00:00Z", "2026-04-15T00:00:00Z", "2026-05-15T00:00:00Z", 0),
    ] {
        let period = BillingPeriod { start: start.parse().unwrap(), end: end.parse().unwrap() };
        let expected = HashMap::from([("acme".to_owned(), OpenPeriod { period, total_tokens })]);
        assert_eq!(usage(&pool, &asked, now.parse().unwrap()).await.unwrap(), expected, "{now}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_webhooks_former_secret_stays_for_a_day_beside_the_new_one(pool: PgPool) {
    create(&pool, &acme()).await;
    let sealer = sealer();
    let row = |secret: &str, enabled| WebhookRow {
        url: Some(sealer.fingerprint("acme", URL)),
        secret: Some(sealer.fingerprint("acme", secret)),
        enabled,
    };
    let sealed = |secret: &str| SealedWebhook {
        url: sealer.seal("acme", Column::WebhookUrl, URL).unwrap(),
        secret: sealer.seal("acme", Column::WebhookSecret, secret).unwrap(),
    };
    let mut before = acme();
    for (webhook, sealed) in [
        (row("whsec_1", true), Some(sealed("whsec_1"))),
        // The same secret again, and a switch, are no change of it.
        (row("whsec_1", true), Some(sealed("whsec_1"))),
        (row("whsec_1", false), None),
        (row("whsec_2", true), Some(sealed("whsec_2"))),
    ] {
        let after = TenantRow { webhook: Some(webhook), ..acme() };
        let is_new = after.webhook.as_ref().unwrap().secret != row("whsec_1", true).secret;
        let sealed_webhook = sealed.as_ref();
        let change = Change { sealed_webhook, ..change_to(ChangeKind::Changed, Some(&before), &after) };
        assert!(write(&pool, &change).await.unwrap());
        assert_eq!(found(&pool).await.row, after);
        let (previous, until): (Option<Vec<u8>>, Option<String>) =
            sqlx::query_as("SELECT previous_secret, (previous_until AT TIME ZONE 'UTC')::text FROM webhooks")
                .fetch_one(&pool)
                .await
                .unwrap();
        let previous = previous.and_then(|sealed| sealer.open("acme", Column::WebhookSecret, &sealed));
        let expected = is_new.then(|| ("whsec_1".to_owned(), "2026-03-21 12:00:00".to_owned()));
        assert_eq!(previous.zip(until), expected);
        before = after;
    }
    assert!(write(&pool, &change_to(ChangeKind::Changed, Some(&before), &acme())).await.unwrap());
    assert_eq!(found(&pool).await.row, acme());
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_sealed_text_that_was_moved_to_another_column_does_not_open_there(pool: PgPool) {
    let sealer = sealer();
    create(&pool, &acme()).await;
    let webhook = WebhookRow {
        url: Some(sealer.fingerprint("acme", URL)),
        secret: Some(sealer.fingerprint("acme", "whsec_1")),
        enabled: true,
    };
    let sealed = SealedWebhook {
        url: sealer.seal("acme", Column::WebhookUrl, URL).unwrap(),
        secret: sealer.seal("acme", Column::WebhookSecret, "whsec_1").unwrap(),
    };
    let after = TenantRow { webhook: Some(webhook), ..acme() };
    let before = acme();
    let change =
        Change { sealed_webhook: Some(&sealed), ..change_to(ChangeKind::Changed, Some(&before), &after) };
    assert!(write(&pool, &change).await.unwrap());
    // Anyone who may write the table could have one text used in place of the other, without the key.
    sqlx::query("UPDATE webhooks SET url = secret").execute(&pool).await.unwrap();
    let moved = found(&pool).await.row.webhook.unwrap();
    assert_eq!((moved.url, moved.secret.is_some()), (None, true));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_url_that_a_former_version_sealed_reads_as_the_same_and_is_sealed_anew_with_the_next_write(
    pool: PgPool,
) {
    let sealer: Sealer = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".parse().unwrap();
    let url = "https://hooks.slack.com/services/T0/B0/x";
    // Sealed for the tenant alone, by that key.
    let former =
        "AAECAwQFBgcICQoL09LhVlPEKVaWBYivU0e7z8+lACSW/igvAq9K9sjkWMF9h+qLM/M90DqYT58qkU0wl8KOOUVa9Q8=";
    let row = TenantRow {
        slack: Some(SlackRow { fingerprint: Some(sealer.fingerprint("acme", url)), enabled: true }),
        ..acme()
    };
    create(&pool, &row).await;
    sqlx::query("UPDATE slack_webhooks SET url = decode($1, 'base64')")
        .bind(former)
        .execute(&pool)
        .await
        .unwrap();
    let found = find(&pool, &sealer, "acme").await.unwrap().unwrap();
    assert_eq!(found.row, row, "so the operator leaves it as it is");

    let sealed = sealer.seal("acme", Column::SlackUrl, url).unwrap();
    let after = TenantRow { monthly_quota: 2, ..row.clone() };
    let change = Change { sealed_url: Some(&sealed), ..change_to(ChangeKind::Changed, Some(&row), &after) };
    assert!(write(&pool, &change).await.unwrap());
    let stored: Vec<u8> =
        sqlx::query_scalar("SELECT url FROM slack_webhooks").fetch_one(&pool).await.unwrap();
    assert_eq!(sealer.open("acme", Column::SlackUrl, &stored).as_deref(), Some(url));
    assert_eq!(sealer.open("acme", Column::WebhookUrl, &stored), None, "bound to its column now");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_list_goes_on_where_it_ended_and_can_be_of_the_detached_alone(pool: PgPool) {
    for id in ["acme", "globex", "initech"] {
        crate::testing::add_tenant(&pool, id).await;
    }
    detach(&pool, "globex", "globex").await.unwrap();
    let ids = async |detached, after, limit| -> Vec<String> {
        let listed = list(&pool, detached, after, limit).await.unwrap();
        listed.into_iter().map(|tenant| tenant.id).collect()
    };
    assert_eq!(ids(false, "", 2).await, ["acme", "globex"]);
    assert_eq!(ids(false, "globex", 2).await, ["initech"]);
    assert_eq!(ids(true, "", 2).await, ["globex"]);
    let globex = get(&pool, "globex").await.unwrap().unwrap();
    assert_eq!((globex.namespace.as_str(), globex.detached_at.is_some()), ("default", true));
    assert_eq!(get(&pool, "nobody").await.unwrap(), None);
}
