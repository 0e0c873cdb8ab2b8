//! What must hold of any bytes at all, tried on some thousand that are made to be nearly right. The same bodies are
//! fuzzed from fuzz/, where there is a nightly compiler.

mod bodies;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

/// Good bodies of every form.
const GOOD: [&str; 6] = [
    r#"{"tenant":"acme","feature":"gpt-4","tokens":1500,"id":"order-7","timestamp":"2026-06-15T11:59:59.1234567Z"}"#,
    r#"[{"tenant":"acme","feature":"f","tokens":1},{"tenant":"b","feature":"g","tokens":9007199254740991,"id":null}]"#,
    "{\"tenant\":\"acme\",\"feature\":\"f\",\"tokens\":1}\n\n{\"tenant\":\"acme\",\"feature\":\"f\",\"tokens\":2}\r\n",
    r#"{"specversion":"1.0","id":"7","source":"/gw","type":"t","subject":"acme","time":"2026-06-15T11:00:00Z","data":{"feature":"f","tokens":5}}"#,
    r#"[{"specversion":"1.0","id":"7","source":"/gw","type":"t","data":{"tenant":"acme","feature":"f","tokens":5}}]"#,
    r#"{"tenant":"a","feature":"f","tokens":1,"id":"019eca0c-5d1a-7000-8000-0123456789ab","x":{"tenant":[1,{"a":"\u002d"}]}}"#,
];

/// What a field may hold, right or wrong.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..3).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{1,5}".prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        (-40_i64 * 86_400..400).prop_map(|ahead| {
            let instant = jiff::Timestamp::from_second(1_781_524_800 + ahead).unwrap_or_default();
            instant.to_string().into()
        }),
        Just(json!("1.0")),
        Just(json!([1, { "tenant": "b" }])),
        Just(json!({ "tenant": "acme", "feature": "f", "tokens": 7, "x": [null] })),
    ]
}

/// Objects with some of the fields that are known, and mostly those that an event needs.
fn any_object() -> impl Strategy<Value = Value> {
    let names = "tenant|feature|tokens|id|timestamp|specversion|source|type|subject|time|data|[a-z]{3}";
    (btree_map(names, any_value(), 0..7), any::<[bool; 2]>()).prop_map(|(fields, [plain, cloud])| {
        let mut object: Map<String, Value> = fields.into_iter().collect();
        let mut have = |fields: Value| {
            for (name, value) in fields.as_object().into_iter().flatten() {
                object.entry(name).or_insert_with(|| value.clone());
            }
        };
        if plain {
            have(json!({ "tenant": "acme", "feature": "f", "tokens": 1 }));
        }
        if cloud {
            let data = json!({ "feature": "f", "tokens": 5 });
            have(json!({ "specversion": "1.0", "id": "7", "source": "/gw", "type": "t", "subject": "acme", "data": data }));
        }
        Value::Object(object)
    })
}

fn any_json() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any_object().prop_map(|object| object.to_string().into()),
        vec(any_object(), 0..5).prop_map(|list| Value::Array(list).to_string().into()),
        vec(any_object(), 0..5).prop_map(|lines| {
            lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n").into_bytes()
        }),
    ]
}

/// A good body of which some bytes are others, or gone.
fn nearly_good() -> impl Strategy<Value = Vec<u8>> {
    let change = (
        any::<Index>(),
        prop_oneof![
            Just(None),
            any::<u8>().prop_map(Some),
            select(&b"{}[],:\"\\0129.eE-\n"[..]).prop_map(Some)
        ],
    );
    (select(&GOOD[..]), vec(change, 0..4)).prop_map(|(good, changes)| {
        let mut bytes = good.as_bytes().to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            match byte {
                Some(byte) => bytes[place] = byte,
                None => drop(bytes.remove(place)),
            }
        }
        bytes
    })
}

#[test]
fn good_bodies_are_read_and_hold_what_must_hold() {
    for (name, _) in bodies::ALL {
        for good in GOOD {
            bodies::check(name, good.as_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_048))]

    #[test]
    fn whatever_bytes_arrive_what_must_hold_does(
        bytes in prop_oneof![vec(any::<u8>(), 0..300), any_json(), nearly_good()],
    ) {
        for (name, _) in bodies::ALL {
            bodies::check(name, &bytes);
        }
    }
}
