//! What every FlagMeter binary needs around its work, and no word of the domain.
//!
//! - [`env`] holds settings, which are read once, all faults reported together.
//! - [`telemetry`] is logs.
//! - [`listen`] opens a port, or says why it cannot be opened.
//! - [`admin`] is the port with `/metrics`, `/livez` and `/readyz`.
//! - [`shutdown`] is SIGTERM and SIGINT as a token.
//! - [`clock`] is the only place that asks what time it is.

pub mod admin;
pub mod clock;
pub mod env;
pub mod listen;
pub mod shutdown;
pub mod telemetry;

/// Makes ring the process's only cryptography for TLS. To be called first in each `main`: without
/// it, the first TLS connection panics because no provider was chosen.
pub fn install_tls_provider() {
    // An error says that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
