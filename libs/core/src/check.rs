//! Whether a tenant may use some more tokens: an answer before the fact, which keeps nobody from using them.

use crate::quota;

/// How a tenant stands in its open billing period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The quota in effect.
    pub quota: i64,
    /// Tokens that are counted.
    pub used: i64,
    /// Tokens that are known to wait in the queue.
    pub queued: i64,
    /// Whether no events are taken for it.
    pub suspended: bool,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The tenant is suspended, whatever is left of its quota.
    Suspended,
    /// Less is left than was asked for.
    QuotaExceeded,
}

impl Denial {
    /// A word that never changes its meaning.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "suspended",
            Self::QuotaExceeded => "quota_exceeded",
        }
    }
}

impl Standing {
    /// Tokens that are left when what waits is counted, never below 0.
    #[must_use]
    pub fn remaining(&self) -> i64 {
        quota::remaining(self.used.saturating_add(self.queued), self.quota)
    }

    /// Whether `tokens` more are within the quota.
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub fn allows(&self, tokens: i64) -> Result<(), Denial> {
        if self.suspended {
            Err(Denial::Suspended)
        } else if tokens > self.remaining() {
            Err(Denial::QuotaExceeded)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_may_be_used_to_the_last_token() {
        let cases = [
            // used, queued, suspended, tokens, left, allowed
            (0, 0, false, 1_000, 1_000, Ok(())),
            (0, 0, false, 1_001, 1_000, Err(Denial::QuotaExceeded)),
            (600, 300, false, 100, 100, Ok(())),
            (600, 300, false, 101, 100, Err(Denial::QuotaExceeded)),
            (600, 500, false, 1, 0, Err(Denial::QuotaExceeded)),
            (0, 0, true, 1, 1_000, Err(Denial::Suspended)),
            (i64::MAX, i64::MAX, false, 1, 0, Err(Denial::QuotaExceeded)),
        ];
        for (used, queued, suspended, tokens, left, allowed) in cases {
            let standing = Standing { quota: 1_000, used, queued, suspended };
            assert_eq!(
                (standing.remaining(), standing.allows(tokens)),
                (left, allowed),
                "{standing:?} {tokens}"
            );
        }
    }
}
