//! The codes of refused requests (RFC 9457). A code is stable: clients' programs rely on it.

use std::borrow::Cow;

use serde::Serialize;

/// The most errors that one answer lists. It says how many more there are.
pub const MAX_ERRORS: usize = 20;

/// The most characters of a client's text that an answer or a log repeats.
pub const MAX_SHOWN_CHARS: usize = 64;

/// `text` as an answer or a log repeats it: at most [`MAX_SHOWN_CHARS`] characters, the last of which is `…` where it
/// was cut.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        None => text.into(),
        Some(_) => text.chars().take(MAX_SHOWN_CHARS - 1).chain(['…']).collect(),
    }
}

/// Why a request was refused, as a word that never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// 400: the body is not JSON.
    InvalidJson,
    /// 400: a header is not what it must be.
    InvalidHeader,
    /// 400: the body ended too early, or its chunks are broken.
    InvalidBody,
    /// 401: the request shows no key.
    MissingKey,
    /// 401: what the request shows is no key that is good now.
    InvalidKey,
    /// 403: the key is another tenant's.
    WrongTenant,
    /// 403: a tenant's key is not enough.
    AdminOnly,
    /// 403: the tenant takes no events for now.
    TenantSuspended,
    /// 404: no tenant of this name.
    TenantNotFound,
    /// 404: no event of this id was taken in for the tenant, or not in the time that is kept.
    EventNotFound,
    /// 404: no such path.
    NotFound,
    /// 405: the path is there, but not for this method.
    MethodNotAllowed,
    /// 408: the request took too long to arrive.
    RequestTimeout,
    /// 413: the body is larger than allowed.
    BodyTooLarge,
    /// 413: the body holds more events than allowed.
    TooManyEvents,
    /// 415: the media type is not one that is understood.
    UnsupportedMediaType,
    /// 422: JSON, but no event.
    InvalidEvent,
    /// 422: an event for a tenant that does not exist.
    UnknownTenant,
    /// 422: a parameter of a query is not known, or not what it must be.
    InvalidParameter,
    /// 422: one feature more than a tenant may have in a billing period.
    TooManyFeatures,
    /// 500: a fault of ours.
    Internal,
    /// 503: the queue did not confirm the event.
    QueueUnavailable,
    /// 503: the queue has no room; nothing was taken in.
    QueueFull,
    /// 503: too much is being read at once; nothing was taken in.
    Overloaded,
    /// 503: events that were taken in before are still being counted; only then can it be said.
    StillCounting,
    /// 503: what is asked for is not known yet, or not any more.
    NotReady,
}

impl Code {
    /// Every code, for documentation and for counters that start at zero.
    pub const ALL: [Self; 26] = [
        Self::InvalidJson,
        Self::InvalidHeader,
        Self::InvalidBody,
        Self::MissingKey,
        Self::InvalidKey,
        Self::WrongTenant,
        Self::AdminOnly,
        Self::TenantSuspended,
        Self::TenantNotFound,
        Self::EventNotFound,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::TooManyEvents,
        Self::UnsupportedMediaType,
        Self::InvalidEvent,
        Self::UnknownTenant,
        Self::InvalidParameter,
        Self::TooManyFeatures,
        Self::Internal,
        Self::QueueUnavailable,
        Self::QueueFull,
        Self::Overloaded,
        Self::StillCounting,
        Self::NotReady,
    ];

    /// The HTTP status, the code's name on the wire, and the title.
    const fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::InvalidJson => (400, "invalid_json", "The body is not JSON"),
            Self::InvalidHeader => (400, "invalid_header", "A header is not valid"),
            Self::InvalidBody => (400, "invalid_body", "The body is broken"),
            Self::MissingKey => (401, "missing_key", "A key is needed"),
            Self::InvalidKey => (401, "invalid_key", "The key is not valid"),
            Self::WrongTenant => (403, "wrong_tenant", "The key is another tenant's"),
            Self::AdminOnly => (403, "admin_only", "The admin token is needed"),
            Self::TenantSuspended => (403, "tenant_suspended", "The tenant is suspended"),
            Self::TenantNotFound => (404, "tenant_not_found", "There is no such tenant"),
            Self::EventNotFound => (404, "event_not_found", "There is no such event"),
            Self::NotFound => (404, "not_found", "There is no such path"),
            Self::MethodNotAllowed => (405, "method_not_allowed", "The path does not take this method"),
            Self::RequestTimeout => (408, "request_timeout", "The request took too long to arrive"),
            Self::BodyTooLarge => (413, "body_too_large", "The body is too large"),
            Self::TooManyEvents => (413, "too_many_events", "The body holds too many events"),
            Self::UnsupportedMediaType => (415, "unsupported_media_type", "The media type is not supported"),
            Self::InvalidEvent => (422, "invalid_event", "The event is not valid"),
            Self::UnknownTenant => (422, "unknown_tenant", "The tenant is not known"),
            Self::InvalidParameter => (422, "invalid_parameter", "A parameter is not valid"),
            Self::TooManyFeatures => (422, "too_many_features", "The tenant has too many features"),
            Self::Internal => (500, "internal", "Something went wrong here"),
            Self::QueueUnavailable => (503, "queue_unavailable", "The queue is unavailable"),
            Self::QueueFull => (503, "queue_full", "The queue is full"),
            Self::Overloaded => (503, "overloaded", "Too much is going on at once"),
            Self::StillCounting => (503, "still_counting", "Earlier events are still being counted"),
            Self::NotReady => (503, "not_ready", "The answer is not known right now"),
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// The code on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The title, the same for every occurrence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.row().2
    }

    /// After how many seconds the same request may be worth another try.
    #[must_use]
    pub const fn retry_after_seconds(self) -> Option<u32> {
        match self {
            Self::QueueUnavailable | Self::Overloaded | Self::StillCounting | Self::NotReady => Some(1),
            // A full queue takes a while to drain.
            Self::QueueFull => Some(5),
            _ => None,
        }
    }
}

/// A refusal as `application/problem+json`. `detail` is for the person who reads it, and says what
/// to do; it never holds a cause, an address or SQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The code's page.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's title.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The stable code.
    pub code: &'static str,
    /// What is wrong with which event and field, where that can be said.
    #[serde(flatten)]
    pub errors: Errors,
}

/// What is wrong with the events or the parameters of a request: the first [`MAX_ERRORS`], and how many more there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Errors {
    #[serde(rename = "errors", skip_serializing_if = "Vec::is_empty")]
    first: Vec<EventProblem>,
    #[serde(rename = "moreErrors", skip_serializing_if = "is_zero")]
    more: usize,
    /// The events that have some.
    #[serde(skip)]
    events: usize,
    /// The place of the last of those.
    #[serde(skip)]
    last: Option<usize>,
    /// The code of all, while they have one in common.
    #[serde(skip)]
    code: Option<&'static str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Errors {
    /// Adds one. Those of one event come one after the other.
    pub fn push(&mut self, problem: EventProblem) {
        self.code =
            if self.is_empty() { Some(problem.code) } else { self.code.filter(|code| *code == problem.code) };
        if problem.index.is_some() && problem.index != self.last {
            self.events += 1;
            self.last = problem.index;
        }
        if self.first.len() < MAX_ERRORS {
            self.first.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Whether there are no errors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Those that an answer lists.
    #[must_use]
    pub fn first(&self) -> &[EventProblem] {
        &self.first
    }

    /// How many it does not list.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }

    /// How many events of a list have errors; 0 where the request brought no list.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events
    }

    /// The code that all of them have, the unlisted ones too.
    #[must_use]
    pub fn common_code(&self) -> Option<&'static str> {
        self.code
    }
}

/// What is wrong with one field of one event, or with one parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventProblem {
    /// The event's place in the list, from 0; absent where the request brought a single event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The stable code.
    pub code: &'static str,
    /// The field's or the parameter's name; absent where the event as a whole is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What is allowed.
    pub detail: String,
}

impl Problem {
    /// A problem of the kind `code`.
    #[must_use]
    pub fn new(code: Code, detail: String) -> Self {
        let (status, name, title) = code.row();
        let kind = format!("https://flagmeter.dev/problems/{name}");
        Self { kind, title, status, detail, code: name, errors: Errors::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(index: usize, code: Code) -> EventProblem {
        let (field, detail) = ("tokens".to_owned(), "must be a number".to_owned());
        EventProblem { index: Some(index), code: code.as_str(), field, detail }
    }

    #[test]
    fn an_answer_lists_twenty_errors_and_says_how_many_more_there_are() {
        let mut errors = Errors::default();
        for number in 0..MAX_ERRORS {
            errors.push(problem(number / 2, Code::InvalidEvent));
        }
        assert_eq!((errors.first().len(), errors.more(), errors.events()), (20, 0, 10));
        assert_eq!(errors.common_code(), Some("invalid_event"));
        for index in 10..1_000 {
            errors.push(problem(index, Code::UnknownTenant));
        }
        assert_eq!((errors.first().len(), errors.more(), errors.events()), (20, 990, 1_000));
        assert_eq!(errors.common_code(), None);
        let json = serde_json::to_value(&errors).unwrap();
        assert_eq!((json["errors"].as_array().unwrap().len(), &json["moreErrors"]), (20, &990.into()));
    }

    #[test]
    fn a_client_s_text_is_repeated_up_to_64_characters() {
        let whole = "ä".repeat(64);
        assert_eq!(shown(&whole), whole);
        let cut = shown(&"ä".repeat(65)).into_owned();
        assert_eq!((cut.chars().count(), cut.ends_with('…')), (64, true), "{cut}");
        assert_eq!(shown(""), "");
    }
}
