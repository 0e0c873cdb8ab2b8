//! Raises of the quota for a time.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::instant::Instant;

/// A raise of the quota for a time.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.from < self.until").message("from must be before until"))]
pub struct QuotaBoost {
    /// Tokens on top of monthlyQuota: 1 to 9007199254740991. All of them are there while the boost holds, however
    /// much of the billing period that is.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub tokens: i64,

    /// The first instant at which the tokens are there, in RFC 3339, such as 2026-12-01T00:00:00Z.
    pub from: Instant,

    /// The first instant at which they are no longer there, later than from. 9999-12-31T23:59:59Z is forever.
    pub until: Instant,

    /// What for, at most 256 characters in one line; shown with the usage.
    #[x_kube(validation = Rule::new(crate::text::RULE)
        .message("reason must be one line without control characters and without those that turn the direction of text"))]
    #[schemars(length(max = 256))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
