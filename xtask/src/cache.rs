//! The folder outside the checkout that keeps what was fetched and built, for all checkouts.

use std::fs::{self, File, Permissions, TryLockError};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;
use sha2::{Digest as _, Sha256};

use crate::checkout::variable;
use crate::progress::Progress;

/// The cache of this user on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// `$FLAGMETER_CACHE`; else as root /var/cache/flagmeter, since the user that the servers then run
    /// as must get there; else the user's cache folder.
    pub(crate) fn open() -> Result<Self> {
        let folder = match (variable("FLAGMETER_CACHE"), variable("XDG_CACHE_HOME"), variable("HOME")) {
            (Some(chosen), _, _) => std::path::absolute(chosen)?,
            _ if geteuid().is_root() => PathBuf::from("/var/cache/flagmeter"),
            (_, _, Some(home)) if cfg!(target_os = "macos") => home.join("Library/Caches/flagmeter"),
            (_, Some(caches), _) => caches.join("flagmeter"),
            (_, None, Some(home)) => home.join(".cache/flagmeter"),
            _ => bail!("failed to find a cache folder: set FLAGMETER_CACHE"),
        };
        make_public(&folder)?;
        Ok(Self { folder })
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.join(relative)
    }

    /// A folder for what one platform can run; a home folder may be shared by several.
    pub(crate) fn platform_path(&self, relative: &str) -> PathBuf {
        let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
        self.folder.join(platform).join(relative)
    }

    /// Takes the cache for itself, so that two checkouts never fetch the same thing at once. The lock ends
    /// with the process, however that ends.
    pub(crate) fn lock(&self, progress: &Progress) -> Result<File> {
        let path = self.path("lock");
        let doing = || format!("failed to lock {}", path.display());
        let file = File::create(&path).with_context(doing)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.say("another `cargo xtask` is filling the cache; waiting for it");
                file.lock().with_context(doing)?;
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(doing),
        }
        Ok(file)
    }
}

/// Fills `target` all at once: `fill` gets an empty folder beside it, which then takes its place.
pub(crate) fn install(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let draft = target.with_added_extension("new");
    let doing = || format!("failed to prepare {}", target.display());
    // What an interrupted attempt left.
    for old in [target, &draft] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(doing)?;
        }
    }
    make_public(&draft)?;
    fill(&draft)?;
    fs::rename(&draft, target).with_context(doing)
}

/// Makes a folder, and what is missing above it, that every user may enter: whatever the umask, servers
/// run programs from it as another user.
fn make_public(folder: &Path) -> Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    for ancestor in missing.into_iter().rev() {
        fs::create_dir(ancestor)
            .or_else(|error| if ancestor.is_dir() { Ok(()) } else { Err(error) })
            .and_then(|()| fs::set_permissions(ancestor, Permissions::from_mode(0o755)))
            .with_context(|| format!("failed to make {}", ancestor.display()))?;
    }
    Ok(())
}

/// A short name for content: what is made from the same input is found again, any change makes it anew.
pub(crate) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let bytes = hash.finalize();
    let number = bytes.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{number:016x}")
}
