//! Does what was planned.

use flagmeter_crds::Tenant;
use flagmeter_store::api_key::{ApiKey, KeyHash};
use flagmeter_store::postgres::api_keys::{self, TenantKey};
use jiff::Timestamp;
use kube::ResourceExt;

use super::plan::{Current, Held, Plan, Why};
use super::secret;
use crate::tenant::{Context, Error};

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Why a key was made, if one was.
    pub(super) made: Option<Why>,
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
    let why = match current {
        Current::None => {
            write(ctx, tenant, rows, former, false).await?;
            return Ok(Done::default());
        }
        Current::Stays(hash) => {
            let stays = TenantKey { hash, expires_at: None };
            let mut wanted: Vec<TenantKey> = former.iter().copied().chain([stays]).collect();
            wanted.sort_unstable();
            // The Secret is as it was when the rows were last right, so it is not why they are not.
            let were_right = ctx.kept_keys.recall(tenant, |kept| (*kept == hash).then_some(())).is_some();
            let stand = rows.iter().filter(|row| row.expires_at.is_none_or(|at| at > now));
            let repaired = were_right && !stand.eq(&wanted);
            if write(ctx, tenant, rows, wanted, repaired).await? {
                ctx.kept_keys.put(tenant, hash);
                return Ok(Done { made: None, repaired });
            }
            // Another tenant has this very key; it was copied.
            Why::Invalid
        }
        Current::Made(why) => why,
    };
    let key = ApiKey::random().map_err(Error::MakeKey)?;
    let hash: KeyHash = key.hash();
    let mut wanted: Vec<TenantKey> =
        former.into_iter().chain([TenantKey { hash, expires_at: None }]).collect();
    wanted.sort_unstable();
    write(ctx, tenant, rows, wanted, false).await?;
    match held {
        Held::Own(own) => secret::replace(ctx, tenant, own, &key).await?,
        _ => secret::create(ctx, tenant, &key).await?,
    }
    ctx.kept_keys.put(tenant, hash);
    let name = tenant.name_any();
    tracing::info!(tenant.name = name, why = ?why, "made the key of {name}");
    Ok(Done { made: Some(why), repaired: false })
}

/// Writes the rows, in the order of their hashes, unless they say it already. Answers whether they do now.
async fn write(
    ctx: &Context,
    tenant: &Tenant,
    rows: &[TenantKey],
    wanted: Vec<TenantKey>,
    repairs: bool,
) -> Result<bool, Error> {
    if wanted == rows {
        return Ok(true);
    }
    let id = tenant.name_any();
    let written = if repairs {
        ctx.answers.of(api_keys::repair(&ctx.db, &id, &wanted)).await
    } else {
        ctx.answers.of(api_keys::replace(&ctx.db, &id, &wanted)).await
    };
    written.map_err(Error::Apply)
}
