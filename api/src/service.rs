//! The HTTP API, and what happens around every request.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CACHE_CONTROL, CONNECTION, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Version};
use axum::response::{IntoResponse, Response};
use tower::Service as _;

use crate::auth::Turned;
use crate::error::{ApiError, Refused};
use crate::routes::{self, Route};
use crate::serve::{Answers, Arriving};
use crate::state::AppState;

/// The HTTP API.
///
/// The router has no layers: each of them would box every request anew, and three of them were an eighth of the
/// api's CPU.
pub struct Service {
    router: Router,
    state: Arc<AppState>,
}

impl Service {
    /// The API over `state`.
    #[must_use]
    pub fn new(state: Arc<AppState>) -> Self {
        let router = Router::new()
            .merge(routes::event::router())
            .merge(routes::usage::router())
            .merge(routes::check::router())
            .merge(routes::dashboard::router())
            .merge(routes::live::router())
            .fallback(async || ApiError::NotFound)
            .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
            .with_state(Arc::clone(&state));
        Self { router, state }
    }

    /// Answers a request.
    ///
    /// Who sends it is asked first. Its time is limited and taken, refusals are counted, and while the api is stopping
    /// each answer closes its connection, so that the next request goes elsewhere.
    pub async fn answer<Sent>(&self, request: Request<Sent>) -> Response
    where
        Sent: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send,
    {
        let start = Instant::now();
        let route = Route::of(request.uri().path());
        let caller = match self.state.auth.admit(request.headers(), route, request.uri().path()) {
            Ok(caller) => caller,
            Err(turned) => return self.last(route, start, self.turned(turned).into_response()),
        };
        let response = match (route, request.method()) {
            // What is asked all the time goes past the router, which would look for the way of each request, and box it.
            (Route::Events, _) => routes::events::answer(&self.state, &caller, request).await,
            (Route::Usage, &Method::GET) => routes::usage::answer(&self.state, request.uri()).into_response(),
            (Route::Check, &Method::GET) => routes::check::answer(&self.state, request.uri()).into_response(),
            // Boxed here, or each of those others would be as large.
            // They have no bodies.
            _ => Box::pin(self.routed(route, request.map(|_| Body::empty()))).await,
        };
        self.last(route, start, self.state.budget.charge(response, caller.tenant()))
    }

    /// What is done with each answer.
    fn last(&self, route: Route, start: Instant, mut response: Response) -> Response {
        self.state.metrics.answered(route, response.status(), start.elapsed());
        if let Some(Refused(code)) = response.extensions().get() {
            self.state.metrics.refused(*code);
        }
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // Only what says so itself may be kept by anyone: what the page is made of.
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        if self.state.draining.is_cancelled() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn routed(&self, route: Route, request: Request<Body>) -> Response {
        let answer = self.router.clone().call(request);
        let Ok(response) = if route.is_limited() {
            let answered = tokio::time::timeout(self.state.limits.answer, answer).await;
            // No body is read: what took so long was ours.
            answered.unwrap_or_else(|_| Ok(ApiError::StoreUnavailable.into_response()))
        } else {
            answer.await
        };
        response
    }

    /// Why a request does not go on.
    fn turned(&self, turned: Turned) -> ApiError {
        match turned {
            Turned::NotYet => ApiError::NotReady,
            Turned::Away(reason, error) => {
                self.state.metrics.turned_away(reason);
                error
            }
        }
    }
}

impl Answers for Arc<Service> {
    async fn answer(&self, request: Request<&mut Arriving>) -> Response {
        if is_without_host(request.version(), request.headers()) {
            let refused = ApiError::InvalidHeader("host must come once: HTTP/1.1 needs it".to_owned());
            return self.last(Route::of(request.uri().path()), Instant::now(), refused.into_response());
        }
        Service::answer(self, request).await
    }
}

/// Whether a request says not once which host it is for (RFC 9112, section 3.2): then parts of a system may disagree
/// on whose it is.
fn is_without_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match hosts.next() {
        Some(_) => hosts.next().is_some(),
        None => version == Version::HTTP_11,
    }
}
