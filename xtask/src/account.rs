//! The user that the servers run as.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::unistd::{User, geteuid};

/// Who may stand in for root, in order of preference. PostgreSQL refuses to run as root.
const STAND_INS: [&str; 2] = ["postgres", "nobody"];

/// The caller, or, if that is root, an unprivileged user.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    stand_in: Option<User>,
}

impl Account {
    /// # Errors
    ///
    /// The caller is root and the machine has no unprivileged user.
    pub(crate) fn choose() -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self { stand_in: None });
        }
        let users = STAND_INS.iter().filter_map(|name| User::from_name(name).ok().flatten());
        match users.into_iter().next() {
            Some(user) => Ok(Self { stand_in: Some(user) }),
            None => bail!("PostgreSQL does not run as root, and there is no user {}", STAND_INS.join(" or ")),
        }
    }

    /// The stand-in's name, if the caller is root.
    pub(crate) fn stand_in(&self) -> Option<&str> {
        self.stand_in.as_ref().map(|user| user.name.as_str())
    }

    /// Lets `command` run as this user.
    pub(crate) fn run_as(&self, command: &mut Command) {
        if let Some(user) = &self.stand_in {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
    }

    /// Gives a file or folder to this user.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        let Some(user) = &self.stand_in else { return Ok(()) };
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .with_context(|| format!("failed to give {} to {}", path.display(), user.name))
    }

    /// Makes a folder of this user's, if it is not there.
    pub(crate) fn make_folder(&self, path: &Path, mode: u32) -> Result<()> {
        fs::create_dir_all(path)
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
            .with_context(|| format!("failed to make {}", path.display()))?;
        self.own(path)
    }

    /// Writes a file that only this user may read.
    pub(crate) fn write_secret(&self, path: &Path, content: &str) -> Result<()> {
        write_secret(path, content)?;
        self.own(path)
    }

    /// Whether this user can reach a folder: it is tried, since more than modes may forbid it.
    pub(crate) fn can_enter(&self, folder: &Path) -> bool {
        let mut command = Command::new("true");
        command.current_dir(folder).stdin(Stdio::null());
        self.run_as(&mut command);
        command.status().is_ok_and(|status| status.success())
    }
}

/// Writes a file that only the caller may read. It is never there half written, nor readable by others.
pub(crate) fn write_secret(path: &Path, content: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let draft = path.with_added_extension("new");
    let _ = fs::remove_file(&draft);
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("failed to write {}", path.display()))
}
