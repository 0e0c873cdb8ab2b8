//! What a Tenant's status says. No I/O.
//!
//! The conditions follow kstatus, so that `helm --wait`, Flux and `kubectl wait` understand them:
//!
//! | | Ready | Reconciling | Stalled | reasons |
//! | --- | --- | --- | --- | --- |
//! | in force | True | False | False | `Synced`, `Suspended` |
//! | only an edit helps | False | False | True | `InvalidTimeZone`, `InvalidSpec`, `TenantIdTaken`, `KeySecretTaken`, `SecretUnavailable`, `SettingsRefused`, `InvalidSlackUrl`, `InvalidWebhookUrl`, `InvalidWebhookSecret` |
//! | nobody follows its namespace | False | False | True | `NamespaceNotFollowed` |
//! | tried again by itself | False | True | False | `DatabaseUnavailable`, `ApiServerUnavailable`, `Retrying`, `KeyPending` |
//! | being deleted | False | True | False | `Deleting` |
//!
//! [`quota`] adds `QuotaAvailable`.

use flagmeter_core::quota as core_quota;
use flagmeter_crds::{Tenant, TenantStatus, UsageStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::Error;
use super::observe::Usage;
use super::plan::Problem;

/// How often usage alone may be a reason to write a tenant's status: each write is one to the API
/// server's disk.
const USAGE_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

/// What came of a reconcile.
pub(super) enum Outcome<'a> {
    /// The settings are in force.
    InForce,
    /// They are, but the tenant has no key yet.
    KeyPending,
    /// Only an edit helps.
    Stalled(&'a Problem),
    /// It is tried again.
    Retrying(&'a Error),
    /// What is kept of the tenant is being deleted; the sentence says how far that has come.
    Deleting(&'a str),
}

impl Outcome<'_> {
    /// As a metric's label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::KeyPending => "key_pending",
            Self::Stalled(_) => "stalled",
            Self::Retrying(error) => error.label(),
            Self::Deleting(_) => "deleting",
        }
    }

    /// The reason of the three conditions. docs/operations.md lists them all.
    fn reason(&self, tenant: &Tenant) -> &'static str {
        match self {
            Self::InForce if tenant.spec.suspended => "Suspended",
            Self::InForce => "Synced",
            Self::KeyPending => "KeyPending",
            Self::Deleting(_) => "Deleting",
            Self::Stalled(problem) => problem.reason(),
            Self::Retrying(Error::Observe(error) | Error::Apply(error) | Error::CleanUp(error)) => {
                // One that refuses the data is there.
                if error.refusal().is_some() { "Retrying" } else { "DatabaseUnavailable" }
            }
            Self::Retrying(
                Error::ReadSecret(_) | Error::WriteSecret(_) | Error::Report(_) | Error::Finalizer(_),
            ) => "ApiServerUnavailable",
            Self::Retrying(Error::MakeKey(_) | Error::Overtaken | Error::Seal(_) | Error::Invalid(_)) => {
                "Retrying"
            }
        }
    }

    /// A sentence for people. That of an error holds no cause: causes name hosts, and differ from one
    /// attempt to the next, and each would be a write.
    fn message(&self, tenant: &Tenant) -> String {
        match self {
            Self::InForce if tenant.spec.suspended => {
                "the tenant's settings are in force; it is suspended, so its events are refused".to_owned()
            }
            Self::InForce => "the tenant's settings are in force".to_owned(),
            Self::KeyPending => {
                "the Secret of the Tenant that had the name before is still being removed; then the key is made"
                    .to_owned()
            }
            Self::Deleting(progress) => (*progress).to_owned(),
            Self::Stalled(problem) => problem.to_string(),
            Self::Retrying(error) => format!("{error}; the operator tries again, and its log says why"),
        }
    }
}

/// The status after a reconcile. `seen` is the usage, if it could be seen; `show` whether it is to be told now.
pub(super) fn after(
    tenant: &Tenant,
    outcome: &Outcome<'_>,
    seen: Option<&Usage>,
    show: bool,
    now: Timestamp,
) -> TenantStatus {
    // What is not told now stays as it was told: its sentence, too, would be a write.
    let shown = seen.filter(|_| show);
    // The usage of whoever has the id is not this resource's to see.
    let is_anothers = matches!(outcome, Outcome::Stalled(Problem::TenantIdTaken { .. }));
    let condition = |type_: &str, status: bool| {
        let status = if status { "True" } else { "False" };
        condition(tenant, type_, (status, outcome.reason(tenant), outcome.message(tenant)), now)
    };
    TenantStatus {
        observed_generation: tenant.metadata.generation,
        conditions: [
            condition("Ready", matches!(outcome, Outcome::InForce)),
            condition(
                "Reconciling",
                matches!(outcome, Outcome::Retrying(_) | Outcome::Deleting(_) | Outcome::KeyPending),
            ),
            condition("Stalled", matches!(outcome, Outcome::Stalled(_))),
        ]
        .into_iter()
        .chain(quota::condition(tenant, shown, now).filter(|_| !is_anothers))
        .collect(),
        // Until the next reconcile that succeeds says otherwise.
        api_key_secret: tenant.status.as_ref().and_then(|told| told.api_key_secret.clone()),
        usage: usage(tenant, shown, now).filter(|_| !is_anothers),
    }
}

/// Whether the tenant's status says that its settings are in force.
pub(super) fn is_ready(tenant: &Tenant) -> bool {
    find(tenant, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Whether `status` says nothing that the resource does not say already. Conditions of others are
/// theirs.
pub(super) fn is_told(tenant: &Tenant, status: &TenantStatus) -> bool {
    tenant.status.as_ref().is_some_and(|told| {
        told.observed_generation == status.observed_generation
            && told.usage == status.usage
            && told.api_key_secret == status.api_key_secret
            && status.conditions.iter().all(|condition| told.conditions.contains(condition))
    })
}

/// Whether the resource gave this problem as its reason already.
pub(super) fn is_known(tenant: &Tenant, problem: &Problem) -> bool {
    find(tenant, "Stalled").is_some_and(|condition| {
        condition.status == "True"
            && condition.observed_generation == tenant.metadata.generation
            && condition.message == problem.to_string()
    })
}

/// Whether what was seen of usage has to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It says what is told already, or what may be told later.
    None,
    /// As far as the budget goes, after all the rest: tokens have changed, and the percent has not.
    Tokens,
    /// As far as the budget goes, after what is to be told soon.
    Later,
    /// As far as the budget goes.
    Soon,
    /// Now.
    Urgent,
}

/// What there is to tell. An edit, and a quota that is used up, or is no longer, show at once. A new period, its first
/// usage, and a quota that a boost changes are what all tenants may have at the same instant: they show as soon as the
/// budget allows. Other usage does at most once a minute: a percent that has changed goes first, then tokens alone.
pub(super) fn news(tenant: &Tenant, seen: &Usage, now: Timestamp) -> News {
    let status = tenant.status.as_ref();
    let Some(told) = status.and_then(|status| status.usage.as_ref()) else { return News::Urgent };
    let seen_as_told = said(tenant, seen, told.updated_at.0, now);
    let is_edited = status.and_then(|status| status.observed_generation) != tenant.metadata.generation;
    let is_soon = told.period_start != seen_as_told.period_start
        || told.period_end != seen_as_told.period_end
        || told.effective_quota != seen_as_told.effective_quota
        || (told.total_tokens == 0 && seen.total_tokens != 0);
    if is_edited || !quota::is_told(tenant, seen, now) {
        News::Urgent
    } else if is_soon {
        News::Soon
    } else if told.total_tokens == seen.total_tokens || now.duration_since(told.updated_at.0) < USAGE_INTERVAL
    {
        News::None
    } else if told.percent == seen_as_told.percent {
        News::Tokens
    } else {
        News::Later
    }
}

/// The usage to be shown: what was seen, or else what was told.
fn usage(tenant: &Tenant, seen: Option<&Usage>, now: Timestamp) -> Option<UsageStatus> {
    let told = tenant.status.as_ref().and_then(|status| status.usage.as_ref());
    match (told, seen) {
        (Some(told), Some(seen)) if *told == said(tenant, seen, told.updated_at.0, now) => Some(told.clone()),
        (_, Some(seen)) => Some(said(tenant, seen, now, now)),
        (told, None) => told.cloned(),
    }
}

fn said(tenant: &Tenant, seen: &Usage, at: Timestamp, now: Timestamp) -> UsageStatus {
    let effective = quota::effective(tenant, now);
    UsageStatus {
        total_tokens: seen.total_tokens,
        percent: core_quota::percent(seen.total_tokens, effective),
        effective_quota: Some(effective),
        period_start: Time(seen.period.start),
        period_end: Time(seen.period.end),
        updated_at: Time(at),
    }
}

/// A condition of this status, reason and message. Its time stays where it is while the status does.
pub(super) fn condition(
    tenant: &Tenant,
    type_: &str,
    (status, reason, message): (&str, &str, String),
    now: Timestamp,
) -> Condition {
    let known = find(tenant, type_).filter(|known| known.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: tenant.metadata.generation,
        last_transition_time: known.map_or(Time(now), |known| known.last_transition_time.clone()),
    }
}

pub(super) fn find<'a>(tenant: &'a Tenant, type_: &str) -> Option<&'a Condition> {
    tenant.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}

mod quota;

#[cfg(test)]
mod tests;
