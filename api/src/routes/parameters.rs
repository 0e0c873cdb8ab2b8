//! The parameters of a query. One that nobody knows is refused, and so is one that comes twice: a slip of the
//! pen must not ask for something else than what was meant.

use std::collections::BTreeMap;
use std::fmt::Display;

use flagmeter_core::problem::{Code, Errors, EventProblem, shown};

use crate::error::ApiError;

/// The most parameters of a query. No call knows more than five; a query of more is refused before any is looked at.
const MAX_PARAMETERS: usize = 32;

/// Parameters on their way to values. Whatever is wrong with them is said at the end, all of it.
pub(crate) struct Parameters {
    given: BTreeMap<String, String>,
    wrong: Errors,
}

impl Parameters {
    /// Those of `query`, of which `known` are all there may be.
    pub(crate) fn of(query: Option<&str>, known: &[&str]) -> Self {
        let mut parameters = Self { given: BTreeMap::new(), wrong: Errors::default() };
        let query = query.unwrap_or_default();
        if query.split('&').filter(|parameter| !parameter.is_empty()).nth(MAX_PARAMETERS).is_some() {
            parameters.refuse("", &format_args!("the query must have at most {MAX_PARAMETERS} parameters"));
            return parameters;
        }
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if known.is_empty() {
                parameters.refuse(&name, &"is not known here; this path has no parameters");
            } else if !known.contains(&&*name) {
                parameters.refuse(&name, &format_args!("is not known here, but {}", known.join(", ")));
            } else if parameters.given.insert(name.to_string(), value.into()).is_some() {
                parameters.refuse(&name, &"must come only once");
            }
        }
        parameters
    }

    /// Refuses every parameter of `query`, where there are none.
    ///
    /// # Errors
    ///
    /// [`ApiError::InvalidParameters`].
    pub(crate) fn none(query: Option<&str>) -> Result<(), ApiError> {
        // Nearly always there is no query, and then this is all that it costs.
        query.map_or(Ok(()), |query| Self::of(Some(query), &[]).finish())
    }

    /// The value of `name`, if it was given and `read` can read it.
    pub(crate) fn take<T, E: Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.given.remove(name)?;
        read(&value).inspect_err(|error| self.refuse(name, error)).ok()
    }

    /// Says that `name` is not as it must be: `detail` completes "`name` …".
    pub(crate) fn refuse(&mut self, name: &str, detail: &dyn Display) {
        let code = Code::InvalidParameter.as_str();
        let (field, detail) = (shown(name).into_owned(), detail.to_string());
        let problem = EventProblem { index: None, code, field, detail };
        if !self.wrong.first().contains(&problem) {
            self.wrong.push(problem);
        }
    }

    /// Whether all of them are as they must be.
    ///
    /// # Errors
    ///
    /// [`ApiError::InvalidParameters`].
    pub(crate) fn finish(&mut self) -> Result<(), ApiError> {
        let wrong = std::mem::take(&mut self.wrong);
        if wrong.is_empty() { Ok(()) } else { Err(ApiError::InvalidParameters(wrong)) }
    }
}
