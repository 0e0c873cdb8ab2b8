//! The parts of an event as types: once text has become one of them, it is never checked again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::quota::MAX_TOKENS;

/// A tenant's id: a DNS label (RFC 1123) of at most 63 characters, the name of its Tenant resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantName(Arc<str>);

/// A text that is no tenant's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a DNS label: 1 to 63 of a-z, 0-9 and '-', and no '-' at its ends")]
pub struct NotATenant;

/// What tokens were used for: 1 to 128 printable ASCII characters, with no space at its ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FeatureName(Arc<str>);

/// A text that is no feature's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 128 printable ASCII characters, and no space at its ends")]
pub struct NotAFeature;

/// A number of tokens, 0 to 2^53 − 1. A call that used none, such as one that was answered from a cache or failed, is an
/// event too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenCount(i64);

/// A number that is no token count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number from 0 to 9007199254740991")]
pub struct NotTokens;

impl TryFrom<&str> for TenantName {
    type Error = NotATenant;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        let bytes = text.as_bytes();
        let ends_are_hyphens = bytes.first() == Some(&b'-') || bytes.last() == Some(&b'-');
        match bytes.len() {
            1..=63 if bytes.iter().all(inner) && !ends_are_hyphens => Ok(Self(text.into())),
            _ => Err(NotATenant),
        }
    }
}

impl TryFrom<&str> for FeatureName {
    type Error = NotAFeature;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let printable = |byte: &u8| (b' '..=b'~').contains(byte);
        let bytes = text.as_bytes();
        let ends_are_spaces = bytes.first() == Some(&b' ') || bytes.last() == Some(&b' ');
        match bytes.len() {
            1..=128 if bytes.iter().all(printable) && !ends_are_spaces => Ok(Self(text.into())),
            _ => Err(NotAFeature),
        }
    }
}

impl TryFrom<i64> for TokenCount {
    type Error = NotTokens;

    fn try_from(tokens: i64) -> Result<Self, Self::Error> {
        if (0..=MAX_TOKENS).contains(&tokens) { Ok(Self(tokens)) } else { Err(NotTokens) }
    }
}

impl TokenCount {
    /// The number.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

/// What both kinds of name have in common.
macro_rules! text {
    ($name:ident, $fault:ident) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $fault;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.as_str().try_into()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().into()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}
text!(TenantName, NotATenant);
text!(FeatureName, NotAFeature);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_once_and_at_the_edges() {
        let long = "a".repeat(63);
        for good in ["a", "acme-corp", "0", long.as_str()] {
            assert!(TenantName::try_from(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(64);
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", too_long.as_str()] {
            assert_eq!(TenantName::try_from(bad), Err(NotATenant), "{bad}");
        }
        let long = "x".repeat(128);
        for good in ["gpt-4 turbo", "~", long.as_str()] {
            assert!(FeatureName::try_from(good).is_ok(), "{good}");
        }
        let too_long = "x".repeat(129);
        for bad in ["", " a", "a ", "tab\t", "é", "\0", too_long.as_str()] {
            assert_eq!(FeatureName::try_from(bad), Err(NotAFeature), "{bad}");
        }
        for (tokens, good) in [(0, true), (-1, false), (1, true), (MAX_TOKENS, true), (1 << 53, false)] {
            assert_eq!(TokenCount::try_from(tokens).is_ok(), good, "{tokens}");
        }
    }
}
