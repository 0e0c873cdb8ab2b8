//! `cargo xtask supervise`, hidden: keeps watch after `up --detach` has returned.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::progress::Progress;
use crate::state::State;
use crate::supervision;
use crate::system::System;

pub(crate) fn run(folder: &Path) -> Result<ExitCode> {
    // The end of the terminal's session is none of its business.
    let _ = nix::unistd::setsid();
    let state = State::at(folder);
    let system = System::attach(state.clone())?;
    supervision::take_over(&state)?;
    let outcome = supervision::watch(&system);
    supervision::end(&state, &Progress::new(), outcome)
}
