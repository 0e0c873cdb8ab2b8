//! The condition `AlertDelivered`: whether the tenant's newest alert reached its receivers.
//!
//! It is written beside the reconciles, under a field manager of its own: it follows the outbox, not the spec. A tenant that
//! has had no alert has no such condition, nor has one whose id belongs to another resource.
//!
//! | status | reasons |
//! | --- | --- |
//! | True | `Delivered` |
//! | False | `Retrying`, `DeliveryFailed` |
//! | Unknown | `Pending`, `NoChannel` |

use std::sync::Arc;

use flagmeter_crds::Tenant;
use flagmeter_runtime::telemetry::chain;
use flagmeter_store::postgres::deliveries::{self, Delivery, Told};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::DeserializeGuard;
use kube::runtime::events::{Event, EventType};
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio::time::{Duration, MissedTickBehavior, interval};

use super::{Context, report, status};

/// The condition's type.
const TYPE: &str = "AlertDelivered";

/// Under which it is written.
const MANAGER: &str = "flagmeter-operator-alerts";

/// How often the outbox is looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Follows the outbox for as long as it is polled.
pub(super) async fn follow(ctx: &Context, store: &Store<DeserializeGuard<Tenant>>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let known = store.state();
        let names: Vec<String> = known.iter().map(|tenant| tenant.name_any()).collect();
        // That PostgreSQL is away is said by those who read the usage.
        let Ok(newest) = ctx.answers.of(deliveries::newest(&ctx.db, &names)).await else { continue };
        for tenant in &known {
            if let Some(told) = newest.get(&tenant.name_any()) {
                tell(ctx, tenant, told).await;
            }
        }
    }
}

/// Writes the condition, if it says something new; what fails is tried at the next look.
async fn tell(ctx: &Context, tenant: &Arc<DeserializeGuard<Tenant>>, told: &Told) {
    let Ok(tenant) = &tenant.0 else { return };
    let Some(conditions) = news(tenant, told, ctx.clock.now()) else { return };
    let name = tenant.name_any();
    if let Err(error) = report::apply(ctx, tenant, MANAGER, &json!({ "conditions": conditions })).await {
        return tracing::debug!(
            tenant.name = name,
            error = chain(&error),
            "failed to report on alerts of {name}"
        );
    }
    if let Some(condition) = conditions.into_iter().find(|condition| condition.status == "False") {
        let event = Event {
            type_: EventType::Warning,
            reason: condition.reason,
            note: Some(condition.message),
            action: "Deliver".to_owned(),
            secondary: None,
        };
        report::publish(ctx, &tenant.object_ref(&()), &event).await;
    }
}

/// What the resource is to say: the condition, or none if it is not the one whose alerts these are. `None` if that is
/// what it says.
fn news(tenant: &Tenant, told: &Told, now: Timestamp) -> Option<Vec<Condition>> {
    let known = status::find(tenant, TYPE);
    if tenant.uid().as_ref() != Some(&told.owner_uid) {
        return known.map(|_| Vec::new());
    }
    let (status, reason, message) = verdict(&tenant.name_any(), told);
    if known.is_some_and(|known| known.status == status && known.reason == reason && known.message == message)
    {
        return None;
    }
    Some(vec![status::condition(tenant, TYPE, (status, reason, message), now)])
}

/// Status, reason and message for what became of the messages. The worst of them decides.
fn verdict(tenant: &str, told: &Told) -> (&'static str, &'static str, String) {
    let at = told.created_at.strftime("%Y-%m-%d %H:%M UTC");
    let alert = format!("alert {} ({} % of the quota, {at})", told.alert, told.threshold);
    let in_state = |state: &str| -> Vec<&Delivery> {
        told.deliveries.iter().filter(|delivery| delivery.state == state).collect()
    };
    let why = |delivery: &Delivery| {
        let why = delivery.last_error.as_deref().unwrap_or("the reason is not known");
        format!("{}: {why}", delivery.channel.as_str())
    };
    let (failed, pending, delivered) = (in_state("failed"), in_state("pending"), in_state("delivered"));
    if let Some(delivery) = failed.first() {
        let message = format!(
            "{alert} was not delivered to {}; `flagmeter alerts resend {tenant} --alert {}` sends it again",
            why(delivery),
            told.alert
        );
        return ("False", "DeliveryFailed", message);
    }
    if let Some(delivery) = pending.iter().find(|delivery| delivery.last_error.is_some()) {
        return ("False", "Retrying", format!("{alert} is tried again at {}", why(delivery)));
    }
    if !pending.is_empty() {
        return ("Unknown", "Pending", format!("{alert} waits to be delivered"));
    }
    if delivered.is_empty() {
        return ("Unknown", "NoChannel", format!("{alert} had no receiver"));
    }
    let channels: Vec<&str> = delivered.iter().map(|delivery| delivery.channel.as_str()).collect();
    ("True", "Delivered", format!("{alert} was delivered to {}", channels.join(" and ")))
}

#[cfg(test)]
mod tests {
    use flagmeter_store::postgres::deliveries::Channel;

    use super::*;

    const NOW: &str = "2026-11-24T12:05:00Z";

    fn told<const N: usize>(states: [(Channel, &str, Option<&str>); N]) -> Told {
        let at = "2026-11-24T12:00:00Z".parse().unwrap();
        let delivery = |(channel, state, error): (Channel, &str, Option<&str>)| Delivery {
            channel,
            state: state.to_owned(),
            attempts: 1,
            next_attempt_at: at,
            delivered_at: None,
            last_error: error.map(str::to_owned),
        };
        Told {
            owner_uid: "uid-1".to_owned(),
            alert: 7,
            threshold: 80,
            created_at: at,
            deliveries: states.map(delivery).into(),
        }
    }

    fn acme(conditions: &[Condition]) -> Tenant {
        serde_json::from_value(json!({
            "apiVersion": "flagmeter.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": { "name": "acme", "uid": "uid-1", "generation": 3 },
            "spec": { "monthlyQuota": 1_000 },
            "status": { "observedGeneration": 3, "conditions": conditions },
        }))
        .unwrap()
    }

    #[test]
    fn the_worst_of_the_messages_decides_and_says_what_to_do() {
        use Channel::{Slack, Webhook};
        let ok = |channel| (channel, "delivered", None);
        let cases = [
            (told([ok(Slack), ok(Webhook)]), "True", "Delivered", "was delivered to slack and webhook"),
            (told([ok(Slack), (Webhook, "skipped", None)]), "True", "Delivered", "delivered to slack"),
            (told([ok(Slack), (Webhook, "pending", None)]), "Unknown", "Pending", "waits"),
            (
                told([(Slack, "pending", Some("Slack answered 500"))]),
                "False",
                "Retrying",
                "slack: Slack answered 500",
            ),
            (
                told([(Slack, "pending", Some("x")), (Webhook, "failed", Some("410"))]),
                "False",
                "DeliveryFailed",
                "webhook: 410; `flagmeter alerts resend acme --alert 7`",
            ),
            (told([(Slack, "skipped", Some("off"))]), "Unknown", "NoChannel", "no receiver"),
        ];
        for (told, status, reason, part) in cases {
            let (found, because, message) = verdict("acme", &told);
            assert_eq!((found, because), (status, reason), "{message}");
            assert!(
                message.contains(part) && message.contains("alert 7 (80 % of the quota, 2026-11-24"),
                "{message}"
            );
        }
    }

    #[test]
    fn what_was_said_is_not_said_again_and_a_transition_keeps_its_time() {
        let now = NOW.parse().unwrap();
        let failing = |why| told([(Channel::Slack, "pending", Some(why))]);
        let the_news = |conditions: &[Condition], told: &Told, now| {
            news(&acme(conditions), told, now).map(|mut conditions| conditions.remove(0))
        };
        let first = the_news(&[], &failing("500"), now).unwrap();
        assert!(news(&acme(std::slice::from_ref(&first)), &failing("500"), now).is_none());
        let later = now + jiff::SignedDuration::from_mins(1);
        let second = the_news(std::slice::from_ref(&first), &failing("503"), later).unwrap();
        assert_eq!(second.last_transition_time, first.last_transition_time);
        let delivered = told([(Channel::Slack, "delivered", None)]);
        let third = the_news(&[second], &delivered, later).unwrap();
        assert_eq!((third.status.as_str(), third.last_transition_time.0), ("True", later));
    }

    #[test]
    fn another_resources_alerts_are_not_shown_however_new_the_resource_is_and_what_was_shown_goes() {
        let now = NOW.parse().unwrap();
        let told = told([(Channel::Slack, "failed", Some("Slack answered 404"))]);
        let others = Told { owner_uid: "uid-0".to_owned(), ..told.clone() };
        assert_eq!(news(&acme(&[]), &others, now), None);
        let shown = news(&acme(&[]), &told, now).unwrap();
        assert_eq!(news(&acme(&shown), &others, now), Some(Vec::new()));
    }
}
