//! What a Tenant's status says. No I/O.
//!
//! The conditions follow kstatus, so that `helm --wait`, Flux and `kubectl wait` understand them:
//!
//! | | Ready | Reconciling | Stalled | reasons |
//! | --- | --- | --- | --- | --- |
//! | in force | True | False | False | `Synced` |
//! | only an edit helps | False | False | True | `InvalidTimeZone`, `InvalidSpec`, `TenantIdTaken`, `KeySecretTaken`, `SecretNotFound`, `SecretKeyMissing`, `InvalidSlackUrl`, `InvalidWebhookUrl`, `InvalidWebhookSecret` |
//! | tried again by itself | False | True | False | `DatabaseUnavailable`, `ApiServerUnavailable`, `Retrying` |

use flagmeter_core::quota;
use flagmeter_crds::{Tenant, TenantStatus, UsageStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::observe::Usage;
use super::plan::Problem;
use super::{Error, allowance};

/// How often usage alone may be a reason to write a tenant's status: each write is one to the API
/// server's disk.
const USAGE_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

/// What came of a reconcile.
pub(super) enum Outcome<'a> {
    /// The settings are in force.
    InForce,
    /// Only an edit helps.
    Stalled(&'a Problem),
    /// It is tried again.
    Retrying(&'a Error),
}

impl Outcome<'_> {
    /// As a metric's label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::Stalled(_) => "stalled",
            Self::Retrying(error) => error.label(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::InForce => "Synced",
            Self::Stalled(problem) => problem.reason(),
            Self::Retrying(Error::Observe(_) | Error::Apply(_)) => "DatabaseUnavailable",
            Self::Retrying(Error::ReadSecret(_) | Error::WriteSecret(_) | Error::Report(_)) => {
                "ApiServerUnavailable"
            }
            Self::Retrying(Error::MakeKey(_) | Error::Overtaken | Error::Seal(_) | Error::Invalid(_)) => {
                "Retrying"
            }
        }
    }

    /// A sentence for people. That of an error holds no cause: causes name hosts, and differ from one
    /// attempt to the next, and each would be a write.
    fn message(&self) -> String {
        match self {
            Self::InForce => "the tenant's settings are in force".to_owned(),
            Self::Stalled(problem) => problem.to_string(),
            Self::Retrying(error) => format!("{error}; the operator tries again, and its log says why"),
        }
    }
}

/// The status after a reconcile. `usage` is what was seen, if it could be.
pub(super) fn after(
    tenant: &Tenant,
    outcome: &Outcome<'_>,
    usage: Option<&Usage>,
    now: Timestamp,
) -> TenantStatus {
    let condition = |type_: &str, status: bool| {
        let status = if status { "True" } else { "False" };
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: outcome.reason().to_owned(),
            message: outcome.message(),
            observed_generation: tenant.metadata.generation,
            last_transition_time: transition(tenant, type_, status).unwrap_or(Time(now)),
        }
    };
    TenantStatus {
        observed_generation: tenant.metadata.generation,
        conditions: vec![
            condition("Ready", matches!(outcome, Outcome::InForce)),
            condition("Reconciling", matches!(outcome, Outcome::Retrying(_))),
            condition("Stalled", matches!(outcome, Outcome::Stalled(_))),
        ],
        // Until the next reconcile that succeeds says otherwise.
        api_key_secret: tenant.status.as_ref().and_then(|told| told.api_key_secret.clone()),
        usage: match outcome {
            // The usage of whoever has the id is not this resource's to see.
            Outcome::Stalled(Problem::TenantIdTaken { .. }) => None,
            _ => self::usage(tenant, usage, now),
        },
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

/// Whether `seen` is news enough to be written now.
pub(super) fn is_due(tenant: &Tenant, told: &UsageStatus, seen: &Usage, now: Timestamp) -> bool {
    let seen_as_told = said(tenant, seen, told.updated_at.0, now);
    let news = *told != seen_as_told;
    // The first usage of a period, a new period and another quota show at once.
    let at_once = told.effective_quota != seen_as_told.effective_quota
        || told.total_tokens == 0
        || told.period_start.0 != seen.period.start
        || told.period_end.0 != seen.period.end
        || tenant.status.as_ref().and_then(|status| status.observed_generation) != tenant.metadata.generation;
    news && (at_once || now.duration_since(told.updated_at.0) >= USAGE_INTERVAL)
}

/// The usage to be shown: what was told, until what was seen is due.
fn usage(tenant: &Tenant, seen: Option<&Usage>, now: Timestamp) -> Option<UsageStatus> {
    let told = tenant.status.as_ref().and_then(|status| status.usage.as_ref());
    match (told, seen) {
        (Some(told), Some(seen)) if !is_due(tenant, told, seen, now) => Some(told.clone()),
        (_, Some(seen)) => Some(said(tenant, seen, now, now)),
        (told, None) => told.cloned(),
    }
}

fn said(tenant: &Tenant, seen: &Usage, at: Timestamp, now: Timestamp) -> UsageStatus {
    let effective = allowance::quota(&tenant.spec).at(now);
    UsageStatus {
        total_tokens: seen.total_tokens,
        percent: quota::percent(seen.total_tokens, effective),
        effective_quota: Some(effective),
        period_start: Time(seen.period.start),
        period_end: Time(seen.period.end),
        updated_at: Time(at),
    }
}

/// Since when the condition has had `status`, if it has.
fn transition(tenant: &Tenant, type_: &str, status: &str) -> Option<Time> {
    find(tenant, type_)
        .filter(|condition| condition.status == status)
        .map(|condition| condition.last_transition_time.clone())
}

fn find<'a>(tenant: &'a Tenant, type_: &str) -> Option<&'a Condition> {
    tenant.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests;
