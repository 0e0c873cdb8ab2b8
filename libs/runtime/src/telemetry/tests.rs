use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("failed to ask how durable the queue is")]
struct Failed(#[source] Refused);

#[derive(Debug, thiserror::Error)]
#[error("Valkey refused \"it\"")]
struct Refused(#[source] io::Error);

fn failed() -> Failed {
    Failed(Refused(io::Error::other("WRONGPASS")))
}

/// What `log` logs in this form.
fn logged(format: LogFormat, log: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let settings = LogSettings { filter: "info".to_owned(), format };
    tracing::subscriber::with_default(subscriber(&settings, move || writer.clone()), log);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_log_says_the_causes_of_an_error_as_json_and_as_text() {
    let log = || {
        let error = failed();
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            tenant.name = "acme",
            "the queue does not answer"
        );
    };
    let line = logged(LogFormat::Json, log);
    assert_eq!(line.lines().count(), 1, "{line}");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["error"], "failed to ask how durable the queue is");
    assert_eq!(line["error.sources"], json!(["Valkey refused \"it\"", "WRONGPASS"]));

    let line = logged(LogFormat::Text, log);
    for part in ["failed to ask how durable the queue is", "error.sources=", "WRONGPASS"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_line_of_json_has_what_it_had_before_the_causes_came() {
    let line = logged(LogFormat::Json, || {
        let span = tracing::info_span!("reconciling", tenant = "acme");
        let _inside = span.enter();
        tracing::info!(number = 7, share = 0.5, is_new = true, why = ?Some(1), name = %"x", "wrote \"it\"");
        tracing::debug!("not at this level");
    });
    let mut line: Value = serde_json::from_str(&line).unwrap();
    let timestamp = line["timestamp"].take();
    assert!(timestamp.as_str().unwrap().ends_with('Z'), "{timestamp}");
    assert_eq!(
        line,
        json!({
            "timestamp": null,
            "level": "INFO",
            "message": "wrote \"it\"",
            "number": 7,
            "share": 0.5,
            "is_new": true,
            "why": "Some(1)",
            "name": "x",
            "target": "flagmeter_runtime::telemetry::tests",
            "span": { "name": "reconciling", "tenant": "acme" },
        })
    );
}
