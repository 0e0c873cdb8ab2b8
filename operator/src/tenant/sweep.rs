//! Detaches the rows whose resource is gone, also when nobody saw it go.

use std::collections::HashSet;

use flagmeter_crds::Tenant;
use flagmeter_store::StoreError;
use flagmeter_store::postgres::sweeps;
use flagmeter_store::postgres::tenants::{self, Attached};
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;

use super::scope::Scope;
use super::{Context, report};

/// So many may always be detached at once.
const A_FEW: usize = 5;

/// More than half of the tenants seem to be gone: more likely, so is the API server's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{gone} of {known} tenants seem to be gone")]
pub(super) struct TooMany {
    gone: usize,
    known: usize,
}

/// What came of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swept {
    /// What is gone is detached.
    Done,
    /// Nothing was detached, until a person says that it is right.
    Refused,
}

/// Detaches what is gone. `store` must have seen all Tenants of `scope`. `known` says that the last sweep was
/// refused, so that another refusal is no news.
///
/// Usage stays, and a resource of the same name adopts it.
pub(super) async fn sweep(
    ctx: &Context,
    scope: &Scope,
    store: &Store<DeserializeGuard<Tenant>>,
    known: bool,
) -> Result<Swept, StoreError> {
    // In this order: a row that is there has been written for a resource that was there before, so one
    // that is not there afterwards is gone.
    let rows = ctx.answers.of(tenants::attached(&ctx.db, scope.namespace())).await?;
    let names = store.state().iter().map(|tenant| key(tenant.namespace(), tenant.name_any())).collect();
    let total = rows.len();
    let gone = gone(rows, &names);
    let namespace = scope.namespace().unwrap_or_default();
    match doubt(gone.len(), total) {
        None if !known => {}
        None => ctx.answers.of(sweeps::settle(&ctx.db, namespace)).await?,
        Some(doubt) => {
            let refused = sweeps::refuse(&ctx.db, namespace, count(gone.len()), count(total));
            let confirmed = ctx.answers.of(refused).await?;
            if confirmed.is_none_or(|confirmed| count(gone.len()) > confirmed) {
                if !known {
                    ctx.metrics.sweeps_refused.inc();
                    tracing::error!(
                        %doubt,
                        "detached none of the tenants of {scope} that seem to be gone; `flagmeter tenants confirm-sweep` says that it is right"
                    );
                    report::sweep_refused(ctx, scope, &doubt.to_string()).await;
                }
                return Ok(Swept::Refused);
            }
            tracing::warn!(%doubt, "a person has confirmed that the tenants are gone");
            ctx.answers.of(sweeps::settle(&ctx.db, namespace)).await?;
        }
    }
    for Attached { id, owner_uid, .. } in gone {
        if ctx.answers.of(tenants::detach(&ctx.db, &id, &owner_uid)).await? {
            tracing::info!(tenant.name = id, "detached {id}, whose resource is gone");
        }
    }
    Ok(Swept::Done)
}

/// The rows without a resource. One whose name is in use again is not among them: its new owner adopts
/// it.
fn gone(rows: Vec<Attached>, names: &HashSet<(String, String)>) -> Vec<Attached> {
    let is_gone = |row: &Attached| !names.contains(&(row.namespace.clone(), row.id.clone()));
    rows.into_iter().filter(is_gone).collect()
}

/// Why it is hard to believe that so many are gone, if it is.
fn doubt(gone: usize, known: usize) -> Option<TooMany> {
    (gone > A_FEW && gone * 2 > known).then_some(TooMany { gone, known })
}

fn key(namespace: Option<String>, name: String) -> (String, String) {
    (namespace.unwrap_or_default(), name)
}

fn count(tenants: usize) -> i64 {
    i64::try_from(tenants).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tenants `t0` to `t<count - 1>`.
    fn rows(count: usize) -> Vec<Attached> {
        let row = |number| Attached {
            namespace: "shop".into(),
            id: format!("t{number}"),
            owner_uid: format!("uid-{number}"),
        };
        (0..count).map(row).collect()
    }

    /// The names of the first `count` of them.
    fn names(count: usize) -> HashSet<(String, String)> {
        rows(count).into_iter().map(|row| (row.namespace, row.id)).collect()
    }

    #[test]
    fn what_has_no_resource_is_gone_unless_that_is_hard_to_believe() {
        let cases = [
            // rows, resources, gone, in doubt
            (3, 3, 0, false),
            (3, 0, 3, false),
            (5, 0, 5, false),
            (6, 0, 6, true),
            (12, 6, 6, false),
            (12, 5, 7, true),
            (100, 50, 50, false),
            (0, 3, 0, false),
        ];
        for (rows, names, expected, in_doubt) in cases {
            let gone = gone(self::rows(rows), &self::names(names)).len();
            assert_eq!(gone, expected, "{rows} rows, {names} resources");
            assert_eq!(doubt(gone, rows).is_some(), in_doubt, "{rows} rows, {names} resources");
        }
        assert_eq!(gone(self::rows(3), &self::names(2)), self::rows(3)[2..]);
    }

    #[test]
    fn a_namesake_in_another_namespace_is_no_reason_to_stay() {
        let namesake = [("other".to_owned(), "t0".to_owned())].into();
        assert_eq!(gone(rows(1), &namesake), rows(1));
    }
}
