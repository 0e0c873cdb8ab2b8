//! A process's memory and processor time, as Linux tells them.

use std::fs;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Memory {
    /// What is resident, shared pages counted in full.
    pub(crate) rss: u64,
    /// What is resident, shared pages counted in part.
    pub(crate) pss: u64,
}

impl Memory {
    /// Of the process `pid`.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
        Ok(Self { rss: field(&text, "Rss:")?, pss: field(&text, "Pss:")? })
    }

    /// The larger of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self { rss: self.rss.max(other.rss), pss: self.pss.max(other.pss) }
    }
}

fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kilobytes.with_context(|| format!("no {name} in what Linux says of the process"))? * 1024)
}
