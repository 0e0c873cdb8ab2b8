//! The tenant's API key: a Secret that the Tenant owns, and the hash of it in PostgreSQL.
//!
//! Once the tenant's row is in place: [`secret`] says what there is, [`plan`] what has to happen, and [`apply`] does
//! it, the rows first. So a key that can be read from the Secret is good, and one that is to end has ended even if the
//! API server goes away meanwhile. Cut off in between, the next reconcile makes another key, which nobody has seen yet.

mod apply;
mod plan;
mod secret;

use flagmeter_crds::Tenant;
use flagmeter_store::postgres::api_keys;
use jiff::Timestamp;
use kube::ResourceExt;

use self::plan::Held;
pub(super) use self::plan::{Own, Why};
use super::plan::Problem;
use super::{Context, Error};

/// What follows a tenant's name in the name of its Secret.
const SUFFIX: &str = "-flagmeter-key";

/// Set on a Tenant, to any value that it did not have before: its key is made anew.
pub(super) const ROTATE: &str = "flagmeter.dev/rotate-key";

/// Which key was in a Secret that was adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adopted {
    /// One of the tenant's.
    Known,
    /// One that was not known before.
    New,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The Secret with the key, if it is there.
    pub(super) secret: Option<String>,
    /// Whether the key can only be made once the Secret of an earlier Tenant is gone.
    pub(super) pending: bool,
    /// Why the key was made, if it was.
    pub(super) made: Option<Why>,
    /// Which key the Secret holds that was adopted, if one was.
    pub(super) adopted: Option<Adopted>,
    /// Whether somebody else had changed the rows, and they were put back.
    pub(super) repaired: bool,
    /// What only a person can put right.
    pub(super) problem: Option<Problem>,
}

/// The name of the Secret with the tenant's key.
pub(super) fn secret_name(tenant: &str) -> String {
    format!("{tenant}{SUFFIX}")
}

/// Whether `secret` is the name of the Secret with the tenant's key.
pub(super) fn is_secret_of(tenant: &str, secret: &str) -> bool {
    secret.strip_suffix(SUFFIX) == Some(tenant)
}

/// Sees to it that the tenant, which must have a row, has a key that works, and no other that should not.
pub(super) async fn keep(ctx: &Context, tenant: &Tenant, now: Timestamp) -> Result<Kept, Error> {
    let id = tenant.name_any();
    let rows = ctx.answers.of(api_keys::of_tenant(&ctx.db, &id)).await.map_err(Error::Observe)?;
    // A tenant without a key is new, and has no key that could end: should there be a Secret after all, it cannot be
    // made, and the next attempt looks.
    let is_new =
        rows.is_empty() && ctx.secrets.is_unseen(&tenant.namespace().unwrap_or_default(), &secret_name(&id));
    let held = if is_new { Held::Nothing } else { secret::look(ctx, tenant).await? };
    let wanted = tenant.annotations().get(ROTATE).map(String::as_str);
    let plan = plan::plan(&held, wanted, &rows, now, ctx.settings.key_overlap);
    let done = apply::apply(ctx, tenant, &held, &rows, plan, now).await?;
    Ok(match held {
        Held::Taken => {
            let problem = Problem::KeySecretTaken { name: secret_name(&id) };
            Kept { problem: Some(problem), ..Kept::default() }
        }
        Held::Going => Kept { pending: true, ..Kept::default() },
        Held::Nothing | Held::Own(_) | Held::Loose(_) => {
            let apply::Done { made, adopted, repaired } = done;
            Kept { secret: Some(secret_name(&id)), made, adopted, repaired, ..Kept::default() }
        }
    })
}
