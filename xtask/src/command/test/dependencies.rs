//! Who may depend on whom.

use std::time::Duration;

use anyhow::{Result, bail};

use super::workspace::Workspace;
use crate::binaries::cargo;
use crate::execution::Execution;

const LIMIT: Duration = Duration::from_mins(2);

/// What does I/O and so has no place among the rules, not even by way of another crate.
const NOT_IN_CORE: [&str; 8] =
    ["tokio", "sqlx", "kube", "axum", "reqwest", "redis", "deadpool-redis", "tracing"];

/// Dependencies that belong to some packages alone. Those under dev/ may have Kubernetes' too.
const OWNED: [(&[&str], &[&str]); 3] = [
    (&["sqlx", "jiff-sqlx", "deadpool-redis", "redis"], &["flagmeter-store"]),
    (&["kube", "kube-runtime", "kube-lease-manager"], &["flagmeter-crds", "flagmeter-operator"]),
    // Nothing builds on a binary.
    (&["flagmeter-api", "flagmeter-worker", "flagmeter-operator", "flagmeter"], &[]),
];

/// What has dependencies of others' for a reason of its own.
const EXCUSED: [(&str, &[&str]); 1] =
    // Its baselines do without the store what the store is compared with.
    [("loadtest", &["sqlx", "deadpool-redis"])];

/// `core` stays free of I/O.
pub(crate) fn core_is_pure() -> Result<()> {
    let tree = cargo(&["tree", "--package", "flagmeter-core", "--edges", "normal", "--prefix", "none"]);
    let tree = Execution::new(tree, LIMIT).run()?;
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let mut found: Vec<&str> = names.filter(|name| NOT_IN_CORE.contains(name)).collect();
    found.sort_unstable();
    found.dedup();
    if !found.is_empty() {
        bail!(
            "flagmeter-core must not depend on {} (`cargo tree -p flagmeter-core -i NAME`)",
            found.join(", ")
        );
    }
    Ok(())
}

/// SQL and Valkey in `store`, Kubernetes in `crds`, `operator` and dev/.
pub(crate) fn are_where_they_belong() -> Result<()> {
    let faults = faults(&Workspace::read()?);
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(())
}

fn faults(workspace: &Workspace) -> Vec<String> {
    let mut faults = Vec::new();
    for package in &workspace.packages {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.is_shipped()) {
            let name = dependency.name.as_str();
            let rule = OWNED.iter().find(|(names, _)| names.contains(&name));
            let Some((_, owners)) = rule else { continue };
            let excused = name.starts_with("kube") && package.is_for_development()
                || EXCUSED.iter().any(|(excused, names)| *excused == package.name && names.contains(&name));
            if !owners.contains(&package.name.as_str()) && !excused {
                faults.push(format!("{} must not depend on {name}; only {owners:?} may", package.name));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkout;

    fn workspace(package: &str, folder: &str, dependency: &str, kind: &str) -> Workspace {
        let manifest = checkout::path(folder).join("Cargo.toml");
        let text = format!(
            r#"{{"packages":[{{"id":"x","name":"{package}","manifest_path":"{}",
                "dependencies":[{{"name":"{dependency}","kind":{kind}}}]}}]}}"#,
            manifest.display(),
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn each_rule_finds_its_fault_and_nothing_else() {
        let cases = [
            ("flagmeter-store", "libs/store", "sqlx", "null", 0),
            ("flagmeter-api", "api", "sqlx", "null", 1),
            ("flagmeter-api", "api", "sqlx", "\"dev\"", 0),
            ("flagmeter-api", "api", "sqlx", "\"build\"", 1),
            ("flagmeter-worker", "worker", "kube", "null", 1),
            ("process-node", "dev/process-node", "kube", "null", 0),
            ("process-node", "dev/process-node", "deadpool-redis", "null", 1),
            ("xtask", "xtask", "flagmeter-api", "null", 1),
            ("loadtest", "loadtest", "sqlx", "null", 0),
            ("loadtest", "loadtest", "kube", "null", 1),
            ("loadtest", "loadtest", "flagmeter-api", "null", 1),
            ("flagmeter-api", "api", "axum", "null", 0),
        ];
        for (package, folder, dependency, kind, count) in cases {
            let found = faults(&workspace(package, folder, dependency, kind));
            assert_eq!(found.len(), count, "{package} -> {dependency} ({kind}): {found:?}");
        }
    }
}
