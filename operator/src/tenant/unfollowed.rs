//! Tenants of namespaces that nobody follows. Where the operator may see them, it says so on the resource; by itself it
//! has no right to look anywhere else.

use std::time::Duration;

use flagmeter_crds::Tenant;
use flagmeter_runtime::telemetry::chain;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use serde_json::json;
use tokio::time::sleep;

use super::scope::Scope;
use super::{Context, report, status};

/// Under which it is written. Another operator, which follows the namespace after all, takes the fields over.
const MANAGER: &str = "flagmeter-operator-unfollowed";

/// The conditions' reason.
const REASON: &str = "NamespaceNotFollowed";

/// How many are asked for at once.
const PAGE: u32 = 500;

/// How much less often it is looked while there is no right to: it may be given.
const FORBIDDEN: u32 = 10;

/// Looks for as long as it is polled, unless all namespaces are followed.
pub(super) async fn follow(ctx: &Context) {
    let mut pause = ctx.settings.unseen;
    while !ctx.settings.scopes.contains(&Scope::Cluster) {
        // At the start, too: the operators are only about to look at their Tenants.
        sleep(pause).await;
        pause = ctx.settings.unseen;
        match look(ctx).await {
            Ok(()) => {}
            Err(kube::Error::Api(status)) if status.is_forbidden() => pause = pause.saturating_mul(FORBIDDEN),
            Err(error) => {
                tracing::debug!(error = chain(&error), "failed to look for Tenants that nobody follows");
            }
        }
    }
    std::future::pending::<()>().await;
}

/// Looks once, a page at a time.
async fn look(ctx: &Context) -> Result<(), kube::Error> {
    let tenants = Scope::Cluster.tenants(ctx.client.clone());
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let found = tenants.list(&page).await?;
        for tenant in &found.items {
            tell(ctx, tenant).await;
        }
        match found.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => page = ListParams::default().limit(PAGE).continue_token(&next),
            None => return Ok(()),
        }
    }
}

/// Says on the resource that nobody follows its namespace, unless somebody does.
async fn tell(ctx: &Context, tenant: &DeserializeGuard<Tenant>) {
    let Ok(tenant) = &tenant.0 else { return };
    let namespace = tenant.namespace().unwrap_or_default();
    let is_followed = ctx.settings.scopes.iter().any(|scope| scope.namespace() == Some(namespace.as_str()));
    let now = ctx.clock.now();
    if is_followed || !is_unseen(tenant, ctx.settings.unseen, now) {
        return;
    }
    let status = json!({
        "observedGeneration": tenant.metadata.generation,
        "conditions": conditions(tenant, &namespace, &ctx.settings.namespace, now),
    });
    if let Err(error) = report::apply(ctx, tenant, MANAGER, &status).await {
        tracing::debug!(error = chain(&error), "failed to say that nobody follows {namespace}");
    }
}

/// Whether no operator has looked at the resource, and there was time for it.
fn is_unseen(tenant: &Tenant, patience: Duration, now: Timestamp) -> bool {
    let patience = SignedDuration::try_from(patience).unwrap_or(SignedDuration::MAX);
    let created = tenant.metadata.creation_timestamp.as_ref();
    let is_old = created.is_some_and(|created| now.duration_since(created.0) >= patience);
    let is_said =
        |ready: &Condition| ready.reason != REASON || ready.observed_generation == tenant.metadata.generation;
    is_old
        && tenant.metadata.deletion_timestamp.is_none()
        && !status::find(tenant, "Ready").is_some_and(is_said)
}

fn conditions(tenant: &Tenant, namespace: &str, own: &str, now: Timestamp) -> Vec<Condition> {
    let message = format!(
        "no operator follows namespace {namespace:?}: nothing is counted for this Tenant, and it has no key. Add the \
         namespace to the value operator.watchNamespaces of the FlagMeter in namespace {own:?}, or make the Tenant in one \
         that is followed"
    );
    [("Ready", "False"), ("Reconciling", "False"), ("Stalled", "True")]
        .map(|(type_, status)| status::condition(tenant, type_, (status, REASON, message.clone()), now))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_unseen_if_no_operator_has_said_anything_of_it_for_a_minute() {
        let now: Timestamp = "2026-03-20T12:00:00Z".parse().unwrap();
        let tenant = |created: &str, conditions: serde_json::Value| -> Tenant {
            serde_json::from_value(json!({
                "apiVersion": "flagmeter.dev/v1alpha1",
                "kind": "Tenant",
                "metadata": { "name": "acme", "namespace": "shop", "generation": 2, "creationTimestamp": created },
                "spec": { "monthlyQuota": 1 },
                "status": { "observedGeneration": -1, "conditions": conditions },
            }))
            .unwrap()
        };
        let ready = |reason: &str, generation: i64| {
            json!([{ "type": "Ready", "status": "False", "reason": reason, "message": "", "observedGeneration": generation,
                "lastTransitionTime": "2026-03-20T11:00:00Z" }])
        };
        let (old, new) = ("2026-03-20T11:59:00Z", "2026-03-20T11:59:01Z");
        for (what, created, conditions, expected) in [
            ("nobody", old, json!([]), true),
            ("it is new", new, json!([]), false),
            ("another operator has", old, ready("Synced", 1), false),
            ("it is said", old, ready(REASON, 2), false),
            ("it was said before an edit", old, ready(REASON, 1), true),
        ] {
            assert_eq!(
                is_unseen(&tenant(created, conditions), Duration::from_mins(1), now),
                expected,
                "{what}"
            );
        }
        assert!(
            conditions(&tenant(old, json!([])), "shop", "flagmeter", now)[2].message.contains("\"shop\"")
        );
    }
}
