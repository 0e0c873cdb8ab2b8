//! `flagmeter completions`: what a shell needs to complete the command line.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::output;

/// Print the completions of a shell
///
/// They come from this version of the command; print them anew after an upgrade. Needs no database.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:\n  \
    source <(flagmeter completions bash)                # for this shell\n  \
    flagmeter completions bash > ~/.local/share/bash-completion/completions/flagmeter\n  \
    flagmeter completions zsh > \"${fpath[1]}/_flagmeter\"\n  \
    flagmeter completions fish > ~/.config/fish/completions/flagmeter.fish")]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::Arguments::command(), "flagmeter", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
