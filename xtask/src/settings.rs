//! What one system keeps from run to run: its ports, its secrets, the tools it was started with.

use std::fs;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::account::write_secret;
use crate::ports::Ports;
use crate::secret;
use crate::state::State;
use crate::tools::Tools;

/// Changes when data of an earlier xtask can no longer be used as it is.
const LAYOUT: u32 = 1;

/// The content of settings.json.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    layout: u32,
    pub(crate) ports: Ports,
    pub(crate) secrets: Secrets,
    #[serde(default)]
    pub(crate) tools: Tools,
    /// Whether PostgreSQL waits for the disk. Tests do not: they lose nothing that outlives them.
    pub(crate) durable: bool,
    /// Whether the sample events went in; they do once.
    pub(crate) samples_sent: bool,
}

/// Random, made once for the data they protect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Secrets {
    /// PostgreSQL's superuser.
    pub(crate) postgres: String,
    /// The database's owner, who migrates it.
    pub(crate) flagmeter: String,
    pub(crate) flagmeter_api: String,
    pub(crate) flagmeter_worker: String,
    pub(crate) flagmeter_operator: String,
    pub(crate) valkey: String,
    pub(crate) encryption_key: String,
    /// What opens everything that the API has.
    pub(crate) admin_token: String,
}

impl Settings {
    /// Those of a system that never ran.
    pub(crate) fn new(ports: Ports, durable: bool) -> Result<Self> {
        let secrets = Secrets {
            postgres: secret::token()?,
            flagmeter: secret::token()?,
            flagmeter_api: secret::token()?,
            flagmeter_worker: secret::token()?,
            flagmeter_operator: secret::token()?,
            valkey: secret::token()?,
            encryption_key: secret::encryption_key()?,
            admin_token: secret::token()?,
        };
        Ok(Self { layout: LAYOUT, ports, secrets, tools: Tools::default(), durable, samples_sent: false })
    }

    /// Those of the last run; nothing if there was none or it was of another layout.
    pub(crate) fn find(state: &State) -> Option<Self> {
        let settings: Self = serde_json::from_str(&fs::read_to_string(state.settings()).ok()?).ok()?;
        (settings.layout == LAYOUT).then_some(settings)
    }

    /// Those of a system that ran before.
    pub(crate) fn load(state: &State) -> Result<Self> {
        Self::find(state)
            .with_context(|| format!("no system was ever brought up in {}", state.folder().display()))
    }

    pub(crate) fn save(&self, state: &State) -> Result<()> {
        write_secret(&state.settings(), &serde_json::to_string_pretty(self)?)
    }
}
