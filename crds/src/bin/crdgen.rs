//! `crdgen` prints the Tenant's `CustomResourceDefinition`; `crdgen --write` writes it where it is committed.

use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;

use flagmeter_crds::manifest;

fn main() -> ExitCode {
    match run(std::env::args().nth(1).as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(argument: Option<&str>) -> Result<(), Box<dyn std::error::Error>> {
    let yaml = manifest::yaml()?;
    match argument {
        // Nobody has to read it all.
        None => match std::io::stdout().write_all(yaml.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        },
        Some("--write") => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            for path in manifest::PATHS {
                std::fs::write(root.join(path), &yaml)
                    .map_err(|error| format!("failed to write {path}: {error}"))?;
            }
        }
        Some(other) => {
            return Err(format!("{other} is not an argument of crdgen; it takes --write or nothing").into());
        }
    }
    Ok(())
}
