//! The folder of one running system, `.dev` of the checkout unless `--state` says otherwise.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use crate::account::Account;
use crate::cache::{Cache, fingerprint};
use crate::checkout;
use crate::progress::Progress;
use crate::registry::Registry;

/// Folders with data that outlives a run.
const DATA: [&str; 4] = ["postgres", "valkey", "etcd", "pki"];

/// Locked by `up` as long as it runs.
const LOCK: &str = "lock";

/// Where everything of one system is.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// What people and scripts look into: env.json, env.sh, kubeconfig.
    folder: PathBuf,
    /// All the rest. The same folder, unless the servers' user cannot get there.
    data: PathBuf,
}

impl State {
    /// The state in a folder, whether or not there is one yet. A relative path is of the checkout, from
    /// wherever in it xtask is called.
    pub(crate) fn at(folder: &Path) -> Self {
        let folder = checkout::root().join(folder);
        let data =
            fs::read_to_string(folder.join("elsewhere")).map_or_else(|_| folder.clone(), PathBuf::from);
        Self { folder, data }
    }

    /// Makes the folders, each reachable for the user that needs it.
    pub(crate) fn create(&mut self, account: &Account, cache: &Cache, progress: &Progress) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("failed to make {}", self.folder.display()))?;
        if !account.can_enter(&self.folder) {
            let user = account.stand_in().unwrap_or("this user");
            let name = fingerprint([self.folder.as_os_str().as_encoded_bytes()]);
            self.data = cache.path(&format!("state/{name}"));
            let (folder, data) = (self.folder.display(), self.data.display());
            progress.say(&format!("{user} cannot enter {folder}, so data and programs are in {data}"));
            fs::create_dir_all(&self.data).with_context(|| format!("failed to make {data}"))?;
            fs::write(self.folder.join("elsewhere"), self.data.as_os_str().as_encoded_bytes())
                .with_context(|| format!("failed to write into {folder}"))?;
        }
        account.make_folder(&self.data, 0o755)?;
        for (name, mode) in [("run", 0o755), ("logs", 0o755), ("bin", 0o755), ("pki", 0o700)] {
            account.make_folder(&self.data.join(name), mode)?;
        }
        if self.data != self.folder {
            for name in ["run", "logs", "bin"] {
                let link = self.folder.join(name);
                let _ = fs::remove_file(&link);
                symlink(self.data.join(name), &link)
                    .with_context(|| format!("failed to link {}", link.display()))?;
            }
        }
        if !account.can_enter(&self.data) {
            bail!(
                "{} cannot enter {}: set FLAGMETER_CACHE",
                account.stand_in().unwrap_or("user"),
                self.data.display()
            );
        }
        Ok(())
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file or folder that the servers' user owns.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    pub(crate) fn data_folder(&self) -> &Path {
        &self.data
    }

    pub(crate) fn registry(&self) -> Registry {
        Registry::new(self.data("run"))
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.data("logs")
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    pub(crate) fn pki(&self, name: &str) -> PathBuf {
        self.data("pki").join(name)
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.folder.join("settings.json")
    }

    /// The administrator's kubeconfig, owned by the caller.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    pub(crate) fn env_json(&self) -> PathBuf {
        self.folder.join("env.json")
    }

    pub(crate) fn env_sh(&self) -> PathBuf {
        self.folder.join("env.sh")
    }

    /// Why the last system ended by itself.
    pub(crate) fn ended(&self) -> PathBuf {
        self.folder.join("ended.txt")
    }

    /// Where the process node says which address it gave to each Service port.
    pub(crate) fn forwards(&self) -> PathBuf {
        self.data("forwards.json")
    }

    /// Whether there are data of an earlier run.
    pub(crate) fn has_data(&self) -> bool {
        DATA.iter().any(|name| self.data(name).read_dir().is_ok_and(|mut entries| entries.next().is_some()))
    }

    /// Moves data that cannot be used any more out of the way, and says where to.
    pub(crate) fn set_aside(&self) -> Result<PathBuf> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let target = self.data(&format!("aside-{seconds}"));
        let doing = || format!("failed to move old data to {}", target.display());
        fs::create_dir_all(&target).with_context(doing)?;
        for name in DATA.into_iter().filter(|name| self.data(name).exists()) {
            fs::rename(self.data(name), target.join(name)).with_context(doing)?;
        }
        Ok(target)
    }

    /// Takes the state for this process, or says that another `up` has it.
    pub(crate) fn lock(&self) -> Result<Option<File>> {
        let doing = || format!("failed to lock {}", self.folder.display());
        fs::create_dir_all(&self.folder).with_context(doing)?;
        let file = File::create(self.folder.join(LOCK)).with_context(doing)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(doing),
        }
    }

    /// The folder as a person would type it in the checkout.
    pub(crate) fn shown(&self) -> String {
        self.folder.strip_prefix(checkout::root()).unwrap_or(&self.folder).display().to_string()
    }

    /// Removes all that is in it but the lock. A folder that holds something else is left alone.
    pub(crate) fn clear(&self) -> Result<()> {
        let entries = |folder: &Path| -> Vec<PathBuf> {
            let entries = folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
            entries.filter(|path| !path.ends_with(LOCK)).collect()
        };
        for folder in [&self.data, &self.folder] {
            let ours = ["settings.json", "run", "elsewhere"].iter().any(|name| folder.join(name).exists());
            if !ours && !entries(folder).is_empty() {
                bail!("{} does not look like the state of a system; it was left as it is", folder.display());
            }
            for path in entries(folder) {
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.with_context(|| format!("failed to remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Removes it altogether.
    pub(crate) fn purge(&self) -> Result<()> {
        self.clear()?;
        for folder in [&self.data, &self.folder].into_iter().filter(|folder| folder.exists()) {
            fs::remove_dir_all(folder).with_context(|| format!("failed to remove {}", folder.display()))?;
        }
        Ok(())
    }
}
