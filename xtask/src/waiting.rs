//! Waits, each with a deadline and a reason to give up early.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::interrupt;

/// How long a wait rests between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Calls `probe` until it succeeds, and returns what it found.
///
/// # Errors
///
/// The last error of `probe` once `limit` is over; at once whatever `watch` reports (the part that is
/// waited for died) and an interrupt.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut watch: impl FnMut() -> Result<()>,
    mut probe: impl FnMut() -> Result<T>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        interrupt::check()?;
        watch()?;
        match probe() {
            Ok(found) => return Ok(found),
            Err(error) if started.elapsed() >= limit => {
                return Err(error).with_context(|| format!("waited {} s for {what}", limit.as_secs()));
            }
            Err(_) => sleep(PAUSE),
        }
    }
}

/// Waits for `condition` and says whether it came true in time. No interrupt ends it: it is for
/// stopping things, which is what an interrupt asks for.
pub(crate) fn comes_true(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() >= limit {
            return false;
        }
        sleep(PAUSE / 5);
    }
    true
}
