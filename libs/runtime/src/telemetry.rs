//! Logs: one JSON object a line for machines, or text for people.

mod json;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;

use self::json::Json;
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
///
/// In both forms the field of an error has its text, and `error.sources` its causes.
pub fn start(settings: &LogSettings) {
    // An error says that logging was started before.
    let _ = tracing::subscriber::set_global_default(subscriber(settings, std::io::stdout));
}

fn subscriber<W>(settings: &LogSettings, writer: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&settings.filter))
        .with_target(true)
        .with_writer(writer);
    match settings.format {
        LogFormat::Json => Box::new(subscriber.fmt_fields(JsonFields::new()).event_format(Json).finish()),
        LogFormat::Text => Box::new(subscriber.with_ansi(false).finish()),
    }
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

#[cfg(test)]
mod tests;
