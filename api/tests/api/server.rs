//! An api for a test: its router over the test's own database and queue, at a time that stands still.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use flagmeter_api::auth::{AdminToken, Auth, Keys, Policy};
use flagmeter_api::config::Limits;
use flagmeter_api::metrics::Metrics;
use flagmeter_api::service::Service;
use flagmeter_api::state::{AppState, Ground, News};
use flagmeter_runtime::clock::Clock;
use flagmeter_runtime::env::Secret;
use flagmeter_store::queue::EventQueue;
use flagmeter_store::{PgPool, testing};
use prometheus::{Registry, TextEncoder};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// What time it is.
pub(crate) const NOW: &str = testing::NOON;

/// What may be asked of it, unless a test says otherwise.
pub(crate) const LIMITS: Limits = Limits {
    events: 1_000,
    body_bytes: 1 << 20,
    queued_events: 2_500,
    features: 10,
    rollups_days: 400,
    answer: Duration::from_secs(15),
};

/// How long a test waits for something that should be so within a second.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    service: Service,
    pub(crate) queue: Arc<EventQueue>,
    registry: Registry,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// The body, if it is JSON.
    pub(crate) json: Value,
}

impl Server {
    /// An api that knows `tenants`.
    pub(crate) async fn start(pool: PgPool, tenants: &[&str]) -> Self {
        Self::with_queue(pool, tenants, testing::queue().unwrap()).await
    }

    /// The same with another queue.
    pub(crate) async fn with_queue(pool: PgPool, tenants: &[&str], queue: EventQueue) -> Self {
        for tenant in tenants {
            testing::add_tenant(&pool, tenant).await;
        }
        let server = Self::without_database(pool, queue).await;
        server.knows_its_tenants().await;
        server
    }

    async fn knows_its_tenants(&self) {
        until("the api knows its tenants", async || {
            let (page, tenant) = (self.get("/").await, self.get("/usage/none").await);
            (page.status == StatusCode::OK && tenant.status == StatusCode::NOT_FOUND).then_some(())
        })
        .await;
    }

    /// An api that may not reach its database.
    pub(crate) async fn without_database(pool: PgPool, queue: EventQueue) -> Self {
        Self::at(Clock::fixed(NOW.parse().unwrap()), pool, queue).await
    }

    /// The same by another clock.
    pub(crate) async fn at(clock: Clock, pool: PgPool, queue: EventQueue) -> Self {
        let keys = Keys::default();
        let auth = Auth::new(Policy::Disabled, keys.clone(), clock);
        Self::guarded(auth, keys, clock, LIMITS, pool, queue).await
    }

    /// An api of which so much may be asked.
    pub(crate) async fn limited(limits: Limits, pool: PgPool, tenants: &[&str]) -> Self {
        let (keys, clock) = (Keys::default(), Clock::fixed(NOW.parse().unwrap()));
        for tenant in tenants {
            testing::add_tenant(&pool, tenant).await;
        }
        let auth = Auth::new(Policy::Disabled, keys.clone(), clock);
        let server = Self::guarded(auth, keys, clock, limits, pool, testing::queue().unwrap()).await;
        server.knows_its_tenants().await;
        server
    }

    /// An api that asks for keys, or for this token.
    pub(crate) async fn with_token(token: &str, pool: PgPool, queue: EventQueue) -> Self {
        let (keys, clock) = (Keys::default(), Clock::fixed(NOW.parse().unwrap()));
        let token = AdminToken::try_from(&token.parse::<Secret<String>>().unwrap()).unwrap();
        let auth = Auth::new(Policy::Required(token), keys.clone(), clock);
        Self::guarded(auth, keys, clock, LIMITS, pool, queue).await
    }

    async fn guarded(
        auth: Auth,
        keys: Keys,
        clock: Clock,
        limits: Limits,
        pool: PgPool,
        queue: EventQueue,
    ) -> Self {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let queue = Arc::new(queue);
        let draining = CancellationToken::new();
        let ground = Ground { auth, queue: Arc::clone(&queue), pool, clock, limits, metrics, draining };
        let state = Arc::new(AppState::new(ground).0);
        // A queue that is not there was there before: an api that never heard of one takes nothing in.
        if state.ids.ask(&queue).await.is_err() {
            state.ids.ask(&testing::queue().unwrap()).await.unwrap();
        }
        let (asked, durability) = tokio::sync::oneshot::channel();
        let asked = std::sync::Mutex::new(Some(asked));
        let service = Service::new(Arc::clone(&state));
        // The test's clock stands still, but the rows carry the database's time: everything is newer than noon in
        // June.
        tokio::spawn(async move {
            let heard = |news: News<'_>| {
                if let News::Durability(_) = news {
                    let _ = asked.lock().unwrap().take().map(|asked| asked.send(()));
                }
            };
            Box::pin(state.follow(&keys, heard)).await;
        });
        durability.await.unwrap();
        Self { service, queue, registry }
    }

    /// What a counter or gauge without labels says.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap().parse().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    /// The same with further headers.
    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// What an answer without an end says, piece by piece.
    pub(crate) async fn open(&self, path: &str) -> BodyDataStream {
        let request = Request::get(path).body(Body::empty()).unwrap();
        self.service.answer(request).await.into_body().into_data_stream()
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.delete_with(path, &[]).await
    }

    /// The same with further headers.
    pub(crate) async fn delete_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::delete(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, event: &str) -> Answer {
        self.post_as(event, "application/json; charset=utf-8").await
    }

    pub(crate) async fn post_as(&self, event: &str, content_type: &str) -> Answer {
        let request = Request::post("/events").header("content-type", content_type);
        self.send(request.body(Body::from(event.to_owned())).unwrap()).await
    }

    /// A JSON body with further headers.
    pub(crate) async fn post_with(&self, event: &str, headers: &[(&str, &str)]) -> Answer {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        self.post_with_bytes(event, &headers).await
    }

    /// The same with headers that are no text.
    pub(crate) async fn post_with_bytes(&self, event: &str, headers: &[(&str, &[u8])]) -> Answer {
        let mut request = Request::post("/events").header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(event.to_owned())).unwrap()).await
    }

    /// A body with these headers alone.
    pub(crate) async fn post_of(&self, body: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(Method::POST, "/events", headers, body).await
    }

    /// Any request.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    /// A JSON body in chunks, without its length.
    pub(crate) async fn post_in_chunks(&self, chunks: Vec<String>) -> Answer {
        let chunks = futures::stream::iter(chunks.into_iter().map(Ok::<_, std::convert::Infallible>));
        let request = Request::post("/events").header("content-type", "application/json");
        self.send(request.body(Body::from_stream(chunks)).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.service.answer(request).await;
        let (parts, body) = response.into_parts();
        let body = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().into()).unwrap();
        let json = serde_json::from_str(&body).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body, json }
    }
}

/// Waits until `probe` finds something, and answers it.
pub(crate) async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
