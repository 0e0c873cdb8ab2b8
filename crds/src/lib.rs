//! The Tenant resource, and the `CustomResourceDefinition` made from it.
//!
//! - [`Tenant`], [`TenantSpec`] and [`TenantStatus`] are the resource as Rust types. Their doc comments
//!   are what `kubectl explain tenants.flagmeter.dev` shows.
//! - [`manifest`] is the definition as it is shipped: `crds/tenants.yaml`, made by `crdgen`.
//! - [`settings`] is what a spec must say beyond what the definition can refuse.
//! - [`used_by`] is which tenants a Secret may be used for.
//! - [`text`] is what may stand in a text for people.
//! - [`lint`] is the definition's rules without a cluster.

mod instant;
pub mod lint;
pub mod manifest;
#[expect(unreachable_pub, reason = "KubeSchema repeats each struct, `pub` and all, inside a function")]
mod quota;
pub mod settings;
#[expect(unreachable_pub, reason = "KubeSchema repeats each struct, `pub` and all, inside a function")]
mod tenant;
pub mod text;
pub mod used_by;
#[expect(unreachable_pub, reason = "KubeSchema repeats each struct, `pub` and all, inside a function")]
mod webhook;

pub use instant::Instant;
pub use quota::QuotaBoost;
pub use tenant::{
    Alerts, DeletionPolicy, MAX_URL_LENGTH, SecretKeyRef, SlackTarget, Tenant, TenantSpec, TenantStatus,
    UsageStatus,
};
pub use webhook::{SigningSecretRef, WebhookTarget};
