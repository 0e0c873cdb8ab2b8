//! Specs that are wrong in one field, and a few that only look so.

use serde_json::{Value, json};

/// Each field of the spec with odd values for it.
pub(super) fn fields() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        ("monthlyQuota", numbers()),
        ("billingDay", numbers()),
        ("displayName", texts()),
        ("timeZone", zones()),
        ("suspended", vec![json!("yes"), json!(1), json!(null), json!([])]),
        (
            "deletionPolicy",
            vec![
                json!("Keep"),
                json!(1),
                json!(1.5),
                json!([]),
                json!(["a", 1]),
                json!({}),
                json!(true),
                json!("x".repeat(300)),
            ],
        ),
        ("quotaBoosts", boosts()),
        ("alerts", alerts()),
        ("foo", vec![json!(1), json!(null), json!({ "a": 1 })]),
    ]
}

fn numbers() -> Vec<Value> {
    vec![
        json!(0),
        json!(-1),
        json!(1.5),
        json!(32.5),
        json!(0.5),
        json!("1000"),
        json!(true),
        json!([1]),
        json!({}),
        json!({ "a": 1 }),
        json!(null),
        json!(32),
        json!(32.0),
        json!(31.0),
        json!(1.000_000_000_01),
        json!(3_000_000_000_u64),
        json!(9_007_199_254_740_992_u64),
        json!(9_007_199_254_740_992.0),
        json!(9_223_372_036_854_775_808_u64),
        json!(i64::MIN),
        json!(1e30),
        json!(1e6),
    ]
}

fn texts() -> Vec<Value> {
    vec![
        json!(""),
        json!("x".repeat(257)),
        json!("ä".repeat(256)),
        json!("😀".repeat(257)),
        json!("a\0b"),
        json!("a\nb\u{202e}c"),
        json!("a\u{85}\u{2028}\u{2066}"),
        json!("é\u{200d}\u{feff}株"),
        json!(7),
        json!(true),
        json!({}),
        json!({ "a": 1 }),
        json!([]),
        json!(null),
    ]
}

fn zones() -> Vec<Value> {
    let zones = [
        "Europe/Berlino",
        "Local",
        "",
        "Europe Berlin",
        "utc",
        "europe/berlin",
        "Etc/Unknown",
        "EST5EDT",
        "+02",
        "UTC",
        "Etc/GMT+12",
        "a\"\\\n\u{1}\u{a0}ü\u{200b}😀\u{7f}\u{7}",
    ];
    let mut zones: Vec<Value> = zones.map(Value::from).into();
    zones.extend([json!("x".repeat(65)), json!([]), json!(5)]);
    zones
}

fn boosts() -> Vec<Value> {
    let boost = |field: &str, value: Value| {
        let mut boost =
            json!({ "tokens": 1, "from": "2026-03-10T00:00:00Z", "until": "2026-03-20T00:00:00Z" });
        boost[field] = value;
        json!([boost])
    };
    let instants = [
        "2026-03-20",
        "2026-03-20T00:00:00",
        "2026-03-20 00:00:00Z",
        "2026-03-20T00:00Z",
        "2026-03-20T00:00:00.5Z",
        "2026-03-20T00:00:00,5Z",
        "2026-03-20T00:00:00+0100",
        "2026-03-20T24:00:00Z",
        "2026-03-20T23:59:60Z",
        "2026-02-30T00:00:00Z",
        "2026-03-20t00:00:00z",
        "2026-03-20T00:00:00.5z",
        "2026-03-20T00:00:00x5Z",
        "2026-03-20T00:00:00Ztrail",
        "2026-03-20T00:00:00+00:60",
        "2026-03-20T00:00:00+00:61",
        "2026-03-20T00:00:00+24:00",
        "2026-03-20T00:00:00+25:00",
        "2026-03-10T01:00:00+01:00",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2026-03-20T00:00:00.0123456789Z",
        "2026-03-10T00:00:00.0000000001Z",
        "10000-01-01T00:00:00Z",
        "2026-03-20T00:00:00Z\n",
        "tomorrow",
        "",
    ];
    let mut boosts = vec![
        json!({}),
        json!("x"),
        json!(["x"]),
        json!([[]]),
        json!([null]),
        json!([{}]),
        json!(vec![boost("tokens", json!(1))[0].clone(); 17]),
        boost("tokens", json!(0)),
        boost("reason", json!("ä".repeat(257))),
        boost("reason", json!("a\r\u{2069}")),
        boost("from", json!("0000-01-01T00:00:00Z")),
        boost("zz", json!(1)),
    ];
    boosts.extend(instants.map(|instant| boost("until", json!(instant))));
    boosts.extend(
        [json!(5), json!(true), json!([]), json!(["a"]), json!({}), json!(null), json!(1.5)]
            .map(|value| boost("until", value)),
    );
    boosts
}

fn alerts() -> Vec<Value> {
    let urls = [
        "http://a/b",
        "https://",
        "not a url",
        "https://a b",
        "https://a/b c",
        "https://a/%zz",
        "https://a#f",
        "https://[::1]:80",
        "https://a:x",
        "https://a:1:2",
        "ftp://a",
        "",
        "http://x\n\"é\u{200b}\u{1}",
    ];
    let slack = |target: Value| json!({ "slack": target });
    let mut alerts = vec![
        json!("x"),
        json!(null),
        json!({ "bar": 1 }),
        slack(json!(null)),
        slack(json!({})),
        slack(json!("x")),
        slack(json!({ "url": "https://a", "secretRef": { "name": "x" } })),
        slack(json!({ "enabled": "true", "secretRef": { "name": "a" } })),
        slack(json!({ "url": format!("https://a/{}", "x".repeat(2_048)) })),
        slack(json!({ "secretRef": {} })),
        slack(json!({ "secretRef": "a" })),
        slack(json!({ "secretRef": null, "url": null })),
        slack(json!({ "secretRef": { "name": "", "key": "a b", "y": 1 }, "x": 1 })),
        slack(json!({ "secretRef": { "name": "", "key": "a b" } })),
        slack(json!({ "secretRef": { "name": "a".repeat(254) } })),
        slack(json!({ "secretRef": { "name": "../a?b" } })),
        slack(json!({ "secretRef": { "name": "a.b-c.7" } })),
        slack(json!({ "secretRef": { "name": "a..b" } })),
        json!({ "webhook": {} }),
        json!({ "webhook": { "url": "https://a" } }),
        json!({ "webhook": { "url": "x", "secretRef": { "name": "x" } } }),
        json!({ "webhook": { "secretRef": { "name": "x" } } }),
        json!({ "webhook": { "urlSecretRef": { "name": "u" }, "secretRef": { "name": "x" } } }),
        json!({ "webhook": { "url": "https://a", "urlSecretRef": { "name": "u" }, "secretRef": { "name": "x" } } }),
    ];
    alerts.extend(urls.map(|url| slack(json!({ "url": url }))));
    let thresholds = [
        json!([0]),
        json!([1_001]),
        json!([80, 80, 80]),
        json!([1, 2, 1, 2]),
        json!((1..=11).collect::<Vec<_>>()),
        json!(vec![0; 11]),
        json!(["a", "a", "a\n"]),
        json!([[1], [1]]),
        json!([1.5, 1.5]),
        json!([80, 80.0]),
        json!([null, null]),
        json!(null),
        json!({}),
        json!([9_223_372_036_854_775_808_u64]),
    ];
    alerts.extend(thresholds.map(|percents| json!({ "thresholds": percents })));
    alerts
}
