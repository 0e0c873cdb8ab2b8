//! The CloudEvents SDKs, for tests that send events as other people's programs do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result};

use super::{go, lookup, pins, wheels};
use crate::cache::{self, Cache, fingerprint};
use crate::checkout;
use crate::execution::Execution;
use crate::progress::Progress;

/// Python's, and what it needs.
const WHEELS: [&str; 5] = ["cloudevents", "deprecation", "packaging", "python-dateutil", "tzdata"];

/// What npm installs JavaScript's by.
const NPM: [&str; 2] = ["package.json", "package-lock.json"];

/// How long npm may take.
const NPM_LIMIT: Duration = Duration::from_mins(5);

/// Where the SDKs are, by the variables that tests find them by.
pub(crate) type Sdks = [(&'static str, OsString); 3];

/// Fetches what is not in the cache yet. `node` runs npm.
pub(crate) fn provide(cache: &Cache, progress: &Progress, node: &Path) -> Result<Sdks> {
    let python: Vec<PathBuf> =
        WHEELS.iter().map(|package| wheels::folder(cache, package)).collect::<Result<_>>()?;
    let javascript = javascript(cache)?;
    let program = go::client_path(cache)?;
    let is_there = || python.iter().chain([&javascript, &program]).all(|path| path.exists());
    if !is_there() {
        let _lock = cache.lock(progress)?;
        progress.expect(1);
        let step = progress.step("CloudEvents SDKs (clients of the api, in tests)");
        for (package, folder) in WHEELS.iter().zip(&python) {
            if !folder.exists() {
                wheels::fetch(cache, &step, package)?;
            }
        }
        if !javascript.exists() {
            install(&javascript, node, &|line| step.note(line))?;
        }
        if !program.exists() {
            go::build_client(cache, &step)?;
        }
        step.done("");
    }
    Ok([
        ("FLAGMETER_SDK_PYTHON", env::join_paths(&python)?),
        ("FLAGMETER_SDK_JAVASCRIPT", javascript.join("node_modules").into()),
        ("FLAGMETER_SDK_GO", program.into()),
    ])
}

fn javascript(cache: &Cache) -> Result<PathBuf> {
    let files = NPM.map(|file| pins::read(&format!("dev/sdks/javascript/{file}")));
    let files = files.into_iter().collect::<Result<Vec<_>>>()?;
    let name = fingerprint(files.iter().map(String::as_bytes));
    Ok(cache.platform_path(&format!("npm/cloudevents-{name}")))
}

/// Installs what package-lock.json names; npm refuses anything else.
fn install(target: &Path, node: &Path, say: &dyn Fn(&str)) -> Result<()> {
    let mut npm = npm(node)?;
    cache::install(target, |draft| {
        for file in NPM {
            fs::copy(checkout::path("dev/sdks/javascript").join(file), draft.join(file))?;
        }
        npm.current_dir(draft).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        Execution::new(npm, NPM_LIMIT).on_line(say).run()?;
        Ok(())
    })
}

/// The npm that came with `node`, or the one in PATH.
fn npm(node: &Path) -> Result<Command> {
    let beside =
        node.parent().and_then(Path::parent).map(|prefix| prefix.join("lib/node_modules/npm/bin/npm-cli.js"));
    if let Some(script) = beside.filter(|script| script.exists()) {
        let mut npm = Command::new(node);
        npm.arg(script);
        return Ok(npm);
    }
    let npm = lookup::in_path("npm").context("there is no npm beside Node, and none in PATH: install npm")?;
    Ok(Command::new(npm))
}
