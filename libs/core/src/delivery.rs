//! When a message that was not taken is tried again, and when it is given up.

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// How long a message is tried.
pub const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// The wait after the first failure; each further one is twice as long.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(5);

/// The longest wait that a receiver has not asked for.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(1);

/// What came of an attempt to deliver a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver took it.
    Taken,
    /// It will never be taken as things are; a person must act.
    Refused,
    /// It may be taken later.
    Failed {
        /// The wait that the receiver asked for.
        retry_after: Option<SignedDuration>,
    },
}

/// How often a message is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until [`GIVE_UP_AFTER`].
    Day,
    /// Once: somebody waits for the outcome.
    Once,
}

/// What happens to the message after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it was delivered.
    Delivered,
    /// Nothing: only a person can help.
    Failed,
    /// Nothing: it was tried for long enough.
    GivenUp,
    /// It is tried again after this.
    Again(SignedDuration),
}

/// What happens after the `attempts`th attempt (from 1) of a message that is tried since `since`.
///
/// The wait doubles from 5 seconds to an hour, less up to a half of it: `chance` (0 to 1) says how much, so that
/// those who failed together do not come back together. It is never shorter than what the receiver asked for.
/// The last attempt is at the end of the 24 hours; a receiver that wants to be asked later than that is not.
#[must_use]
pub fn next(
    attempt: Attempt,
    patience: Patience,
    attempts: u32,
    since: Timestamp,
    now: Timestamp,
    chance: f64,
) -> Next {
    let asked = match (attempt, patience) {
        (Attempt::Taken, _) => return Next::Delivered,
        (Attempt::Refused, _) => return Next::Failed,
        (Attempt::Failed { .. }, Patience::Once) => return Next::GivenUp,
        (Attempt::Failed { retry_after }, Patience::Day) => retry_after.unwrap_or(SignedDuration::ZERO),
    };
    let left = GIVE_UP_AFTER - now.duration_since(since);
    if left < asked || left <= SignedDuration::ZERO {
        return Next::GivenUp;
    }
    let doublings = attempts.saturating_sub(1).min(10);
    let whole = (FIRST_WAIT * (1 << doublings)).min(LONGEST_WAIT);
    let wait = whole.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0);
    Next::Again(wait.max(asked).min(left))
}

/// Whether a message that is tried since `since` may let others go first until `at`. If not, it is given up.
#[must_use]
pub fn may_wait(since: Timestamp, at: Timestamp) -> bool {
    at.duration_since(since) <= GIVE_UP_AFTER
}

/// The wait that a `Retry-After` header asks for at `now`: seconds, or a date in any of the three forms of
/// RFC 9110, section 5.6.7. `None` if it is neither; zero for a date that is past.
#[must_use]
pub fn retry_after(header: &str, now: Timestamp) -> Option<SignedDuration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that does not fit is longer than any wait.
        return Some(header.parse().map_or(SignedDuration::MAX, SignedDuration::from_secs));
    }
    let forms = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let date: DateTime =
        forms.iter().find_map(|form| strtime::parse(form, header).ok()?.to_datetime().ok())?;
    let at = TimeZone::UTC.to_timestamp(date).ok()?;
    Some(at.duration_since(now).max(SignedDuration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SINCE: Timestamp = Timestamp::UNIX_EPOCH;
    const FAILED: Attempt = Attempt::Failed { retry_after: None };

    fn after(attempts: u32, seconds: i64, chance: f64, attempt: Attempt) -> Next {
        let now = Timestamp::from_second(seconds).unwrap();
        next(attempt, Patience::Day, attempts, SINCE, now, chance)
    }

    fn again(seconds: i64) -> Next {
        Next::Again(SignedDuration::from_secs(seconds))
    }

    #[test]
    fn waits_double_up_to_an_hour_and_are_shortened_by_chance() {
        let waits = [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600];
        for (attempts, wait) in (1..).zip(waits) {
            assert_eq!(after(attempts, 0, 0.0, FAILED), again(wait), "{attempts}");
        }
        assert_eq!(after(u32::MAX, 0, 0.0, FAILED), again(3_600));
        assert_eq!(after(3, 0, 1.0, FAILED), again(10));
        assert_eq!(after(3, 0, 0.5, FAILED), again(15));
    }

    #[test]
    fn what_the_receiver_asks_for_is_waited_if_the_day_is_long_enough() {
        let asked = |seconds| Attempt::Failed { retry_after: Some(SignedDuration::from_secs(seconds)) };
        assert_eq!(after(1, 0, 0.0, asked(30)), again(30));
        assert_eq!(after(1, 0, 0.0, asked(1)), again(5), "its own wait is longer");
        assert_eq!(after(1, 0, 0.0, asked(7_200)), again(7_200), "longer than any wait of its own");
        assert_eq!(after(1, 0, 0.0, asked(86_400)), again(86_400));
        assert_eq!(after(1, 0, 0.0, asked(86_401)), Next::GivenUp);
    }

    #[test]
    fn a_day_after_the_first_attempt_it_is_given_up_and_not_before() {
        let day = 86_400;
        assert_eq!(after(30, day - 7_200, 0.0, FAILED), again(3_600));
        assert_eq!(after(30, day - 60, 0.0, FAILED), again(60), "a last attempt at the end");
        assert_eq!(after(30, day, 0.0, FAILED), Next::GivenUp);
        assert_eq!(after(30, day + 1, 0.0, FAILED), Next::GivenUp);
        let asked = Attempt::Failed { retry_after: Some(SignedDuration::from_secs(61)) };
        assert_eq!(after(30, day - 60, 0.0, asked), Next::GivenUp, "not before it was asked to");
    }

    #[test]
    fn others_go_first_for_a_day_at_most() {
        assert!(may_wait(SINCE, SINCE + GIVE_UP_AFTER));
        assert!(!may_wait(SINCE, SINCE + GIVE_UP_AFTER + SignedDuration::from_secs(1)));
    }

    #[test]
    fn an_answer_that_only_a_person_can_change_ends_it_and_a_test_is_tried_once() {
        assert_eq!(after(1, 0, 0.0, Attempt::Refused), Next::Failed);
        assert_eq!(after(1, 0, 0.0, Attempt::Taken), Next::Delivered);
        assert_eq!(next(FAILED, Patience::Once, 1, SINCE, SINCE, 0.0), Next::GivenUp);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "1994-11-06T08:49:00Z".parse().unwrap();
        let cases = [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(37)),
            ("Sun Nov  6 08:49:37 1994", Some(37)),
            ("Sun, 06 Nov 1994 08:48:00 GMT", Some(0)),
            ("", None),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ];
        for (header, seconds) in cases {
            assert_eq!(retry_after(header, now), seconds.map(SignedDuration::from_secs), "{header:?}");
        }
        assert_eq!(retry_after("99999999999999999999999", now), Some(SignedDuration::MAX));
    }

    proptest! {
        #[test]
        fn every_wait_ends_within_the_day(attempts in 1..60_u32, at in 0..100_000_i64, chance in 0.0..=1.0,
                                          asked in proptest::option::of(0..200_000_i64)) {
            let retry_after = asked.map(SignedDuration::from_secs);
            let next = after(attempts, at, chance, Attempt::Failed { retry_after });
            if let Next::Again(wait) = next {
                prop_assert!(wait > SignedDuration::ZERO);
                prop_assert!(SignedDuration::from_secs(at) + wait <= GIVE_UP_AFTER);
                prop_assert!(wait >= retry_after.unwrap_or_default());
            } else {
                prop_assert_eq!(next, Next::GivenUp);
            }
        }

        #[test]
        fn no_header_makes_it_panic(header in ".*") {
            let _ = retry_after(&header, SINCE);
        }
    }
}
