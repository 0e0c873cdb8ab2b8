//! Builders for tests: of events, of entries, of a tenant's row, and of a queue of a test's own.

use deadpool_redis::redis;
use flagmeter_core::event::{EventId, UsageEvent};
use flagmeter_core::packed::Batch;
use jiff::Timestamp;
use uuid::Uuid;

use crate::postgres::batch::Entry;
use crate::queue::EventQueue;
use crate::{PgPool, StoreError};

/// When the events of tests happen, unless they say otherwise.
pub const NOON: &str = "2026-06-15T12:00:00Z";

/// An event of `tenant` at [`NOON`], of the feature `gpt-4`, without an id.
///
/// # Panics
///
/// If `tenant` or `tokens` is not one.
#[must_use]
#[expect(clippy::unwrap_used, reason = "a test that builds something impossible should end there")]
pub fn event(tenant: &str, tokens: i64) -> UsageEvent {
    UsageEvent {
        tenant: tenant.try_into().unwrap(),
        feature: "gpt-4".try_into().unwrap(),
        tokens: tokens.try_into().unwrap(),
        id: None,
        occurred_at: NOON.parse().unwrap(),
        reverses: None,
    }
}

/// `event` with a client's id.
#[must_use]
pub fn with_id(event: UsageEvent, id: &str) -> UsageEvent {
    UsageEvent { id: Some(EventId::of(id)), ..event }
}

/// The event that takes `event` back, which must have an id.
///
/// # Panics
///
/// If it has none.
#[must_use]
#[expect(clippy::unwrap_used, reason = "a test that builds something impossible should end there")]
pub fn reversal_of(event: &UsageEvent) -> UsageEvent {
    UsageEvent { reverses: Some(event.id.unwrap()), id: None, ..event.clone() }
}

/// An entry, received at [`NOON`], whose batch id follows from `number`.
///
/// # Panics
///
/// Never: [`NOON`] is a time.
#[must_use]
#[expect(clippy::unwrap_used, reason = "a constant is parsed")]
pub fn entry<const N: usize>(number: u128, events: [UsageEvent; N]) -> Entry {
    let received_at: Timestamp = NOON.parse().unwrap();
    let batch = Batch { batch_id: Uuid::from_u128(number << 64), received_at, events: events.into() };
    Entry { entry_id: format!("{number}-0"), batch }
}

/// Writes a tenant's row: a million tokens a month from the 1st, in UTC.
///
/// # Panics
///
/// If the database refuses it.
#[expect(clippy::unwrap_used, reason = "a test without its tenant should end there")]
pub async fn add_tenant(pool: &PgPool, id: &str) {
    sqlx::query(
        "INSERT INTO tenants (id, name, monthly_quota, billing_day, time_zone, owner_namespace, owner_uid)
         VALUES ($1, $1, 1000000, 1, 'UTC', 'default', $1)",
    )
    .bind(id)
    .execute(pool)
    .await
    .unwrap();
}

/// Gives a tenant both channels, with these sealed texts: the URL of both, and the webhook's secret.
///
/// # Panics
///
/// If the database refuses them.
#[expect(clippy::unwrap_used, reason = "a test without its channels should end there")]
pub async fn add_channels(pool: &PgPool, tenant: &str, url: &[u8], secret: &[u8]) {
    for statement in [
        "INSERT INTO slack_webhooks (tenant, url, enabled) VALUES ($1, $2, $3 IS NOT NULL)",
        "INSERT INTO webhooks (tenant, url, secret, enabled) VALUES ($1, $2, $3, true)",
    ] {
        sqlx::query(statement).bind(tenant).bind(url).bind(secret).execute(pool).await.unwrap();
    }
}

/// A connection of its own to a test's database. The pool of a test has five, so more than five who share it wait for
/// each other.
#[must_use]
pub fn own_connection(pool: &PgPool) -> PgPool {
    let options = pool.connect_options().as_ref().clone();
    sqlx::postgres::PgPoolOptions::new().max_connections(1).connect_lazy_with(options)
}

/// A queue that no other test has, at the server that `VALKEY_URL` names.
///
/// # Errors
///
/// [`StoreError::Queue`] if that is no URL.
///
/// # Panics
///
/// If `VALKEY_URL` is not set: `cargo xtask test store` starts a server and sets it.
pub fn queue() -> Result<EventQueue, StoreError> {
    queue_named(&format!("flagmeter:test:{}", Uuid::now_v7()))
}

/// The queue that `stream` names, so that several parts of a test can share one.
///
/// # Errors
///
/// [`StoreError::Queue`] if `VALKEY_URL` is no URL.
///
/// # Panics
///
/// If `VALKEY_URL` is not set.
pub fn queue_named(stream: &str) -> Result<EventQueue, StoreError> {
    EventQueue::of_stream(&url(), stream.to_owned())
}

/// Everything of the queue that `stream` names is lost, as by a Valkey that starts from an older disk.
///
/// # Errors
///
/// [`StoreError::Queue`] if Valkey refuses.
///
/// # Panics
///
/// If `VALKEY_URL` is not set.
pub async fn lose_queue(stream: &str) -> Result<(), StoreError> {
    let lost = async {
        let mut connection = redis::Client::open(url())?.get_multiplexed_async_connection().await?;
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(format!("{stream}*")).query_async(&mut connection).await?;
        redis::cmd("DEL").arg(keys).query_async(&mut connection).await
    };
    lost.await.map_err(StoreError::queue("lose a queue"))
}

#[expect(clippy::expect_used, clippy::disallowed_methods, reason = "tests are told where their servers are")]
pub(crate) fn url() -> String {
    std::env::var("VALKEY_URL").expect("VALKEY_URL is set by `cargo xtask test`")
}
