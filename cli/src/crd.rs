//! `flagmeter crd`: the definition of the Tenant resource.

use std::process::ExitCode;

use flagmeter_crds::manifest;

use crate::output::{self, Form};

/// Print the definition (CRD) of the Tenant resource
///
/// It is the one that the chart of this version installs. Needs no database.
#[derive(clap::Args)]
#[command(after_long_help = "Example:\n  flagmeter crd | kubectl apply --server-side -f -")]
pub(crate) struct Arguments {
    #[command(flatten)]
    form: Form,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.form.json {
        output::print_json(&manifest::definition()?)?;
    } else {
        output::print(&manifest::yaml()?)?;
    }
    Ok(ExitCode::SUCCESS)
}
