//! `flagmeter alerts`, as a person runs it, over a real PostgreSQL.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends at the first thing that is not as it should be"
)]

use std::process::Output;
use std::time::Duration;

use flagmeter_store::postgres::deliveries::{self, Conclusion, Taken};
use flagmeter_store::{PgPool, testing};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sqlx::ConnectOptions;

/// How long a test waits for something that takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(30);

const SEALED: &[u8] = b"a sealed text of at least 28 bytes";

async fn flagmeter(pool: &PgPool, arguments: &[&str]) -> Output {
    let url = pool.connect_options().to_url_lossy().to_string();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flagmeter"));
    command.arg("alerts").args(arguments).env("DATABASE_URL", url);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A worker in the place of one: concludes what is due in turn as it is told.
async fn work(pool: &PgPool, conclusions: Vec<Conclusion>) {
    for conclusion in conclusions {
        let taken =
            tokio::time::timeout(PATIENCE, next_due(pool)).await.expect("the command asks for a message");
        assert!(deliveries::conclude(pool, &taken, &conclusion).await.unwrap());
    }
}

async fn next_due(pool: &PgPool) -> Taken {
    let now = "2100-01-01T00:00:00Z".parse().unwrap();
    loop {
        match deliveries::take(pool, now, SignedDuration::from_mins(1)).await.unwrap() {
            Some(taken) => return taken,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_test_says_what_came_of_it_and_exits_by_that(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    testing::add_channels(&pool, "acme", SEALED, SEALED).await;
    let delivered = Conclusion::Delivered(Timestamp::UNIX_EPOCH);

    let (output, ()) =
        tokio::join!(flagmeter(&pool, &["test", "acme"]), work(&pool, vec![delivered.clone(), delivered]));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "alert 1, slack: delivered\nalert 1, webhook: delivered\n");

    let failed = Conclusion::Failed { why: "Slack answered 404 no_service".into() };
    let arguments = ["test", "acme", "--channel", "slack"];
    let (output, ()) = tokio::join!(flagmeter(&pool, &arguments), work(&pool, vec![failed]));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said(&output), "alert 2, slack: failed: Slack answered 404 no_service\n");

    let output = flagmeter(&pool, &["test", "acme", "--channel", "slack", "--wait", "0"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no worker has sent it yet; is one running?"), "{}", said(&output));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_alert_is_listed_with_its_messages_and_can_be_sent_again(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    assert_eq!(said(&flagmeter(&pool, &["list", "acme"]).await), "acme has had no alerts\n");
    assert!(said(&flagmeter(&pool, &["resend", "acme"]).await).contains("has had no alerts"));

    testing::add_channels(&pool, "acme", SEALED, SEALED).await;
    let failed = Conclusion::Failed { why: "the receiver answered 410 Gone".into() };
    let arguments = ["test", "acme", "--channel", "webhook"];
    let (_, ()) = tokio::join!(flagmeter(&pool, &arguments), work(&pool, vec![failed]));
    sqlx::query("UPDATE alerts SET kind = 'crossed', total_tokens = 812345").execute(&pool).await.unwrap();

    let table = said(&flagmeter(&pool, &["list", "acme"]).await);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        (row[0], &row[3..]),
        (
            "1",
            &[
                "reached",
                "80",
                "%",
                "812,345",
                "1,000,000",
                "81",
                "webhook",
                "failed",
                "1",
                "the",
                "receiver",
                "answered",
                "410",
                "Gone"
            ][..]
        ),
        "{table}"
    );
    let listed: Value =
        serde_json::from_slice(&flagmeter(&pool, &["list", "acme", "--json"]).await.stdout).unwrap();
    assert_eq!(
        (&listed[0]["totalTokens"], &listed[0]["deliveries"][0]["state"]),
        (&Value::from(812_345), &Value::from("failed"))
    );

    // A raise of the quota since then is recorded, but was not to be told.
    sqlx::query(
        "INSERT INTO alerts (tenant, period_start, period_end, threshold, monthly_quota, total_tokens, kind)
         SELECT tenant, period_start, period_end, threshold, 2000000, total_tokens, 'recovered' FROM alerts",
    )
    .execute(&pool)
    .await
    .unwrap();
    let again = Conclusion::Again { at: Timestamp::UNIX_EPOCH, why: "Slack answered 500".into() };
    let arguments = ["resend", "acme", "--channel", "slack"];
    let (output, ()) = tokio::join!(flagmeter(&pool, &arguments), work(&pool, vec![again]));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said(&output), "alert 1, slack: not yet: Slack answered 500; it is tried again\n");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn what_cannot_be_meant_says_what_to_do(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    for (arguments, code, part) in [
        (&["list", "globex"][..], 1, "there is no tenant \"globex\""),
        (&["test", "globex"], 1, "there is no tenant \"globex\""),
        (
            &["test", "acme"],
            1,
            "nothing was sent: acme has no channel that is turned on; set spec.alerts.slack or spec.alerts.webhook of the Tenant acme",
        ),
        (
            &["test", "acme", "--channel", "slack"],
            1,
            "acme has no Slack channel that is turned on; set spec.alerts.slack",
        ),
        (&["resend", "acme", "--alert", "99"], 1, "acme has no alert 99; `flagmeter alerts list acme`"),
        (&["list", "acme", "--limit", "0"], 2, "1..=1000"),
        (&["test", "acme", "--channel", "email"], 2, "slack, webhook"),
        (&["test"], 2, "<TENANT>"),
    ] {
        let output = flagmeter(&pool, arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(part), "{arguments:?}: {}", said(&output));
    }
    let alerts: i64 = sqlx::query_scalar("SELECT count(*) FROM alerts").fetch_one(&pool).await.unwrap();
    assert_eq!(alerts, 0, "what nobody gets leaves nothing behind");

    testing::add_channels(&pool, "acme", SEALED, SEALED).await;
    let sent = flagmeter(&pool, &["test", "acme", "--wait", "0", "--json"]).await;
    let sent: Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert_eq!(sent["deliveries"][1]["channel"], "webhook");
    let alert = sent["alert"].to_string();
    sqlx::query("UPDATE slack_webhooks SET enabled = false").execute(&pool).await.unwrap();
    let output = flagmeter(&pool, &["resend", "acme", "--alert", &alert, "--channel", "slack"]).await;
    assert!(said(&output).contains("acme has no Slack channel that is turned on"), "{}", said(&output));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn what_postgresql_says_of_the_data_is_not_blamed_on_the_settings(pool: PgPool) {
    for statement in [
        "ALTER TABLE alerts RENAME TO alerts_before",
        "CREATE VIEW alerts AS SELECT * FROM alerts_before WHERE 1 / (extract(epoch FROM now()) * 0)::int = 1",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let output = flagmeter(&pool, &["list", "acme"]).await;
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("division by zero") && !said.contains("DATABASE_URL"), "{said}");
    sqlx::query("DROP TABLE alerts_before CASCADE").execute(&pool).await.unwrap();
    let output = flagmeter(&pool, &["list", "acme"]).await;
    assert!(self::said(&output).contains("is the database that DATABASE_URL names right, and migrated?"));
}
