//! The files to be checked, and their text.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

/// The largest file, in bytes. A cluster takes no object of more than some MiB.
const MOST_BYTES: u64 = 16 << 20;

/// The most files of a folder.
const MOST_FILES: usize = 10_000;

/// How deep folders may lie in each other.
const MOST_FOLDERS: usize = 32;

/// Whether it stands for stdin.
fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// How a file is named in what is printed.
pub(super) fn shown(path: &Path) -> String {
    if is_stdin(path) { "<stdin>".to_owned() } else { path.display().to_string() }
}

/// `path` itself, or the files in it by name.
pub(super) fn under(path: &Path, recursive: bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !is_stdin(path) && path.is_dir() {
        add(path, recursive, MOST_FOLDERS, &mut files)?;
        ensure!(!files.is_empty(), "there is no *.yaml, *.yml or *.json in this folder{}", hint(recursive));
    } else {
        files.push(path.to_owned());
    }
    Ok(files)
}

fn hint(recursive: bool) -> &'static str {
    if recursive { "" } else { "; -R looks into the folders in it too" }
}

fn add(folder: &Path, recursive: bool, depth: usize, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut paths: Vec<PathBuf> = entries
        .with_context(|| format!("{} cannot be read", folder.display()))?
        .iter()
        .map(fs::DirEntry::path)
        .collect();
    paths.sort();
    for path in paths {
        // A link to a folder may lead back, and is left alone, as kubectl leaves it.
        if path.is_dir() {
            if recursive && !path.is_symlink() {
                ensure!(depth > 0, "{} lies too deep", path.display());
                add(&path, recursive, depth - 1, files)?;
            }
        } else if path
            .extension()
            .and_then(OsStr::to_str)
            .is_some_and(|end| ["yaml", "yml", "json"].contains(&end))
        {
            ensure!(files.len() < MOST_FILES, "there are more than {MOST_FILES} files in this folder");
            files.push(path);
        }
    }
    Ok(())
}

/// The text of a file, or of stdin.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    let reader: Box<dyn io::Read> = if is_stdin(path) {
        Box::new(io::stdin().lock())
    } else {
        Box::new(fs::File::open(path).context("cannot be opened")?)
    };
    let mut bytes = Vec::new();
    reader.take(MOST_BYTES + 1).read_to_end(&mut bytes).context("cannot be read")?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MOST_BYTES {
        bail!("is larger than 16 MiB");
    }
    String::from_utf8(bytes).context("is not UTF-8")
}
