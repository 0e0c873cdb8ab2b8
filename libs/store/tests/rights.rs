//! What the parts' roles can do with the functions that run with the owner's rights: nothing but what those are for.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use flagmeter_store::PgPool;
use flagmeter_store::postgres::batch::Counter;
use flagmeter_store::postgres::retention::{self, Limits};
use flagmeter_store::postgres::revoke_temporary;
use flagmeter_store::testing::{self, NOON};
use jiff::{SignedDuration, Timestamp};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPoolOptions;

/// Relations that the functions read, or that decide what they do.
const READ: [&str; 10] = [
    "pg_inherits",
    "pg_class",
    "pg_attribute",
    "pg_roles",
    "pg_stats",
    "pg_namespace",
    "tenants",
    "events",
    "event_ids",
    "forgotten",
];

/// Calls of every function that a role may execute with the owner's rights.
const CALLS: [(&str, &str); 5] = [
    ("flagmeter_worker", "SELECT forget_events('1970-01-01')"),
    ("flagmeter_worker", "SELECT forget_event_ids('1970-01-01')"),
    ("flagmeter_worker", "SELECT ensure_event_partitions('2026-06-15', '2026-06-15')"),
    ("flagmeter_worker", "SELECT ensure_event_id_partition('2026-06-15')"),
    ("flagmeter_operator", "SELECT delete_tenant_rows('acme', 'rollups', 0, 1, 1)"),
];

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn no_role_makes_a_function_of_the_owner_run_code_of_its_own(pool: PgPool) {
    flagmeter_store::testing::add_tenant(&pool, "acme").await;
    sqlx::raw_sql(
        "UPDATE tenants SET deletion_started_at = now();
         -- Where the trap says who ran it.
         CREATE TABLE trapped (who name);
         GRANT INSERT ON trapped TO PUBLIC;",
    )
    .execute(&pool)
    .await
    .unwrap();
    // Even where somebody has given the right to temporary tables back.
    let database: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&pool).await.unwrap();
    let grant = format!("GRANT TEMPORARY ON DATABASE \"{database}\" TO PUBLIC");
    sqlx::query(AssertSqlSafe(grant)).execute(&pool).await.unwrap();
    for (role, call) in CALLS {
        let mut connection = flagmeter_store::testing::own_connection(&pool).acquire().await.unwrap();
        let set = format!("SET ROLE {role}");
        sqlx::query(AssertSqlSafe(set)).execute(&mut *connection).await.unwrap();
        sqlx::raw_sql(
            "CREATE FUNCTION pg_temp.trap() RETURNS boolean LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.trapped VALUES (current_user); RETURN true; END $$",
        )
        .execute(&mut *connection)
        .await
        .unwrap();
        for relation in READ {
            let schema = if relation.starts_with("pg_") { "pg_catalog" } else { "public" };
            // No view has a column of any type of array.
            let columns: String = sqlx::query_scalar(
                "SELECT string_agg(
                     CASE atttypid WHEN 'anyarray'::regtype THEN format('%1$I::text AS %1$I', attname)
                                   ELSE quote_ident(attname) END,
                     ', ')
                 FROM pg_catalog.pg_attribute
                 WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped",
            )
            .bind(format!("{schema}.{relation}"))
            .fetch_one(&pool)
            .await
            .unwrap();
            let view = format!(
                "CREATE TEMP VIEW {relation} AS SELECT {columns} FROM {schema}.{relation} WHERE pg_temp.trap()"
            );
            sqlx::query(AssertSqlSafe(view)).execute(&mut *connection).await.unwrap();
        }
        sqlx::query(call)
            .execute(&mut *connection)
            .await
            .unwrap_or_else(|error| panic!("{role}: {call}: {error}"));
    }
    let trapped: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT who::text FROM trapped").fetch_all(&pool).await.unwrap();
    assert!(trapped.is_empty(), "ran as {trapped:?}");
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn every_function_looks_into_the_temporary_schema_last_and_every_one_with_the_owners_rights_is_tried(
    pool: PgPool,
) {
    let functions: Vec<(String, bool, Option<String>)> = sqlx::query_as(
        "SELECT proname::text, prosecdef, array_to_string(proconfig, ';')
         FROM pg_proc
         WHERE pronamespace = 'public'::regnamespace
         ORDER BY proname",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(functions.len() > 5, "{functions:?}");
    for (name, is_definer, settings) in functions {
        let settings = settings.unwrap_or_default();
        let path = settings.split(';').find_map(|setting| setting.strip_prefix("search_path="));
        assert!(
            path.is_some_and(|path| path.ends_with(", pg_temp")),
            "a migration must say SET search_path = public, pg_temp for {name}: {settings}"
        );
        let tried = CALLS.iter().any(|(_, call)| call.starts_with(&format!("SELECT {name}(")));
        assert!(tried || !is_definer, "{name} runs with the owner's rights: add it to CALLS");
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn no_part_may_make_temporary_tables(pool: PgPool) {
    for role in ["flagmeter_api", "flagmeter_worker", "flagmeter_operator"] {
        let may: bool =
            sqlx::query_scalar("SELECT has_database_privilege($1, current_database(), 'TEMPORARY')")
                .bind(role)
                .fetch_one(&pool)
                .await
                .unwrap();
        assert!(!may, "{role}");
    }
}

/// A pool whose connections have the rights of `role`.
async fn with_the_rights_of(role: &'static str, pool: &PgPool) -> PgPool {
    PgPoolOptions::new()
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::query(AssertSqlSafe(format!("SET ROLE {role}"))).execute(connection).await.map(drop)
            })
        })
        .connect_with((*pool.connect_options()).clone())
        .await
        .unwrap()
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_worker_has_the_rights_to_forget_what_there_is_of_every_kind(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let worker = with_the_rights_of("flagmeter_worker", &pool).await;
    let counter = Counter::new(worker.clone());
    let events = [testing::with_id(testing::event("acme", 1), "order-7"), testing::event("globex", 1)];
    counter.apply(&[testing::entry(1, events)]).await.unwrap();
    let later = NOON.parse::<Timestamp>().unwrap() + SignedDuration::from_hours(500 * 24);
    sqlx::query("UPDATE dead_letters SET created_at = '2026-01-01'").execute(&pool).await.unwrap();
    for table in ["events", "event_ids_others", "rollups", "applied_batches", "dead_letters"] {
        assert!(holds(&pool, table).await, "{table}");
    }
    let limits = Limits::default();
    let since = retention::ids_since(&worker, &limits, later, None).await.unwrap();
    retention::forget(&worker, &limits, later, None, since).await.unwrap();
    retention::kept(&worker, since).await.unwrap();
    for table in ["events", "event_ids_others", "rollups", "applied_batches", "dead_letters"] {
        assert!(!holds(&pool, table).await, "{table}");
    }
}

async fn holds(pool: &PgPool, table: &str) -> bool {
    let query = format!("SELECT EXISTS (SELECT FROM {table})");
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrations = false)]
async fn what_else_is_in_the_schema_is_left_as_it_is(pool: PgPool) {
    sqlx::raw_sql(
        "CREATE FUNCTION public.health() RETURNS integer LANGUAGE sql AS 'SELECT 1';
         CREATE AGGREGATE public.mymax (integer) (SFUNC = int4larger, STYPE = integer);",
    )
    .execute(&pool)
    .await
    .unwrap();
    flagmeter_store::MIGRATOR.run(&pool).await.unwrap();
    let settings: Option<Vec<String>> =
        sqlx::query_scalar("SELECT proconfig FROM pg_proc WHERE proname = 'health'")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(settings, None);
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn where_every_role_may_make_temporary_tables_the_owner_is_given_the_statement_that_ends_it(
    pool: PgPool,
) {
    assert_eq!(revoke_temporary(&pool).await.unwrap(), None);
    let database: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&pool).await.unwrap();
    let grant = format!("GRANT TEMPORARY ON DATABASE \"{database}\" TO PUBLIC");
    sqlx::query(AssertSqlSafe(grant)).execute(&pool).await.unwrap();
    let statement = revoke_temporary(&pool).await.unwrap().unwrap();
    sqlx::query(AssertSqlSafe(statement)).execute(&pool).await.unwrap();
    assert_eq!(revoke_temporary(&pool).await.unwrap(), None);
}
