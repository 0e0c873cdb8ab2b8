//! What there is: the tenant's rows, its usage, and what its Secrets hold.

use flagmeter_core::period::BillingPeriod;
use flagmeter_crds::settings;
use flagmeter_crds::used_by::{self, USED_BY};
use flagmeter_crds::{SecretKeyRef, SigningSecretRef, SlackTarget, Tenant, TenantSpec, WebhookTarget};
use flagmeter_store::postgres::tenants::{self, FoundTenant, OpenPeriod};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};

use super::plan::Problem;
use super::{Context, Error};

/// Everything that the plan depends on, beside the resource itself.
#[derive(Default)]
pub(super) struct Observed {
    /// The tenant's rows.
    pub(super) found: Option<FoundTenant>,
    /// What stands where the spec says that the Slack channel's URL is.
    pub(super) slack_url: Option<Result<String, Problem>>,
    /// What stands where the spec says that the webhook's URL is.
    pub(super) webhook_url: Option<Result<String, Problem>>,
    /// What stands where the spec says that the webhook's secret is.
    pub(super) webhook_secret: Option<Result<String, Problem>>,
    /// What was used in the open period; `None` if the spec has no calendar.
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

impl Usage {
    pub(super) fn of(open: &OpenPeriod) -> Self {
        Self { period: open.period, total_tokens: open.total_tokens }
    }
}

/// Reads the rows and the usage. Nothing of an earlier reconcile is used.
pub(super) async fn rows(ctx: &Context, tenant: &Tenant, now: Timestamp) -> Result<Observed, Error> {
    let id = tenant.name_any();
    let found = ctx.answers.of(tenants::find(&ctx.db, &ctx.sealer, &id)).await.map_err(Error::Observe)?;
    let usage = usage(ctx, tenant, now).await?;
    Ok(Observed { found, usage, allow_http: ctx.settings.allow_http, ..Observed::default() })
}

/// The Secrets that the spec names, in its order.
pub(super) fn named_secrets(spec: &TenantSpec) -> impl Iterator<Item = &str> {
    let slack = spec.alerts.slack.as_ref().and_then(|target| target.secret_ref.as_ref());
    let webhook = spec.alerts.webhook.as_ref();
    let webhook_url = webhook.and_then(|target| target.url_secret_ref.as_ref());
    let named = [
        slack.map(|reference| &reference.name),
        webhook_url.map(|reference| &reference.name),
        webhook.map(|target| &target.secret_ref.name),
    ];
    named.into_iter().flatten().map(String::as_str)
}

/// The versions of the Secrets that the spec names, if they are known.
pub(super) fn versions(ctx: &Context, tenant: &Tenant) -> Option<Vec<Option<String>>> {
    ctx.secrets.of(&tenant.namespace().unwrap_or_default(), named_secrets(&tenant.spec))
}

/// Reads the Secrets that the spec names: every one of [`named_secrets`], and no other.
pub(super) async fn secrets(ctx: &Context, tenant: &Tenant, observed: &mut Observed) -> Result<(), Error> {
    observed.slack_url = match &tenant.spec.alerts.slack {
        None => None,
        Some(SlackTarget { url, secret_ref, .. }) => {
            given(ctx, tenant, url.as_ref(), secret_ref.as_ref()).await?
        }
    };
    (observed.webhook_url, observed.webhook_secret) = match &tenant.spec.alerts.webhook {
        None => (None, None),
        Some(WebhookTarget { url, url_secret_ref, secret_ref, .. }) => {
            let SigningSecretRef { name, key } = secret_ref.clone();
            let secret = from_secret(ctx, tenant, &SecretKeyRef { name, key }).await?;
            (given(ctx, tenant, url.as_ref(), url_secret_ref.as_ref()).await?, Some(secret))
        }
    };
    Ok(())
}

/// What was used in the open period: by the calendar that counts, which may begin it elsewhere than the spec's own
/// after a change.
pub(super) async fn usage(ctx: &Context, tenant: &Tenant, now: Timestamp) -> Result<Option<Usage>, Error> {
    let Ok(terms) = settings::terms(&tenant.spec) else { return Ok(None) };
    let id = tenant.name_any();
    let known = ctx.answers.of(tenants::usage(&ctx.db, std::slice::from_ref(&id), now)).await;
    let known = known.map_err(Error::Observe)?;
    let none = || Usage { period: terms.period(now), total_tokens: 0 };
    Ok(Some(known.get(&id).map_or_else(none, Usage::of)))
}

/// A URL as it stands, in the spec or in the Secret that it names.
async fn given(
    ctx: &Context,
    tenant: &Tenant,
    url: Option<&String>,
    secret_ref: Option<&SecretKeyRef>,
) -> Result<Option<Result<String, Problem>>, Error> {
    match (url, secret_ref) {
        (Some(url), _) => Ok(Some(Ok(url.clone()))),
        (None, Some(reference)) => from_secret(ctx, tenant, reference).await.map(Some),
        (None, None) => Ok(None),
    }
}

/// Reads one value of a Secret now: none is ever kept in memory. Whether the Secret is not there, has no such key, or
/// does not let the tenant use it makes no difference to anyone: that would tell which Secrets there are.
async fn from_secret(
    ctx: &Context,
    tenant: &Tenant,
    reference: &SecretKeyRef,
) -> Result<Result<String, Problem>, Error> {
    let (namespace, id) = (tenant.namespace().unwrap_or_default(), tenant.name_any());
    let SecretKeyRef { name, key } = reference.clone();
    let secret = if used_by::is_secret_name(&name) {
        let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
        secrets.get_opt(&name).await.map_err(|error| Error::ReadSecret(Box::new(error)))?
    } else {
        // It would be a part of the request's path.
        None
    };
    let value = secret.filter(|secret| is_for(secret, &id)).and_then(|secret| secret.data?.remove(&key));
    // What is no text is no URL either; the plan says so.
    let text = value.map(|value| String::from_utf8_lossy(&value.0).into_owned());
    Ok(text.ok_or(Problem::SecretUnavailable { name, key, tenant: id, namespace }))
}

/// Whether someone who may write the Secret lets the tenant use it.
fn is_for(secret: &Secret, tenant: &str) -> bool {
    let label = secret.labels().get(USED_BY).map(String::as_str);
    used_by::allows(label, secret.annotations().get(USED_BY).map(String::as_str), tenant)
}
