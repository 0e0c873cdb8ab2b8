//! The policy: within which bounds, how soon, how patiently.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How the number of workers follows the load. Times are in seconds. Its JSON has the fields' names in
/// camelCase; a field that is missing has its default.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// At least so many workers. 0 lets the last one go when nothing has arrived for `idle_seconds`.
    pub min: u32,
    /// At most so many.
    pub max: u32,
    /// Events a second that a worker does, until it is measured.
    pub prior_rate: f64,
    /// What the workers are to manage, as a multiple of what arrives: 1.2 leaves a fifth to spare.
    pub headroom: f64,
    /// In how long a backlog is to be gone.
    pub drain_seconds: f64,
    /// No worker is started while the oldest event has waited for less, unless no worker runs.
    pub wait_seconds: f64,
    /// No worker is stopped that was needed in the last so many seconds.
    pub window_seconds: u32,
    /// One worker is stopped in so many seconds.
    pub step_seconds: u32,
    /// How long a scale that somebody else wrote is left alone.
    pub pause_seconds: u32,
    /// How long after workers that gained nothing more may be tried again.
    pub retry_seconds: u32,
    /// How long nothing must arrive before the last worker goes, if `min` is 0.
    pub idle_seconds: u32,
    /// How many workers there are to be when nothing is known for `failures` samples, if there are fewer.
    pub fallback: Option<u32>,
    /// So many samples in a row that cannot be trusted.
    pub failures: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min: 1,
            max: 2,
            prior_rate: 5_000.0,
            headroom: 1.2,
            drain_seconds: 30.0,
            wait_seconds: 1.0,
            window_seconds: 180,
            step_seconds: 60,
            pause_seconds: 300,
            retry_seconds: 600,
            idle_seconds: 300,
            fallback: None,
            failures: 12,
        }
    }
}

/// A policy that makes no sense, and what would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {must}")]
pub struct LimitFault {
    /// The field, as in its JSON.
    pub field: &'static str,
    /// What it must be.
    pub must: &'static str,
}

impl Limits {
    /// More workers than one queue and one database have any use for.
    pub const MOST: u32 = 64;

    /// The same, if it makes sense.
    ///
    /// # Errors
    ///
    /// [`LimitFault`]: the first thing that does not.
    pub fn checked(self) -> Result<Self, LimitFault> {
        let must = |holds: bool, field, must| if holds { Ok(()) } else { Err(LimitFault { field, must }) };
        must((1..=Self::MOST).contains(&self.max), "max", "from 1 to 64")?;
        must(self.min <= self.max, "min", "no more than max")?;
        must((0.1..=1e9).contains(&self.prior_rate), "priorRate", "from 0.1 to 1000000000 events a second")?;
        must((1.0..=10.0).contains(&self.headroom), "headroom", "from 1 to 10")?;
        must((1.0..=3_600.0).contains(&self.drain_seconds), "drainSeconds", "from 1 to 3600")?;
        must((0.0..=3_600.0).contains(&self.wait_seconds), "waitSeconds", "from 0 to 3600")?;
        must((5..=3_600).contains(&self.window_seconds), "windowSeconds", "from 5 to 3600")?;
        must((1..=3_600).contains(&self.step_seconds), "stepSeconds", "from 1 to 3600")?;
        must((1..=86_400).contains(&self.pause_seconds), "pauseSeconds", "from 1 to 86400")?;
        must((1..=86_400).contains(&self.retry_seconds), "retrySeconds", "from 1 to 86400")?;
        must((10..=86_400).contains(&self.idle_seconds), "idleSeconds", "from 10 to 86400")?;
        let bounds = self.min..=self.max;
        must(self.fallback.is_none_or(|n| bounds.contains(&n)), "fallback", "from min to max")?;
        must((1..=1_000).contains(&self.failures), "failures", "from 1 to 1000")?;
        Ok(self)
    }

    /// Until when a scale that somebody wrote before `at` is left alone.
    pub(super) fn pause_from(&self, at: Timestamp) -> Timestamp {
        after(at, self.pause_seconds)
    }
}

/// So many seconds after `at`.
pub(super) fn after(at: Timestamp, seconds: u32) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds.into())).unwrap_or(Timestamp::MAX)
}
