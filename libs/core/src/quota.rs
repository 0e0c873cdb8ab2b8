//! How much of a quota is used.

/// The largest token count that every JSON reader holds exactly: 2^53 − 1 (RFC 8259, section 6).
pub const MAX_TOKENS: i64 = (1 << 53) - 1;

/// Share of the quota used, in whole percent, rounded down: 799 of 1,000 is 79.
///
/// Rounded down so that an alert at 80 is never early. It may pass 100. A quota below 1 cannot be
/// stored; it would count as 1.
#[must_use]
pub fn percent(used: i64, quota: i64) -> i64 {
    let percent = i128::from(used.max(0)) * 100 / i128::from(quota.max(1));
    i64::try_from(percent).unwrap_or(i64::MAX)
}

/// Tokens left in the period, never below 0.
#[must_use]
pub fn remaining(used: i64, quota: i64) -> i64 {
    quota.saturating_sub(used).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_rounded_down_and_does_not_overflow() {
        let cases = [
            // used, quota, percent
            (0, 1_000, 0),
            (799, 1_000, 79),
            (800, 1_000, 80),
            (999_999_999, 1_000_000_000, 99),
            (2_500, 1_000, 250),
            (MAX_TOKENS, MAX_TOKENS, 100),
            (i64::MAX, 1, i64::MAX),
        ];
        for (used, quota, expected) in cases {
            assert_eq!(percent(used, quota), expected, "{used} of {quota}");
        }
        assert_eq!(remaining(1_200, 1_000), 0);
        assert_eq!(remaining(200, 1_000), 800);
    }
}
