//! In which form an answer is wanted: JSON, or CSV where `Accept` prefers that.

use axum::http::header::{ACCEPT, HeaderMap, HeaderValue, VARY};
use axum::response::{IntoResponse, Response};

use crate::csv::Table;
use crate::error::ApiError;
use crate::freshness::Freshness;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Csv,
}

impl Form {
    /// The one that `headers` prefer (RFC 9110, section 12.5.1); JSON if that is neither.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let ranges = || {
            let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(','))
        };
        let json = preference(ranges(), "application", "json");
        if preference(ranges(), "text", "csv") > json { Self::Csv } else { Self::Json }
    }
}

/// How much a media type is wanted: by its weight in thousandths, then by how closely it is named. What is
/// not named at all is not wanted.
fn preference<'a>(ranges: impl Iterator<Item = &'a str>, kind: &str, subtype: &str) -> (u16, u8) {
    let exact = format!("{kind}/{subtype}");
    let whole_kind = format!("{kind}/*");
    let closest = ranges.filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next()?.to_ascii_lowercase();
        let closeness = [("*/*", 1), (&*whole_kind, 2), (&*exact, 3)];
        let (_, closeness) = closeness.into_iter().find(|(pattern, _)| *pattern == name)?;
        Some((closeness, parts.find_map(weight).unwrap_or(1_000)))
    });
    closest.max().map_or((0, 0), |(closeness, weight)| if weight > 0 { (weight, closeness) } else { (0, 0) })
}

/// The thousandths of `q=0.123`.
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    let value: f32 = value.trim().parse().ok().filter(|_| name.trim().eq_ignore_ascii_case("q"))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 1,000")]
    Some((value.clamp(0.0, 1.0) * 1_000.0) as u16)
}

/// Makes an answer that may be large beside the one thread that takes events in.
///
/// # Errors
///
/// [`ApiError::Internal`] if `make` panics.
pub(super) async fn made(make: impl FnOnce() -> Response + Send + 'static) -> Result<Response, ApiError> {
    tokio::task::spawn_blocking(make).await.map_err(|_| ApiError::Internal)
}

/// The answer `body`, which another `Accept` would have had differently.
pub(super) fn answer(body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// The same of a table, which has no place for its freshness but the headers.
pub(super) fn table(table: Table, fresh: Freshness) -> Response {
    let mut response = answer(table);
    let headers = response.headers_mut();
    let mut add = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    add("flagmeter-as-of", fresh.as_of.to_string());
    if let Some(lag) = fresh.lag_milliseconds {
        add("flagmeter-lag-milliseconds", lag.to_string());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_answered_where_it_is_preferred_and_json_otherwise() {
        let cases = [
            ("", Form::Json),
            ("*/*", Form::Json),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Form::Json),
            ("application/json", Form::Json),
            ("text/csv", Form::Csv),
            ("TEXT/CSV; charset=utf-8", Form::Csv),
            ("text/*", Form::Csv),
            ("text/csv, */*", Form::Csv),
            ("text/csv, application/json", Form::Json),
            ("text/csv, application/json;q=0.9", Form::Csv),
            ("text/csv;q=0.5, application/json;q=0.6", Form::Json),
            ("text/csv;q=0, text/*", Form::Json),
            ("application/pdf", Form::Json),
        ];
        for (accept, form) in cases {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(Form::wanted(&headers), form, "{accept}");
        }
        assert_eq!(Form::wanted(&HeaderMap::new()), Form::Json);
    }
}
