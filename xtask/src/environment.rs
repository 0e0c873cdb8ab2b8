//! env.json and env.sh: how tests, scripts and people reach the running system.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::account::write_secret;
use crate::release::NAMESPACE;
use crate::servers::{Postgres, Valkey};
use crate::system::System;
use crate::tools::Tool;

/// The content of env.json, a contract.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub(crate) api_url: String,
    pub(crate) admin_token: String,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) database_url: String,
    pub(crate) valkey_url: String,
    pub(crate) namespace: String,
    pub(crate) tools: BTreeMap<String, PathBuf>,
    pub(crate) tenants: BTreeMap<String, Tenant>,
    pub(crate) logs: PathBuf,
}

/// What a client of one tenant needs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Tenant {
    pub(crate) key: String,
}

impl Environment {
    /// That of a system whose API answers at `api_address`, and whose tenants have these `keys`.
    pub(crate) fn of(system: &System, api_address: &str, keys: BTreeMap<String, String>) -> Result<Self> {
        let settings = &system.settings;
        let tools = [
            ("kubectl", settings.tools.path(Tool::Kubectl)?.to_owned()),
            ("helm", settings.tools.path(Tool::Helm)?.to_owned()),
            ("psql", settings.tools.postgres("psql")?),
        ];
        Ok(Self {
            api_url: format!("http://{api_address}"),
            admin_token: settings.secrets.admin_token.clone(),
            kubeconfig: system.state.kubeconfig(),
            database_url: Postgres::url(settings, "flagmeter", &settings.secrets.flagmeter, "flagmeter"),
            valkey_url: Valkey::url(settings),
            namespace: NAMESPACE.to_owned(),
            tools: tools.map(|(name, path)| (name.to_owned(), path)).into(),
            tenants: keys.into_iter().map(|(name, key)| (name, Tenant { key })).collect(),
            logs: system.state.logs(),
        })
    }

    /// That of the system that was brought up last.
    pub(crate) fn read(state: &crate::state::State) -> Result<Self> {
        let path = state.env_json();
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("failed to parse {}", path.display()))
    }

    /// Writes both files, and a folder with the tools for env.sh to put into PATH.
    pub(crate) fn write(&self, system: &System) -> Result<()> {
        let state = &system.state;
        let folder = state.folder().join("tools");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
        let cli = ("flagmeter".to_owned(), state.data("bin").join("flagmeter"));
        for (name, path) in self.tools.clone().into_iter().chain([cli]) {
            symlink(&path, folder.join(&name)).with_context(|| format!("failed to link {name}"))?;
        }
        write_secret(&state.env_sh(), &self.shell(&folder.display().to_string()))?;
        write_secret(&state.env_json(), &format!("{}\n", serde_json::to_string_pretty(self)?))
    }

    fn shell(&self, tools: &str) -> String {
        let kubeconfig = self.kubeconfig.display().to_string();
        let tenant_key = self.tenants.values().next().map_or("", |tenant| tenant.key.as_str());
        let variables = [
            ("FLAGMETER_URL", self.api_url.as_str()),
            ("FLAGMETER_ADMIN_TOKEN", &self.admin_token),
            ("FLAGMETER_TENANT_KEY", tenant_key),
            ("KUBECONFIG", &kubeconfig),
            ("DATABASE_URL", &self.database_url),
            ("VALKEY_URL", &self.valkey_url),
        ];
        let mut text = String::from("# Reach the running system from a shell: . .dev/env.sh\n");
        for (name, value) in variables {
            text = format!("{text}export {name}={}\n", quoted(value));
        }
        format!("{text}export PATH={}:\"$PATH\"\n", quoted(tools))
    }
}

/// A word of a shell that means exactly `value`.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for value in ["", "plain", "two words", "it's $HOME \"and\" `more`", "back\\slash"] {
            let output =
                Command::new("sh").args(["-c", &format!("printf %s {}", quoted(value))]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
        }
    }
}
