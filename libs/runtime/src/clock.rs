//! The only place that asks what time it is.

use jiff::Timestamp;

/// Where the current time comes from: the system, or in tests an instant that stands still.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Option<Timestamp>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `instant`.
    #[must_use]
    pub fn fixed(instant: Timestamp) -> Self {
        Self(Some(instant))
    }

    /// The current time. An operation asks once and passes the answer on.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that the ban points to")]
    pub fn now(&self) -> Timestamp {
        self.0.unwrap_or_else(Timestamp::now)
    }
}
