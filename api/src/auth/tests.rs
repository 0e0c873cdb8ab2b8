use super::*;

use axum::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flagmeter_store::api_key::ApiKey;
use flagmeter_store::postgres::api_keys::KnownKey;
use jiff::Timestamp;
use proptest::prelude::*;

const TOKEN: &str = "the-admin-token-of-these-tests";
const NOW: &str = "2026-06-15T12:00:00Z";

fn token() -> AdminToken {
    AdminToken::try_from(&TOKEN.parse::<Secret<String>>().unwrap()).unwrap()
}

fn auth(keys: &[(&ApiKey, &str, Option<&str>)]) -> Auth {
    let known = Keys::default();
    let key = |(key, tenant, until): &(&ApiKey, &str, Option<&str>)| KnownKey {
        hash: key.hash(),
        tenant: (*tenant).try_into().unwrap(),
        expires_at: until.map(|until| until.parse().unwrap()),
    };
    known.know(keys.iter().map(key).collect());
    Auth::new(Policy::Required(token()), known, Clock::fixed(NOW.parse::<Timestamp>().unwrap()))
}

fn headers(values: &[&str]) -> HeaderMap {
    let values = values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap()));
    let mut headers = HeaderMap::new();
    for (name, value) in values {
        headers.append(name, value);
    }
    headers
}

/// The reason for which a request is turned away, or `None`.
fn turned(auth: &Auth, values: &[&str], path: &str) -> Option<Reason> {
    match auth.admit(&headers(values), Route::of(path), path) {
        Ok(_) => None,
        Err(Turned::Away(reason, _)) => Some(reason),
        Err(Turned::NotYet) => panic!("the keys are known"),
    }
}

fn bearer(key: &ApiKey) -> String {
    format!("Bearer {}", key.expose())
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[test]
fn a_key_opens_what_is_its_tenants_and_nothing_else() {
    let key = ApiKey::random().unwrap();
    let auth = auth(&[(&key, "acme", None)]);
    let shown = bearer(&key);
    let cases = [
        ("/events", None),
        ("/events/acme/x", None),
        ("/usage/acme", None),
        ("/usage/acme/series", None),
        ("/usage/acme/periods", None),
        ("/nowhere", None),
        ("/check/acme", None),
        ("/check/globex", Some(Reason::WrongTenant)),
        ("/events/globex/x", Some(Reason::WrongTenant)),
        ("/usage/globex", Some(Reason::WrongTenant)),
        ("/usage/globex/series", Some(Reason::WrongTenant)),
        ("/usage/globex/periods", Some(Reason::WrongTenant)),
        // The same tenant in another spelling is not taken for it.
        ("/usage/acm%65", Some(Reason::WrongTenant)),
        ("/usage/acme%2F..%2Fglobex", Some(Reason::WrongTenant)),
        ("/", Some(Reason::NotAdmin)),
        ("/live", Some(Reason::NotAdmin)),
        ("/static/style.css", Some(Reason::NotAdmin)),
    ];
    for (path, expected) in cases {
        assert_eq!(turned(&auth, &[&shown], path), expected, "{path}");
        assert_eq!(turned(&auth, &[&format!("Bearer {TOKEN}")], path), None, "{path}");
        assert_eq!(turned(&auth, &[], path), Some(Reason::Missing), "{path}");
    }
    let caller = auth.admit(&headers(&[&shown]), Route::Events, "/events").unwrap();
    assert!(caller.may_act_for("acme") && !caller.may_act_for("globex") && !caller.may_act_for(""));
}

#[test]
fn a_key_is_worth_nothing_from_the_instant_on_at_which_it_ends() {
    let (key, former) = (ApiKey::random().unwrap(), ApiKey::random().unwrap());
    let auth = auth(&[(&key, "acme", Some("2026-06-15T12:00:00.000001Z")), (&former, "acme", Some(NOW))]);
    assert_eq!(turned(&auth, &[&bearer(&key)], "/events"), None);
    assert_eq!(turned(&auth, &[&bearer(&former)], "/events"), Some(Reason::Expired));
}

#[test]
fn user_and_password_open_the_page_and_nothing_else() {
    let auth = auth(&[]);
    let shown = basic("admin", TOKEN);
    for path in ["/", "/live", "/static/style.css"] {
        assert_eq!(turned(&auth, &[&shown], path), None, "{path}");
        assert_eq!(turned(&auth, &[&basic("root", TOKEN)], path), Some(Reason::Unknown), "{path}");
        assert_eq!(turned(&auth, &[&basic("admin", "else")], path), Some(Reason::Unknown), "{path}");
    }
    for path in ["/events", "/events/acme/x", "/usage/acme", "/nowhere"] {
        assert_eq!(turned(&auth, &[&shown], path), Some(Reason::Malformed), "{path}");
    }
}

#[test]
fn what_is_neither_key_nor_token_is_turned_away() {
    let key = ApiKey::random().unwrap();
    let auth = auth(&[(&key, "acme", None)]);
    let shown = bearer(&key);
    for value in [
        "",
        "Bearer",
        "Bearer ",
        key.expose(),
        "Basic x",
        "Basic YWRtaW4=",
        "Digest x",
        &format!("{shown} x"),
    ] {
        assert_eq!(turned(&auth, &[value], "/events"), Some(Reason::Malformed), "{value:?}");
    }
    assert_eq!(turned(&auth, &[&shown, &shown], "/events"), Some(Reason::Malformed));
    assert_eq!(turned(&auth, &[&shown.replacen("Bearer", "bEARER", 1)], "/events"), None);
}

#[test]
fn a_header_of_the_wrong_form_is_answered_with_the_right_one_and_never_called_an_invalid_key() {
    let key = ApiKey::random().unwrap();
    let auth = auth(&[(&key, "acme", None)]);
    let (good, admin) = (bearer(&key), basic("admin", TOKEN));
    for (values, path, expected) in [
        (
            &[key.expose()][..],
            "/events",
            "Authorization must start with `Bearer `: send `Authorization: Bearer KEY`",
        ),
        (&[&format!("Token {}", key.expose())], "/events", "Authorization must start with `Bearer `"),
        (&["Bearer"], "/events", "after `Bearer ` comes one key"),
        (&[&format!("{good} x")], "/events", "after `Bearer ` comes one key"),
        (
            &[&admin],
            "/usage/acme",
            "user and password open the dashboard alone; here send `Authorization: Bearer KEY`",
        ),
        (&["Basic x"], "/usage/acme", "user and password open the dashboard alone"),
        (&["Basic x"], "/", "after `Basic ` comes base64 of `admin:` and the admin token"),
        (&[&good, &good], "/events", "there are several Authorization headers; send one"),
        (&[&"x".repeat(2_000)], "/events", "Authorization is longer than any key"),
    ] {
        let Err(Turned::Away(Reason::Malformed, error)) = auth.admit(&headers(values), Route::of(path), path)
        else {
            panic!("{expected}");
        };
        let text = error.to_string();
        assert!(text.starts_with(expected), "{text}");
        assert!(!text.contains("not valid") && !text.contains(key.expose()), "{text}");
    }
}

#[test]
fn nobody_is_told_that_a_key_is_bad_by_an_api_that_knows_no_keys_yet() {
    let auth = Auth::new(Policy::Required(token()), Keys::default(), Clock::system());
    let key = ApiKey::random().unwrap();
    let turned = auth.admit(&headers(&[&bearer(&key)]), Route::Events, "/events").unwrap_err();
    assert!(matches!(turned, Turned::NotYet), "{turned:?}");
}

#[test]
fn a_short_token_is_refused() {
    let short: Secret<String> = "fifteen letters".parse().unwrap();
    assert!(AdminToken::try_from(&short).unwrap_err().contains("at least 16"));
}

proptest! {
    #[test]
    fn a_key_that_nobody_gave_never_opens_anything(random in "[A-Za-z0-9_-]{43}", path in "/(events|usage/acme|live)?") {
        let auth = auth(&[(&ApiKey::random().unwrap(), "acme", None)]);
        prop_assert_eq!(turned(&auth, &[&format!("Bearer fm_{random}")], &path), Some(Reason::Unknown));
    }

    #[test]
    fn whatever_a_header_says_is_answered(bytes in prop::collection::vec(any::<u8>(), 0..200), path in "/[ -~]{0,40}") {
        let auth = auth(&[(&ApiKey::random().unwrap(), "acme", None)]);
        for prefix in ["", "Bearer ", "Basic "] {
            let value = [prefix.as_bytes(), &bytes].concat();
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
                prop_assert!(auth.admit(&headers, Route::of(&path), &path).is_err());
            }
        }
    }
}
