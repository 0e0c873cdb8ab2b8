//! How the API server, which is written in Go, shows values, and what it takes for a URL and for an instant.

use std::fmt::Write as _;

use serde_json::{Number, Value};

use super::prune::entries_mut;

/// A number as the API server holds it: whatever fits is an integer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Numeric {
    Int(i64),
    Float(f64),
}

impl Numeric {
    pub(super) fn of(number: &Number) -> Self {
        match number.as_i64() {
            Some(int) => Self::Int(int),
            None => Self::Float(number.as_f64().unwrap_or(f64::INFINITY)),
        }
    }

    /// As `%v` prints it.
    pub(super) fn shown(self) -> String {
        match self {
            Self::Int(int) => int.to_string(),
            Self::Float(float) => general(float),
        }
    }
}

/// A value as the API server shows it in `Duplicate value` and `Unsupported value`.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => Numeric::of(number).shown(),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// `%v` of a float: the shortest digits, with an exponent below 10^-4 and from 10^6 on.
fn general(float: f64) -> String {
    let scientific = format!("{float:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return float.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `%q` of a text.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            _ if character < ' ' || character == '\u{7f}' => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(character));
            }
            _ if is_printed(character) => quoted.push(character),
            _ if u32::from(character) < 0x1_0000 => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(character));
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a character is shown as it is. Behind another one, so that an accent is one too.
fn is_printed(character: char) -> bool {
    character == '\'' || format!("a{character}").escape_debug().count() == 2
}

/// Makes integers of floats without a fraction, as writing them to etcd does.
pub(super) fn store(value: &mut Value) {
    if let Value::Number(number) = value
        && let Some(float) = number.as_f64().filter(|_| number.is_f64())
        && let Ok(int) = format!("{float:.0}").parse::<i64>()
        && float.fract() == 0.0
    {
        *value = int.into();
    }
    entries_mut(value).for_each(store);
}

/// Whether `text` is a URL by `isURL`, with the scheme https or http and a host name: what Go's `url.Parse` takes.
pub(super) fn is_web_url(text: &str) -> bool {
    let after = |scheme: &str| {
        let (start, rest) = text.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let Some(rest) = after("https://").or_else(|| after("http://")) else { return false };
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return false;
    }
    // `isURL` asks for a request's URI, in which a fragment is a part of the path, or even of the host.
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = rest.split('?').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    user.bytes().all(is_user) && escapes(user) && is_host(host) && escapes(path)
}

fn is_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte)
}

/// Whether each `%` begins the two hexadecimal digits of a byte.
fn escapes(text: &str) -> bool {
    let digits = |part: &str| part.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    text.split('%').skip(1).all(digits)
}

/// A host with an optional port.
fn is_host(text: &str) -> bool {
    let is_port = |text: &str| {
        text.is_empty()
            || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if text.contains('[') {
        let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.rsplit_once(']')) else {
            return false;
        };
        let address = match address.split_once("%25") {
            Some((address, zone)) if !zone.is_empty() && escapes(zone) => address,
            Some(_) => return false,
            None => address,
        };
        return is_port(port) && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let (name, port) = text.split_at(text.rfind(':').unwrap_or(text.len()));
    let is_name = |byte: u8| {
        !byte.is_ascii() || byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=]<>\"%".contains(&byte)
    };
    // What may be escaped in a host is `%` itself, and what is not ASCII.
    let is_escape = |part: &str| {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        byte.is_some_and(|byte| byte == b'%' || !byte.is_ascii()) && !part.starts_with('+')
    };
    !name.is_empty() && is_port(port) && name.bytes().all(is_name) && name.split('%').skip(1).all(is_escape)
}

/// Whether `text` is of the format date-time: a date, `t`, a time, an offset, in any case of letters.
pub(super) fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    is_date(date) && is_time(time)
}

fn is_date(text: &str) -> bool {
    let is_part =
        |(at, byte): (usize, u8)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() };
    text.len() == 10 && text.bytes().enumerate().all(is_part) && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_time(text: &str) -> bool {
    // HH:MM:SS, perhaps a character and digits, then z or ±HH:MM.
    let Some((clock, rest)) = text.split_at_checked(8) else { return false };
    let pair = |text: &str, limit: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text <= limit;
    let bytes = clock.as_bytes();
    if !clock.is_ascii() || bytes[2] != b':' || bytes[5] != b':' {
        return false;
    }
    if !(pair(&clock[..2], "23") && pair(&clock[3..5], "59") && pair(&clock[6..], "59")) {
        return false;
    }
    let is_offset = |text: &str| {
        text == "z"
            || text.len() == 6
                && text.starts_with(['+', '-'])
                && text[3..].starts_with(':')
                && text.bytes().enumerate().all(|(at, byte)| at == 0 || at == 3 || byte.is_ascii_digit())
    };
    if is_offset(rest) {
        return true;
    }
    let mut characters = rest.chars();
    let fraction = characters.next().filter(|first| *first != '\n').map(|_| characters.as_str());
    fraction.is_some_and(|fraction| {
        let offset = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
        offset.len() < fraction.len() && is_offset(offset)
    })
}

/// What Go's `time.Parse` says of a text that [`is_date_time`] takes; `None` if it takes it too.
pub(super) fn time_error(text: &str) -> Option<String> {
    let (_, rest) = text.split_at_checked(10)?;
    if !rest.starts_with('T') {
        return Some(format!(
            "parsing time {} as \"2006-01-02T15:04:05\": cannot parse {} as \"T\"",
            quoted(text),
            quoted(rest)
        ));
    }
    let rest = rest.get(9..)?;
    let offset = match rest.strip_prefix(['.', ',']) {
        Some(fraction) => fraction.trim_start_matches(|digit: char| digit.is_ascii_digit()),
        None => rest,
    };
    let is_offset = offset == "Z"
        || offset.len() == 6
            && offset.is_ascii()
            && offset.starts_with(['+', '-'])
            && &offset[1..3] <= "24"
            && &offset[4..] <= "60";
    (!is_offset).then(|| format!("parsing time {}: extra text: {}", quoted(text), quoted(offset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_shown_as_go_shows_them() {
        let cases = [
            (32.5, "32.5"),
            (1e6, "1e+06"),
            (999_999.0, "999999"),
            (9_007_199_254_740_991.0, "9.007199254740991e+15"),
            (1e30, "1e+30"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
            (-0.5, "-0.5"),
        ];
        for (float, expected) in cases {
            assert_eq!(Numeric::Float(float).shown(), expected);
        }
        let text = "a\"\\\n\u{1}\u{a0}ü\u{200b}😀\u{7f}\u{7}'e\u{301}";
        assert_eq!(quoted(text), "\"a\\\"\\\\\\n\\x01\\u00a0ü\\u200b😀\\x7f\\a'e\u{301}\"");
    }

    /// As API server 1.36.3 answers, which has Go's `net/url` of 1.26.
    #[test]
    fn a_url_is_what_the_api_server_takes_for_one() {
        for url in [
            "https://a",
            "HTTPS://a",
            "http://a:80/x",
            "https://a:80",
            "https://a:",
            "https://user:pw@a",
            "https://a/b c",
            "https://a?%zz",
            "https://a/\\",
            "https://[::1]",
            "https://[::1]:80",
            "https://[fe80::1%25eth0]",
            "https://a%25",
            "https://a%c3%a9",
            "https://é.com",
            "https://a_b",
            "https://a<b",
            "https://a\"b",
            "https://a;b",
            "https://a/\u{a0}",
            "https://a?b?c",
            "https://a@b@c",
            "https://-",
            "https://a..b",
            "https://a:99999",
            "https://a]",
            "https://@a",
            "https://:@a",
            "https://a/^`{}",
            "https://[::ffff:1.2.3.4]",
        ] {
            assert!(is_web_url(url), "{url:?}");
        }
        for url in [
            "",
            "/a",
            "a",
            "https",
            "https:",
            "https:/",
            "https://",
            "https:a",
            "https:/a",
            "https:///a",
            "http:///a",
            "ftp://a",
            "https://a:x",
            "https://:80",
            "https://user@",
            "https://u s@a",
            "https://a b",
            "https://a/%zz",
            "https://a#frag",
            "https://a#%zz",
            "https://a\\b",
            "https://[::1",
            "https://[fe80::1%eth0]",
            "https://a%41",
            "https://a|b",
            "https://a^b",
            "https://a`b",
            "https://a{b}",
            " https://a",
            "https://a ",
            "https://a\n",
            "https://a/\u{7f}",
            "https://?x",
            "https://#x",
            "https://a:1:2",
            "http+s://a",
            "1https://a",
            "://a",
            "https://[]",
            "https://[a",
            "https://a[b",
            "https://%",
            "https://a?\u{1}",
            "https://[1.2.3.4]",
            "https://[zz]",
            "https://[::1]x",
        ] {
            assert!(!is_web_url(url), "{url:?}");
        }
    }

    #[test]
    fn an_instant_is_what_the_api_server_takes_for_one() {
        for (text, is_of_format, is_parsed) in [
            ("2026-03-20T00:00:00Z", true, true),
            ("2026-03-20T00:00:00.5Z", true, true),
            ("2026-03-20T00:00:00.0123456789Z", true, true),
            ("9999-12-31T23:59:59Z", true, true),
            ("0000-01-01T00:00:00Z", true, true),
            ("2026-03-20T00:00:00-24:60", true, true),
            ("2026-03-20T00:00:00,5Z", true, true),
            ("2026-03-20T00:00:00+24:00", true, true),
            ("2026-03-20T00:00:00+25:00", true, false),
            ("2026-03-20T00:00:00x5Z", true, false),
            ("2026-03-20T00:00:00Ztrail", true, false),
            ("2026-03-20t00:00:00z", true, false),
            ("tomorrow", false, true),
            ("2026-03-20", false, true),
            ("2026-03-20T00:00:00", false, true),
            ("2026-03-20T24:00:00Z", false, true),
            ("2026-02-30T00:00:00Z", false, true),
            ("2026-03-20T00:00:00.Z", false, true),
            ("2026-03-20T00:00:00Z\n", false, true),
            ("2026-3-20T00:00:00Z", false, true),
            ("2026-03-20TT00:00:00Z", false, true),
            ("10000-01-01T00:00:00Z", false, true),
            ("", false, true),
            ("ééééééé", false, true),
        ] {
            assert_eq!(is_date_time(text), is_of_format, "{text:?}");
            assert!(!is_of_format || time_error(text).is_none() == is_parsed, "{text:?}");
            let works = crate::instant::since_1970(text).is_some();
            assert!(
                works || !(is_of_format && is_parsed),
                "{text:?} is taken by the API server, and does not work"
            );
        }
    }
}
