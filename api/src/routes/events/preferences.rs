//! What a client prefers of the answer to its events (RFC 7240): `Prefer: handling=strict, return=representation`.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::form;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How a request's mistakes are handled (section 4.4).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handling {
    /// A list is taken whole or not at all, and fields that no event has are ignored.
    #[default]
    Usual,
    /// The same, and a field that no event has is a mistake, too.
    Strict,
    /// What is good of a list is taken.
    Lenient,
}

/// What a client prefers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Preferences {
    pub(super) handling: Handling,
    /// The ids of a list's events are wanted in the answer: `return=representation` (section 4.2).
    pub(super) ids: bool,
}

impl Preferences {
    /// Those of `headers`. The first of several of one name holds, and those that nobody here knows are ignored (section 2).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        if !headers.contains_key(PREFER) {
            return Self::default();
        }
        let values = headers.get_all(PREFER).into_iter().filter_map(|value| value.to_str().ok());
        let all = values.flat_map(|value| value.split(',')).filter_map(|one| {
            // What follows a `;` only says more of it.
            let (name, value) = one.split(';').next()?.split_once('=')?;
            Some((name.trim(), form::unquoted(value.trim().as_bytes())))
        });
        let all: Vec<_> = all.collect();
        let first = |name: &str| {
            let found = all.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_ascii_lowercase()).unwrap_or_default()
        };
        let handling = match &*first("handling") {
            b"strict" => Handling::Strict,
            b"lenient" => Handling::Lenient,
            _ => Handling::Usual,
        };
        Self { handling, ids: first("return") == b"representation" }
    }

    /// Those that can be followed for an event that stands for itself: there are no others to be taken without it.
    pub(super) fn of_one(self) -> Self {
        let is_lenient = self.handling == Handling::Lenient;
        Self { handling: if is_lenient { Handling::Usual } else { self.handling }, ..self }
    }

    /// Says in the answer which of them were followed.
    pub(super) fn applied_to(self, headers: &mut HeaderMap) {
        let handling = match self.handling {
            Handling::Usual => None,
            Handling::Strict => Some("handling=strict"),
            Handling::Lenient => Some("handling=lenient"),
        };
        let ids = self.ids.then_some("return=representation");
        for applied in [handling, ids].into_iter().flatten() {
            headers.append(PREFERENCE_APPLIED, HeaderValue::from_static(applied));
        }
    }
}
