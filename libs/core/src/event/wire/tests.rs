//! Bodies, good and bad.

use jiff::Timestamp;

use super::super::EventId;
use super::*;

const NOW: &str = "2026-06-15T12:00:00Z";

fn body(body: &str, form: Form) -> Result<Body, Refusal> {
    decode(body.as_bytes(), form, Arrival::at(NOW.parse().unwrap(), None), 3)
}

fn read(text: &str) -> Checked {
    match body(text, Form::Json) {
        Ok(Body::One(event, _)) => event,
        other => panic!("{text}: {other:?}"),
    }
}

fn text(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn an_event_is_read_and_unknown_fields_are_ignored() {
    let event = read(
        r#"{"tenant":"acme","feature":"gpt\u002d4","tokens":1500,"id":"order-7",
            "timestamp":"2026-06-15T13:59:59.1234567+02:00","model":{"a":[1,{"a":2,"a":3}]}}"#,
    )
    .unwrap();
    assert_eq!(event.tenant.as_str(), "acme");
    assert_eq!(event.feature.as_str(), "gpt-4");
    assert_eq!(event.tokens.get(), 1500);
    assert_eq!(event.id, Some(EventId::of("order-7")));
    assert_eq!(event.occurred_at.to_string(), "2026-06-15T11:59:59.123456Z");

    let event = read(r#"{"tenant":"acme","feature":"f","tokens":1,"id":null,"timestamp":null}"#).unwrap();
    assert_eq!((event.id, event.occurred_at), (None, NOW.parse().unwrap()));
}

#[test]
fn what_is_no_event_is_refused_with_what_is_allowed() {
    let cases = [
        // what is wrong, the fault's text
        (
            r#"{"feature":"f","tokens":1}"#,
            "tenant is missing; it must be a DNS label: 1 to 63 of a-z, 0-9 and '-', and no '-' at its ends",
        ),
        (
            r#"{"tenant":7,"feature":"f","tokens":1}"#,
            "tenant must be a DNS label: 1 to 63 of a-z, 0-9 and '-', and no '-' at its ends",
        ),
        (
            r#"{"tenant":"a","feature":" f","tokens":1}"#,
            "feature must be 1 to 128 printable ASCII characters, and no space at its ends",
        ),
        (
            r#"{"tenant":"a","feature":"f"}"#,
            "tokens is missing; it must be a whole number from 1 to 9007199254740991",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":0}"#,
            "tokens must be a whole number from 1 to 9007199254740991",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":-1}"#,
            "tokens must be a whole number from 1 to 9007199254740991",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":1.5}"#,
            "tokens must be a whole number from 1 to 9007199254740991",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":"1"}"#,
            "tokens must be a whole number from 1 to 9007199254740991",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":null}"#,
            "tokens must be a whole number from 1 to 9007199254740991",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":9007199254740992}"#,
            "tokens must be a whole number from 1 to 9007199254740991",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":99999999999999999999}"#,
            "tokens must be a whole number from 1 to 9007199254740991",
        ),
        (r#"{"tenant":"a","feature":"f","tokens":1,"id":""}"#, "id must be a string of 1 to 128 bytes"),
        (r#"{"tenant":"a","feature":"f","tokens":1,"id":7}"#, "id must be a string of 1 to 128 bytes"),
        (
            r#"{"tenant":"a","feature":"f","tokens":1,"id":"01934f6e-7d1a-7000-8000-0123456789ab"}"#,
            "id is a UUIDv7 made at 2024-11-21T15:54:21Z; it must be made after 2026-05-11T12:00:00Z, since when ids are known, and not be ahead",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":1,"timestamp":"yesterday"}"#,
            "timestamp must be an RFC 3339 time, such as 2026-01-31T12:00:00Z",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":1,"timestamp":"2026-05-11T11:59:59Z"}"#,
            "timestamp must be at most 35 days in the past",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":1,"timestamp":"2026-06-15T12:05:01Z"}"#,
            "timestamp must be at most 5 minutes in the future",
        ),
        (r#"{"tenant":"a","feature":"f","tokens":1,"tokens":2}"#, "tokens must come only once"),
        (r#"{"tenant":"a","feature":"f","tokens":1,"model":1,"model":1}"#, "model must come only once"),
        ("7", "the event must be a JSON object"),
        ("null", "the event must be a JSON object"),
    ];
    for (body, expected) in cases {
        assert_eq!(text(&read(body).unwrap_err()), expected, "{body}");
    }
    for text in ["", "{", "{\"tenant\":}", "{} {}", "nul", "{\"tenant\":\"\\ud800\"}"] {
        assert!(matches!(body(text, Form::Json), Err(Refusal::NotJson(_))), "{text}");
    }
}

#[test]
fn all_faults_of_an_event_are_told_at_once() {
    let faults = read(r#"{"tenant":"A","tokens":0}"#).unwrap_err();
    let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["tenant", "feature", "tokens"]);
}

/// Each event's tokens, or what is wrong with it.
fn list(text_of: &str, form: Form) -> Result<Vec<String>, Refusal> {
    match body(text_of, form)? {
        Body::Many(events) => {
            let shown = |event: &Checked| {
                event.as_ref().map_or_else(|faults| text(faults), |event| event.tokens.get().to_string())
            };
            Ok(events.iter().map(shown).collect())
        }
        Body::One(event, _) => panic!("{event:?}"),
    }
}

#[test]
fn a_list_is_read_event_by_event() {
    let event = |tokens: u32| format!(r#"{{"tenant":"a","feature":"f","tokens":{tokens}}}"#);
    let wrong = "tokens must be a whole number from 1 to 9007199254740991";
    let array = format!(" [{}, {}, 7]", event(1), event(0));
    assert_eq!(
        list(&array, Form::Json),
        Ok(vec!["1".into(), wrong.into(), "the event must be a JSON object".into()])
    );
    let lines = format!("{}\r\n\n {{ \n{}", event(1), event(2));
    let read = list(&lines, Form::Lines).unwrap();
    assert_eq!((read.len(), read[0].as_str(), read[2].as_str()), (3, "1", "2"));
    assert!(read[1].starts_with("the line is not JSON"), "{read:?}");

    let four = [event(1), event(2), event(3), event(4)];
    assert_eq!(list(&format!("[{}]", four.join(",")), Form::Json), Err(Refusal::TooMany(3)));
    assert_eq!(list(&four.join("\n"), Form::Lines), Err(Refusal::TooMany(3)));
    assert_eq!(list(&format!("[{}]", four[..3].join(",")), Form::Json).map(|events| events.len()), Ok(3));
    assert_eq!(list("[]", Form::Json), Err(Refusal::Empty));
    assert_eq!(list("\n", Form::Lines), Err(Refusal::Empty));
    for text in ["[", "[{}", "[{},]", "[{}] x"] {
        assert!(matches!(list(text, Form::Json), Err(Refusal::NotJson(_))), "{text}");
    }
    assert!(matches!(list("{}", Form::CloudEvents), Err(Refusal::NotJson(_))));
}

#[test]
fn a_cloudevent_is_an_event_under_the_id_of_its_source_and_id() {
    let one = |fields: &str, data: &str| {
        let text = format!(
            r#"{{"specversion":"1.0","type":"t","source":"/gateway","id":"7",{fields}"data":{data}}}"#
        );
        match body(&text, Form::CloudEvent) {
            Ok(Body::One(event, _)) => {
                event.map_err(|faults| faults.iter().map(ToString::to_string).collect::<String>())
            }
            other => panic!("{text}: {other:?}"),
        }
    };
    let used = r#"{"feature":"f","tokens":5}"#;
    let event = one(r#""subject":"acme","time":"2026-06-15T11:00:00Z","#, used).unwrap();
    assert_eq!((event.tenant.as_str(), event.tokens.get()), ("acme", 5));
    assert_eq!(event.id, Some(EventId::of("/gateway 7")));
    assert_eq!(event.occurred_at, "2026-06-15T11:00:00Z".parse().unwrap());
    let named = r#"{"tenant":"acme","feature":"f","tokens":5}"#;
    for (subject, data) in [
        ("", named),
        (r#""subject":null,"#, named),
        (r#""subject":"acme","#, r#"{"tenant":null,"feature":"f","tokens":5}"#),
    ] {
        assert_eq!(one(subject, data).unwrap().tenant.as_str(), "acme", "{subject} {data}");
    }
    let cases = [
        (
            "",
            used,
            "subject is missing; it must be a DNS label: 1 to 63 of a-z, 0-9 and '-', and no '-' at its ends",
        ),
        (
            r#""subject":"other","#,
            r#"{"tenant":"acme","feature":"f","tokens":5}"#,
            "subject must be the same as data.tenant, or one of them left out",
        ),
        (r#""subject":"acme","#, "[]", "data must be a JSON object {\"feature\", \"tokens\", \"tenant\"?}"),
        (r#""subject":"acme","id":"8","#, used, "id must come only once"),
        (
            r#""subject":"acme","time":"noon","#,
            used,
            "time must be an RFC 3339 time, such as 2026-01-31T12:00:00Z",
        ),
    ];
    for (fields, data, expected) in cases {
        assert_eq!(one(fields, data), Err(expected.to_owned()), "{fields}");
    }

    // `/a` and `b 7` would be the same event as `/a b` and `7`.
    let spaced = r#"{"specversion":"1.0","type":"t","source":"/a b","id":"7","subject":"acme","data":{"feature":"f","tokens":5}}"#;
    let Ok(Body::One(Err(faults), _)) = body(spaced, Form::CloudEvent) else { panic!("{spaced}") };
    assert_eq!(faults[0].to_string(), "source must be a string of 1 to 1024 bytes without white space");

    let headers = |name: &str| match name {
        "specversion" => Some("1.0"),
        "id" => Some("7"),
        "source" => Some("/gateway"),
        "type" => Some("t"),
        "subject" => Some("acme"),
        _ => None,
    };
    let arrival = Arrival::at("2026-06-15T11:00:00Z".parse().unwrap(), None);
    let binary = decode_binary(used.as_bytes(), &headers, arrival);
    assert_eq!(binary, Ok(Body::One(Ok(event), Some("/gateway 7".to_owned()))));
}

#[test]
fn a_uuidv7_of_a_day_that_the_ledger_has_forgotten_is_refused() {
    let now = NOW.parse().unwrap();
    let body = r#"{"tenant":"a","feature":"f","tokens":1,"id":"019eca0c-5d1a-7000-8000-0123456789ab"}"#;
    let read = |ids_since: Option<&str>| {
        let arrival = Arrival::at(now, ids_since.map(|since| since.parse().unwrap()));
        match decode(body.as_bytes(), Form::Json, arrival, 1) {
            Ok(Body::One(event, _)) => event.map(drop).map_err(|faults| text(&faults)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(None), Ok(()));
    assert_eq!(read(Some("2026-06-15T00:00:00Z")), Ok(()));
    // What was said long ago makes nothing possible that is too old all the same.
    assert_eq!(Arrival::at(now, Some(Timestamp::MIN)), Arrival::at(now, None));
    let refused = read(Some("2026-06-15T12:00:00Z")).unwrap_err();
    assert!(refused.contains("it must be made after 2026-06-15T12:00:00Z"), "{refused}");
}
