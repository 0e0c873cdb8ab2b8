use super::*;

use crate::postgres::audit::{Book, books};
use crate::postgres::batch::Counter;
use crate::testing::{add_tenant, entry, event, with_id};

/// Tables and partitions in which the tenant has rows, but for the trail.
async fn places_of(pool: &PgPool, tenant: &str) -> Vec<String> {
    let all: Vec<String> =
        sqlx::query_scalar("SELECT relation::text FROM tenant_relations()").fetch_all(pool).await.unwrap();
    let mut with_rows = Vec::new();
    for place in all {
        let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {place} WHERE tenant = $1"));
        let rows: i64 = sqlx::query_scalar(count).bind(tenant).fetch_one(pool).await.unwrap();
        if rows > 0 {
            with_rows.push(place);
        }
    }
    with_rows
}

async fn kinds(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("SELECT kind FROM tenant_changes WHERE tenant = 'acme' ORDER BY id")
        .fetch_all(pool)
        .await
        .unwrap()
}

/// Two tenants with rows wherever counting puts them, some under the ids of UUIDv7 and of others.
async fn used(pool: &PgPool) {
    for tenant in ["acme", "globex"] {
        add_tenant(pool, tenant).await;
    }
    let dated = "0197733f-d600-7000-8000-000000000001";
    let events = [
        with_id(event("acme", 1), dated),
        with_id(event("globex", 2), dated),
        with_id(event("acme", 4), "order-7"),
        with_id(event("globex", 8), "order-7"),
        event("acme", 16),
    ];
    let counter = Counter::new(pool.clone());
    counter.apply(&[entry(1, events)]).await.unwrap();
    // A conflict, and a letter.
    counter.apply(&[entry(2, [with_id(event("acme", 5), "order-7"), event("nobody", 1)])]).await.unwrap();
    sqlx::query("UPDATE dead_letters SET tenant = 'acme'").execute(pool).await.unwrap();
    sqlx::query("INSERT INTO forgotten (tenant, source, events, tokens) VALUES ('acme', 'events', 0, 0)")
        .execute(pool)
        .await
        .unwrap();
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn everything_of_the_tenant_goes_and_nothing_of_another(pool: PgPool) {
    used(&pool).await;
    let before = places_of(&pool, "acme").await;
    for table in
        ["dead_letters", "event_conflicts", "event_ids_others", "forgotten", "rollups", "usage_periods"]
    {
        assert!(before.iter().any(|place| place == table), "{table} is not tested: {before:?}");
    }
    let globex = places_of(&pool, "globex").await;

    assert!(begin(&pool, "acme", "acme", "tests").await.unwrap());
    let mut deletion = Deletion::of(&pool, "acme").await.unwrap();
    while deletion.step(&pool).await.unwrap() {}
    assert!(deletion.rows() >= 10, "{deletion:?}");
    assert_eq!(deletion.places().0, deletion.places().1);
    assert_eq!(places_of(&pool, "acme").await, Vec::<String>::new());
    assert!(end(&pool, "acme", "acme", "tests").await.unwrap());

    assert_eq!(places_of(&pool, "globex").await, globex);
    let books = books(&pool).await.unwrap();
    assert_eq!(books.iter().map(|book| book.tenant.as_str()).collect::<Vec<_>>(), ["globex"]);
    assert!(books.iter().all(Book::balances), "{books:?}");
    assert_eq!(kinds(&pool).await, ["deletion_started", "deleted"]);
    // Its id is free.
    add_tenant(&pool, "acme").await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn more_rows_than_a_step_takes_need_more_steps_and_a_new_start_goes_on(pool: PgPool) {
    used(&pool).await;
    sqlx::query(
        "INSERT INTO rollups (tenant, feature, minute, total_tokens)
         SELECT 'acme', 'bulk', now() - make_interval(mins => n), 1 FROM generate_series(1, 25000) AS n",
    )
    .execute(&pool)
    .await
    .unwrap();
    let bulk = async || -> i64 {
        let count = "SELECT count(*) FROM rollups WHERE tenant = 'acme' AND feature = 'bulk'";
        sqlx::query_scalar(count).fetch_one(&pool).await.unwrap()
    };
    begin(&pool, "acme", "acme", "tests").await.unwrap();
    let mut deletion = Deletion::of(&pool, "acme").await.unwrap();
    while bulk().await == 25_000 {
        assert!(deletion.step(&pool).await.unwrap());
    }
    assert!(bulk().await >= 15_000, "one step takes ten thousand rows at most");

    // Cut off here; whoever goes on starts at the beginning.
    assert!(begin(&pool, "acme", "acme", "tests").await.unwrap());
    let mut again = Deletion::of(&pool, "acme").await.unwrap();
    while again.step(&pool).await.unwrap() {}
    assert_eq!(places_of(&pool, "acme").await, Vec::<String>::new());
    assert_eq!(kinds(&pool).await, ["deletion_started"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_still_waits_in_the_queue_becomes_letters_and_those_stay(pool: PgPool) {
    used(&pool).await;
    begin(&pool, "acme", "acme", "tests").await.unwrap();
    let applied = Counter::new(pool.clone()).apply(&[entry(3, [event("acme", 32)])]).await.unwrap();
    assert_eq!((applied.counted, applied.dead_lettered), (0, 1));

    let mut deletion = Deletion::of(&pool, "acme").await.unwrap();
    while deletion.step(&pool).await.unwrap() {}
    end(&pool, "acme", "acme", "tests").await.unwrap();
    assert_eq!(places_of(&pool, "acme").await, ["dead_letters"]);
    let reasons: Vec<String> = sqlx::query_scalar("SELECT reason FROM dead_letters WHERE tenant = 'acme'")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(reasons, ["tenant_deleted"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_tenant_of_another_resource_or_whose_deletion_has_not_begun_is_not_touched(pool: PgPool) {
    used(&pool).await;
    assert!(!begin(&pool, "acme", "another", "tests").await.unwrap());
    assert!(!begin(&pool, "nobody", "acme", "tests").await.unwrap());
    assert!(!end(&pool, "acme", "acme", "tests").await.unwrap(), "it has not begun");
    let before = places_of(&pool, "acme").await;
    let mut deletion = Deletion::of(&pool, "acme").await.unwrap();
    let refused = deletion.step(&pool).await.unwrap_err();
    assert!(format!("{:?}", chain(&refused)).contains("has not begun"), "{refused:?}");
    assert_eq!(places_of(&pool, "acme").await, before);
    assert_eq!(kinds(&pool).await, Vec::<String>::new());
}

fn chain(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_book_that_is_being_torn_is_not_read(pool: PgPool) {
    used(&pool).await;
    begin(&pool, "acme", "acme", "tests").await.unwrap();
    sqlx::query("DELETE FROM rollups WHERE tenant = 'acme'").execute(&pool).await.unwrap();
    let books = books(&pool).await.unwrap();
    assert!(books.iter().all(Book::balances), "{books:?}");
}
