//! The record of what runs, one small file a process, so that `down` finds all of it after any crash.
//!
//! The process node writes its containers into the same folder, as `pod-<pod>-<container>.json`.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::process;

/// The name under which `up` or `supervise` itself stands in the registry.
pub(crate) const SUPERVISOR: &str = "supervisor";
/// Names of containers start with it.
pub(crate) const POD: &str = "pod-";
/// The name of a `restart` of a server starts with it.
pub(crate) const RESTART: &str = "restart-";

/// A process that somebody of this system started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) pid: i32,
    /// When it started ([`process::started`]), so that another process with the pid is not taken for it.
    pub(crate) started: String,
    #[serde(default)]
    pub(crate) log: PathBuf,
}

impl Entry {
    /// The entry of a process that lives now.
    pub(crate) fn of(name: &str, pid: i32, log: PathBuf) -> Option<Self> {
        Some(Self { name: name.to_owned(), pid, started: process::started(pid)?, log })
    }

    /// Whether the very process that was registered still runs.
    pub(crate) fn is_running(&self) -> bool {
        process::started(self.pid).as_deref() == Some(self.started.as_str())
    }
}

/// The folder of the entries.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    folder: PathBuf,
}

impl Registry {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Adds or replaces an entry. The file is complete whenever it is there.
    pub(crate) fn record(&self, entry: &Entry) -> Result<()> {
        let draft = self.folder.join(format!(".{}.new", entry.name));
        fs::write(&draft, serde_json::to_string(entry)?)
            .and_then(|()| fs::rename(&draft, self.file(&entry.name)))
            .with_context(|| format!("failed to register {} in {}", entry.name, self.folder.display()))
    }

    /// Takes an entry out; one that is not there is fine.
    pub(crate) fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.file(name));
    }

    pub(crate) fn find(&self, name: &str) -> Option<Entry> {
        serde_json::from_str(&fs::read_to_string(self.file(name)).ok()?).ok()
    }

    /// The entry, if its process runs.
    pub(crate) fn running(&self, name: &str) -> Option<Entry> {
        self.find(name).filter(Entry::is_running)
    }

    /// All entries that can be read, by name.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names =
            files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".json")?.to_owned()));
        let mut entries: Vec<Entry> = names.filter_map(|name| self.find(&name)).collect();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        entries
    }

    /// When the entry was written, which is when its process was started.
    pub(crate) fn since(&self, name: &str) -> Option<SystemTime> {
        fs::metadata(self.file(name)).ok()?.modified().ok()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_with_the_same_pid_is_not_the_registered_one() {
        let own = std::process::id().cast_signed();
        let entry = Entry::of("me", own, PathBuf::new()).unwrap();
        assert!(entry.is_running());
        assert!(!Entry { started: "1".to_owned(), ..entry }.is_running());
    }

    #[test]
    fn what_was_registered_is_found_until_it_is_removed() {
        let folder = std::env::temp_dir().join(format!("xtask-registry-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let registry = Registry::new(folder.clone());
        let entry = Entry::of("postgres", std::process::id().cast_signed(), PathBuf::from("log")).unwrap();
        registry.record(&entry).unwrap();
        fs::write(folder.join("torn.json"), "{\"name\":").unwrap();

        assert_eq!(registry.running("postgres").unwrap().pid, entry.pid);
        assert_eq!(registry.entries().len(), 1, "a torn file is passed over");
        registry.remove("postgres");
        assert!(registry.find("postgres").is_none());
        fs::remove_dir_all(folder).unwrap();
    }
}
