//! What there is: the tenant's rows, its usage, and the URL that its Secret holds.

use flagmeter_core::period::BillingPeriod;
use flagmeter_crds::{SecretKeyRef, SlackTarget, Tenant};
use flagmeter_store::postgres::tenants::{self, FoundTenant};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};

use super::plan::{Problem, Terms};
use super::{Context, Error};

/// Everything that the plan depends on, beside the resource itself.
#[derive(Default)]
pub(super) struct Observed {
    /// The tenant's rows.
    pub(super) found: Option<FoundTenant>,
    /// What stands where the spec says that the Slack channel's URL is.
    pub(super) slack_url: Option<Result<String, Problem>>,
    /// What was used in the current period, by the spec's calendar; `None` if the spec has none.
    pub(super) usage: Option<Usage>,
    /// Whether a webhook's URL may be http: a setting.
    pub(super) allow_http: bool,
}

/// What was used in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) period: BillingPeriod,
    pub(super) total_tokens: i64,
}

/// Reads all of it. Nothing of an earlier reconcile is used.
pub(super) async fn observe(ctx: &Context, tenant: &Tenant, now: Timestamp) -> Result<Observed, Error> {
    let id = tenant.name_any();
    let found = tenants::find(&ctx.db, &ctx.sealer, &id).await.map_err(Error::Observe)?;
    let slack_url = match &tenant.spec.alerts.slack {
        None => None,
        Some(target) => slack_url(ctx, target).await?,
    };
    let usage = match Terms::of(&tenant.spec) {
        Err(_) => None,
        Ok(terms) => {
            let period = terms.period(now);
            let totals =
                tenants::usage(&ctx.db, &[(id.clone(), period.start)]).await.map_err(Error::Observe)?;
            Some(Usage { period, total_tokens: totals.get(&id).copied().unwrap_or_default() })
        }
    };
    Ok(Observed { found, slack_url, usage, allow_http: ctx.settings.allow_http })
}

/// The URL as it stands, from the spec or from the Secret.
async fn slack_url(ctx: &Context, target: &SlackTarget) -> Result<Option<Result<String, Problem>>, Error> {
    match (&target.url, &target.secret_ref) {
        (Some(url), _) => Ok(Some(Ok(url.clone()))),
        (None, Some(reference)) => from_secret(ctx, reference).await.map(Some),
        (None, None) => Ok(None),
    }
}

/// Reads one value of a Secret now: none is ever kept in memory.
async fn from_secret(ctx: &Context, reference: &SecretKeyRef) -> Result<Result<String, Problem>, Error> {
    let SecretKeyRef { name, key } = reference;
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let secret = secrets.get_opt(name).await.map_err(|error| Error::ReadSecret(Box::new(error)))?;
    let Some(secret) = secret else {
        return Ok(Err(Problem::SecretNotFound { name: name.clone() }));
    };
    let Some(value) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Ok(Err(Problem::SecretKeyMissing { name: name.clone(), key: key.clone() }));
    };
    // What is no text is no URL either; the plan says so.
    Ok(Ok(String::from_utf8_lossy(&value.0).into_owned()))
}
