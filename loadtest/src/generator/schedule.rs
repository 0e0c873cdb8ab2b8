//! When what should happen.

use std::time::Duration;

/// When the `index`-th of the requests that arrive at a constant rate should start.
pub(crate) fn arrival(per_second: u32, index: u64) -> Duration {
    let nanoseconds = u128::from(index) * 1_000_000_000 / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// How many requests arrive in `duration`.
pub(crate) fn arrivals(per_second: u32, duration: Duration) -> u64 {
    u64::try_from(duration.as_millis() * u128::from(per_second) / 1_000).unwrap_or(u64::MAX)
}

/// The prototype's five minutes: at each of these seconds so many users, and in a line between.
pub(crate) const PROFILE: [(f64, f64); 6] =
    [(0.0, 0.0), (30.0, 100.0), (90.0, 500.0), (210.0, 1_000.0), (270.0, 1_000.0), (300.0, 0.0)];

/// How long [`PROFILE`] takes.
pub(crate) const PROFILE_SECONDS: f64 = PROFILE[PROFILE.len() - 1].0;

/// How many users [`PROFILE`] has after so many of its seconds.
pub(crate) fn users_at(second: f64) -> f64 {
    let within = PROFILE.windows(2).find(|pair| (pair[0].0..pair[1].0).contains(&second));
    within.map_or(0.0, |pair| {
        let ((from, fewer), (to, more)) = (pair[0], pair[1]);
        fewer + (more - fewer) * (second - from) / (to - from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_keep_their_distance_for_ever() {
        let cases =
            [(1_000, 0, 0), (1_000, 1, 1_000_000), (10_000, 12_345, 1_234_500_000), (3, 1, 333_333_333)];
        for (rate, index, nanoseconds) in cases {
            assert_eq!(arrival(rate, index), Duration::from_nanos(nanoseconds), "{rate}/s, {index}");
        }
        // No error adds up: the millionth is where it belongs.
        assert_eq!(arrival(3, 3_000_000), Duration::from_secs(1_000_000));
        assert_eq!(arrivals(10_000, Duration::from_millis(1_500)), 15_000);
    }

    #[test]
    fn the_profile_is_the_prototypes() {
        let cases = [
            (0.0, 0.0),
            (15.0, 50.0),
            (30.0, 100.0),
            (60.0, 300.0),
            (150.0, 750.0),
            (240.0, 1_000.0),
            (285.0, 500.0),
            (300.0, 0.0),
            (400.0, 0.0),
        ];
        for (second, users) in cases {
            assert!((users_at(second) - users).abs() < 1e-9, "{second} s: {}", users_at(second));
        }
    }
}
