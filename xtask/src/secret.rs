//! Random secrets of one development system.

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// A password or token: 192 bits as letters, digits, `-` and `_`, so that it needs no quoting in a
/// URL, in SQL, in a configuration file or in a shell.
pub(crate) fn token() -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random::<24>()?))
}

/// A key for AES-256, as base64.
pub(crate) fn encryption_key() -> Result<String> {
    Ok(STANDARD.encode(random::<32>()?))
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("failed to read /dev/urandom")?;
    Ok(bytes)
}
