use flagmeter_core::quota::Quota;
use flagmeter_store::postgres::deliveries::{Channel, Kind, Taken};
use http::StatusCode;
use jiff::Timestamp;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn taken() -> Taken {
    Taken {
        alert: 7,
        channel: Channel::Slack,
        leased_until: at("2026-11-24T12:01:00Z"),
        attempts: 1,
        tried_since: at("2026-11-24T12:00:00Z"),
        event_id: uuid::Uuid::nil(),
        kind: Kind::Crossed,
        created_at: at("2026-11-24T12:00:00Z"),
        tenant: "acme-corp".to_owned(),
        tenant_name: "Acme Corp".to_owned(),
        time_zone: "Europe/Berlin".to_owned(),
        threshold: 80,
        monthly_quota: 1_000_000,
        quota: Quota { base: 1_000_000, boosts: Vec::new() },
        total_tokens: 812_345,
        period_start: at("2026-11-14T23:00:00Z"),
        period_end: at("2026-12-14T23:00:00Z"),
        target: None,
    }
}

fn said(taken: &Taken) -> Value {
    body(&Message {
        taken,
        now: taken.created_at,
        exhaustion: Some(at("2026-11-30T09:30:00Z")),
        public_url: Some("https://meter.example.com"),
    })
}

#[test]
fn the_message_says_who_how_much_of_what_and_until_when() {
    let said = said(&taken());
    assert_eq!(
        said["text"],
        "Acme Corp has used 81 % of its quota: 812,345 of 1,000,000 tokens (81 %). It resets Tue 15 Dec 2026, 00:00 Europe/Berlin."
    );
    assert_eq!(said["blocks"][0]["text"]["text"], "Acme Corp has used 81 % of its quota");
    let fields: Vec<&str> = said["blocks"][1]["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| field["text"].as_str().unwrap())
        .collect();
    assert_eq!(
        fields,
        [
            "*Used*\n812,345 of 1,000,000 tokens (81 %)",
            "*Threshold*\n80 %",
            "*Billing period*\n15 Nov 2026 – 15 Dec 2026",
            "*Resets*\nTue 15 Dec 2026, 00:00 Europe/Berlin",
            "*Used up, at the present rate*\nMon 30 Nov 2026, 10:30 Europe/Berlin",
        ]
    );
    assert_eq!(said["blocks"][2]["elements"][1]["text"], "<https://meter.example.com/|Open the dashboard>");
}

#[test]
fn what_is_not_known_is_left_out() {
    let taken = taken();
    let said = body(&Message { taken: &taken, now: taken.created_at, exhaustion: None, public_url: None });
    assert_eq!(said["blocks"][1]["fields"].as_array().unwrap().len(), 4);
    assert_eq!(said["blocks"][2]["elements"].as_array().unwrap().len(), 1);
}

#[test]
fn a_period_that_is_over_resets_no_more() {
    let taken = taken();
    let said = body(&Message { taken: &taken, now: taken.period_end, exhaustion: None, public_url: None });
    let text = said["text"].as_str().unwrap();
    assert!(text.ends_with("tokens (81 %). It reset Tue 15 Dec 2026, 00:00 Europe/Berlin."), "{text}");
    assert_eq!(said["blocks"][1]["fields"][3]["text"], "*Reset*\nTue 15 Dec 2026, 00:00 Europe/Berlin");
}

#[test]
fn a_name_cannot_bring_markup_and_calls_nobody() {
    let said = said(&Taken { tenant_name: "<!channel> & <b>\nx".to_owned(), ..taken() }).to_string();
    assert!(said.contains("&lt;!channel&gt; &amp; &lt;b&gt; x has used 81 %"), "{said}");
    assert!(!said.contains("<!") && !said.contains("<b"), "{said}");
}

#[test]
fn the_longest_names_stay_within_slacks_limits() {
    for name in ["&".repeat(256), "x".repeat(256), "ü".repeat(256), "x".to_owned()] {
        for kind in [Kind::Crossed, Kind::Recovered, Kind::Test] {
            let taken = Taken {
                tenant_name: name.clone(),
                tenant: "t".repeat(63),
                total_tokens: i64::MAX,
                monthly_quota: 1,
                threshold: 1_000,
                kind,
                ..taken()
            };
            let said = said(&taken);
            let length = |value: &Value| value.as_str().unwrap().chars().count();
            assert!(length(&said["text"]) <= 4_000);
            let blocks = said["blocks"].as_array().unwrap();
            assert!(blocks.len() <= 50);
            assert!((1..=150).contains(&length(&blocks[0]["text"]["text"])), "{}", blocks[0]);
            let fields = blocks[1]["fields"].as_array().unwrap();
            assert!(fields.len() <= 10 && fields.iter().all(|field| length(&field["text"]) <= 2_000));
            assert!(blocks[2]["elements"].as_array().unwrap().len() <= 10);
        }
    }
}

#[test]
fn refusals_end_it_and_say_what_to_do_and_everything_else_is_tried_again() {
    let judge = |status: u16, body: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        judge(&Answer { status, retry_after: None, body: body.as_bytes().to_vec() })
    };
    assert_eq!(judge(200, "ok").attempt, Attempt::Taken);
    for (status, body, part) in [
        (400, "invalid_payload", "report this"),
        (403, "invalid_token", "make a new one"),
        (404, "no_service", "make a new one"),
        (404, "<html>", "make a new one"),
        (410, "channel_is_archived\n", "restore it"),
        (301, "", "edit the URL in the tenant's settings"),
        (302, "<html>", "edit the URL in the tenant's settings"),
        (307, "", "`flagmeter alerts resend`"),
        (308, "", "edit the URL in the tenant's settings"),
    ] {
        let verdict = judge(status, body);
        assert_eq!(verdict.attempt, Attempt::Refused, "{status}");
        assert!(verdict.why.contains(part) && !verdict.why.contains("html"), "{}", verdict.why);
    }
    for status in [408, 429, 500, 502, 503] {
        let verdict = judge(status, "https://hooks.slack.com/services/secret");
        assert_eq!(verdict.attempt, Attempt::Failed { retry_after: None }, "{status}");
        assert!(
            verdict.why.contains(&status.to_string()) && !verdict.why.contains("secret"),
            "{}",
            verdict.why
        );
    }
}
