//! The time zone database, for a program that is compared with ours: both must know the same release.

use std::path::PathBuf;

use anyhow::Result;

use super::wheels;
use crate::cache::Cache;
use crate::progress::Progress;

/// The wheel that has it, and nothing else.
const PACKAGE: &str = "tzdata";

/// Where the compiled zones are; fetched into the cache if they are not there yet.
pub(crate) fn provide(cache: &Cache, progress: &Progress) -> Result<PathBuf> {
    let folder = wheels::folder(cache, PACKAGE)?;
    let zones = folder.join("tzdata/zoneinfo");
    if zones.exists() {
        return Ok(zones);
    }
    let _lock = cache.lock(progress)?;
    if !zones.exists() {
        progress.expect(1);
        let step = progress.step("time zones (for a second opinion on billing periods)");
        wheels::fetch(cache, &step, PACKAGE)?;
        step.done(&zones.display().to_string());
    }
    Ok(zones)
}
