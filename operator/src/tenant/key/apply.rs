//! Does what was planned.

use flagmeter_crds::Tenant;
use flagmeter_store::api_key::ApiKey;
use flagmeter_store::postgres::api_keys::{self, TenantKey};
use kube::ResourceExt;

use super::plan::{Current, Held, Plan, Why};
use super::secret;
use crate::tenant::{Context, Error};

/// Brings first the rows and then the Secret to what was planned. Answers why a key was made, if one was.
pub(super) async fn apply(
    ctx: &Context,
    tenant: &Tenant,
    held: &Held,
    rows: &[TenantKey],
    plan: Plan,
) -> Result<Option<Why>, Error> {
    let Plan { current, former } = plan;
    let why = match current {
        Current::None => {
            write(ctx, tenant, rows, former).await?;
            return Ok(None);
        }
        Current::Stays(hash) => {
            let stays = TenantKey { hash, expires_at: None };
            let wanted = former.iter().copied().chain([stays]).collect();
            if write(ctx, tenant, rows, wanted).await? {
                return Ok(None);
            }
            // Another tenant has this very key; it was copied.
            Why::Invalid
        }
        Current::Made(why) => why,
    };
    let key = ApiKey::random().map_err(Error::MakeKey)?;
    let made = TenantKey { hash: key.hash(), expires_at: None };
    write(ctx, tenant, rows, former.into_iter().chain([made]).collect()).await?;
    match held {
        Held::Own(own) => secret::replace(ctx, tenant, own, &key).await?,
        _ => secret::create(ctx, tenant, &key).await?,
    }
    let name = tenant.name_any();
    tracing::info!(tenant.name = name, why = ?why, "made the key of {name}");
    Ok(Some(why))
}

/// Writes the rows, unless they say it already. Answers whether they do now.
async fn write(
    ctx: &Context,
    tenant: &Tenant,
    rows: &[TenantKey],
    mut wanted: Vec<TenantKey>,
) -> Result<bool, Error> {
    wanted.sort_unstable();
    if wanted == rows {
        return Ok(true);
    }
    let replaced = ctx.answers.of(api_keys::replace(&ctx.db, &tenant.name_any(), &wanted)).await;
    replaced.map_err(Error::Apply)
}
