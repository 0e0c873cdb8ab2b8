//! Tools that the machine has already.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Tool, pins};
use crate::checkout::variable;
use crate::execution::Execution;

/// How long a program may take to say its version.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// The programs of PostgreSQL that are used.
const POSTGRES_PROGRAMS: [&str; 3] = ["postgres", "initdb", "psql"];

/// The tool that its variable names.
///
/// # Errors
///
/// The variable names something else, or the wrong version: then nothing else is tried, since somebody
/// chose it.
pub(super) fn named(tool: Tool) -> Result<Option<PathBuf>> {
    let Some(path) = variable(tool.variable()) else { return Ok(None) };
    let path = std::path::absolute(path)?;
    let program = if tool == Tool::Postgres { path.join(tool.program()) } else { path.clone() };
    let wanted = Wanted::of(tool)?;
    let output = version_output(&program, wanted.arguments)
        .with_context(|| format!("{} does not name a {}", tool.variable(), tool.title()))?;
    if !wanted.accepts(&output) {
        bail!(
            "{}={} is not {} {}: {}",
            tool.variable(),
            path.display(),
            tool.title(),
            wanted.version,
            output.trim()
        );
    }
    Ok(Some(path))
}

/// The tool in PATH, if it has the right version.
pub(super) fn installed(tool: Tool) -> Result<Option<PathBuf>> {
    let Some(program) = in_path(tool.program()) else { return Ok(None) };
    let wanted = Wanted::of(tool)?;
    if !version_output(&program, wanted.arguments).is_ok_and(|output| wanted.accepts(&output)) {
        return Ok(None);
    }
    if tool != Tool::Postgres {
        return Ok(Some(program));
    }
    // PATH often has links to some of the programs; their own folder has them all.
    let folder = program.canonicalize()?.parent().map(Path::to_path_buf);
    Ok(folder.filter(|folder| POSTGRES_PROGRAMS.iter().all(|name| folder.join(name).exists())))
}

/// A program in one of the folders of PATH.
pub(super) fn in_path(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// What a program says about its version.
pub(super) fn version_output(program: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    Execution::new(command, VERSION_LIMIT).run()
}

/// A version, and how a tool tells its own.
struct Wanted {
    arguments: &'static [&'static str],
    /// What stands before the version in the output.
    before: &'static str,
    version: String,
}

impl Wanted {
    fn of(tool: Tool) -> Result<Self> {
        let minor = |module| pins::module_version(module).map(|version| major_and_minor(&version));
        let (arguments, before, version): (&[&str], _, _) = match tool {
            Tool::Postgres => (&["--version"], "(PostgreSQL) ", "18".to_owned()),
            Tool::Valkey => (&["--version"], "v=", "9".to_owned()),
            Tool::Etcd => (&["--version"], "etcd Version: ", minor("go.etcd.io/etcd/server/v3")?),
            Tool::KubeApiserver | Tool::KubeControllerManager => {
                (&["--version"], "Kubernetes v", minor("k8s.io/kubernetes")?)
            }
            Tool::Kubectl => (&["version", "--client"], "Client Version: v", minor("k8s.io/kubernetes")?),
            Tool::Helm => (&["version"], "Version:\"v", "4".to_owned()),
            Tool::Nginx => (&["-v"], "nginx version: nginx/", "1".to_owned()),
            Tool::Node => (&["--version"], "v", "24".to_owned()),
        };
        Ok(Self { arguments, before, version })
    }

    fn accepts(&self, output: &str) -> bool {
        let rest = output.split_once(self.before).and_then(|(_, rest)| rest.strip_prefix(&self.version));
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    }
}

fn major_and_minor(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_version_is_accepted() {
        let cases = [
            (Tool::Postgres, "postgres (PostgreSQL) 18.6", true),
            (Tool::Postgres, "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", false),
            (Tool::Postgres, "postgres (PostgreSQL) 180.1", false),
            (Tool::Valkey, "Valkey server v=9.1.2 sha=00000000:1", true),
            (Tool::Valkey, "Redis server v=7.0.15", false),
            (Tool::Kubectl, "Client Version: v1.36.9\nKustomize Version: v5.5.0", true),
            (Tool::Kubectl, "Client Version: v1.3.6", false),
            (Tool::Helm, "version.BuildInfo{Version:\"v4.2\", GitCommit:\"\"}", true),
            (Tool::Helm, "version.BuildInfo{Version:\"v3.18.0\"}", false),
            (Tool::Etcd, "zsh: command not found", false),
            (Tool::Nginx, "nginx version: nginx/1.31.3", true),
            (Tool::Node, "v24.19.0", true),
            (Tool::Node, "v18.20.4", false),
        ];
        for (tool, output, accepted) in cases {
            assert_eq!(Wanted::of(tool).unwrap().accepts(output), accepted, "{output}");
        }
    }
}
