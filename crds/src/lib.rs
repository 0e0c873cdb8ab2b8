//! The Tenant resource, and the `CustomResourceDefinition` made from it.
//!
//! - [`Tenant`], [`TenantSpec`] and [`TenantStatus`] are the resource as Rust types. Their doc comments
//!   are what `kubectl explain tenants.flagmeter.dev` shows.
//! - [`manifest`] is the definition as it is shipped: `crds/tenants.yaml`, made by `crdgen`.

pub mod manifest;
#[expect(unreachable_pub, reason = "KubeSchema repeats each struct, `pub` and all, inside a function")]
mod quota;
#[expect(unreachable_pub, reason = "KubeSchema repeats each struct, `pub` and all, inside a function")]
mod tenant;
#[expect(unreachable_pub, reason = "KubeSchema repeats each struct, `pub` and all, inside a function")]
mod webhook;

pub use quota::QuotaBoost;
pub use tenant::{
    Alerts, DeletionPolicy, MAX_URL_LENGTH, SecretKeyRef, SlackTarget, Tenant, TenantSpec, TenantStatus,
    UsageStatus,
};
pub use webhook::{SigningSecretRef, WebhookTarget};
