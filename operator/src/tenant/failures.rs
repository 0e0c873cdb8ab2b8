//! How often each tenant has failed in a row, and how long it waits because of it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The first wait; each failure in a row doubles it.
const FIRST: Duration = Duration::from_secs(1);

/// The longest wait.
const LONGEST: Duration = Duration::from_mins(5);

/// Failures in a row by the tenant's namespace and name.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<(String, String), u32>>);

impl Failures {
    /// Counts a failure, and answers how long to wait.
    pub(super) fn delay(&self, namespace: Option<&str>, tenant: &str) -> Duration {
        let mut failures = self.lock();
        let count = failures.entry(key(namespace, tenant)).or_insert(0);
        let delay = FIRST.saturating_mul(2_u32.saturating_pow(*count)).min(LONGEST);
        *count += 1;
        jittered(delay)
    }

    /// Counts a failure that nothing but an edit will help, and answers how long to wait all the same.
    pub(super) fn longest_delay(&self, namespace: Option<&str>, tenant: &str) -> Duration {
        self.lock().insert(key(namespace, tenant), LONGEST.as_secs().ilog2());
        jittered(LONGEST)
    }

    /// Whether the tenant failed the last time: it has a pause of its own.
    pub(super) fn is_failing(&self, namespace: Option<&str>, tenant: &str) -> bool {
        self.lock().contains_key(&key(namespace, tenant))
    }

    /// The tenant has succeeded, or is gone.
    pub(super) fn forget(&self, namespace: Option<&str>, tenant: &str) {
        self.lock().remove(&key(namespace, tenant));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), u32>> {
        // A panic while it was held cannot leave a count half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(namespace: Option<&str>, tenant: &str) -> (String, String) {
    (namespace.unwrap_or_default().to_owned(), tenant.to_owned())
}

/// `around`, give or take a tenth, so that tenants that failed together do not come back together.
pub(super) fn jittered(around: Duration) -> Duration {
    // Each RandomState has keys of its own, so the hash of nothing is a number of chance.
    let chance = u32::try_from(RandomState::new().hash_one(()) % 201).unwrap_or_default();
    around.saturating_mul(900 + chance) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_five_minutes_and_starts_anew_after_a_success() {
        let failures = Failures::default();
        for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let delay = failures.delay(Some("shop"), "acme").as_secs_f64();
            let expected = f64::from(expected);
            assert!((0.9 * expected..=1.1 * expected).contains(&delay), "{delay} s, not about {expected} s");
        }
        assert!(
            failures.delay(Some("shop"), "globex") < Duration::from_secs(2),
            "another tenant's failures do not count"
        );
        assert!(failures.delay(Some("other"), "acme") < Duration::from_secs(2), "nor those of its namesake");
        assert!(failures.is_failing(Some("shop"), "acme"));
        failures.forget(Some("shop"), "acme");
        assert!(!failures.is_failing(Some("shop"), "acme"));
        assert!(failures.delay(Some("shop"), "acme") < Duration::from_secs(2));
    }

    #[test]
    fn many_waits_for_years_do_not_overflow() {
        let failures = Failures::default();
        let longest = (0..100).map(|_| failures.delay(Some("shop"), "acme")).max();
        assert!(longest <= Some(LONGEST * 11 / 10), "{longest:?}");
    }

    #[test]
    fn waits_differ() {
        let waits: std::collections::HashSet<_> = (0..50).map(|_| jittered(LONGEST)).collect();
        assert!(waits.len() > 10, "{waits:?}");
    }
}
