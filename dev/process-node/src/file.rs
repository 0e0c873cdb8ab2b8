//! Files that others read at any moment.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Puts `content` at `path` in one step: a reader sees the old file or the new one, whole.
///
/// # Errors
///
/// If the file cannot be written; an old one is then still there.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let fresh = path.with_added_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
    file.write_all(content)?;
    fs::rename(fresh, path)
}
