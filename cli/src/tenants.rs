//! `flagmeter tenants`: who there is, and what only a person may decide about those whose resource is gone.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::deletion::{self, Deletion};
use flagmeter_store::postgres::{sweeps, tenants};

/// Under this name the trail says who deleted a tenant.
const ACTOR: &str = "flagmeter-cli";

/// Tenants read at once.
const PAGE: u16 = 1_000;

/// List tenants, free the id of one whose resource is gone, confirm a sweep that was refused.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List tenants: id, namespace, and whether the resource is there
    List {
        /// Only those whose resource is gone
        #[arg(long)]
        detached: bool,
        /// Instead of tenants: the sweeps that were refused
        #[arg(long, conflicts_with = "detached")]
        refused_sweeps: bool,
    },
    /// Delete everything that is kept of a tenant whose resource is gone, for good: its id is free afterwards
    Free {
        /// The tenant's id
        tenant: String,
        /// The id again
        #[arg(long, value_name = "TENANT")]
        confirm: String,
    },
    /// Say that the tenants of a namespace that seem to be gone are: they are detached, and usage is kept
    ConfirmSweep {
        /// The namespace; '' where the operator follows all of them
        namespace: String,
        /// How many are gone: as many as `list --refused-sweeps` says
        #[arg(long, value_name = "COUNT")]
        gone: i64,
    },
}

pub(crate) async fn run(arguments: Arguments, pool: &PgPool) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::List { refused_sweeps: true, .. } => list_sweeps(pool).await?,
        Command::List { detached, .. } => list(pool, detached).await?,
        Command::Free { tenant, confirm } => free(pool, &tenant, &confirm).await?,
        Command::ConfirmSweep { namespace, gone } => confirm_sweep(pool, &namespace, gone).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(pool: &PgPool, detached: bool) -> anyhow::Result<()> {
    println!("{:<63}  {:<30}  STATE", "TENANT", "NAMESPACE");
    let mut after = String::new();
    loop {
        let page =
            tenants::list(pool, detached, &after, PAGE).await.context("the tenants could not be read")?;
        let Some(last) = page.last() else { return Ok(()) };
        after.clone_from(&last.id);
        for tenant in &page {
            let state = match (tenant.deletion_started_at, tenant.detached_at) {
                (Some(since), _) => format!("being deleted since {since:.0}"),
                (None, Some(since)) => format!("detached since {since:.0}"),
                (None, None) if tenant.suspended => "suspended".to_owned(),
                (None, None) => "attached".to_owned(),
            };
            println!("{:<63}  {:<30}  {state}", tenant.id, tenant.namespace);
        }
    }
}

async fn list_sweeps(pool: &PgPool) -> anyhow::Result<()> {
    println!("{:<63}  {:>8}  {:>8}  {:>9}  SINCE", "NAMESPACE", "GONE", "KNOWN", "CONFIRMED");
    for sweep in sweeps::refused(pool).await.context("the sweeps could not be read")? {
        let namespace = if sweep.namespace.is_empty() { "''" } else { &sweep.namespace };
        let confirmed = sweep.confirmed.map_or("-".to_owned(), |count| count.to_string());
        println!(
            "{namespace:<63}  {:>8}  {:>8}  {confirmed:>9}  {:.0}",
            sweep.gone, sweep.known, sweep.refused_at
        );
    }
    Ok(())
}

async fn free(pool: &PgPool, tenant: &str, confirm: &str) -> anyhow::Result<()> {
    if tenant != confirm {
        bail!(
            "nothing was deleted: --confirm must be {tenant}, the tenant whose usage is to be gone for good"
        );
    }
    let found = tenants::get(pool, tenant).await.context("the tenant could not be read")?;
    let Some(found) = found else { bail!("there is no tenant {tenant}; its id is free") };
    if found.detached_at.is_none() {
        bail!(
            "nothing was deleted: {tenant} belongs to a Tenant in namespace {}; \
             delete that first, or set its spec.deletionPolicy to Delete",
            found.namespace
        );
    }
    deletion::begin(pool, tenant, &found.owner_uid, ACTOR).await?;
    let mut deletion = Deletion::of(pool, tenant).await?;
    while deletion.step(pool).await.context("cut off; the same command goes on")? {}
    if !deletion::end(pool, tenant, &found.owner_uid, ACTOR).await? {
        bail!("somebody else has finished the deletion of {tenant}");
    }
    println!("deleted {} rows; the id {tenant} is free", deletion.rows());
    Ok(())
}

async fn confirm_sweep(pool: &PgPool, namespace: &str, gone: i64) -> anyhow::Result<()> {
    let refused = sweeps::refused(pool).await.context("the sweeps could not be read")?;
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
    println!(
        "the operator detaches {gone} tenants of {} within 15 seconds; their usage is kept",
        refused.known
    );
    Ok(())
}
