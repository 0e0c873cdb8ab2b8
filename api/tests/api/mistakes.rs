//! The mistakes that people make with the API, and what the answer must tell them to do.

use axum::http::Method;
use flagmeter_store::{PgPool, testing};
use serde_json::Value;

use crate::server::{Server, until};

const TOKEN: &str = "an-admin-token-of-some-length";
const GOOD: &str = r#"{"tenant":"acme","feature":"gpt-4","tokens":1500}"#;
const JSON: (&str, &str) = ("content-type", "application/json");

/// A request with a mistake in it, and what it is answered.
struct Mistake {
    name: &'static str,
    method: Method,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
    status: u16,
    code: &'static str,
    /// What the answer says to do, in its `detail` or in that of its first error.
    says: &'static str,
}

/// A POST of `body`.
fn post(name: &'static str, body: &str, status: u16, code: &'static str, says: &'static str) -> Mistake {
    let (method, path, headers) = (Method::POST, "/events", vec![JSON]);
    Mistake { name, method, path, headers, body: body.to_owned(), status, code, says }
}

/// A POST of an event with `fields` instead of its own.
fn fields(name: &'static str, fields: &str, says: &'static str) -> Mistake {
    post(name, &format!("{{{fields}}}"), 422, "invalid_event", says)
}

/// A good event, sent in another way.
fn sent(
    name: &'static str,
    (method, path): (Method, &'static str),
    headers: &[(&'static str, &'static str)],
    (status, code): (u16, &'static str),
    says: &'static str,
) -> Mistake {
    Mistake { name, method, path, headers: headers.to_vec(), body: GOOD.to_owned(), status, code, says }
}

fn get(
    name: &'static str,
    path: &'static str,
    status: u16,
    code: &'static str,
    says: &'static str,
) -> Mistake {
    Mistake { name, method: Method::GET, path, headers: vec![], body: String::new(), status, code, says }
}

/// Mistakes in what an event says.
fn of_an_event() -> Vec<Mistake> {
    let whole = "tokens must be a whole number from 0 to 9007199254740991";
    let instant = "timestamp must be an RFC 3339 time, such as 2026-01-31T12:00:00Z";
    let event = r#""tenant":"acme","feature":"f","tokens":1"#;
    let with = |more: &str| format!("{event},{more}");
    vec![
        fields("token for tokens", r#""tenant":"acme","feature":"f","token":1"#, "did you mean `tokens`?"),
        fields("Tokens for tokens", r#""tenant":"acme","feature":"f","Tokens":1"#, "did you mean `tokens`?"),
        fields("total_tokens", r#""tenant":"acme","feature":"f","total_tokens":1"#, "did you mean `tokens`?"),
        fields("model for feature", r#""tenant":"acme","model":"f","tokens":1"#, "did you mean `feature`?"),
        fields("a tenant's id", r#""tenantId":"acme","feature":"f","tokens":1"#, "did you mean `tenant`?"),
        fields("a typo", r#""tenent":"acme","feature":"f","tokens":1"#, "did you mean `tenant`?"),
        fields("nothing at all", "", "tenant is missing; it must be a DNS label"),
        fields(
            "a string for a number",
            r#""tenant":"acme","feature":"f","tokens":"12""#,
            "9007199254740991, without quotes",
        ),
        fields("half a token", r#""tenant":"acme","feature":"f","tokens":1.5"#, whole),
        fields("fewer than no tokens", r#""tenant":"acme","feature":"f","tokens":-5"#, whole),
        fields("too many tokens", r#""tenant":"acme","feature":"f","tokens":9007199254740992"#, whole),
        fields("no number", r#""tenant":"acme","feature":"f","tokens":null"#, whole),
        fields("tokens in an object", r#""tenant":"acme","feature":"f","tokens":{"total":1}"#, whole),
        fields("a field twice", &with(r#""tokens":2"#), "tokens must come only once"),
        fields(
            "no name of a tenant",
            r#""tenant":"Acme Corp","feature":"f","tokens":1"#,
            "tenant must be a DNS label: 1 to 63 of a-z, 0-9",
        ),
        fields(
            "an empty feature",
            r#""tenant":"acme","feature":"","tokens":1"#,
            "feature must be 1 to 128 printable ASCII characters",
        ),
        fields(
            "a feature that is not ASCII",
            r#""tenant":"acme","feature":"Übersetzung","tokens":1"#,
            "feature must be 1 to 128 printable ASCII characters",
        ),
        fields("an id that is a number", &with(r#""id":7"#), "id must be a string of 1 to 128 bytes"),
        fields("an empty id", &with(r#""id":"""#), "id must be a string of 1 to 128 bytes"),
        fields("an id that no URL can name", &with(r#""id":"..""#), "choose another"),
        fields(
            "seconds since 1970",
            &with(r#""timestamp":1781524800"#),
            "RFC 3339 time, such as 2026-01-31T12:00:00Z, and not a number of seconds",
        ),
        fields(
            "milliseconds since 1970",
            &with(r#""timestamp":1781524800000"#),
            "and not a number of seconds",
        ),
        fields("a number in quotes", &with(r#""timestamp":"1781524800""#), instant),
        fields("a time without a zone", &with(r#""timestamp":"2026-06-15T12:00:00""#), instant),
        fields("a date", &with(r#""timestamp":"2026-06-15""#), instant),
        fields("a local date", &with(r#""timestamp":"15.06.2026 12:00""#), instant),
        fields(
            "a time of long ago",
            &with(r#""timestamp":"2025-06-15T12:00:00Z""#),
            "at most 35 days in the past",
        ),
        fields(
            "a time to come",
            &with(r#""timestamp":"2026-06-16T12:00:00Z""#),
            "at most 5 minutes in the future",
        ),
        post(
            "an unknown tenant",
            &format!("{{{}}}", event.replace("acme", "globex")),
            422,
            "unknown_tenant",
            "create its Tenant resource, or correct the name",
        ),
    ]
}

/// Mistakes in the form of a body.
fn of_a_body() -> Vec<Mistake> {
    vec![
        post("an empty body", "", 400, "invalid_json", "send an event as JSON"),
        post("no JSON", "tenant=acme&tokens=1", 400, "invalid_json", "at line 1 column 2"),
        post(
            "a trailing comma",
            r#"{"tenant":"acme","feature":"f","tokens":1,}"#,
            400,
            "invalid_json",
            "trailing comma at line 1 column 43",
        ),
        post("single quotes", "{'tenant':'acme'}", 400, "invalid_json", "at line 1 column 2"),
        post("cut off", r#"{"tenant":"acme""#, 400, "invalid_json", "EOF while parsing an object"),
        post("two objects", &format!("{GOOD}{GOOD}"), 400, "invalid_json", "`application/x-ndjson`"),
        post("a number", "7", 422, "invalid_event", "the event must be a JSON object"),
        post("a string", "\"tokens\"", 422, "invalid_event", "the event must be a JSON object"),
        post("an empty list", "[]", 422, "invalid_event", "at least one event"),
        post(
            "a list in a list",
            &format!("[[{GOOD}]]"),
            422,
            "invalid_event",
            "the event must be a JSON object",
        ),
        post(
            "a list in an object",
            &format!(r#"{{"events":[{GOOD}]}}"#),
            422,
            "invalid_event",
            "send the list itself as the body",
        ),
        post("one bad of two", &format!("[{GOOD},{{}}]"), 422, "invalid_event", "`Prefer: handling=lenient`"),
        post(
            "too many events",
            &format!("[{}]", vec![GOOD; 1_001].join(",")),
            413,
            "too_many_events",
            "send the others in another request",
        ),
        post("a large body", &" ".repeat(1_048_577), 413, "body_too_large", "send fewer events at once"),
    ]
}

/// Mistakes in the headers of a request.
fn of_a_request() -> Vec<Mistake> {
    let events = (Method::POST, "/events");
    let key = "the Secret NAME-flagmeter-key has the key of the tenant NAME";
    vec![
        sent(
            "no type",
            events.clone(),
            &[],
            (415, "unsupported_media_type"),
            "`Content-Type: application/json`",
        ),
        sent(
            "curl's own type",
            events.clone(),
            &[("content-type", "application/x-www-form-urlencoded")],
            (415, "unsupported_media_type"),
            "`Content-Type: application/json`",
        ),
        sent(
            "text",
            events.clone(),
            &[("content-type", "text/plain")],
            (415, "unsupported_media_type"),
            "`Content-Type: application/json`",
        ),
        sent(
            "compressed",
            events.clone(),
            &[JSON, ("content-encoding", "gzip")],
            (415, "unsupported_media_type"),
            "without Content-Encoding",
        ),
        sent(
            "an empty key of idempotency",
            events.clone(),
            &[JSON, ("idempotency-key", "")],
            (400, "invalid_header"),
            "idempotency-key must be 1 to 120 visible ASCII characters",
        ),
        sent(
            "two types",
            events.clone(),
            &[JSON, ("content-type", "text/plain")],
            (400, "invalid_header"),
            "content-type must come only once",
        ),
        sent("no key", events.clone(), &[JSON, ("authorization", "")], (401, "missing_key"), key),
        sent(
            "a key in another header",
            events.clone(),
            &[JSON, ("authorization", ""), ("x-api-key", TOKEN)],
            (401, "missing_key"),
            "`Authorization: Bearer KEY`",
        ),
        sent("a wrong key", events, &[JSON, ("authorization", "Bearer fm_wrong")], (401, "invalid_key"), key),
    ]
}

/// Mistakes in what is asked for.
fn of_a_path() -> Vec<Mistake> {
    vec![
        sent(
            "a version in the path",
            (Method::POST, "/v1/events"),
            &[JSON],
            (404, "not_found"),
            "no version before it",
        ),
        sent(
            "a slash at the end",
            (Method::POST, "/events/"),
            &[JSON],
            (404, "not_found"),
            "no slash at its end",
        ),
        sent("one event", (Method::POST, "/event"), &[JSON], (404, "not_found"), "POST /events"),
        sent(
            "PUT",
            (Method::PUT, "/events"),
            &[JSON],
            (405, "method_not_allowed"),
            "the Allow header lists those it takes",
        ),
        sent(
            "POST to read",
            (Method::POST, "/usage/acme"),
            &[JSON],
            (405, "method_not_allowed"),
            "the Allow header lists those it takes",
        ),
        get("GET of events", "/events", 405, "method_not_allowed", "the Allow header lists those it takes"),
        get("no tenant", "/usage", 404, "not_found", "GET /usage/{tenant}"),
        get(
            "a tenant that is not there",
            "/usage/globex",
            404,
            "tenant_not_found",
            "`kubectl get tenants.flagmeter.dev` lists them",
        ),
        get(
            "an event that is not there",
            "/events/acme/never",
            404,
            "event_not_found",
            "it was never taken in",
        ),
        get(
            "a parameter where there are none",
            "/usage/acme?window=day",
            422,
            "invalid_parameter",
            "this path has no parameters",
        ),
        get(
            "a typo of a parameter",
            "/usage/acme/series?form=2026-06-01",
            422,
            "invalid_parameter",
            "from, to, window",
        ),
        get(
            "a window that is not there",
            "/usage/acme/series?window=week",
            422,
            "invalid_parameter",
            "must be minute, hour, day or month",
        ),
        get(
            "half a zone",
            "/usage/acme/series?timeZone=Berlin",
            422,
            "invalid_parameter",
            "such as Europe/Berlin",
        ),
        get(
            "a plus in a query",
            "/usage/acme/series?from=2026-06-15T12:00:00+02:00",
            422,
            "invalid_parameter",
            "a + in it is written %2B",
        ),
        get(
            "no tokens to check",
            "/check/acme?tokens=none",
            422,
            "invalid_parameter",
            "must be a whole number from 1 to",
        ),
    ]
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn every_usual_mistake_is_answered_with_what_to_do(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let server = Server::with_token(TOKEN, pool, testing::queue().unwrap()).await;
    let authorization = format!("Bearer {TOKEN}");
    until("the api knows its tenants", async || {
        let usage = server.get_with("/usage/acme", &[("authorization", &authorization)]).await;
        (usage.status == 200).then_some(())
    })
    .await;
    for mistake in [of_an_event(), of_a_body(), of_a_request(), of_a_path()].into_iter().flatten() {
        let Mistake { name, method, path, headers, body, status, code, says } = mistake;
        let authorized = headers.iter().any(|(name, _)| *name == "authorization");
        let own = (!authorized).then_some(("authorization", authorization.as_str()));
        // One that is empty stands for none.
        let headers: Vec<_> =
            headers.iter().copied().chain(own).filter(|header| *header != ("authorization", "")).collect();
        let answer = server.ask(method, path, &headers, &body).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json["code"]),
            (status, &code.into()),
            "{name}: {}",
            answer.body
        );
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{name}");
        let said = [&answer.json["detail"], &answer.json["errors"][0]["detail"]];
        assert!(
            said.into_iter().filter_map(Value::as_str).any(|said| said.contains(says)),
            "{name}: {}",
            answer.body
        );
        assert!(!answer.body.contains("hunter2") && !answer.body.contains(TOKEN), "{name}: {}", answer.body);
    }
    assert_eq!(server.queue.depth().await.unwrap(), 0, "nothing was taken in");
}
