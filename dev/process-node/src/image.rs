//! What stands for the image: a folder of binaries, and the one repository they are of.

use std::path::{Path, PathBuf};

use crate::record::Fault;

/// The repository of an image's name: without tag and digest.
#[must_use]
pub fn repository(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    // A colon before the last slash is the port of a registry.
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// Whether `image` is run here.
///
/// # Errors
///
/// A fault as when an image cannot be pulled, since nothing is pulled here.
pub fn check(image: &str, ours: &str) -> Result<(), Fault> {
    if repository(image) == ours {
        return Ok(());
    }
    let message = format!("the process node runs only images of {ours}, and {image} is another");
    Err(Fault::new("ErrImagePull", message))
}

/// The binary that `command` names: the file of that name in `folder`, wherever the command says it is
/// in a real image.
#[must_use]
pub fn find(command: &str, folder: &Path) -> Option<PathBuf> {
    let binary = folder.join(Path::new(command).file_name()?);
    binary.is_file().then_some(binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_repository_alone() {
        let ours = "ghcr.io/flagmeter/flagmeter";
        for image in [":1.2", "", "@sha256:0f", ":1.2@sha256:0f"].map(|end| format!("{ours}{end}")) {
            assert!(check(&image, ours).is_ok(), "{image}");
        }
        for image in ["flagmeter:1", "ghcr.io/flagmeter/flagmeter-web:1", "ghcr.io:443/flagmeter/flagmeter"] {
            let fault = check(image, ours).unwrap_err();
            assert_eq!(fault.reason, "ErrImagePull");
            assert!(fault.message.contains(image), "{fault:?}");
        }
        assert_eq!(repository("localhost:5000/flagmeter"), "localhost:5000/flagmeter");
    }
}
