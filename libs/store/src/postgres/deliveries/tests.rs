use super::*;
use crate::postgres::batch::Counter;
use crate::testing;

const LEASE: SignedDuration = SignedDuration::from_secs(60);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// An alert of `acme` for each channel, due at noon.
async fn outbox(pool: &PgPool) -> i64 {
    testing::add_tenant(pool, "acme").await;
    testing::add_channels(
        pool,
        "acme",
        b"a sealed url of at least 28 bytes",
        b"a sealed secret of 28 bytes or so",
    )
    .await;
    let Test::Sent { alert, channels } = send_test(pool, "acme", None, at(testing::NOON)).await.unwrap()
    else {
        panic!("acme has both channels")
    };
    assert_eq!(channels, Channel::ALL);
    alert
}

async fn delivery(pool: &PgPool, channel: Channel) -> Delivery {
    let alerts = list(pool, "acme", 10).await.unwrap();
    alerts[0].deliveries.iter().find(|delivery| delivery.channel == channel).unwrap().clone()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_message_is_taken_by_one_and_by_the_next_only_when_the_lease_is_over(pool: PgPool) {
    outbox(&pool).await;
    let noon = at(testing::NOON);
    assert!(take(&pool, noon - SignedDuration::from_secs(1), LEASE).await.unwrap().is_none(), "not due yet");
    let first = take(&pool, noon, LEASE).await.unwrap().unwrap();
    let second = take(&pool, noon, LEASE).await.unwrap().unwrap();
    assert_ne!(first.channel, second.channel);
    assert!(take(&pool, noon, LEASE).await.unwrap().is_none());

    let later = noon + LEASE;
    let again = take(&pool, later, LEASE).await.unwrap().unwrap();
    let lost = if again.channel == first.channel { &first } else { &second };
    assert_eq!((again.attempts, lost.attempts, again.event_id), (2, 1, lost.event_id));
    assert!(
        !conclude(&pool, lost, &Conclusion::Delivered(later)).await.unwrap(),
        "the lease went to another"
    );
    assert!(conclude(&pool, &again, &Conclusion::Delivered(later)).await.unwrap());
    assert_eq!(delivery(&pool, again.channel).await.state, "delivered");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_came_of_a_message_is_kept_and_sending_it_again_begins_anew(pool: PgPool) {
    let alert = outbox(&pool).await;
    let noon = at(testing::NOON);
    let taken = take(&pool, noon, LEASE).await.unwrap().unwrap();
    let next = noon + SignedDuration::from_secs(5);
    assert!(conclude(&pool, &taken, &Conclusion::Again { at: next, why: "it slept".into() }).await.unwrap());
    let found = delivery(&pool, taken.channel).await;
    assert_eq!(
        (found.attempts, found.next_attempt_at, found.last_error.as_deref()),
        (1, next, Some("it slept"))
    );

    let taken = loop {
        let found = take(&pool, next, LEASE).await.unwrap().unwrap();
        if found.channel == taken.channel {
            break found;
        }
    };
    let at = next + SignedDuration::from_secs(1);
    assert!(conclude(&pool, &taken, &Conclusion::PutBack { at }).await.unwrap());
    let found = delivery(&pool, taken.channel).await;
    assert_eq!((found.attempts, found.last_error.as_deref()), (1, Some("it slept")), "it was not tried");

    let taken = take(&pool, at, LEASE).await.unwrap().unwrap();
    assert!(conclude(&pool, &taken, &Conclusion::Failed { why: "gone".into() }).await.unwrap());
    assert_eq!(delivery(&pool, taken.channel).await.state, "failed");

    let wanted = Wanted { tenant: "acme", alert, channel: Some(taken.channel) };
    assert_eq!(resend(&pool, wanted, at).await.unwrap(), [taken.channel]);
    let found = delivery(&pool, taken.channel).await;
    assert_eq!((found.state.as_str(), found.attempts, found.last_error), ("pending", 0, None));
    let other = Wanted { tenant: "globex", ..wanted };
    assert!(resend(&pool, other, at).await.unwrap().is_empty(), "another tenant's alert is not there");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_channel_that_was_turned_off_has_no_target(pool: PgPool) {
    outbox(&pool).await;
    sqlx::query!("UPDATE slack_webhooks SET enabled = false").execute(&pool).await.unwrap();
    for _ in Channel::ALL {
        let taken = take(&pool, at(testing::NOON), LEASE).await.unwrap().unwrap();
        let target = taken.target.map(|target| (target.secret.is_some(), target.previous_secret.is_some()));
        assert_eq!(target, (taken.channel == Channel::Webhook).then_some((true, false)));
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_tenant_whose_resource_is_gone_has_no_target(pool: PgPool) {
    outbox(&pool).await;
    sqlx::query!("UPDATE tenants SET detached_at = now()").execute(&pool).await.unwrap();
    for _ in Channel::ALL {
        assert_eq!(take(&pool, at(testing::NOON), LEASE).await.unwrap().unwrap().target, None);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_test_shows_the_period_and_the_quota_that_counting_has(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    Counter::new(pool.clone()).apply(&[testing::entry(1, [testing::event("acme", 250)])]).await.unwrap();
    // Another day is wanted, and not in force yet; a boost holds.
    sqlx::query(
        r#"UPDATE tenants
           SET billing_day = 10,
               calendars = '[{"since": null, "billingDay": 1, "timeZone": "UTC"}]',
               quota_boosts = '[{"tokens": 5, "from": "2026-06-10T00:00:00Z", "until": "2026-06-20T00:00:00Z", "reason": ""}]'"#,
    )
    .execute(&pool)
    .await
    .unwrap();
    testing::add_channels(
        &pool,
        "acme",
        b"a sealed url of at least 28 bytes",
        b"a sealed secret of 28 bytes or so",
    )
    .await;
    let Test::Sent { alert: number, .. } = send_test(&pool, "acme", None, at(testing::NOON)).await.unwrap()
    else {
        panic!("acme has both channels")
    };
    let test = list(&pool, "acme", 10).await.unwrap().remove(0);
    assert_eq!((test.id, test.kind, test.threshold), (number, Kind::Test, 80));
    assert_eq!((test.total_tokens, test.monthly_quota), (250, 1_000_005));
    assert_eq!(test.period_start, at("2026-06-01T00:00:00Z"));
    assert!(is_alert_of(&pool, number, "acme").await.unwrap());
    assert!(!is_alert_of(&pool, number, "globex").await.unwrap());
    assert_eq!(send_test(&pool, "globex", None, at(testing::NOON)).await.unwrap(), Test::NoTenant);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_test_that_nobody_would_get_leaves_no_alert_behind(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let test = async |channel| send_test(&pool, "acme", channel, at(testing::NOON)).await.unwrap();
    assert_eq!(test(None).await, Test::NoChannel);
    testing::add_channels(
        &pool,
        "acme",
        b"a sealed url of at least 28 bytes",
        b"a sealed secret of 28 bytes or so",
    )
    .await;
    sqlx::query("UPDATE slack_webhooks SET enabled = false").execute(&pool).await.unwrap();
    assert_eq!(test(Some(Channel::Slack)).await, Test::NoChannel);
    assert_eq!(list(&pool, "acme", 10).await.unwrap(), []);
    assert!(matches!(test(None).await, Test::Sent { channels, .. } if channels == [Channel::Webhook]));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_url_gets_a_message_at_a_time_and_none_while_it_is_held(pool: PgPool) {
    let noon = at(testing::NOON);
    let second = SignedDuration::from_secs(1);
    let url = "0123456789abcdef";
    let turn = async |now| take_turn(&pool, url, now, second).await.unwrap();
    assert_eq!(turn(noon).await, Ok(()));
    assert_eq!(turn(noon).await, Err(noon + second));
    assert_eq!(take_turn(&pool, "another-url-....", noon, second).await.unwrap(), Ok(()));
    assert_eq!(turn(noon + second).await, Ok(()));
    let until = noon + SignedDuration::from_mins(5);
    hold(&pool, url, until).await.unwrap();
    assert_eq!(turn(noon + second * 2).await, Err(until));
    assert_eq!(turn(until).await, Ok(()));
    forget_turns(&pool, until + second * 2).await.unwrap();
    assert_eq!(turn(noon).await, Ok(()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_many_who_ask_at_once_one_gets_the_turn(pool: PgPool) {
    let ask = || take_turn(&pool, "0123456789abcdef", at(testing::NOON), SignedDuration::from_secs(1));
    let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
    let taken = [a, b, c, d].into_iter().filter(|answer| answer.as_ref().is_ok_and(Result::is_ok)).count();
    assert_eq!(taken, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_newest_alert_is_told_but_for_tests(pool: PgPool) {
    let test = outbox(&pool).await;
    let tenants = ["acme".to_owned(), "globex".to_owned()];
    assert!(newest(&pool, &tenants).await.unwrap().is_empty());
    sqlx::query!("UPDATE alerts SET kind = 'crossed'").execute(&pool).await.unwrap();
    let told = newest(&pool, &tenants).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!((told["acme"].alert, told["acme"].deliveries.len()), (test, 2));
    let backlog = backlog(&pool).await.unwrap();
    assert_eq!(backlog, Backlog { pending: 2, oldest: Some(at(testing::NOON)) });
}
