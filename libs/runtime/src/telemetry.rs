//! Logs: one JSON object a line for machines, or text for people.

use tracing_subscriber::EnvFilter;

use crate::env::Env;

/// How the log looks.
#[derive(Debug, Clone)]
pub struct LogSettings {
    filter: String,
    format: LogFormat,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogFormat {
    Json,
    Text,
}

impl std::str::FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("must be `json` or `text`"),
        }
    }
}

impl LogSettings {
    /// `FLAGMETER_LOG` (a filter such as `info` or `flagmeter_api=debug`) and `FLAGMETER_LOG_FORMAT`.
    pub fn read(env: &mut Env) -> Option<Self> {
        let filter: Option<String> = env.with_default("FLAGMETER_LOG", "info");
        let format = env.with_default("FLAGMETER_LOG_FORMAT", "json");
        let filter = filter?;
        if let Err(fault) = EnvFilter::try_new(&filter) {
            env.fault("FLAGMETER_LOG", &fault);
        }
        Some(Self { filter, format: format? })
    }
}

/// Starts logging to standard output. A second call changes nothing.
pub fn start(settings: &LogSettings) {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&settings.filter))
        .with_target(true)
        .with_writer(std::io::stdout);
    let started = match settings.format {
        LogFormat::Json => {
            let subscriber =
                subscriber.json().flatten_event(true).with_current_span(true).with_span_list(false);
            tracing::subscriber::set_global_default(subscriber.finish())
        }
        LogFormat::Text => tracing::subscriber::set_global_default(subscriber.with_ansi(false).finish()),
    };
    // An error says that logging was started before.
    let _ = started;
}

/// The error and all its causes in one line, for a log field.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
