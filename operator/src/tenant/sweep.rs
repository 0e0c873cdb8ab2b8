//! Detaches the rows whose resource is gone, also when nobody saw it go.

use std::collections::HashSet;

use flagmeter_crds::Tenant;
use flagmeter_store::StoreError;
use flagmeter_store::postgres::tenants::{self, Attached};
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;

use super::Context;

/// So many may always be detached at once.
const A_FEW: usize = 5;

/// More than half of the tenants seem to be gone: more likely, so is the API server's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{gone} of {known} tenants seem to be gone")]
pub(super) struct TooMany {
    gone: usize,
    known: usize,
}

/// Detaches what is gone. `store` must have seen all Tenants.
///
/// Usage stays, and a resource of the same name adopts it.
pub(super) async fn sweep(ctx: &Context, store: &Store<DeserializeGuard<Tenant>>) -> Result<(), StoreError> {
    // In this order: a row that is there has been written for a resource that was there before, so one
    // that is not there afterwards is gone.
    let rows = tenants::attached(&ctx.db, &ctx.settings.namespace).await?;
    let names = store.state().iter().map(|tenant| tenant.name_any()).collect();
    match gone(rows, &names) {
        Ok(gone) => {
            for Attached { id, owner_uid } in gone {
                if tenants::detach(&ctx.db, &id, &owner_uid).await? {
                    tracing::info!(tenant.name = id, "detached {id}, whose resource is gone");
                }
            }
        }
        Err(doubt) => {
            ctx.metrics.sweeps_refused.inc();
            tracing::error!(
                %doubt,
                "detached none of the tenants that seem to be gone"
            );
        }
    }
    Ok(())
}

/// The rows without a resource. One whose name is in use again is not among them: its new owner adopts
/// it.
fn gone(rows: Vec<Attached>, names: &HashSet<String>) -> Result<Vec<Attached>, TooMany> {
    let known = rows.len();
    let gone: Vec<Attached> = rows.into_iter().filter(|row| !names.contains(&row.id)).collect();
    if gone.len() > A_FEW && gone.len() * 2 > known {
        return Err(TooMany { gone: gone.len(), known });
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tenants `t0` to `t<count - 1>`.
    fn rows(count: usize) -> Vec<Attached> {
        let row = |number| Attached { id: format!("t{number}"), owner_uid: format!("uid-{number}") };
        (0..count).map(row).collect()
    }

    /// The names of the first `count` of them.
    fn names(count: usize) -> HashSet<String> {
        rows(count).into_iter().map(|row| row.id).collect()
    }

    #[test]
    fn what_has_no_resource_is_gone_unless_that_is_hard_to_believe() {
        let cases = [
            // rows, resources, gone
            (3, 3, Ok(0)),
            (3, 0, Ok(3)),
            (5, 0, Ok(5)),
            (6, 0, Err(TooMany { gone: 6, known: 6 })),
            (12, 6, Ok(6)),
            (12, 5, Err(TooMany { gone: 7, known: 12 })),
            (100, 50, Ok(50)),
            (0, 3, Ok(0)),
        ];
        for (rows, names, expected) in cases {
            let outcome = gone(self::rows(rows), &self::names(names)).map(|gone| gone.len());
            assert_eq!(outcome, expected, "{rows} rows, {names} resources");
        }
        let left = gone(self::rows(3), &self::names(2)).unwrap();
        assert_eq!(left, [Attached { id: "t2".into(), owner_uid: "uid-2".into() }]);
    }
}
