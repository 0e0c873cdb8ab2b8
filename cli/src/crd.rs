//! `flagmeter crd`: the definition of the Tenant resource.

use std::process::ExitCode;

use anyhow::Context as _;
use flagmeter_crds::manifest;

use crate::output;

/// Print the definition (CRD) of the Tenant resource, as the chart of this version installs it, for
/// `kubectl apply --server-side -f -`. Needs no database.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    output::print(&manifest::yaml()?).context("the definition could not be printed")?;
    Ok(ExitCode::SUCCESS)
}
