//! What is answered stays small, whatever is asked.

use axum::http::StatusCode;
use flagmeter_store::PgPool;
use serde_json::json;

use crate::server::Server;

/// No refusal is larger than this, and half of it is for its own words.
const REFUSAL_BYTES: usize = 8 << 10;

/// No text of a client's is repeated beyond this.
const SHOWN_CHARS: usize = 64;

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn of_many_wrong_events_the_first_twenty_errors_are_answered_and_how_many_more_there_are(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let wrong_tenant = json!({ "tenant": "x".repeat(63), "feature": "f", "tokens": 1 }).to_string();
    let wrong_tokens = json!({ "tenant": "acme", "feature": "f", "tokens": -1 }).to_string();
    for (event, errors_each, code) in [
        ("{}", 3, "invalid_event"),
        (&*wrong_tenant, 1, "unknown_tenant"),
        (&*wrong_tokens, 1, "invalid_event"),
    ] {
        let list = format!("[{}]", vec![event; 1_000].join(","));
        let answer = server.post(&list).await;
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (422, &json!(code)), "{}", answer.body);
        assert!(answer.body.len() <= REFUSAL_BYTES, "{} bytes for {event}", answer.body.len());
        assert_eq!(answer.json["errors"].as_array().unwrap().len(), 20);
        assert_eq!(answer.json["moreErrors"], 1_000 * errors_each - 20);
        assert!(answer.json["detail"].as_str().unwrap().starts_with("1000 of the events"), "{}", answer.body);
    }

    // The same of those that are left out.
    let good = r#"{"tenant":"acme","feature":"f","tokens":1}"#;
    let list = format!("[{good},{}]", vec!["{}"; 999].join(","));
    let lenient = server.post_with(&list, &[("prefer", "handling=lenient")]).await;
    assert_eq!((lenient.status, &lenient.json["accepted"]), (StatusCode::ACCEPTED, &json!(1)));
    assert_eq!(lenient.json["errors"].as_array().unwrap().len(), 20);
    assert_eq!(lenient.json["moreErrors"], 999 * 3 - 20);
    assert!(lenient.body.len() <= REFUSAL_BYTES, "{} bytes", lenient.body.len());

    // Where all are listed, no more are.
    let few = server.post("[{},{}]").await;
    assert_eq!((few.json["errors"].as_array().unwrap().len(), few.json.get("moreErrors")), (6, None));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn what_a_client_names_is_repeated_up_to_64_characters(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    let long = "n".repeat(500_000);
    let twice = format!(r#"{{"tenant":"acme","feature":"f","tokens":1,"{long}":1,"{long}":2}}"#);
    let cloud = format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","{long}":1,"{long}":2}}"#);
    let path = "n".repeat(10_000);
    let answers = [
        server.post(&twice).await,
        server.post(&format!("[{twice}]")).await,
        server.post_as(&cloud, "application/cloudevents+json").await,
        server.post(&format!(r#"{{"tenant":"{long}","feature":"{long}","tokens":"{long}"}}"#)).await,
        server.post(&format!(r#"{{"tenant":"acme","feature":"f","tokens":1,"timestamp":"{long}"}}"#)).await,
        server.post(&format!(r#"{{"tenant":"acme","feature":"f","tokens":1,"id":"{long}"}}"#)).await,
        server.post(&format!("nul{long}")).await,
        server.post_as("{}", &path).await,
        server.post_with("{}", &[("idempotency-key", &*path)]).await,
        server.get(&format!("/usage/{path}")).await,
        server.get(&format!("/events/acme/{path}")).await,
        server.delete(&format!("/events/acme/{path}")).await,
        server.get(&format!("/{path}")).await,
        server.get(&format!("/usage/acme/series?{path}=1")).await,
        server.get(&format!("/usage/acme/series?window={path}&feature={path}&timeZone={path}")).await,
        server.get(&format!("/usage/acme/series?from={path}&to={path}")).await,
        server.get(&format!("/usage/acme/periods?limit={path}")).await,
        server.get(&format!("/check/acme?tokens={path}")).await,
    ];
    for (number, answer) in answers.iter().enumerate() {
        assert!(answer.status.is_client_error(), "{number}: {}", answer.body);
        assert!(answer.body.len() <= REFUSAL_BYTES, "{number}: {} bytes", answer.body.len());
        assert!(!answer.body.contains(&"n".repeat(SHOWN_CHARS)), "{number}: {}", answer.body);
    }
    assert_eq!(answers[0].json["errors"][0]["field"], format!("{}…", "n".repeat(SHOWN_CHARS - 1)));
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn a_query_of_more_than_32_parameters_is_refused_at_once_and_in_few_words(pool: PgPool) {
    let server = Server::start(pool, &["acme"]).await;
    for path in ["/usage/acme/series", "/usage/acme/periods", "/check/acme"] {
        let names = |count: usize| {
            let names: Vec<_> = (0..count).map(|number| format!("n{number}")).collect();
            format!("{path}?{}", names.join("&"))
        };
        let many = server.get(&names(2_800)).await;
        assert_eq!((many.status.as_u16(), &many.json["code"]), (422, &json!("invalid_parameter")));
        assert_eq!(many.json["detail"], "the query must have at most 32 parameters");
        assert!(many.body.len() < 500, "{}", many.body);
        let some = server.get(&names(32)).await;
        assert_eq!(
            (some.json["errors"].as_array().unwrap().len(), &some.json["moreErrors"]),
            (20, &json!(12))
        );
        assert!(some.body.len() <= REFUSAL_BYTES, "{} bytes", some.body.len());
    }
}
