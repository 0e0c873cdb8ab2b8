use super::*;

const URL: &str = "https://hooks.slack.com/services/T0/B0/x";

fn sealer() -> Sealer {
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().unwrap()
}

fn acme() -> TenantRow {
    TenantRow {
        id: "acme".into(),
        name: "Acme Corp".into(),
        monthly_quota: 1_000,
        billing_day: 15,
        time_zone: "Europe/Berlin".into(),
        owner: Owner { namespace: "shop".into(), uid: "uid-1".into() },
        detached_at: None,
        slack: Some(SlackRow { fingerprint: Some(sealer().fingerprint("acme", URL)), enabled: true }),
    }
}

async fn create(pool: &PgPool, row: &TenantRow) -> bool {
    let url = sealer().seal(&row.id, URL).unwrap();
    let change = Change { kind: ChangeKind::Created, before: None, after: row, sealed_url: Some(&url) };
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
    let after = TenantRow { monthly_quota: 2_000, slack: None, ..acme() };
    let change = Change { kind: ChangeKind::Changed, before: Some(&before), after: &after, sealed_url: None };
    assert!(write(&pool, &change).await.unwrap());
    assert_eq!(found(&pool).await.row, after);
    assert_eq!(kinds(&pool).await, ["created", "changed"]);

    // What the database refuses leaves no trace in any of the three tables.
    let refused = TenantRow { monthly_quota: 0, ..acme() };
    let change =
        Change { kind: ChangeKind::Changed, before: Some(&after), after: &refused, sealed_url: None };
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
    let change = Change { kind: ChangeKind::Changed, before: Some(&before), after: &after, sealed_url: None };
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
    let change = Change { kind: ChangeKind::Changed, before: Some(&seen), after: &after, sealed_url: None };
    assert!(!write(&pool, &change).await.unwrap(), "the row was another resource's");
    assert_eq!(found(&pool).await.row, acme());
    assert_eq!(kinds(&pool).await, ["created"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_row_is_detached_once_and_only_for_its_own_resource(pool: PgPool) {
    create(&pool, &acme()).await;
    let row = Attached { id: "acme".into(), owner_uid: "uid-1".into() };
    assert_eq!(attached(&pool, "shop").await.unwrap(), [row]);
    assert_eq!(attached(&pool, "other").await.unwrap(), []);

    assert!(!detach(&pool, "acme", "uid-2").await.unwrap(), "another resource");
    assert!(detach(&pool, "acme", "uid-1").await.unwrap());
    assert!(!detach(&pool, "acme", "uid-1").await.unwrap(), "a second time");
    assert_eq!(attached(&pool, "shop").await.unwrap(), []);
    let detached = found(&pool).await;
    assert!(detached.row.detached_at.is_some());
    assert_eq!(detached.recorded, None);

    // A resource made anew takes the row over.
    let mut after = acme();
    after.owner.uid = "uid-2".into();
    let change =
        Change { kind: ChangeKind::Adopted, before: Some(&detached.row), after: &after, sealed_url: None };
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
async fn usage_is_that_of_the_period_asked_for(pool: PgPool) {
    let period: Timestamp = "2026-03-15T00:00:00Z".parse().unwrap();
    let earlier: Timestamp = "2026-02-15T00:00:00Z".parse().unwrap();
    sqlx::query(
        "INSERT INTO usage_periods (tenant, period_start, period_end, total_tokens, events, last_minute)
         VALUES ('acme', '2026-03-15Z', '2026-04-15Z', 700, 7, '2026-03-20Z'),
                ('acme', '2026-02-15Z', '2026-03-15Z', 900, 9, '2026-02-20Z'),
                ('globex', '2026-02-15Z', '2026-03-15Z', 5, 1, '2026-02-20Z')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let asked = [("acme".to_owned(), period), ("globex".to_owned(), period)];
    assert_eq!(usage(&pool, &asked).await.unwrap(), HashMap::from([("acme".to_owned(), 700)]));
    let asked = [("globex".to_owned(), earlier)];
    assert_eq!(usage(&pool, &asked).await.unwrap(), HashMap::from([("globex".to_owned(), 5)]));
}
