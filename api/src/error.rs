//! A request that failed, as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use flagmeter_core::event::Refusal;
use flagmeter_core::problem::{Code, Errors, EventProblem, Problem};

use crate::auth::{Challenge, Malformed};
use crate::batcher::NotQueued;
use crate::directory::NotKnownYet;

/// Why a request was refused. A variant's text is the `detail` that the caller reads, and says what
/// to do; a cause is only logged, where it happened.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 400, 413 or 422: nothing can be said of single events.
    #[error("{0}")]
    Unreadable(Refusal),
    /// 422: some events are not valid, or of no tenant; 403: their tenant is suspended. Nothing was queued.
    #[error("{}", invalid_text(.0))]
    Invalid(Errors),
    /// The same where no event of the list is valid: to have the others taken, as
    /// [lenient handling](https://www.rfc-editor.org/rfc/rfc7240#section-4.4) would, is no way out.
    #[error("{}", all_invalid_text(.0))]
    AllInvalid(Errors),
    /// 422: a query asks for something that is not there to be asked for.
    #[error("{}", invalid_text(.0))]
    InvalidParameters(Errors),
    /// 400: a header that says nothing, or two things.
    #[error("{0}")]
    InvalidHeader(String),
    /// 401: nobody says who asks.
    #[error(
        "say who you are with `Authorization: Bearer KEY`; the Secret NAME-flagmeter-key has the key of the tenant NAME"
    )]
    MissingKey(Challenge),
    /// 401: a key or token that is none, or not any more.
    #[error(
        "this key is not valid, or not any more; the Secret NAME-flagmeter-key has the key of the tenant NAME, \
         and the admin token opens the dashboard"
    )]
    InvalidKey(Challenge),
    /// 401: a header that shows neither a key nor a token by its form.
    #[error("{1}; the Secret NAME-flagmeter-key has the key of the tenant NAME")]
    MalformedKey(Challenge, Malformed),
    /// 403: a tenant's key, and another tenant's data.
    #[error("this key is another tenant's; use that of the tenant in the path, or the admin token")]
    WrongTenant,
    /// 403: a tenant's key, and the data of all.
    #[error("this shows all tenants, and needs the admin token instead of a tenant's key")]
    AdminOnly,
    /// 404: there is no such tenant to read of.
    #[error("there is no tenant of this name; `kubectl get tenants.flagmeter.dev` lists them")]
    TenantNotFound,
    /// 404: there is no such event.
    #[error("no event of this id is known of this tenant: it was never taken in, or is not kept any more")]
    EventNotFound,
    /// 503: it may be among those that wait.
    #[error(
        "the event is not among those counted so far, and others still wait to be counted; ask again after a second"
    )]
    StillCounting,
    /// 503: PostgreSQL does not answer.
    #[error("the store of counted events does not answer right now; ask again after a second")]
    StoreUnavailable,
    /// 404: there is no such path.
    #[error(
        "there is nothing at this path; events go to POST /events, and GET /usage/{{tenant}}, GET /check/{{tenant}} and \
         GET /events/{{tenant}}/{{id}} read. A path has no version before it and no slash at its end"
    )]
    NotFound,
    /// 405: there is, but not for this method.
    #[error("this path does not take this method; the Allow header lists those it takes")]
    MethodNotAllowed,
    /// 413: more than the limit.
    #[error("the body may have at most {0} bytes; send fewer events at once")]
    BodyTooLarge(usize),
    /// 400: the body is broken.
    #[error(
        "the body ended before its Content-Length, or its chunks are not as HTTP has them; send it again, whole"
    )]
    BrokenBody,
    /// 408: the body did not arrive.
    #[error("the body arrived too slowly; send it again, or fewer events at once")]
    RequestTimeout,
    /// 415: not JSON by its media type.
    #[error("send events as `Content-Type: application/json` or `application/x-ndjson`, or as CloudEvents")]
    UnsupportedMediaType,
    /// 415: compressed.
    #[error("bodies are read as they are; send it without Content-Encoding")]
    UnsupportedEncoding,
    /// 503: the queue.
    #[error(
        "it is not known whether what was sent is counted; send it again after a second, with the same ids if it has any"
    )]
    QueueUnavailable(#[source] NotQueued),
    /// 503: the queue has no room.
    #[error("the queue is full, and nothing was taken in; send it again after some seconds")]
    QueueFull,
    /// 503: too many large bodies at once.
    #[error(
        "too many large requests are being read; send it again after a second, or send fewer events at once"
    )]
    Overloaded,
    /// 503: too many large answers at once.
    #[error("too many large answers are being sent; ask again after a second, or for less at once")]
    TooManyAnswers,
    /// 503: past usage is being read, for others or for the same tenant.
    #[error("too much past usage is being added up right now; ask again after a second")]
    TooManyReadings,
    /// 503: events are being looked for, for others or for the same tenant.
    #[error("too many events are being looked for right now; ask again after a second")]
    TooManyLookups,
    /// 503: past usage takes too long to read.
    #[error("to add up that much takes too long right now; ask for a shorter range or a single feature")]
    ReadingTooLarge,
    /// 503: what is asked for was never read.
    #[error("this server has only just started and does not know the tenants yet; ask again after a second")]
    NotReady,
    /// 500: a fault of ours.
    #[error("the fault is ours and was logged; the same request may work later")]
    Internal,
}

impl ApiError {
    /// What a caller's program may rely on.
    fn code(&self) -> Code {
        match self {
            Self::Unreadable(Refusal::NotJson(_)) => Code::InvalidJson,
            Self::Unreadable(Refusal::TooMany(_)) => Code::TooManyEvents,
            Self::Unreadable(Refusal::Empty) => Code::InvalidEvent,
            Self::Invalid(errors) | Self::AllInvalid(errors) => common_code(errors),
            Self::InvalidParameters(_) => Code::InvalidParameter,
            Self::InvalidHeader(_) => Code::InvalidHeader,
            Self::MissingKey(_) => Code::MissingKey,
            Self::InvalidKey(_) | Self::MalformedKey(..) => Code::InvalidKey,
            Self::WrongTenant => Code::WrongTenant,
            Self::AdminOnly => Code::AdminOnly,
            Self::TenantNotFound => Code::TenantNotFound,
            Self::EventNotFound => Code::EventNotFound,
            Self::StillCounting => Code::StillCounting,
            Self::NotFound => Code::NotFound,
            Self::MethodNotAllowed => Code::MethodNotAllowed,
            Self::BodyTooLarge(_) => Code::BodyTooLarge,
            Self::BrokenBody => Code::InvalidBody,
            Self::RequestTimeout => Code::RequestTimeout,
            Self::UnsupportedMediaType | Self::UnsupportedEncoding => Code::UnsupportedMediaType,
            Self::QueueUnavailable(_) => Code::QueueUnavailable,
            Self::QueueFull => Code::QueueFull,
            Self::Overloaded
            | Self::TooManyAnswers
            | Self::TooManyReadings
            | Self::TooManyLookups
            | Self::ReadingTooLarge => Code::Overloaded,
            Self::NotReady | Self::StoreUnavailable => Code::NotReady,
            Self::Internal => Code::Internal,
        }
    }
}

/// The code that all problems share, or that of invalid events.
fn common_code(errors: &Errors) -> Code {
    let of_all = |code: &Code| errors.common_code() == Some(code.as_str());
    [Code::WrongTenant, Code::UnknownTenant, Code::TenantSuspended, Code::TooManyFeatures]
        .into_iter()
        .find(of_all)
        .unwrap_or(Code::InvalidEvent)
}

/// What is wrong with a single event or with parameters, or how many of a list are wrong.
fn invalid_text(errors: &Errors) -> String {
    if errors.events() == 0 {
        let one =
            |problem: &EventProblem| format!("{} {}", problem.field, problem.detail).trim_start().to_owned();
        return errors.first().iter().map(one).collect::<Vec<_>>().join("; ");
    }
    format!(
        "{} of the events cannot be taken, and none was; fix those that `errors` names, or send \
         `Prefer: handling=lenient` to have the others taken",
        errors.events()
    )
}

/// What is wrong with a single event, or with all of a list.
fn all_invalid_text(errors: &Errors) -> String {
    match errors.events() {
        0 => invalid_text(errors),
        1 => "the event is invalid, and nothing was stored; fix what `errors` names".to_owned(),
        events => format!(
            "{events} of the events are invalid, and there are no others, so nothing was stored; fix those that `errors` \
             names"
        ),
    }
}

impl From<NotQueued> for ApiError {
    fn from(reason: NotQueued) -> Self {
        if reason == NotQueued::QueueFull { Self::QueueFull } else { Self::QueueUnavailable(reason) }
    }
}

impl From<NotKnownYet> for ApiError {
    fn from(NotKnownYet: NotKnownYet) -> Self {
        Self::NotReady
    }
}

/// The code of a refused request, left with the response for the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused(pub(crate) Code);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.code();
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut problem = Problem::new(code, self.to_string());
        let challenge = match &self {
            Self::MissingKey(challenge) | Self::InvalidKey(challenge) | Self::MalformedKey(challenge, _) => {
                Some(*challenge)
            }
            _ => None,
        };
        let encoded = matches!(self, Self::UnsupportedEncoding);
        if let Self::Invalid(errors) | Self::AllInvalid(errors) | Self::InvalidParameters(errors) = self {
            problem.errors = errors;
        }
        let mut response =
            (status, [(CONTENT_TYPE, "application/problem+json")], Json(problem)).into_response();
        // `Json` sets its own type, and the first one stands.
        response
            .headers_mut()
            .insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = code.retry_after_seconds() {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if encoded {
            let value = axum::http::HeaderValue::from_static("identity");
            response.headers_mut().insert(ACCEPT_ENCODING, value);
        }
        if let Some(challenge) = challenge {
            let value = axum::http::HeaderValue::from_static(challenge.value());
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        response.extensions_mut().insert(Refused(code));
        response
    }
}
