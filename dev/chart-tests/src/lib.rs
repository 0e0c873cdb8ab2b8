//! What the tests of the Helm chart share: the tools, the rendered objects, a namespace on a server.
//!
//! `FLAGMETER_HELM` and `FLAGMETER_KUBECTL` name the binaries. The tests in `tests/server.rs` also
//! need `KUBECONFIG`, with an administrator's rights on an API server that may be written to: they
//! make namespaces of their own and remove them, and leave the Tenant CRD installed. A test whose
//! variable is missing fails and says so. `cargo xtask test chart` sets them all.
//!
//! `UPDATE_SNAPSHOTS=1` writes the committed copies anew instead of comparing with them.

mod chart;
mod server;
mod snapshot;
mod tool;

pub use chart::{Objects, REQUIRED_VALUES, chart, read, render, repository, template, yaml};
pub use server::{RELEASE, Release};
pub use snapshot::assert_same_as_committed;
pub use tool::{Answer, Tool};
