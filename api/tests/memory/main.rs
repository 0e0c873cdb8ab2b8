//! What requests cost: the api's own program with as much memory as the chart gives it, and clients that mean it no
//! good.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

mod api;
mod attack;
mod cgroup;

use std::time::Duration;

use flagmeter_store::postgres::batch::Counter;
use flagmeter_store::{PgPool, testing};

use crate::api::{Api, until};
use crate::attack::{Connection, Outcome, get, post};

/// The chart's memory limit of the api's container (`api.resources`).
const LIMIT_BYTES: u64 = 256 << 20;

/// What an api may keep after all that was asked of it is answered.
const RESTING_BYTES: u64 = 96 << 20;

/// The api has as many places for connections.
const ALL_PLACES: usize = 4_096;

/// How long another client waits for its answer at most, while the api's one thread, without optimisations, has all of
/// this to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often each attack is made: what is not given back would add up.
const ROUNDS: usize = 3;

/// One event in a body of 1 MiB.
fn large_body() -> String {
    let frame = r#"{"tenant":"acme","feature":"f","tokens":1,"note":""}"#.len();
    format!(r#"{{"tenant":"acme","feature":"f","tokens":1,"note":"{}"}}"#, "x".repeat((1 << 20) - frame))
}

/// Another client's request, on a connection of its own.
async fn others_are_answered(api: &Api) {
    let request = async {
        let mut connection = Connection::open(api.address, 0).await?;
        connection.send(get("/usage/acme").as_bytes()).await?;
        connection.answer().await
    };
    let answer = tokio::time::timeout(PATIENCE, request).await;
    assert!(matches!(answer, Ok(Ok(200))), "another client was answered {answer:?}");
}

/// The api answers, has kept to its memory, and has given back what it took.
async fn it_is_well(api: &Api) {
    others_are_answered(api).await;
    let peak = api.memory.peak();
    println!("at most {} MiB", peak >> 20);
    assert!(api.lives() && !api.memory.was_killed(), "the api ended; it had {} MiB", peak >> 20);
    assert!(peak <= LIMIT_BYTES, "the api took {} MiB", peak >> 20);
    let mut resting = 0;
    until("it has given its memory back", async || {
        resting = api.memory.now();
        (resting <= RESTING_BYTES).then_some(())
    })
    .await;
    println!("{} MiB afterwards", resting >> 20);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn nine_hundred_bodies_of_1_mib_at_once_leave_the_api_within_its_memory(pool: PgPool) {
    let _alone = api::alone().await;
    let api = Api::start(&pool, LIMIT_BYTES).await;
    let body = large_body();
    let request = post(body.len(), &body);
    for _ in 0..ROUNDS {
        let requests = (0..900).map(|number| attack::whole(api.address, number, &request));
        let (outcomes, ()) = futures::join!(futures::future::join_all(requests), others_are_answered(&api));
        let count = |wanted: Outcome| outcomes.iter().filter(|outcome| **outcome == wanted).count();
        let (taken, refused, cut) =
            (count(Outcome::Answered(202)), count(Outcome::Answered(503)), count(Outcome::Cut));
        println!("{taken} were taken, {refused} were refused, {cut} were cut off");
        assert_eq!(taken + refused + cut, 900, "{outcomes:?}");
        assert!(taken > 0, "{outcomes:?}");
    }
    it_is_well(&api).await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn nine_hundred_bodies_of_1_mib_that_never_end_leave_the_api_within_its_memory(pool: PgPool) {
    let _alone = api::alone().await;
    let api = Api::start(&pool, LIMIT_BYTES).await;
    let body = large_body();
    let request = post(body.len(), &body[1..]);
    let requests = (0..900).map(|number| attack::whole(api.address, number, &request));
    let (outcomes, ()) = futures::join!(futures::future::join_all(requests), others_are_answered(&api));
    assert!(!outcomes.contains(&Outcome::Answered(202)), "{outcomes:?}");
    it_is_well(&api).await;
}

/// On every connection that the api has a place for, the same requests, whose answers nobody reads.
async fn unread_on_all_places(api: &Api, requests: &str) {
    for _ in 0..ROUNDS {
        let connections = attack::held(api.address, ALL_PLACES, requests).await;
        let answered = connections.iter().map(Connection::is_answered);
        let answered =
            futures::future::join_all(answered).await.into_iter().filter(|answered| *answered).count();
        println!("{answered} of {} were answered", connections.len());
        others_are_answered(api).await;
        drop(connections);
    }
    it_is_well(api).await;
}

/// On every connection that the api has a place for, the beginning of a request.
async fn unfinished_on_all_places(api: &Api, beginning: &str) {
    for _ in 0..ROUNDS {
        let connections = attack::held(api.address, ALL_PLACES, beginning).await;
        others_are_answered(api).await;
        drop(connections);
    }
    it_is_well(api).await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn wrong_events_on_all_connections_whose_answers_nobody_reads_leave_the_api_within_its_memory(
    pool: PgPool,
) {
    let _alone = api::alone().await;
    let api = Api::start(&pool, LIMIT_BYTES).await;
    let list = format!("[{}]", vec!["{}"; 200].join(","));
    unread_on_all_places(&api, &post(list.len(), &list).repeat(8)).await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn bodies_that_stall_on_all_connections_leave_the_api_within_its_memory(pool: PgPool) {
    let _alone = api::alone().await;
    let api = Api::start(&pool, LIMIT_BYTES).await;
    unfinished_on_all_places(&api, &post(15 << 10, &" ".repeat((15 << 10) - 1))).await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn heads_that_stall_on_all_connections_leave_the_api_within_its_memory(pool: PgPool) {
    let _alone = api::alone().await;
    let api = Api::start(&pool, LIMIT_BYTES).await;
    let head = format!("GET / HTTP/1.1\r\nHost: test\r\nX-Padding: {}", "x".repeat(15 << 10));
    unfinished_on_all_places(&api, &head).await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn large_answers_on_all_connections_that_nobody_reads_leave_the_api_within_its_memory(pool: PgPool) {
    let _alone = api::alone().await;
    testing::add_tenant(&pool, "acme").await;
    let features: Vec<_> =
        (0..1_000).map(|number| attack::event(&format!("feature-number-{number}"))).collect();
    Counter::new(pool.clone()).apply(&[attack::entry(features)]).await.unwrap();
    let api = Api::start(&pool, LIMIT_BYTES).await;
    let large = async || {
        let mut connection = Connection::open(api.address, 0).await.ok()?;
        connection.send(get("/usage/acme").as_bytes()).await.ok()?;
        (connection.whole().await.ok()? > 20_000).then_some(())
    };
    until("the answer is large", large).await;
    unread_on_all_places(&api, &get("/usage/acme").repeat(8)).await;
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_body_that_comes_byte_by_byte_costs_no_more_than_its_bytes(pool: PgPool) {
    let _alone = api::alone().await;
    let api = Api::start(&pool, LIMIT_BYTES).await;
    let before = api.memory.now();
    let drips = (0..20).map(|number| attack::byte_by_byte(api.address, number, 4_000));
    futures::future::join_all(drips).await;
    let grown = api.memory.peak().saturating_sub(before);
    println!("{} KiB more", grown >> 10);
    assert!(grown < 32 << 20, "{} MiB for 80 KB", grown >> 20);
    it_is_well(&api).await;
}
