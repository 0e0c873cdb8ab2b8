//! The line of messages that wait for their URL's turn.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::PAUSE;

/// The last place that this worker gave out before each URL. Those who wait come back one after another, and not all
/// at once to find that one of them may go.
///
/// Other workers have lines of their own, so two may come at once; the turn itself is PostgreSQL's to give.
#[derive(Debug, Default)]
pub struct Line(Mutex<HashMap<String, Timestamp>>);

impl Line {
    /// A place before the URL of this fingerprint, `at` at the earliest.
    pub(super) fn place(&self, url: &str, at: Timestamp) -> Timestamp {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = last.get(url).map_or(at, |last| at.max(*last + PAUSE));
        last.insert(url.to_owned(), place);
        place
    }

    /// Forgets the places before `now`: nobody stands there any more.
    pub(super) fn forget(&self, now: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, place| *place >= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_behind_the_other_and_nobody_before_the_url_may_be_sent_to() {
        let line = Line::default();
        let second = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(line.place("a", second(1)), second(1));
        assert_eq!(line.place("a", second(1)), second(2));
        assert_eq!(line.place("b", second(1)), second(1));
        assert_eq!(line.place("a", second(60)), second(60), "it is held");
        assert_eq!(line.place("a", second(60)), second(61));
        line.forget(second(61));
        assert_eq!(line.place("a", second(61)), second(62));
        assert_eq!(line.place("b", second(1)), second(1), "forgotten");
    }
}
