//! The commands that look at what is stored, as a person and a script run them, over a real PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::process::{ChildStdin, Command, Output, Stdio};

use flagmeter_core::event::UsageEvent;
use flagmeter_runtime::clock::Clock;
use flagmeter_store::postgres::batch::Counter;
use flagmeter_store::postgres::tenants;
use flagmeter_store::{PgPool, testing};
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::ConnectOptions;

fn command(pool: &PgPool, arguments: &[&str]) -> Command {
    let url = pool.connect_options().to_url_lossy().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagmeter"));
    command.args(arguments).env("DATABASE_URL", url).stdin(Stdio::null());
    command
}

async fn flagmeter(pool: &PgPool, arguments: &[&str]) -> Output {
    let mut command = command(pool, arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

async fn json_of(pool: &PgPool, arguments: &[&str]) -> Value {
    let output = flagmeter(pool, &[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// An end of a pipe whose other end nobody reads any more.
fn closed_pipe() -> ChildStdin {
    let mut reader = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
    let pipe = reader.stdin.take().unwrap();
    reader.wait().unwrap();
    pipe
}

fn used(tenant: &str, feature: &str, tokens: i64, at: Timestamp) -> UsageEvent {
    UsageEvent { feature: feature.try_into().unwrap(), occurred_at: at, ..testing::event(tenant, tokens) }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_reader_who_has_gone_ends_a_command_quietly(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    for arguments in [
        &["tenants", "list"][..],
        &["tenants", "list", "--json"],
        &["tenants", "list", "--refused-sweeps"],
        &["audit"],
        &["audit", "--json"],
        &["usage", "acme"],
        &["alerts", "list", "acme"],
        &["migrate"],
        &["crd"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
    ] {
        let mut command = command(&pool, arguments);
        command.stdout(closed_pipe()).stderr(Stdio::piped());
        let output =
            tokio::task::spawn_blocking(move || command.spawn().unwrap().wait_with_output().unwrap());
        let output = output.await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "{arguments:?}");
    }
    // What is said beside it goes to nobody as quietly, and the exit code is that of what was found.
    let mut lint = command(&pool, &["lint", "nowhere.yaml"]);
    let status = lint.stdout(closed_pipe()).stderr(closed_pipe()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn tenants_are_listed_as_a_table_that_is_as_wide_as_they_are_and_as_json(pool: PgPool) {
    for tenant in ["acme", "globex-corp"] {
        testing::add_tenant(&pool, tenant).await;
    }
    sqlx::query("UPDATE tenants SET suspended = true WHERE id = 'acme'").execute(&pool).await.unwrap();
    tenants::detach(&pool, "globex-corp", "globex-corp").await.unwrap();

    let table = stdout(&flagmeter(&pool, &["tenants", "list"]).await);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[..2], ["TENANT       NAMESPACE  STATE", "acme         default    suspended"]);
    assert!(lines[2].starts_with("globex-corp  default    detached since 20"), "{table}");

    let listed = json_of(&pool, &["tenants", "list"]).await;
    assert_eq!((&listed[0]["id"], &listed[0]["suspended"]), (&json!("acme"), &json!(true)));
    assert_eq!((&listed[0]["namespace"], &listed[0]["detachedAt"]), (&json!("default"), &json!(null)));
    assert!(listed[1]["detachedAt"].is_string(), "{listed}");
    let detached = json_of(&pool, &["tenants", "list", "--detached"]).await;
    assert_eq!((detached.as_array().unwrap().len(), &detached[0]["id"]), (1, &json!("globex-corp")));
    assert_eq!(json_of(&pool, &["tenants", "list", "--refused-sweeps"]).await, json!([]));

    let freed = json_of(&pool, &["tenants", "free", "globex-corp", "--confirm", "globex-corp"]).await;
    assert_eq!(freed["tenant"], "globex-corp");
    assert!(freed["deletedRows"].is_u64(), "{freed}");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_tenants_usage_is_shown_with_its_quota_and_its_features(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let now = Clock::system().now();
    let events = [used("acme", "chat", 700_000, now), used("acme", "search", 12_480, now)];
    Counter::new(pool.clone()).apply(&[testing::entry(1, events)]).await.unwrap();

    let text = stdout(&flagmeter(&pool, &["usage", "acme"]).await);
    for line in [
        "acme has used 71 %",
        "used       712,480",
        "quota      1,000,000",
        "remaining  287,520",
        "FEATURE  TOKENS",
        "chat     700,000",
        "search   12,480",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let usage = json_of(&pool, &["usage", "acme"]).await;
    assert_eq!((&usage["totalTokens"], &usage["quotaPercent"]), (&json!(712_480), &json!(71)));
    assert_eq!((&usage["remainingTokens"], &usage["tenant"]), (&json!(287_520), &json!("acme")));
    assert_eq!(usage["features"][1], json!({ "feature": "search", "totalTokens": 12_480 }));
    let at = |name: &str| usage[name].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(at("periodStart") <= now && now < at("periodEnd"), "{usage}");

    let nobody = flagmeter(&pool, &["usage", "globex"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(said.contains("there is no tenant \"globex\"; `flagmeter tenants list` lists"), "{said}");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn what_is_done_is_said_as_text_or_as_json(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    Counter::new(pool.clone()).apply(&[testing::entry(1, [testing::event("acme", 7)])]).await.unwrap();
    assert_eq!(stdout(&flagmeter(&pool, &["migrate"]).await), "the schema is up to date\n");
    assert_eq!(json_of(&pool, &["migrate"]).await, json!({ "upToDate": true }));
    assert_eq!(json_of(&pool, &["audit"]).await[0]["eventTokens"], 7);
    let audit = stdout(&flagmeter(&pool, &["audit"]).await);
    assert!(audit.ends_with("\n1 tenant: its books balance\n"), "{audit}");
    assert_eq!(json_of(&pool, &["crd"]).await["kind"], "CustomResourceDefinition");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_wrong_password_is_said_to_be_one_and_not_shown(pool: PgPool) {
    let wrong = pool.connect_options().as_ref().clone().password("s3cret-and-wrong");
    let url = wrong.to_url_lossy().to_string();
    for arguments in
        [&["tenants", "list"][..], &["usage", "acme"], &["audit"], &["migrate"], &["alerts", "test", "acme"]]
    {
        let mut command = command(&pool, arguments);
        command.env("DATABASE_URL", &url);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains(
                "PostgreSQL refuses the login: correct the user, the password or the database in DATABASE_URL"
            ),
            "{arguments:?}: {said}"
        );
        assert!(!said.contains("s3cret"), "{said}");
    }
}
