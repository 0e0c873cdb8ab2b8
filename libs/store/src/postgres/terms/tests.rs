use flagmeter_core::event::UsageEvent;

use super::*;
use crate::PgPool;
use crate::postgres::audit::books;
use crate::postgres::batch::Counter;
use crate::postgres::tenants::{self, Change, ChangeKind, TenantRow};
use crate::postgres::usage;
use crate::testing::{add_channels, entry, event, own_connection};

/// When settings change, unless a test says otherwise.
const NOW: &str = "2026-06-20T12:00:00Z";

fn acme() -> TenantRow {
    TenantRow { billing_day: 1, time_zone: "UTC".into(), slack: None, ..tenants::tests::acme() }
}

async fn put_at(pool: &PgPool, before: Option<&TenantRow>, after: &TenantRow, now: &str) {
    let kind = before.map_or(ChangeKind::Created, |_| ChangeKind::Changed);
    let now = now.parse().unwrap();
    let change = Change { kind, before, after, sealed_url: None, sealed_webhook: None, now };
    assert!(tenants::write(pool, &change).await.unwrap());
}

async fn put(pool: &PgPool, before: Option<&TenantRow>, after: &TenantRow) {
    put_at(pool, before, after, NOW).await;
}

async fn count(pool: &PgPool, number: u128, feature: &str, tokens: i64, at: &str) {
    let event = UsageEvent {
        feature: feature.try_into().unwrap(),
        occurred_at: at.parse().unwrap(),
        ..event("acme", tokens)
    };
    Counter::new(pool.clone()).apply(&[entry(number, [event])]).await.unwrap();
}

/// A record: kind, threshold, quota, total.
type Line = (String, i32, i64, i64);

/// What is recorded, oldest first.
async fn recorded(pool: &PgPool) -> Vec<Line> {
    sqlx::query_as("SELECT kind, threshold, monthly_quota, total_tokens FROM alerts ORDER BY id")
        .fetch_all(pool)
        .await
        .unwrap()
}

fn line(kind: &str, quota: i64, total: i64) -> Line {
    (kind.to_owned(), 80, quota, total)
}

/// The periods: first and next day, tokens, events.
async fn periods(pool: &PgPool) -> Vec<(String, String, i64, i64)> {
    sqlx::query_as(
        "SELECT to_char(period_start AT TIME ZONE 'UTC', 'MM-DD'), to_char(period_end AT TIME ZONE 'UTC', 'MM-DD'),
                total_tokens, events
         FROM usage_periods
         ORDER BY period_start",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

fn period(start: &str, end: &str, tokens: i64, events: i64) -> (String, String, i64, i64) {
    (start.to_owned(), end.to_owned(), tokens, events)
}

/// Whether the books balance.
async fn balances(pool: &PgPool) -> bool {
    books(pool).await.unwrap().iter().all(crate::postgres::audit::Book::balances)
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_lower_quota_is_told_without_an_event_and_a_higher_one_recovers_and_arms_anew(pool: PgPool) {
    put(&pool, None, &acme()).await;
    let sealed = vec![0; 40];
    add_channels(&pool, "acme", &sealed, &sealed).await;
    count(&pool, 1, "chat", 500, "2026-06-10T00:00:00Z").await;
    assert_eq!(recorded(&pool).await, []);

    let sealer = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().unwrap();
    let mut before = tenants::find(&pool, &sealer, "acme").await.unwrap().unwrap().row;
    let steps: [(i64, &[Line]); 5] = [
        (625, &[line("crossed", 625, 500)]),
        (900, &[line("recovered", 900, 500)]),
        (600, &[line("crossed", 600, 500)]),
        // Known already, both of them.
        (900, &[]),
        (625, &[]),
    ];
    let mut expected = Vec::new();
    for (monthly_quota, news) in steps {
        let after = TenantRow { monthly_quota, ..before.clone() };
        put(&pool, Some(&before), &after).await;
        expected.extend_from_slice(news);
        assert_eq!(recorded(&pool).await, expected, "{monthly_quota}");
        before = after;
    }
    // At 900 it was recovered, but 80 % of 900 was never reached: usage does that now.
    let after = TenantRow { monthly_quota: 900, ..before.clone() };
    put(&pool, Some(&before), &after).await;
    count(&pool, 2, "chat", 220, "2026-06-10T00:00:00Z").await;
    expected.push(line("crossed", 900, 720));
    assert_eq!(recorded(&pool).await, expected);
    let messages: i64 =
        sqlx::query_scalar("SELECT count(*) FROM alert_deliveries").fetch_one(&pool).await.unwrap();
    assert_eq!(messages, 2 * 3, "a message on each channel for each crossing, and none for a recovery");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_period_that_is_over_is_held_against_the_quota_it_had(pool: PgPool) {
    let boost = Boost {
        tokens: 1_000,
        from: "2026-05-01T00:00:00Z".parse().unwrap(),
        until: "2026-06-01T00:00:00Z".parse().unwrap(),
        reason: "launch".into(),
    };
    let boosted = TenantRow { boosts: vec![boost], ..acme() };
    put(&pool, None, &boosted).await;
    count(&pool, 1, "chat", 700, "2026-05-10T00:00:00Z").await;
    // The boost is over and no longer in the spec, and the quota is lower.
    put(&pool, Some(&boosted), &TenantRow { monthly_quota: 100, ..acme() }).await;
    count(&pool, 2, "chat", 899, "2026-05-31T00:00:00Z").await;
    assert_eq!(recorded(&pool).await, []);
    count(&pool, 3, "chat", 1, "2026-05-31T00:00:00Z").await;
    assert_eq!(recorded(&pool).await, [line("crossed", 2_000, 1_600)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_period_without_usage_keeps_its_quota_for_events_that_come_late(pool: PgPool) {
    put_at(&pool, None, &acme(), "2026-04-20T00:00:00Z").await;
    let raised = TenantRow { monthly_quota: 10_000, ..acme() };
    put_at(&pool, Some(&acme()), &raised, "2026-06-01T00:10:00Z").await;
    let now = NOW.parse().unwrap();
    assert_eq!(usage::periods(&pool, "acme", now, 12).await.unwrap(), [], "nothing was used");
    count(&pool, 1, "chat", 900, "2026-05-20T00:00:00Z").await;
    assert_eq!(recorded(&pool).await, [line("crossed", 1_000, 900)]);
    assert_eq!(usage::periods(&pool, "acme", now, 12).await.unwrap().len(), 1);
    assert!(balances(&pool).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn another_billing_day_makes_the_open_period_anew_and_what_was_billed_stays(pool: PgPool) {
    put(&pool, None, &acme()).await;
    count(&pool, 1, "chat", 100, "2026-05-20T00:00:00Z").await;
    count(&pool, 2, "chat", 10, "2026-06-05T00:00:00Z").await;
    count(&pool, 3, "chat", 20, "2026-06-15T00:00:00Z").await;
    count(&pool, 4, "search", 1, "2026-06-18T00:00:00Z").await;
    let changed = TenantRow { billing_day: 15, ..acme() };
    put(&pool, Some(&acme()), &changed).await;
    let may = period("05-01", "06-01", 100, 1);
    assert_eq!(
        periods(&pool).await,
        [may.clone(), period("06-01", "06-15", 10, 1), period("06-15", "07-15", 21, 2)]
    );
    // Late events: of a period that was billed, of the one that the change ended, of the open one.
    count(&pool, 5, "chat", 200, "2026-05-31T23:59:59Z").await;
    count(&pool, 6, "chat", 2, "2026-06-14T23:59:59Z").await;
    count(&pool, 7, "chat", 4, "2026-06-20T00:00:00Z").await;
    let may = period("05-01", "06-01", 300, 2);
    let first = period("06-01", "06-15", 12, 2);
    assert_eq!(periods(&pool).await, [may.clone(), first.clone(), period("06-15", "07-15", 25, 3)]);
    assert!(balances(&pool).await);

    // Back again: only the open period follows.
    put(&pool, Some(&changed), &acme()).await;
    assert_eq!(periods(&pool).await, [may, first, period("06-15", "07-01", 25, 3)]);
    let features: Vec<(String, i64)> = sqlx::query_as(
        "SELECT feature, total_tokens FROM usage_features WHERE period_start = '2026-06-15Z' ORDER BY 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(features, [("chat".to_owned(), 24), ("search".to_owned(), 1)]);
    assert!(balances(&pool).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_piece_that_a_new_billing_day_ends_keeps_the_quota_it_had(pool: PgPool) {
    put(&pool, None, &acme()).await;
    count(&pool, 1, "chat", 700, "2026-06-05T00:00:00Z").await;
    put(&pool, Some(&acme()), &TenantRow { billing_day: 15, monthly_quota: 100_000, ..acme() }).await;
    count(&pool, 2, "chat", 100, "2026-06-14T00:00:00Z").await;
    assert_eq!(recorded(&pool).await, [line("crossed", 1_000, 800)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn thresholds_are_held_against_the_new_open_period(pool: PgPool) {
    put(&pool, None, &acme()).await;
    count(&pool, 1, "chat", 700, "2026-06-05T00:00:00Z").await;
    count(&pool, 2, "chat", 200, "2026-06-16T00:00:00Z").await;
    assert_eq!(recorded(&pool).await, [line("crossed", 1_000, 900)]);
    put(&pool, Some(&acme()), &TenantRow { billing_day: 15, ..acme() }).await;
    count(&pool, 3, "chat", 599, "2026-06-17T00:00:00Z").await;
    assert_eq!(recorded(&pool).await.len(), 1);
    count(&pool, 4, "chat", 1, "2026-06-17T00:00:00Z").await;
    assert_eq!(recorded(&pool).await[1..], [line("crossed", 1_000, 800)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_row_edited_by_hand_counts_by_the_calendar_in_force(pool: PgPool) {
    put(&pool, None, &acme()).await;
    sqlx::query("UPDATE tenants SET billing_day = 9").execute(&pool).await.unwrap();
    count(&pool, 1, "chat", 10, "2026-06-15T00:00:00Z").await;
    let edited = TenantRow { billing_day: 9, ..acme() };
    put(&pool, Some(&edited), &acme()).await;
    count(&pool, 2, "chat", 10, "2026-06-16T00:00:00Z").await;
    assert_eq!(periods(&pool).await, [period("06-01", "07-01", 20, 2)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn minutes_that_were_forgotten_stay_counted(pool: PgPool) {
    put(&pool, None, &acme()).await;
    count(&pool, 1, "chat", 10, "2026-06-05T00:00:00Z").await;
    count(&pool, 2, "chat", 20, "2026-06-16T00:00:00Z").await;
    sqlx::query("INSERT INTO forgotten VALUES ('acme', 'rollups', 0, 10)").execute(&pool).await.unwrap();
    sqlx::query("DELETE FROM rollups WHERE minute < '2026-06-10Z'").execute(&pool).await.unwrap();
    put(&pool, Some(&acme()), &TenantRow { billing_day: 15, ..acme() }).await;
    assert_eq!(periods(&pool).await, [period("06-01", "06-15", 10, 1), period("06-15", "07-15", 20, 1)]);
    assert!(balances(&pool).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_change_that_does_not_commit_leaves_everything_as_it_was(pool: PgPool) {
    put(&pool, None, &acme()).await;
    count(&pool, 1, "chat", 900, "2026-06-16T00:00:00Z").await;
    // The trail comes last.
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'away'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON tenant_changes FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .execute(&pool)
    .await
    .unwrap();
    let before = acme();
    let after = TenantRow { billing_day: 15, monthly_quota: 10, ..acme() };
    let change = Change {
        kind: ChangeKind::Changed,
        before: Some(&before),
        after: &after,
        sealed_url: None,
        sealed_webhook: None,
        now: NOW.parse().unwrap(),
    };
    tenants::write(&pool, &change).await.unwrap_err();
    assert_eq!(periods(&pool).await, [period("06-01", "07-01", 900, 1)]);
    assert_eq!(recorded(&pool).await, [line("crossed", 1_000, 900)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn while_others_count_a_change_of_quota_misses_nothing_that_is_reached(pool: PgPool) {
    put(&pool, None, &acme()).await;
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..4_u128 {
        let counter = Counter::new(own_connection(&pool));
        workers.spawn(async move {
            for number in 0..40_u128 {
                counter.apply(&[entry(1 + worker * 100 + number, [event("acme", 7)])]).await.unwrap();
            }
        });
    }
    let mut before = acme();
    let mut due = Vec::new();
    for monthly_quota in [300, 5_000, 600, 2_000, 1_200] {
        let after = TenantRow { monthly_quota, ..before.clone() };
        put(&pool, Some(&before), &after).await;
        let used: i64 =
            sqlx::query_scalar("SELECT coalesce(sum(total_tokens), 0)::bigint FROM usage_periods")
                .fetch_one(&pool)
                .await
                .unwrap();
        due.extend((used * 100 >= monthly_quota * 80).then_some(monthly_quota));
        before = after;
    }
    workers.join_all().await;
    assert_eq!(books(&pool).await.unwrap()[0].period_tokens, 4 * 40 * 7);
    // 1,120 tokens reach 80 % of the last quota, whoever was first.
    due.push(1_200);
    let crossed: Vec<i64> = recorded(&pool)
        .await
        .into_iter()
        .filter_map(|(kind, _, quota, _)| (kind == "crossed").then_some(quota))
        .collect();
    assert!(due.iter().all(|quota| crossed.contains(quota)), "{crossed:?} of {due:?}");
    // Whoever looks at all of it again finds nothing that was missed.
    assert_eq!(alerts::review_all(&pool, NOW.parse().unwrap()).await.unwrap(), 1);
    let again = recorded(&pool).await.into_iter().filter(|(kind, ..)| kind == "crossed").count();
    assert_eq!(again, crossed.len());
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn while_others_count_a_change_of_calendar_keeps_the_books(pool: PgPool) {
    put(&pool, None, &acme()).await;
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..4_u128 {
        let pool = pool.clone();
        workers.spawn(async move {
            let counter = Counter::new(pool);
            for number in 0..40_u128 {
                let day = 1 + (number * 7 + worker) % 28;
                let at = format!("2026-06-{day:02}T{:02}:00:00Z", number % 24);
                let event = UsageEvent {
                    feature: format!("f{}", number % 3).as_str().try_into().unwrap(),
                    occurred_at: at.parse().unwrap(),
                    ..event("acme", 7)
                };
                counter.apply(&[entry(1 + worker * 100 + number, [event])]).await.unwrap();
            }
        });
    }
    let mut before = acme();
    for (billing_day, time_zone) in
        [(15, "UTC"), (1, "America/New_York"), (28, "Europe/Berlin"), (10, "Asia/Kolkata"), (20, "UTC")]
    {
        let after = TenantRow { billing_day, time_zone: time_zone.into(), ..acme() };
        put(&pool, Some(&before), &after).await;
        before = after;
        assert!(balances(&pool).await);
    }
    workers.join_all().await;
    assert!(balances(&pool).await);
    let total: i64 = sqlx::query_scalar("SELECT sum(total_tokens)::bigint FROM usage_periods")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(total, 4 * 40 * 7);
    // Each period has what its minutes say, and none overlaps another.
    let wrong: i64 = sqlx::query_scalar(
        "SELECT count(*)
         FROM usage_periods AS periods
         WHERE total_tokens <> (SELECT COALESCE(sum(total_tokens), 0) FROM rollups
                                WHERE minute >= period_start AND minute < period_end)
            OR EXISTS (SELECT FROM usage_periods AS other
                       WHERE other.period_start > periods.period_start AND other.period_start < periods.period_end)",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(wrong, 0);
}
