//! `flagmeter tenants`: which tenants there are, and what only a person may decide about those whose resource is gone.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::deletion::{self, Deletion};
use flagmeter_store::postgres::sweeps;
use flagmeter_store::postgres::tenants::{self, Listed};
use serde_json::json;

use crate::database::{READS, WRITES, failed};
use crate::output::{self, Form};

/// Under this name the trail says who deleted a tenant.
const ACTOR: &str = "flagmeter-cli";

/// Tenants read at once.
const PAGE: u16 = 1_000;

/// List tenants, free an id, or confirm a sweep that was refused
///
/// A tenant whose Tenant resource is gone is detached: it takes no events, and its usage is kept until its id is freed.
/// A sweep looks for such tenants; where many seem to be gone at once, it is refused until a person confirms it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List tenants with their namespace and state
    ///
    /// The state is attached, suspended, detached (the resource is gone), or being deleted.
    List {
        /// Only tenants whose resource is gone
        #[arg(long)]
        detached: bool,
        /// List sweeps that were refused instead of tenants
        #[arg(long, conflicts_with = "detached")]
        refused_sweeps: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Delete a tenant whose resource is gone, for good
    ///
    /// Everything that is kept of it is deleted, its usage too; the id is free afterwards. A command that was cut off goes
    /// on where it ended.
    #[command(after_long_help = "Example:\n  flagmeter tenants free acme-corp --confirm acme-corp")]
    Free {
        /// The tenant's id
        tenant: String,
        /// The id again
        #[arg(long, value_name = "TENANT")]
        confirm: String,
        #[command(flatten)]
        form: Form,
    },
    /// Confirm that a namespace's missing tenants are really gone
    ///
    /// The operator detaches them within 15 seconds; their usage is kept.
    #[command(after_long_help = "Example:\n  \
        flagmeter tenants list --refused-sweeps\n  \
        flagmeter tenants confirm-sweep team-a --gone 12")]
    ConfirmSweep {
        /// The namespace; '' where the operator follows all of them
        namespace: String,
        /// How many are gone, as `tenants list --refused-sweeps` shows
        #[arg(long, value_name = "COUNT")]
        gone: i64,
        #[command(flatten)]
        form: Form,
    },
}

pub(crate) async fn run(arguments: Arguments, pool: &PgPool) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::List { refused_sweeps: true, form, .. } => list_sweeps(pool, form).await?,
        Command::List { detached, form, .. } => list(pool, detached, form).await?,
        Command::Free { tenant, confirm, form } => free(pool, &tenant, &confirm, form).await?,
        Command::ConfirmSweep { namespace, gone, form } => {
            confirm_sweep(pool, &namespace, gone, form).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(pool: &PgPool, detached: bool, form: Form) -> anyhow::Result<()> {
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let after = all.last().map(|tenant| tenant.id.clone()).unwrap_or_default();
        let page = tenants::list(pool, detached, &after, PAGE).await;
        let page = page.map_err(failed(pool, "the tenants could not be read", READS))?;
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    if form.json {
        return output::print_json(&all);
    }
    let row = |tenant: &Listed| [tenant.id.clone(), tenant.namespace.clone(), state(tenant)];
    let rows: Vec<_> = all.iter().map(row).collect();
    output::print(&output::columns(["TENANT", "NAMESPACE", "STATE"], &rows))
}

fn state(tenant: &Listed) -> String {
    match (tenant.deletion_started_at, tenant.detached_at) {
        (Some(since), _) => format!("being deleted since {since:.0}"),
        (None, Some(since)) => format!("detached since {since:.0}"),
        (None, None) if tenant.suspended => "suspended".to_owned(),
        (None, None) => "attached".to_owned(),
    }
}

async fn list_sweeps(pool: &PgPool, form: Form) -> anyhow::Result<()> {
    let sweeps = sweeps::refused(pool).await;
    let sweeps = sweeps.map_err(failed(pool, "the sweeps could not be read", READS))?;
    if form.json {
        return output::print_json(&sweeps);
    }
    let row = |sweep: &sweeps::RefusedSweep| {
        let namespace = if sweep.namespace.is_empty() { "''" } else { &sweep.namespace };
        let confirmed = sweep.confirmed.map_or("-".to_owned(), |count| count.to_string());
        let (gone, known) = (sweep.gone.to_string(), sweep.known.to_string());
        [namespace.to_owned(), gone, known, confirmed, format!("{:.0}", sweep.refused_at)]
    };
    let rows: Vec<_> = sweeps.iter().map(row).collect();
    output::print(&output::columns(["NAMESPACE", "GONE", "KNOWN", "CONFIRMED", "SINCE"], &rows))
}

async fn free(pool: &PgPool, tenant: &str, confirm: &str, form: Form) -> anyhow::Result<()> {
    if tenant != confirm {
        bail!(
            "nothing was deleted: --confirm must be {tenant}, the tenant whose usage is to be gone for good"
        );
    }
    let found = tenants::get(pool, tenant).await;
    let found = found.map_err(failed(pool, "the tenant could not be read", READS))?;
    let Some(found) = found else { bail!("there is no tenant {tenant}; its id is free") };
    if found.detached_at.is_none() {
        bail!(
            "nothing was deleted: {tenant} belongs to a Tenant in namespace {}; \
             delete that first, or set its spec.deletionPolicy to Delete",
            found.namespace
        );
    }
    let begun = deletion::begin(pool, tenant, &found.owner_uid, ACTOR).await;
    begun.map_err(failed(pool, "nothing was deleted", WRITES))?;
    let mut deletion = Deletion::of(pool, tenant).await?;
    while deletion.step(pool).await.context("cut off; the same command goes on")? {}
    if !deletion::end(pool, tenant, &found.owner_uid, ACTOR).await? {
        bail!("somebody else has finished the deletion of {tenant}");
    }
    if form.json {
        output::print_json(&json!({ "tenant": tenant, "deletedRows": deletion.rows() }))
    } else {
        output::print(&format!("deleted {} rows; the id {tenant} is free\n", deletion.rows()))
    }
}

async fn confirm_sweep(pool: &PgPool, namespace: &str, gone: i64, form: Form) -> anyhow::Result<()> {
    let refused = sweeps::refused(pool).await;
    let refused = refused.map_err(failed(pool, "the sweeps could not be read", READS))?;
    let Some(refused) = refused.into_iter().find(|sweep| sweep.namespace == namespace) else {
        bail!(
            "no sweep of namespace {namespace:?} was refused; `flagmeter tenants list --refused-sweeps` lists them"
        );
    };
    if refused.gone != gone {
        bail!("nothing was confirmed: {} tenants seem to be gone, not {gone}; look again", refused.gone);
    }
    if !sweeps::confirm(pool, namespace, gone, ACTOR).await? {
        bail!("nothing was confirmed: how many tenants seem to be gone has just changed; look again");
    }
    if form.json {
        return output::print_json(&json!({ "namespace": namespace, "gone": gone, "known": refused.known }));
    }
    output::print(&format!(
        "the operator detaches {gone} tenants of {} within 15 seconds; their usage is kept\n",
        refused.known
    ))
}
