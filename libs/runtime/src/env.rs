//! Settings from the environment: read once, into typed fields, with all faults reported together.
//!
//! ```
//! # use flagmeter_runtime::env::Env;
//! # use std::net::SocketAddr;
//! struct Config { listen: SocketAddr, database_url: String }
//!
//! let mut env = Env::of([("DATABASE_URL", "postgres://localhost/flagmeter")]);
//! let listen = env.with_default("FLAGMETER_LISTEN", "0.0.0.0:3000");
//! let database_url = env.required("DATABASE_URL");
//! let config = env.finish(|| Some(Config { listen: listen?, database_url: database_url? })).unwrap();
//! assert_eq!(config.listen.port(), 3000);
//! ```

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

/// A value that is never printed: it has no `Display`, and its `Debug` shows nothing.
#[derive(Clone)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// The value itself. A search for this name finds every place that sees a secret.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: FromStr> FromStr for Secret<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl<T> std::fmt::Debug for Secret<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// The environment while it is read. A getter answers `None` where there is a fault, and remembers
/// the fault for [`Env::finish`]. Values are never part of a fault's text: they may be secret.
pub struct Env {
    values: HashMap<String, String>,
    faults: Vec<String>,
}

/// Everything that is wrong with the settings, a line each.
#[derive(Debug, thiserror::Error)]
#[error("invalid configuration:\n  {}", .0.join("\n  "))]
pub struct Faults(Vec<String>);

impl Env {
    /// The environment of this process.
    #[must_use]
    pub fn process() -> Self {
        Self { values: std::env::vars_os().filter_map(as_text).collect(), faults: Vec::new() }
    }

    /// A given environment, for tests.
    #[must_use]
    pub fn of<const N: usize>(values: [(&str, &str); N]) -> Self {
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { values: values.into(), faults: Vec::new() }
    }

    /// The value of `name`, which must be set and not empty.
    pub fn required<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name);
        if text.is_none() {
            self.faults.push(format!("{name} must be set"));
        }
        self.parse(name, text?)
    }

    /// The value of `name`, or `default` if it is not set or empty.
    pub fn with_default<T: FromStr<Err: Display>>(&mut self, name: &str, default: &str) -> Option<T> {
        let text = self.text(name).unwrap_or_else(|| default.to_owned());
        self.parse(name, text)
    }

    /// The value of `name`, if it is set and not empty: the outer `None` is a fault.
    pub fn optional<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<Option<T>> {
        match self.text(name) {
            Some(text) => self.parse(name, text).map(Some),
            None => Some(None),
        }
    }

    /// Adds a fault that only the caller can see, such as a bound.
    pub fn fault(&mut self, name: &str, what: &dyn Display) {
        self.faults.push(format!("{name} {what}"));
    }

    /// What `build` makes of the values read, if there was no fault.
    ///
    /// # Errors
    ///
    /// All [`Faults`] at once, so that one attempt shows everything there is to fix.
    pub fn finish<C>(self, build: impl FnOnce() -> Option<C>) -> Result<C, Faults> {
        match build() {
            Some(config) if self.faults.is_empty() => Ok(config),
            _ => Err(Faults(self.faults)),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.values.get(name).filter(|text| !text.is_empty()).cloned()
    }

    #[expect(clippy::needless_pass_by_value, reason = "the callers have no other use for it")]
    fn parse<T: FromStr<Err: Display>>(&mut self, name: &str, text: String) -> Option<T> {
        text.parse()
            .map_err(|fault: T::Err| self.fault(name, &format_args!("is not valid: {}", plain(&fault))))
            .ok()
    }
}

/// A fault in words that say what is allowed, also where the standard library only says what it met.
fn plain(fault: &dyn Display) -> String {
    let text = fault.to_string();
    let plain = match text.as_str() {
        "invalid digit found in string" => "must be a whole number, in digits alone",
        "invalid float literal" => "must be a number, such as 1.5",
        "number too large to fit in target type" => "the number is too large",
        "number too small to fit in target type" => "the number is too small",
        "provided string was not `true` or `false`" => "must be `true` or `false`",
        "invalid socket address syntax" => "must be an IP address and a port, such as 0.0.0.0:3000",
        _ => return text,
    };
    plain.to_owned()
}

/// Variables that are no text belong to somebody else.
fn as_text((name, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_reported_together_and_no_value_is_shown() {
        let mut env = Env::of([("PORT", "s3cret"), ("EMPTY", "")]);
        let port = env.required::<u16>("PORT");
        let missing = env.required::<String>("EMPTY");
        let faults = env.finish(|| Some((port?, missing?))).unwrap_err().to_string();
        assert!(faults.contains("PORT is not valid"), "{faults}");
        assert!(faults.contains("EMPTY must be set"), "{faults}");
        assert!(!faults.contains("s3cret"), "{faults}");
    }

    /// Reads a setting.
    type Read = fn(&mut Env);

    #[test]
    fn a_value_of_the_wrong_form_is_answered_with_the_form_that_is_expected() {
        let cases: [(&str, Read, &str); 6] = [
            ("3000", |env| _ = env.required::<std::net::SocketAddr>("X"), "such as 0.0.0.0:3000"),
            (
                "localhost:3000",
                |env| _ = env.required::<std::net::SocketAddr>("X"),
                "must be an IP address and a port",
            ),
            ("35d", |env| _ = env.required::<u16>("X"), "must be a whole number, in digits alone"),
            ("99999", |env| _ = env.required::<u16>("X"), "the number is too large"),
            ("yes", |env| _ = env.required::<bool>("X"), "must be `true` or `false`"),
            ("1,5", |env| _ = env.required::<f64>("X"), "must be a number, such as 1.5"),
        ];
        for (value, read, expected) in cases {
            let mut env = Env::of([("X", value)]);
            read(&mut env);
            let faults = env.finish(|| Some(())).unwrap_err().to_string();
            assert!(faults.starts_with("invalid configuration:\n  X is not valid: "), "{faults}");
            assert!(faults.contains(expected), "{value}: {faults}");
        }
    }

    #[test]
    fn a_secret_does_not_print() {
        let secret: Secret<String> = "hunter2".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
