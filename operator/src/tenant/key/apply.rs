//! Does what was planned.

use flagmeter_crds::Tenant;
use flagmeter_store::api_key::{ApiKey, KeyHash};
use flagmeter_store::postgres::api_keys::{self, TenantKey};
use jiff::Timestamp;
use kube::ResourceExt;

use super::plan::{Current, Held, Loose, Own, Plan, Why};
use super::{Adopted, secret};
use crate::tenant::{Context, Error};

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Why a key was made, if one was.
    pub(super) made: Option<Why>,
    /// Which key the Secret holds that was adopted, if one was.
    pub(super) adopted: Option<Adopted>,
    /// Whether somebody else had changed the rows, and they were put back.
    pub(super) repaired: bool,
}

/// Brings first the rows and then the Secret to what was planned.
pub(super) async fn apply(
    ctx: &Context,
    tenant: &Tenant,
    held: &Held,
    rows: &[TenantKey],
    plan: Plan,
    now: Timestamp,
) -> Result<Done, Error> {
    let Plan { current, former } = plan;
    match (current, held) {
        (Current::None, _) => {
            forget(ctx, tenant);
            write(ctx, tenant, rows, &former, false).await?;
            Ok(Done::default())
        }
        (Current::Stays(hash), _) => {
            let wanted = beside(&former, hash);
            // The Secret is as it was when the rows were last right, so it is not why they are not.
            let were_right = ctx.kept_keys.recall(tenant, |kept| (*kept == hash).then_some(())).is_some();
            let stand = rows.iter().filter(|row| row.expires_at.is_none_or(|at| at > now));
            let repaired = were_right && !stand.eq(&wanted);
            if write(ctx, tenant, rows, &wanted, repaired).await? {
                ctx.kept_keys.put(tenant, hash);
                return Ok(Done { repaired, ..Done::default() });
            }
            // Another tenant has this very key; it was copied.
            make(ctx, tenant, own(held), rows, &former, Why::Invalid).await
        }
        (Current::Adopted(hash), Held::Loose(loose)) => adopt(ctx, tenant, loose, hash, rows, &former).await,
        (Current::Untouched | Current::Adopted(_), _) => Ok(Done::default()),
        (Current::Made(why), _) => make(ctx, tenant, own(held), rows, &former, why).await,
    }
}

/// Makes the Secret the tenant's own, with the key that is in it.
async fn adopt(
    ctx: &Context,
    tenant: &Tenant,
    loose: &Loose,
    hash: KeyHash,
    rows: &[TenantKey],
    former: &[TenantKey],
) -> Result<Done, Error> {
    forget(ctx, tenant);
    let is_good = write(ctx, tenant, rows, &beside(former, hash), false).await?;
    let own = secret::adopt(ctx, tenant, loose).await?;
    let name = tenant.name_any();
    tracing::info!(tenant.name = name, "adopted the Secret with the key of {name}");
    if !is_good {
        // Another tenant has this very key; it was copied.
        return make(ctx, tenant, own.as_ref(), rows, former, Why::Invalid).await;
    }
    ctx.kept_keys.put(tenant, hash);
    let is_known = rows.iter().any(|row| row.hash == hash);
    let adopted = if is_known { Adopted::Known } else { Adopted::New };
    Ok(Done { adopted: Some(adopted), ..Done::default() })
}

fn own(held: &Held) -> Option<&Own> {
    match held {
        Held::Own(own) => Some(own),
        _ => None,
    }
}

/// Makes a key, and puts it into the tenant's `own` Secret, or into a new one.
async fn make(
    ctx: &Context,
    tenant: &Tenant,
    own: Option<&Own>,
    rows: &[TenantKey],
    former: &[TenantKey],
    why: Why,
) -> Result<Done, Error> {
    let key = ApiKey::random().map_err(Error::MakeKey)?;
    let hash: KeyHash = key.hash();
    let wanted = beside(former, hash);
    forget(ctx, tenant);
    write(ctx, tenant, rows, &wanted, false).await?;
    let put = match own {
        Some(own) => secret::replace(ctx, tenant, own, &key).await,
        None => secret::create(ctx, tenant, &key).await,
    };
    if let Err(error) = put {
        if error.is_conflict() {
            // There is another Secret by now, and nobody will ever see this key: nothing has ended for its sake.
            write(ctx, tenant, &wanted, rows, false).await?;
        }
        return Err(error);
    }
    ctx.kept_keys.put(tenant, hash);
    let name = tenant.name_any();
    tracing::info!(tenant.name = name, why = ?why, "made the key of {name}");
    Ok(Done { made: Some(why), ..Done::default() })
}

/// What the rows are to be with this current key, in the order of their hashes.
fn beside(former: &[TenantKey], current: KeyHash) -> Vec<TenantKey> {
    let mut keys = former.to_vec();
    keys.push(TenantKey { hash: current, expires_at: None });
    keys.sort_unstable();
    keys
}

/// The rows are about to change for the Secret's sake: what they were is no longer how they should be.
fn forget(ctx: &Context, tenant: &Tenant) {
    ctx.kept_keys.forget(tenant.namespace().as_deref(), &tenant.name_any());
}

/// Writes the rows, in the order of their hashes, unless they say it already. Answers whether they do now.
async fn write(
    ctx: &Context,
    tenant: &Tenant,
    rows: &[TenantKey],
    wanted: &[TenantKey],
    repairs: bool,
) -> Result<bool, Error> {
    if wanted == rows {
        return Ok(true);
    }
    let id = tenant.name_any();
    let written = if repairs {
        ctx.answers.of(api_keys::repair(&ctx.db, &id, wanted)).await
    } else {
        ctx.answers.of(api_keys::replace(&ctx.db, &id, wanted)).await
    };
    written.map_err(Error::Apply)
}
