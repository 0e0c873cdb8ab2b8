//! What to write in a field, beside what the API server says is wrong with it.

use std::collections::BTreeSet;

use flagmeter_crds::lint::{Problem, Reason};

/// What names a Tenant as one.
const A_TENANT: &str = "a Tenant has apiVersion: flagmeter.dev/v1alpha1 and kind: Tenant";

/// The problems of a Tenant without those that only follow from another: a value of the wrong type breaks bounds too, and
/// keeps rules from being checked. Answers whether some were not checked.
pub(super) fn essential(mut problems: Vec<Problem>) -> (Vec<Problem>, bool) {
    let before = problems.len();
    problems.retain(|problem| !problem.is_unchecked());
    let unchecked = problems.len() < before;
    let of_wrong_type = |problem: &&Problem| problem.reason == Reason::TypeInvalid;
    let places: BTreeSet<String> =
        problems.iter().filter(of_wrong_type).map(|problem| problem.place.clone()).collect();
    problems.retain(|problem| problem.reason == Reason::TypeInvalid || !places.contains(&problem.place));
    (problems, unchecked)
}

/// What to write, where the API server only says what it met.
pub(super) fn hint(problem: &Problem) -> Option<&'static str> {
    let place = problem.place.split('[').next()?;
    let item = problem.place.rsplit('.').next()?;
    match (problem.reason, place, item) {
        (Reason::TypeInvalid | Reason::Required, "spec.monthlyQuota", _) => {
            Some("write a whole number of tokens without a unit, such as 1000000")
        }
        (Reason::TypeInvalid, "spec.billingDay", _) => Some("write a day of the month, from 1 to 31"),
        (Reason::TypeInvalid, "spec.alerts.thresholds", _) => {
            Some("write percents of the quota as whole numbers, such as [80, 100]")
        }
        (Reason::TypeInvalid, "spec.suspended", _) | (Reason::TypeInvalid, _, "enabled") => {
            Some("write true or false, without quotes")
        }
        (Reason::TypeInvalid, "spec.quotaBoosts", "from" | "until") => {
            Some("write an instant with its time and zone, such as 2026-03-10T00:00:00Z")
        }
        (Reason::TypeInvalid, "spec.quotaBoosts", "tokens") => {
            Some("write a whole number of tokens without a unit, such as 500000")
        }
        (Reason::NotFound, ..) => Some(A_TENANT),
        (Reason::BadRequest, ..) if problem.message.ends_with(" not set") => Some(A_TENANT),
        _ => None,
    }
}
