//! What FlagMeter is compared with.

pub(crate) mod heap;

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use deadpool_redis::redis::AsyncCommands as _;
use deadpool_redis::{Config, Pool, PoolConfig, Runtime};
use flagmeter_core::event::{Arrival, Body, Form, Reading, UsageEvent, decode};
use flagmeter_runtime::clock::Clock;
use flagmeter_runtime::env::{Env, Secret};
use tokio::net::TcpListener;

/// The list that [`Kind::Pool`] fills.
pub(crate) const LIST: &str = "flagmeter:bench:list";

/// A server that does less than FlagMeter, or the same in the prototype's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Answers 202 and nothing: the least that a request costs here.
    Empty,
    /// Decodes and validates the event, and forgets it.
    Decode,
    /// Does so, takes a connection from a pool, and pushes the event onto a list: one command a request.
    Pool,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Decode => "decode",
            Self::Pool => "pool",
        }
    }
}

/// Serves a baseline, on one thread as the api does.
pub(crate) async fn serve(kind: Kind, listen: SocketAddr) -> Result<()> {
    let router = match kind {
        Kind::Empty => Router::new().route("/events", post(async || StatusCode::ACCEPTED)),
        Kind::Decode => Router::new().route("/events", post(decode_only)),
        Kind::Pool => Router::new().route("/events", post(push)).with_state(pool()?),
    };
    let listener = TcpListener::bind(listen).await.context("failed to listen")?;
    let listener = listener.tap_io(|stream| {
        // As the api does.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await.context("failed to serve")
}

fn pool() -> Result<Pool> {
    let mut env = Env::process();
    let url: Option<Secret<String>> = env.required("VALKEY_URL");
    let url = env.finish(|| url)?;
    let mut config = Config::from_url(url.expose());
    config.pool = Some(PoolConfig::new(16));
    config.create_pool(Some(Runtime::Tokio1)).context("failed to make the pool")
}

async fn decode_only(body: Bytes) -> StatusCode {
    if read(&body).is_some() { StatusCode::ACCEPTED } else { StatusCode::UNPROCESSABLE_ENTITY }
}

async fn push(State(pool): State<Pool>, body: Bytes) -> StatusCode {
    if read(&body).is_none() {
        return StatusCode::UNPROCESSABLE_ENTITY;
    }
    let Ok(mut connection) = pool.get().await else { return StatusCode::SERVICE_UNAVAILABLE };
    let pushed: deadpool_redis::redis::RedisResult<()> = connection.lpush(LIST, body.as_ref()).await;
    if pushed.is_ok() { StatusCode::ACCEPTED } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn read(body: &[u8]) -> Option<UsageEvent> {
    let arrival = Arrival::at(Clock::system().now(), None);
    match decode(body, Form::Json, &Reading::new(arrival, 1)).ok()?.body {
        Body::One(event, _) => event.ok(),
        Body::Many(..) => None,
    }
}
