//! The checkout that this program was compiled from.

use std::path::{Path, PathBuf};

/// Its root folder.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// A file or folder in it.
pub(crate) fn path(relative: &str) -> PathBuf {
    root().join(relative)
}

/// A variable of the environment, if it is set and not empty.
///
/// Flags of the command line are the rule; variables are for what belongs to a machine: where its
/// tools and caches are.
pub(crate) fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
