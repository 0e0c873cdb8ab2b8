use std::sync::Arc;

use flagmeter_core::event::UsageEvent;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::*;
use crate::postgres::audit::books;
use crate::postgres::batch::{Counter, Entry};
use crate::testing::{NOON, add_tenant, entry, event, own_connection, reversal_of, with_id};

/// What is recorded, oldest first: kind, threshold, quota, total.
async fn recorded_of(pool: &PgPool, tenant: &str) -> Vec<(String, i32, i64, i64)> {
    sqlx::query_as(
        "SELECT kind, threshold, monthly_quota, total_tokens FROM alerts WHERE tenant = $1 ORDER BY id",
    )
    .bind(tenant)
    .fetch_all(pool)
    .await
    .unwrap()
}

fn crossed(threshold: i32, quota: i64, total: i64) -> (String, i32, i64, i64) {
    ("crossed".to_owned(), threshold, quota, total)
}

fn recovered(threshold: i32, quota: i64, total: i64) -> (String, i32, i64, i64) {
    ("recovered".to_owned(), threshold, quota, total)
}

/// What is to be sent: channel, threshold.
async fn messages(pool: &PgPool) -> Vec<(String, i32)> {
    sqlx::query_as(
        "SELECT channel, threshold FROM alert_deliveries JOIN alerts ON id = alert ORDER BY id, channel",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// A tenant with a quota of 1,000, and both channels.
async fn add_watched(pool: &PgPool, thresholds: &[i32]) {
    add_tenant(pool, "acme").await;
    set(pool, "monthly_quota = 1000").await;
    sqlx::query("UPDATE tenants SET thresholds = $1").bind(thresholds).execute(pool).await.unwrap();
    let sealed = vec![0_u8; 40];
    for statement in [
        "INSERT INTO slack_webhooks (tenant, url, enabled) VALUES ('acme', $1, true)",
        "INSERT INTO webhooks (tenant, url, secret, enabled) VALUES ('acme', $1, $1, true)",
    ] {
        sqlx::query(statement).bind(&sealed).execute(pool).await.unwrap();
    }
}

async fn set(pool: &PgPool, columns: &str) {
    let query = sqlx::AssertSqlSafe(format!("UPDATE tenants SET {columns}"));
    sqlx::query(query).execute(pool).await.unwrap();
}

async fn count(pool: &PgPool, entries: &[Entry]) {
    Counter::new(pool.clone()).apply(entries).await.unwrap();
}

fn noon() -> Timestamp {
    NOON.parse().unwrap()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn exactly_eighty_percent_is_recorded_and_one_token_less_is_not(pool: PgPool) {
    add_watched(&pool, &[80]).await;
    set(&pool, "monthly_quota = 10000").await;
    count(&pool, &[entry(1, [event("acme", 7_999)])]).await;
    assert_eq!(recorded_of(&pool, "acme").await, []);
    count(&pool, &[entry(2, [event("acme", 1)])]).await;
    assert_eq!(recorded_of(&pool, "acme").await, [crossed(80, 10_000, 8_000)]);
    assert_eq!(messages(&pool).await, [("slack".to_owned(), 80), ("webhook".to_owned(), 80)]);
    // What comes after it, and what comes again, is no news.
    count(&pool, &[entry(2, [event("acme", 1)]), entry(3, [event("acme", 5_000)])]).await;
    assert_eq!(recorded_of(&pool, "acme").await.len(), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_several_crossed_at_once_the_highest_is_told_and_all_are_recorded(pool: PgPool) {
    add_watched(&pool, &[50, 80, 100]).await;
    sqlx::query("UPDATE webhooks SET enabled = false").execute(&pool).await.unwrap();
    count(&pool, &[entry(1, [event("acme", 900)])]).await;
    assert_eq!(recorded_of(&pool, "acme").await, [crossed(80, 1_000, 900), crossed(50, 1_000, 900)]);
    assert_eq!(messages(&pool).await, [("slack".to_owned(), 80)]);
    let told: Vec<Option<i32>> = sqlx::query_scalar(
        "SELECT told.threshold FROM alerts LEFT JOIN alerts AS told ON told.id = alerts.superseded_by ORDER BY alerts.id",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(told, [None, Some(80)]);
    count(&pool, &[entry(2, [event("acme", 100)])]).await;
    assert_eq!(messages(&pool).await, [("slack".to_owned(), 80), ("slack".to_owned(), 100)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn sixteen_workers_that_cross_at_once_record_it_once(pool: PgPool) {
    add_watched(&pool, &[80]).await;
    // Together they reach 1,600 of 1,000; which of them crosses is chance.
    let barrier = Arc::new(Barrier::new(16));
    let mut workers = JoinSet::new();
    for number in 1..=16 {
        let (counter, barrier) = (Counter::new(own_connection(&pool)), Arc::clone(&barrier));
        workers.spawn(async move {
            // Connected, and with all that a counter finds out first, each waits for the others.
            counter.apply(&[]).await.unwrap();
            barrier.wait().await;
            counter.apply(&[entry(number, [event("acme", 100)])]).await.unwrap()
        });
    }
    workers.join_all().await;
    assert_eq!(recorded_of(&pool, "acme").await, [crossed(80, 1_000, 800)]);
    assert_eq!(messages(&pool).await.len(), 2);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn each_period_is_held_against_the_quota_by_itself(pool: PgPool) {
    add_watched(&pool, &[80]).await;
    let on = |number, day: &str| {
        entry(number, [UsageEvent { occurred_at: day.parse().unwrap(), ..event("acme", 800) }])
    };
    count(&pool, &[on(1, "2026-06-15T12:00:00Z")]).await;
    // A late event of a period that is over, and one of the next, which has not begun by the sender's clock.
    count(&pool, &[on(2, "2026-05-31T23:59:59Z"), on(3, "2026-07-01T00:00:00Z")]).await;
    let starts: Vec<String> = sqlx::query_scalar(
        "SELECT (period_start AT TIME ZONE 'UTC')::date::text FROM alerts ORDER BY period_start",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(starts, ["2026-05-01", "2026-06-01", "2026-07-01"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_taken_back_recovers_nothing_and_is_not_told_twice(pool: PgPool) {
    add_watched(&pool, &[80]).await;
    let used = with_id(event("acme", 900), "order-7");
    count(&pool, &[entry(1, [used.clone()])]).await;
    count(&pool, &[entry(2, [reversal_of(&used)])]).await;
    count(&pool, &[entry(3, [event("acme", 850)])]).await;
    assert_eq!(recorded_of(&pool, "acme").await, [crossed(80, 1_000, 900)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_does_not_commit_records_nothing_and_comes_again_whole(pool: PgPool) {
    add_watched(&pool, &[80]).await;
    // The last write of the transaction fails, so everything before it is undone.
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'away'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON alert_deliveries FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .execute(&pool)
    .await
    .unwrap();
    let counter = Counter::new(pool.clone());
    let batch = [entry(1, [event("acme", 900)])];
    counter.apply(&batch).await.unwrap_err();
    assert_eq!(recorded_of(&pool, "acme").await, []);
    assert_eq!(books(&pool).await.unwrap(), []);
    sqlx::query("DROP TRIGGER refuse ON alert_deliveries").execute(&pool).await.unwrap();
    counter.apply(&batch).await.unwrap();
    assert_eq!(recorded_of(&pool, "acme").await, [crossed(80, 1_000, 900)]);
    assert_eq!(messages(&pool).await.len(), 2);
}

const BOOST: &str = r#"quota_boosts = '[{"tokens": 1000, "from": "2026-06-10T00:00:00Z", "until": "UNTIL", "reason": "launch"}]'"#;

/// Counts in June what the base alone is held against, and then boosts it by 1,000 from the 10th on: nothing depends on
/// the day on which the test runs.
async fn use_and_boost(pool: &PgPool, used: i64, until: &str) {
    add_watched(pool, &[80]).await;
    count(pool, &[entry(1, [event("acme", used)])]).await;
    set(pool, &BOOST.replace("UNTIL", until)).await;
}

async fn edges(pool: &PgPool, since: &str, now: &str) -> usize {
    review_edges(pool, since.parse().unwrap(), now.parse().unwrap()).await.unwrap()
}

async fn use_in_all(pool: &PgPool, tokens: i64) {
    sqlx::query("UPDATE usage_periods SET total_tokens = $1").bind(tokens).execute(pool).await.unwrap();
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_boost_puts_thresholds_out_of_reach_while_it_holds(pool: PgPool) {
    use_and_boost(&pool, 900, "2026-06-20T00:00:00Z").await;
    assert_eq!(recorded_of(&pool, "acme").await, [crossed(80, 1_000, 900)]);
    // It holds, and did so before: nothing changed.
    assert_eq!(edges(&pool, "2026-06-15T11:59:00Z", NOON).await, 0);
    // It began since it was looked for last: 900 of 2,000.
    assert_eq!(edges(&pool, "2026-06-09T23:59:30Z", "2026-06-10T00:00:30Z").await, 1);
    let so_far = [crossed(80, 1_000, 900), recovered(80, 2_000, 900)];
    assert_eq!(recorded_of(&pool, "acme").await, so_far);
    // Whoever looks again, or for the first time, says nothing new.
    assert_eq!(review_all(&pool, noon()).await.unwrap(), 1);
    assert_eq!(recorded_of(&pool, "acme").await, so_far);
    // 1,700 of 2,000 while it holds, and then of 1,000: that threshold of that quota is known.
    use_in_all(&pool, 1_700).await;
    review_all(&pool, noon()).await.unwrap();
    edges(&pool, "2026-06-19T23:59:30Z", "2026-06-20T00:00:00Z").await;
    assert_eq!(recorded_of(&pool, "acme").await[2..], [crossed(80, 2_000, 1_700)]);
}

/// The quota is 1,000; 900 are used, of which a message tells; a boost of 1,500 puts that out of reach; and 900 more are
/// used while it holds.
async fn use_twice_what_there_is_while_boosted(pool: &PgPool) {
    add_watched(pool, &[80]).await;
    count(pool, &[entry(1, [event("acme", 900)])]).await;
    let boost =
        BOOST.replace("UNTIL", "2026-06-20T00:00:00Z").replace(r#""tokens": 1000"#, r#""tokens": 1500"#);
    set(pool, &boost).await;
    edges(pool, "2026-06-09T23:59:30Z", "2026-06-10T00:00:30Z").await;
    assert_eq!(recorded_of(pool, "acme").await, [crossed(80, 1_000, 900), recovered(80, 2_500, 900)]);
    use_in_all(pool, 1_800).await;
}

/// What was recorded so far was so a minute ago.
async fn a_minute_passes(pool: &PgPool) {
    sqlx::query("UPDATE alerts SET created_at = created_at - interval '1 minute'")
        .execute(pool)
        .await
        .unwrap();
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_tenant_that_is_at_180_percent_when_its_boost_ends_is_told_and_once(pool: PgPool) {
    use_twice_what_there_is_while_boosted(&pool).await;
    a_minute_passes(&pool).await;
    edges(&pool, "2026-06-19T23:59:30Z", "2026-06-20T00:00:00Z").await;
    let so_far = [crossed(80, 1_000, 900), recovered(80, 2_500, 900), crossed(80, 1_000, 1_800)];
    assert_eq!(recorded_of(&pool, "acme").await, so_far);
    assert_eq!(messages(&pool).await.len(), 4, "each time one on each of two channels");
    // Another look, a first look of a new worker, and usage beyond it say nothing new.
    for _ in 0..2 {
        edges(&pool, "2026-06-20T00:00:00Z", "2026-06-20T00:01:00Z").await;
        review_all(&pool, "2026-06-20T00:02:00Z".parse().unwrap()).await.unwrap();
        count(&pool, &[entry(2, [event("acme", 50)])]).await;
        a_minute_passes(&pool).await;
    }
    assert_eq!((recorded_of(&pool, "acme").await, messages(&pool).await.len()), (so_far.to_vec(), 4));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn each_boost_that_comes_and_goes_is_a_recovery_and_a_crossing(pool: PgPool) {
    use_twice_what_there_is_while_boosted(&pool).await;
    for boosts in 1..=3 {
        a_minute_passes(&pool).await;
        edges(&pool, "2026-06-19T23:59:30Z", "2026-06-20T00:00:00Z").await;
        assert_eq!(messages(&pool).await.len(), 2 + 2 * boosts);
        // The same boost once more, as the 10th was.
        edges(&pool, "2026-06-09T23:59:30Z", "2026-06-10T00:00:30Z").await;
        assert_eq!(recorded_of(&pool, "acme").await.last(), Some(&recovered(80, 2_500, 1_800)));
    }
    assert_eq!(recorded_of(&pool, "acme").await.len(), 2 + 2 * 3);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_quota_that_goes_up_and_down_within_a_minute_is_told_once(pool: PgPool) {
    use_twice_what_there_is_while_boosted(&pool).await;
    // Two workers whose clocks differ: by one the boost is over, by the other it holds.
    for _ in 0..3 {
        edges(&pool, "2026-06-19T23:59:30Z", "2026-06-20T00:00:00Z").await;
        edges(&pool, "2026-06-09T23:59:30Z", "2026-06-10T00:00:30Z").await;
    }
    edges(&pool, "2026-06-19T23:59:30Z", "2026-06-20T00:00:00Z").await;
    // The rows are bounded, too, however often it goes to and fro.
    let once = [crossed(80, 1_000, 900), recovered(80, 2_500, 900), crossed(80, 1_000, 1_800)];
    assert_eq!(recorded_of(&pool, "acme").await, once);
    assert_eq!(messages(&pool).await.len(), 2, "only of the first");
    let told_by: Vec<Option<i64>> =
        sqlx::query_scalar("SELECT superseded_by FROM alerts WHERE kind = 'crossed' ORDER BY id")
            .fetch_all(&pool)
            .await
            .unwrap();
    let first: i64 = sqlx::query_scalar("SELECT min(id) FROM alerts").fetch_one(&pool).await.unwrap();
    assert_eq!(told_by, [None, Some(first)]);
    // A minute after the message it is no longer a flap.
    a_minute_passes(&pool).await;
    edges(&pool, "2026-06-09T23:59:30Z", "2026-06-10T00:00:30Z").await;
    edges(&pool, "2026-06-19T23:59:30Z", "2026-06-20T00:00:00Z").await;
    assert_eq!(
        recorded_of(&pool, "acme").await[3..],
        [recovered(80, 2_500, 1_800), crossed(80, 1_000, 1_800)]
    );
    assert_eq!(messages(&pool).await.len(), 4);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_recovery_that_follows_another_within_a_minute_is_recorded_if_it_lasts(pool: PgPool) {
    add_watched(&pool, &[80]).await;
    count(&pool, &[entry(1, [event("acme", 900)])]).await;
    // As the operator does when it writes another quota.
    for quota in [2_000, 1_000, 2_000] {
        set(&pool, &format!("monthly_quota = {quota}")).await;
        review_one(&pool, "acme", noon(), noon()).await.unwrap();
    }
    let so_far = [crossed(80, 1_000, 900), recovered(80, 2_000, 900), crossed(80, 1_000, 900)];
    assert_eq!(recorded_of(&pool, "acme").await, so_far);
    // Nobody changes anything meanwhile. A worker looks again all the same.
    a_minute_passes(&pool).await;
    assert_eq!(
        edges(&pool, "2026-06-15T12:00:00Z", "2026-06-15T12:01:00Z").await,
        0,
        "no quota changed by itself"
    );
    assert_eq!(recorded_of(&pool, "acme").await[3..], [recovered(80, 2_000, 900)]);
    set(&pool, "monthly_quota = 1000").await;
    review_one(&pool, "acme", noon(), noon()).await.unwrap();
    assert_eq!(messages(&pool).await.len(), 4);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn sixteen_that_look_at_once_when_a_boost_has_ended_tell_it_once(pool: PgPool) {
    use_twice_what_there_is_while_boosted(&pool).await;
    a_minute_passes(&pool).await;
    let barrier = Arc::new(Barrier::new(16));
    let mut workers = JoinSet::new();
    for number in 0..16 {
        let (own, barrier) = (own_connection(&pool), Arc::clone(&barrier));
        workers.spawn(async move {
            barrier.wait().await;
            if number % 2 == 0 {
                edges(&own, "2026-06-19T23:59:30Z", "2026-06-20T00:00:00Z").await;
            } else {
                review_all(&own, "2026-06-20T00:00:01Z".parse().unwrap()).await.unwrap();
            }
        });
    }
    workers.join_all().await;
    assert_eq!(recorded_of(&pool, "acme").await[2..], [crossed(80, 1_000, 1_800)]);
    assert_eq!(messages(&pool).await.len(), 4);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_was_held_against_a_boost_that_had_just_ended_is_found_by_the_next_look(pool: PgPool) {
    use_and_boost(&pool, 700, "2026-06-20T00:00:00Z").await;
    edges(&pool, "2026-06-19T23:59:30Z", "2026-06-20T00:00:10Z").await;
    assert_eq!(recorded_of(&pool, "acme").await, []);
    // A batch read the quota before the boost ended, or by a clock that is behind, and commits only now.
    use_in_all(&pool, 1_500).await;
    edges(&pool, "2026-06-20T00:00:10Z", "2026-06-20T00:01:10Z").await;
    assert_eq!(recorded_of(&pool, "acme").await, [crossed(80, 1_000, 1_500)]);
    assert_eq!(edges(&pool, "2026-06-20T00:06:00Z", "2026-06-20T00:07:00Z").await, 0, "it is settled");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_boost_that_ends_just_before_its_period_is_held_against_all_the_same(pool: PgPool) {
    use_and_boost(&pool, 700, "2026-06-30T23:59:30Z").await;
    use_in_all(&pool, 1_500).await;
    edges(&pool, "2026-06-30T23:59:00Z", "2026-07-01T00:00:10Z").await;
    assert_eq!(recorded_of(&pool, "acme").await, [crossed(80, 1_000, 1_500)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_boost_that_ended_with_its_period_while_nobody_looked_is_found_by_the_first_look(pool: PgPool) {
    use_and_boost(&pool, 700, "2026-06-30T12:00:00Z").await;
    use_in_all(&pool, 1_500).await;
    review_all(&pool, "2026-07-03T00:00:00Z".parse().unwrap()).await.unwrap();
    assert_eq!(recorded_of(&pool, "acme").await, [crossed(80, 1_000, 1_500)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_tenant_whose_resource_is_gone_is_not_looked_at(pool: PgPool) {
    use_and_boost(&pool, 900, "2026-06-20T00:00:00Z").await;
    set(&pool, "detached_at = now()").await;
    assert_eq!(edges(&pool, "2026-06-09T23:59:30Z", "2026-06-10T00:00:30Z").await, 0);
    assert_eq!(review_all(&pool, noon()).await.unwrap(), 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_period_that_is_over_is_not_held_against_thresholds_that_came_later(pool: PgPool) {
    add_watched(&pool, &[80]).await;
    count(&pool, &[entry(1, [event("acme", 700)])]).await;
    set(&pool, "thresholds = '{50}'").await;
    review_all(&pool, "2026-07-03T00:00:00Z".parse().unwrap()).await.unwrap();
    assert_eq!(recorded_of(&pool, "acme").await, []);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn usage_from_before_anybody_watched_is_found_by_the_first_look(pool: PgPool) {
    add_watched(&pool, &[80]).await;
    set(&pool, "thresholds = '{}'").await;
    count(&pool, &[entry(1, [event("acme", 900)])]).await;
    set(&pool, "thresholds = '{80}'").await;
    add_tenant(&pool, "idle").await;
    assert_eq!(review_all(&pool, noon()).await.unwrap(), 1);
    assert_eq!(recorded_of(&pool, "acme").await, [crossed(80, 1_000, 900)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_tenant_whose_thresholds_cannot_be_recorded_keeps_no_other_from_its_own(pool: PgPool) {
    for (number, tenant) in [(1, "aardvark"), (2, "acme")] {
        add_tenant(&pool, tenant).await;
        count(&pool, &[entry(number, [event(tenant, 900)])]).await;
    }
    set(&pool, "monthly_quota = 1000").await;
    let refuse = "ALTER TABLE alerts ADD CHECK (tenant <> 'aardvark')";
    sqlx::query(refuse).execute(&pool).await.unwrap();
    assert!(review_all(&pool, noon()).await.is_err());
    assert_eq!(recorded_of(&pool, "acme").await, [crossed(80, 1_000, 900)]);

    set(&pool, &BOOST.replace("UNTIL", "2026-06-20T00:00:00Z")).await;
    let (before, after) = ("2026-06-09T23:59:30Z".parse().unwrap(), "2026-06-10T00:00:30Z".parse().unwrap());
    use_in_all(&pool, 1_700).await;
    assert!(review_edges(&pool, before, after).await.is_err());
    assert_eq!(recorded_of(&pool, "acme").await.last(), Some(&crossed(80, 2_000, 1_700)));
}
