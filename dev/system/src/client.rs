//! A client of the API: one connection, which it keeps.

use std::time::Duration;

use serde_json::Value;
use ureq::http::Response;
use ureq::typestate::WithBody;
use ureq::{Agent, Body, RequestBuilder};

/// A client with a connection of its own.
pub struct Client {
    agent: Agent,
    url: String,
    authorization: String,
}

/// What it was told.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// After how many seconds to come again, as the header of that name has it.
    pub retry_after: Option<String>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }
}

impl Client {
    /// A client of the API at `url`, with a key or the admin token.
    #[must_use]
    pub(crate) fn new(url: &str, key: &str) -> Self {
        let limits =
            Agent::config_builder().timeout_global(Some(Duration::from_secs(20))).http_status_as_error(false);
        Self { agent: limits.build().into(), url: url.to_owned(), authorization: format!("Bearer {key}") }
    }

    /// `GET PATH`.
    ///
    /// # Errors
    ///
    /// If there was no whole answer.
    pub fn get(&self, path: &str) -> Result<Answer, ureq::Error> {
        let request = self.agent.get(format!("{}{path}", self.url));
        answer(request.header("Authorization", &self.authorization).call()?)
    }

    /// `POST /events`.
    ///
    /// # Errors
    ///
    /// If there was no whole answer: the event may count all the same.
    pub fn post(&self, event: &Value) -> Result<Answer, ureq::Error> {
        answer(self.post_request().send_json(event)?)
    }

    /// `POST /events` of a list, of which the valid ones are to be taken (`Prefer: handling=lenient`).
    ///
    /// # Errors
    ///
    /// As [`Client::post`].
    pub fn post_leniently(&self, events: &Value) -> Result<Answer, ureq::Error> {
        answer(self.post_request().header("Prefer", "handling=lenient").send_json(events)?)
    }

    /// `DELETE PATH`.
    ///
    /// # Errors
    ///
    /// As [`Client::post`].
    pub fn delete(&self, path: &str) -> Result<Answer, ureq::Error> {
        let request = self.agent.delete(format!("{}{path}", self.url));
        answer(request.header("Authorization", &self.authorization).call()?)
    }

    fn post_request(&self) -> RequestBuilder<WithBody> {
        self.agent.post(format!("{}/events", self.url)).header("authorization", &self.authorization)
    }

    /// Sends an event that has an id until it is answered 202, as a client should; answers its id.
    #[must_use]
    pub fn post_until_accepted(&self, event: &Value) -> String {
        let accepted = crate::until("the event is accepted", || {
            self.post(event).ok().filter(|answer| answer.status == 202)
        });
        accepted.json()["id"].as_str().unwrap_or_default().to_owned()
    }
}

fn answer(mut response: Response<Body>) -> Result<Answer, ureq::Error> {
    let retry_after =
        response.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Answer {
        status: response.status().as_u16(),
        retry_after,
        body: response.body_mut().read_to_string()?,
    })
}
