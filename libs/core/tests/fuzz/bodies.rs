//! What must hold of any bytes at all. The property tests beside this and the targets in fuzz/ share it.

use flagmeter_core::event::{
    self, Arrival, Body, Checked, EventId, FeatureName, Form, MAX_AGE, MAX_AHEAD, MAX_ID_AHEAD, MAX_IGNORED,
    Reading, Refusal, TenantName, TokenCount, UsageEvent,
};
use flagmeter_core::packed::Batch;
use jiff::Timestamp;
use serde_json::{Map, Value};

/// When the bytes arrive: 2026-06-15T12:00:00Z.
const NOW_SECOND: i64 = 1_781_524_800;

/// Events that a body may have.
const LIMIT: usize = 3;

/// Panics if something does not hold of the bytes.
type Holds = fn(&[u8]);

/// Each by its name.
pub(crate) const ALL: [(&str, Holds); 4] =
    [("packed", packed), ("json", json), ("lines", lines), ("cloud", cloud)];

/// Checks `bytes` by the name of what must hold.
///
/// # Panics
///
/// If it does not.
pub(crate) fn check(name: &str, bytes: &[u8]) {
    let found = ALL.into_iter().find(|(known, _)| *known == name);
    let (_, holds) = found.unwrap_or_else(|| panic!("nothing is called {name}"));
    holds(bytes);
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW_SECOND).unwrap_or_default()
}

fn reading() -> Reading {
    Reading { ids: true, ..Reading::new(Arrival::at(now(), None), LIMIT) }
}

/// The events of a body, of which no more is said than an answer has room for.
fn decode(bytes: &[u8], form: Form) -> Result<Body, Refusal> {
    let read = event::decode(bytes, form, &reading())?;
    assert!(read.ignored.len() <= MAX_IGNORED, "{:?}", read.ignored);
    let strict = Reading { strict: true, ..reading() };
    let Ok(strict) = event::decode(bytes, form, &strict) else {
        panic!("what can be read strictly can be read")
    };
    match (&read.body, &strict.body) {
        (Body::One(one, _), Body::One(strict, _)) => assert!(one.is_ok() || strict.is_err()),
        (Body::Many(events, ids), Body::Many(strict, _)) => {
            assert_eq!((events.len(), events.len()), (ids.len(), strict.len()));
        }
        other => panic!("{other:?}"),
    }
    Ok(read.body)
}

/// An entry of the queue is what it says, or unreadable; cut off, it is unreadable.
fn packed(bytes: &[u8]) {
    // Hardly any bytes have a right checksum, so it is made for them as well.
    let mut sealed = [&[1], bytes].concat();
    sealed.extend(crc32fast::hash(&sealed).to_le_bytes());
    for entry in [bytes, &sealed] {
        let Ok(batch) = Batch::decode(entry) else { continue };
        let again = batch.encode();
        assert_eq!(Batch::decode(&again).as_ref(), Ok(&batch));
        for cut in 0..again.len().min(64) {
            assert!(Batch::decode(&again[..cut]).is_err(), "{cut} bytes of {again:?}");
        }
    }
}

/// A JSON body has the events that another reader of JSON sees in it.
fn json(bytes: &[u8]) {
    let read = decode(bytes, Form::Json);
    // What is not looked at is skipped, not read, so that some of what the other refuses is taken.
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    match (value, read) {
        (Value::Array(list), read) => compare_list(&list, read, plain),
        (value, Ok(Body::One(event, id))) => {
            let written = value.get("id").and_then(Value::as_str);
            assert!(event.is_err() || id.as_deref() == written, "{value}: {id:?}");
            compare(&value, &event, plain);
        }
        (value, read) => panic!("{value}: {read:?}"),
    }
}

/// So has each line.
fn lines(bytes: &[u8]) {
    let read = decode(bytes, Form::Lines);
    let lines: Vec<&[u8]> =
        bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect();
    match read {
        Ok(Body::Many(events, _)) => {
            assert_eq!(events.len(), lines.len());
            for (line, event) in lines.iter().zip(events) {
                if let Ok(value) = serde_json::from_slice(line) {
                    compare(&value, &event, plain);
                }
            }
        }
        Err(Refusal::Empty) => assert_eq!(lines.len(), 0),
        Err(Refusal::TooMany(limit)) => assert!(limit == LIMIT && lines.len() > LIMIT),
        other => panic!("{other:?}"),
    }
}

/// And so have CloudEvents, in each of their modes.
fn cloud(bytes: &[u8]) {
    let batch = decode(bytes, Form::CloudEvents);
    let one = decode(bytes, Form::CloudEvent);
    let attribute = |name: &str| ["specversion", "id", "source", "type"].contains(&name).then_some("1.0");
    let binary = event::decode_binary(bytes, &attribute, &reading()).map(|read| read.body);
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    if let Value::Array(list) = &value {
        compare_list(list, batch, structured);
    } else {
        assert!(batch.is_err(), "{value}: {batch:?}");
    }
    let Ok(Body::One(event, _)) = one else { panic!("{value}: {one:?}") };
    compare(&value, &event, structured);
    let Ok(Body::One(event, id)) = binary else { panic!("{value}: {binary:?}") };
    assert_eq!(id.as_deref(), Some("1.0 1.0"));
    compare(&value, &event, |data| {
        data.get("tenant").and_then(|tenant| used(data, tenant, Some("1.0 1.0"), None))
    });
}

fn compare_list(
    list: &[Value],
    read: Result<Body, Refusal>,
    event_of: fn(&Map<String, Value>) -> Option<UsageEvent>,
) {
    match read {
        Ok(Body::Many(events, _)) => {
            assert_eq!(events.len(), list.len());
            for (value, event) in list.iter().zip(events) {
                compare(value, &event, event_of);
            }
        }
        Err(Refusal::Empty) => assert_eq!(list.len(), 0),
        Err(Refusal::TooMany(limit)) => assert!(limit == LIMIT && list.len() > LIMIT, "{list:?}"),
        other => panic!("{list:?}: {other:?}"),
    }
}

/// Both see the same event, or none.
fn compare(value: &Value, read: &Checked, event_of: impl Fn(&Map<String, Value>) -> Option<UsageEvent>) {
    let expected = value.as_object().and_then(event_of);
    match (read, expected) {
        (Ok(event), Some(expected)) => assert_eq!(*event, expected, "{value}"),
        (Err(_), None) => {}
        // The other reader takes the last of two, and does not say that there were two.
        (Err(faults), Some(_)) if faults.iter().all(|fault| fault.detail == "must come only once") => {}
        (read, expected) => panic!("{value}: {read:?}, and not {expected:?}"),
    }
}

/// The event of a JSON object, by the words of the documentation.
fn plain(object: &Map<String, Value>) -> Option<UsageEvent> {
    let id = match object.get("id") {
        None | Some(Value::Null) => None,
        Some(id) => {
            Some(id.as_str().filter(|id| (1..=128).contains(&id.len()) && ![".", ".."].contains(id))?)
        }
    };
    used(object, object.get("tenant")?, id, object.get("timestamp"))
}

/// The event of a CloudEvent.
fn structured(object: &Map<String, Value>) -> Option<UsageEvent> {
    let text = |name| object.get(name)?.as_str().filter(|text: &&str| (1..=1_024).contains(&text.len()));
    let (source, id, _) = (text("source")?, text("id")?, text("type")?);
    (!source.contains(char::is_whitespace)).then_some(())?;
    let data = object.get("data")?.as_object()?;
    let said = |value: &&Value| !value.is_null();
    let tenants = (object.get("subject").filter(said), data.get("tenant").filter(said));
    let tenant = match tenants {
        (Some(one), Some(other)) => (one.as_str() == other.as_str()).then_some(one)?,
        (one, other) => one.or(other)?,
    };
    (object.get("specversion")? == "1.0").then_some(())?;
    used(data, tenant, Some(&format!("{source} {id}")), object.get("time"))
}

fn used(
    object: &Map<String, Value>,
    tenant: &Value,
    id: Option<&str>,
    instant: Option<&Value>,
) -> Option<UsageEvent> {
    let occurred_at = match instant {
        None | Some(Value::Null) => now(),
        Some(text) => rfc3339(text.as_str()?)?,
    };
    let id = id.map(EventId::of);
    if let Some(made_at) = id.and_then(EventId::made_at) {
        let age = now().duration_since(made_at);
        (-MAX_ID_AHEAD <= age && age <= MAX_AGE).then_some(())?;
    }
    let age = now().duration_since(occurred_at);
    (-MAX_AHEAD <= age && age <= MAX_AGE).then_some(())?;
    Some(UsageEvent {
        tenant: TenantName::try_from(tenant.as_str()?).ok()?,
        feature: FeatureName::try_from(object.get("feature")?.as_str()?).ok()?,
        tokens: TokenCount::try_from(whole(object.get("tokens")?)?).ok()?,
        id,
        occurred_at: Timestamp::from_microsecond(
            occurred_at.as_nanosecond().div_euclid(1_000).try_into().ok()?,
        )
        .ok()?,
        reverses: None,
    })
}

/// The whole number that `value` is, by its decimal digits; with a point or an exponent, below 2^52.
fn whole(value: &Value) -> Option<i64> {
    let number = value.as_number()?;
    number.as_i64().or_else(|| {
        let text = format!("{:.0}", number.as_f64()?);
        let is_whole = text.parse::<f64>().ok() == number.as_f64();
        text.parse::<i64>().ok().filter(|whole| is_whole && whole.unsigned_abs() < 1 << 52)
    })
}

/// The instant that RFC 3339 has for `text`, by the reader of a larger language.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let (clock, rest) = text.split_at_checked(19)?;
    let shape: String =
        clock.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    let is_shaped =
        ["0000-00-00T00:00:00", "0000-00-00t00:00:00", "0000-00-00 00:00:00"].contains(&shape.as_str());
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit())?),
        None => ("0", rest),
    };
    let is_zone = zone.eq_ignore_ascii_case("z")
        || zone.len() == 6 && zone.as_bytes()[3] == b':' && zone.get(1..3)?.parse::<u8>().ok()? < 24;
    (is_shaped && is_zone && !fraction.is_empty()).then_some(())?;
    format!("{clock}.{fraction:.9}{zone}").parse().ok()
}
