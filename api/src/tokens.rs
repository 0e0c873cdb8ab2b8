//! Tokens as an answer has them.

use flagmeter_core::quota::MAX_TOKENS;
use serde::{Serialize, Serializer};

/// A sum of tokens. In JSON it is a number; beyond 2^53 − 1, which many programs read as another number than it is, a
/// string of its digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tokens(pub(crate) i128);

impl From<i64> for Tokens {
    fn from(tokens: i64) -> Self {
        Self(tokens.into())
    }
}

impl Serialize for Tokens {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match i64::try_from(self.0) {
            Ok(tokens) if tokens.unsigned_abs() <= MAX_TOKENS.unsigned_abs() => {
                serializer.serialize_i64(tokens)
            }
            _ => serializer.collect_str(&self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_json_number_cannot_hold_is_a_string_of_digits() {
        let cases = [
            (0, "0"),
            (9_007_199_254_740_991, "9007199254740991"),
            (-9_007_199_254_740_991, "-9007199254740991"),
            (9_007_199_254_740_992, r#""9007199254740992""#),
            (-9_007_199_254_740_992, r#""-9007199254740992""#),
            (i128::from(i64::MIN), r#""-9223372036854775808""#),
            (18_446_744_073_709_551_614, r#""18446744073709551614""#),
        ];
        for (tokens, json) in cases {
            assert_eq!(serde_json::to_string(&Tokens(tokens)).unwrap(), json);
        }
    }
}
