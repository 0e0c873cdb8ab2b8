//! .sqlx: what sqlx knows about each query, so that a build needs no database.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};

use crate::binaries::cargo;
use crate::checkout;
use crate::execution::Execution;
use crate::servers::Postgres;
use crate::system::System;

const LIMIT: Duration = Duration::from_mins(20);
const DATABASE: &str = "queries";

/// The table that sqlx keeps when it migrates; a query reads it.
const MIGRATIONS_TABLE: &str = "CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now(),
    success BOOLEAN NOT NULL,
    checksum BYTEA NOT NULL,
    execution_time BIGINT NOT NULL
);";

/// By file name, the content.
pub(crate) type QueryData = BTreeMap<String, String>;

/// What is committed.
pub(crate) fn committed() -> Result<QueryData> {
    read(&checkout::path(".sqlx"))
}

/// Makes it anew: compiles the queries against a database with the migrations as they are.
///
/// The migrations are run by psql, since FlagMeter's own runner is compiled from the very queries.
pub(crate) fn describe(system: &System, note: &dyn Fn(&str)) -> Result<QueryData> {
    let recreate = format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE);\nCREATE DATABASE {DATABASE};\n");
    Postgres::execute(system, "postgres", &recreate)?;
    Postgres::execute(system, DATABASE, MIGRATIONS_TABLE)?;
    for migration in migrations()? {
        let statements = fs::read_to_string(&migration)?;
        Postgres::execute(system, DATABASE, &statements)
            .with_context(|| format!("failed to run {}", migration.display()))?;
    }

    let folder = system.state.folder().join("queries");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let password = &system.settings.secrets.postgres;
    let mut check = cargo(&["check", "--package", "flagmeter-store", "--all-targets", "--all-features"]);
    check
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &folder)
        .env("DATABASE_URL", Postgres::url(&system.settings, "postgres", password, DATABASE));
    let _touched = Touched::new(&checkout::path("libs/store/src/lib.rs"))?;
    Execution::new(check, LIMIT).on_line(note).run()?;
    read(&folder)
}

/// Replaces what is committed, and says how many files are new, changed or gone.
pub(crate) fn replace(current: &QueryData) -> Result<usize> {
    let folder = checkout::path(".sqlx");
    fs::create_dir_all(&folder)?;
    let committed = read(&folder)?;
    let changes = differences(&committed, current);
    for name in &changes {
        let path = folder.join(name);
        match current.get(name) {
            Some(content) => fs::write(&path, content),
            None => fs::remove_file(&path),
        }
        .with_context(|| format!("failed to change {}", path.display()))?;
    }
    Ok(changes.len())
}

/// An error that names the files in which they differ.
pub(crate) fn compare(committed: &QueryData, current: &QueryData) -> Result<()> {
    let changes = differences(committed, current);
    if changes.is_empty() {
        return Ok(());
    }
    bail!(".sqlx is not what the queries and migrations say: run `cargo xtask sqlx`\n{}", changes.join("\n"))
}

fn differences(committed: &QueryData, current: &QueryData) -> Vec<String> {
    let mut names: Vec<String> = committed.keys().chain(current.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| committed.get(name) != current.get(name));
    names
}

fn read(folder: &Path) -> Result<QueryData> {
    let mut found = QueryData::new();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "json"))
    {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let content =
            fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        found.insert(name, content);
    }
    Ok(found)
}

/// In the order of their numbers.
fn migrations() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(checkout::path("migrations")).context("failed to read migrations")?.flatten();
    let mut numbered: Vec<(u64, PathBuf)> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .filter_map(|path| Some((path.file_name()?.to_str()?.split_once('_')?.0.parse().ok()?, path)))
        .collect();
    numbered.sort();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

/// A source file that looks changed, so that cargo compiles it, until this is dropped: then it looks as
/// before, and what was compiled of it earlier is still good.
struct Touched {
    file: File,
    modified: SystemTime,
}

impl Touched {
    fn new(path: &Path) -> Result<Self> {
        let doing = || format!("failed to touch {}", path.display());
        let file = File::options().append(true).open(path).with_context(doing)?;
        let modified = file.metadata().and_then(|metadata| metadata.modified()).with_context(doing)?;
        file.set_modified(SystemTime::now()).with_context(doing)?;
        Ok(Self { file, modified })
    }
}

impl Drop for Touched {
    fn drop(&mut self) {
        // If it stays touched, cargo compiles once more.
        let _ = self.file.set_modified(self.modified);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_changed_and_stale_files_are_differences() {
        let data = |pairs: &[(&str, &str)]| -> QueryData {
            pairs.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
        };
        let committed = data(&[("same", "1"), ("changed", "1"), ("stale", "1")]);
        let current = data(&[("same", "1"), ("changed", "2"), ("new", "1")]);
        assert_eq!(differences(&committed, &current), ["changed", "new", "stale"]);
        let error = compare(&committed, &current).unwrap_err().to_string();
        assert!(error.contains("cargo xtask sqlx"), "{error}");
        assert!(compare(&current, &current).is_ok());
    }
}
