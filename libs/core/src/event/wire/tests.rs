//! Bodies, good and bad.

use jiff::Timestamp;

use super::super::EventId;
use super::*;

const NOW: &str = "2026-06-15T12:00:00Z";

fn reading() -> Reading {
    Reading::new(Arrival::at(NOW.parse().unwrap(), None), 3)
}

fn body(body: &str, form: Form) -> Result<Body, Refusal> {
    decode(body.as_bytes(), form, &reading()).map(|read| read.body)
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
            "tokens is missing; it must be a whole number from 0 to 9007199254740991",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":-1}"#,
            "tokens must be a whole number from 0 to 9007199254740991",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":1.5}"#,
            "tokens must be a whole number from 0 to 9007199254740991",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":"1"}"#,
            "tokens must be a whole number from 0 to 9007199254740991, without quotes",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":null}"#,
            "tokens must be a whole number from 0 to 9007199254740991",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":9007199254740992}"#,
            "tokens must be a whole number from 0 to 9007199254740991",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":99999999999999999999}"#,
            "tokens must be a whole number from 0 to 9007199254740991",
        ),
        (r#"{"tenant":"a","feature":"f","tokens":1,"id":""}"#, "id must be a string of 1 to 128 bytes"),
        (r#"{"tenant":"a","feature":"f","tokens":1,"id":7}"#, "id must be a string of 1 to 128 bytes"),
        (
            r#"{"tenant":"a","feature":"f","tokens":1,"id":"."}"#,
            "id must not be `.` or `..`, which no URL can name; choose another",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":1,"id":".."}"#,
            "id must not be `.` or `..`, which no URL can name; choose another",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":1,"id":"01934f6e-7d1a-7000-8000-0123456789ab"}"#,
            "id is a UUIDv7 made at 2024-11-21T15:54:21Z; it must be made after 2026-05-11T12:00:00Z, since when ids are known, and not be ahead",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":1,"timestamp":"yesterday"}"#,
            "timestamp must be an RFC 3339 time, such as 2026-01-31T12:00:00Z",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":1,"timestamp":1781524800}"#,
            "timestamp must be an RFC 3339 time, such as 2026-01-31T12:00:00Z, and not a number of seconds",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":1,"timestamp":"20260615T120000Z"}"#,
            "timestamp must be an RFC 3339 time, such as 2026-01-31T12:00:00Z",
        ),
        (
            r#"{"tenant":"a","feature":"f","tokens":1,"timestamp":"2026-06-15T14:00:00+02:00[Europe/Berlin]"}"#,
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
        (
            r#"{"tenant":"a","feature":"f","token":1}"#,
            "tokens is missing; it must be a whole number from 0 to 9007199254740991. You sent `token`, which is not a field of an event: did you mean `tokens`?",
        ),
        (
            r#"{"events":[{"tenant":"a","feature":"f","tokens":1}]}"#,
            "events is not a field of an event; send the list itself as the body: `[…]`",
        ),
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
    let faults = read(r#"{"tenant":"A","tokens":-1}"#).unwrap_err();
    let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["tenant", "feature", "tokens"]);
}

/// Each event's tokens, or what is wrong with it.
fn list(text_of: &str, form: Form) -> Result<Vec<String>, Refusal> {
    match body(text_of, form)? {
        Body::Many(events, _) => {
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
    let event = |tokens: i32| format!(r#"{{"tenant":"a","feature":"f","tokens":{tokens}}}"#);
    let wrong = "tokens must be a whole number from 0 to 9007199254740991";
    let array = format!(" [{}, {}, 7]", event(1), event(-1));
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
    // The specification of CloudEvents lets a batch be empty.
    assert_eq!(list("[]", Form::CloudEvents), Ok(Vec::new()));
}

#[test]
fn a_number_of_tokens_is_whole_however_it_is_written_and_may_be_0() {
    let tokens = |written: &str| {
        let event = read(&format!(r#"{{"tenant":"a","feature":"f","tokens":{written}}}"#));
        event.map(|event| event.tokens.get()).map_err(|faults| text(&faults))
    };
    let whole = [
        ("0", 0),
        ("0.0", 0),
        ("-0", 0),
        ("1.0", 1),
        ("1e3", 1_000),
        ("1.5e3", 1_500),
        ("1E+2", 100),
        ("10e-1", 1),
        ("1e15", 1_000_000_000_000_000),
        ("999999999999999.0", 999_999_999_999_999),
        ("9007199254740991", 9_007_199_254_740_991),
    ];
    for (written, number) in whole {
        assert_eq!(tokens(written), Ok(number), "{written}");
    }
    for written in [
        "-1",
        "-1.0",
        "1.5",
        "1e-3",
        "1e16",
        "9007199254740991.0",
        "9007199254740992.0",
        "true",
        "[1]",
        "{}",
        "\"1e3\"",
    ] {
        let refused = tokens(written).unwrap_err();
        assert!(
            refused.starts_with("tokens must be a whole number from 0 to 9007199254740991"),
            "{written}: {refused}"
        );
    }
}

/// The ignored fields of a body, and what was meant by them.
fn ignored(body: &str, form: Form) -> Vec<(String, Option<&'static str>)> {
    let read = decode(body.as_bytes(), form, &reading()).unwrap();
    match read.body {
        Body::One(event, _) => assert!(event.is_ok(), "{event:?}"),
        Body::Many(events, _) => assert!(events.iter().all(Result::is_ok), "{events:?}"),
    }
    read.ignored.into_iter().map(|field| (field.field, field.did_you_mean)).collect()
}

#[test]
fn fields_that_no_event_has_are_named_with_what_was_meant() {
    let event = |more: &str| format!(r#"{{"tenant":"a","feature":"f","tokens":1{more}}}"#);
    let named = |name: &str, meant| (name.to_owned(), meant);
    let cases = [
        ("", vec![]),
        (r#","id":"1","timestamp":"2026-06-15T12:00:00Z""#, vec![]),
        (
            r#","ID":"1","idempotencyKey":"1","time":"2026-06-15T12:00:00Z","note":1"#,
            vec![
                named("ID", Some("id")),
                named("idempotencyKey", Some("id")),
                named("time", Some("timestamp")),
                named("note", None),
            ],
        ),
        // What is there was not misspelt.
        (r#","id":"1","ID":"2","model":"m""#, vec![named("ID", None), named("model", None)]),
    ];
    for (more, expected) in cases {
        assert_eq!(ignored(&event(more), Form::Json), expected, "{more}");
    }
    let (one, other) = (event(r#","note":1,"ts":2"#), event(r#","note":3,"id":"1""#));
    let expected = [named("note", None), named("ts", Some("timestamp"))];
    assert_eq!(ignored(&format!("[{one},{other}]"), Form::Json), expected);
    assert_eq!(ignored(&format!("{one}\n{other}"), Form::Lines), expected);
    let many: Vec<String> = (0..100).map(|number| format!(r#","field{number}":1"#)).collect();
    let many = many.concat();
    assert_eq!(ignored(&event(&many), Form::Json).len(), super::super::MAX_IGNORED);
    // All of them count as there, so that none comes twice.
    let twice = read(&event(&format!(r#"{many},"field99":2"#))).unwrap_err();
    assert_eq!(text(&twice), "field99 must come only once");
}

#[test]
fn extension_attributes_of_a_cloudevent_are_its_own_and_misspelt_ones_are_named() {
    let cloud = |attributes: &str, data: &str| {
        format!(
            r#"{{"specversion":"1.0","type":"t","source":"/s","id":"1","subject":"acme",{attributes}"data":{data}}}"#
        )
    };
    let data = r#"{"feature":"f","tokens":1}"#;
    assert_eq!(
        ignored(&cloud(r#""traceparent":"00","dataschema":"x","sequence":7,"#, data), Form::CloudEvent),
        []
    );
    let misspelt = cloud(r#""Time":"2026-06-15T12:00:00Z","data_schema":"x","#, data);
    let expected = [("Time".to_owned(), Some("time")), ("data_schema".to_owned(), None)];
    assert_eq!(ignored(&misspelt, Form::CloudEvent), expected);
    let inside =
        cloud("", r#"{"feature":"f","tokens":1,"model":"m","id":"1","timestamp":"2026-06-15T12:00:00Z"}"#);
    let expected = [("data.model", None), ("data.id", None), ("data.timestamp", Some("time"))];
    assert_eq!(ignored(&inside, Form::CloudEvent), expected.map(|(name, meant)| (name.to_owned(), meant)));
    assert_eq!(ignored(&format!("[{inside}]"), Form::CloudEvents).len(), 3);
}

#[test]
fn strict_handling_makes_a_fault_of_a_field_that_no_event_has() {
    let strict = Reading { strict: true, ..reading() };
    let faults = |body: &str, form: Form| match decode(body.as_bytes(), form, &strict).unwrap() {
        Read { body: Body::One(Err(faults), _), ignored } if ignored.is_empty() => text(&faults),
        other => panic!("{body}: {other:?}"),
    };
    let body = r#"{"tenant":"a","feature":"f","tokens":1,"ID":"7","note":1}"#;
    assert_eq!(
        faults(body, Form::Json),
        "ID is not a field of an event; did you mean `id`?; note is not a field of an event; leave it out, or send \
         the event without `Prefer: handling=strict`"
    );
    let cloud = r#"{"specversion":"1.0","type":"t","source":"/s","id":"1","subject":"acme","tracestate":"x","data":{"feature":"f","tokens":1,"Id":1}}"#;
    assert!(faults(cloud, Form::CloudEvent).starts_with("data.Id is not a field of an event"));
    let good = decode(br#"{"tenant":"a","feature":"f","tokens":1,"id":"7"}"#, Form::Json, &strict).unwrap();
    assert!(matches!(good.body, Body::One(Ok(_), _)));
}

#[test]
fn the_ids_of_a_list_are_read_where_they_are_wanted() {
    let wanted = Reading { ids: true, ..reading() };
    let list = r#"[{"tenant":"a","feature":"f","tokens":1,"id":"order-7"},{"tenant":"a","feature":"f","tokens":1},7]"#;
    let ids = |reading: &Reading| match decode(list.as_bytes(), Form::Json, reading).unwrap().body {
        Body::Many(_, ids) => ids,
        Body::One(..) => panic!("a list"),
    };
    assert_eq!(ids(&wanted), [Some("order-7".to_owned()), None, None]);
    assert_eq!(ids(&reading()), []);
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
    let binary = decode_binary(used.as_bytes(), &headers, &Reading::new(arrival, 1)).unwrap();
    assert_eq!(binary.body, Body::One(Ok(event), Some("/gateway 7".to_owned())));
}

#[test]
fn a_uuidv7_of_a_day_that_the_ledger_has_forgotten_is_refused() {
    let now = NOW.parse().unwrap();
    let body = r#"{"tenant":"a","feature":"f","tokens":1,"id":"019eca0c-5d1a-7000-8000-0123456789ab"}"#;
    let read = |ids_since: Option<&str>| {
        let arrival = Arrival::at(now, ids_since.map(|since| since.parse().unwrap()));
        match decode(body.as_bytes(), Form::Json, &Reading::new(arrival, 1)).unwrap().body {
            Body::One(event, _) => event.map(drop).map_err(|faults| text(&faults)),
            Body::Many(..) => panic!("one event"),
        }
    };
    assert_eq!(read(None), Ok(()));
    assert_eq!(read(Some("2026-06-15T00:00:00Z")), Ok(()));
    // What was said long ago makes nothing possible that is too old all the same.
    assert_eq!(Arrival::at(now, Some(Timestamp::MIN)), Arrival::at(now, None));
    let refused = read(Some("2026-06-15T12:00:00Z")).unwrap_err();
    assert!(refused.contains("it must be made after 2026-06-15T12:00:00Z"), "{refused}");
}
