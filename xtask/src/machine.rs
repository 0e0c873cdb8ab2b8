//! What the machine can bear.

use std::fs;
use std::num::NonZero;
use std::process::Command;
use std::thread;

/// Enough for a Go and a Rust build side by side.
const CORES: usize = 4;
const GIBIBYTES: u64 = 8;

/// Cores this process may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Whether a Go and a Rust build may run side by side. On less they only slow each other down, or run out
/// of memory.
pub(crate) fn bears_two_builds() -> bool {
    cores() >= CORES && memory().is_some_and(|bytes| bytes >= GIBIBYTES << 30)
}

/// All memory, in bytes.
fn memory() -> Option<u64> {
    if cfg!(target_os = "linux") {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
    } else {
        let output = Command::new("sysctl").args(["-n", "hw.memsize"]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    }
}
