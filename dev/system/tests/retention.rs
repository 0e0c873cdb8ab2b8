//! What is older than it is to be kept goes, with the rights that the worker has in a real installation.

use system_tests::{System, until};

/// Forgotten one after the other: ids that have no time in them, batches, minutes.
const OLD: [(&str, &str); 3] = [
    (
        "event_ids (id, tenant, received_at, content)",
        "'ffffffff-0000-4000-8000-000000000001', 'forgotten', now() - interval '400 days', 0",
    ),
    (
        "applied_batches (batch_id, applied_at)",
        "'00000000-0001-7000-8000-000000000001', now() - interval '400 days'",
    ),
    (
        "rollups (tenant, feature, minute, total_tokens)",
        "'forgotten', 'gpt-4', date_trunc('minute', now() - interval '500 days'), 0",
    ),
];

#[test]
fn a_worker_that_starts_forgets_what_is_too_old() {
    let system = System::running();
    for (table, row) in OLD {
        let _ = system.sql(&format!("INSERT INTO {table} VALUES ({row}) ON CONFLICT DO NOTHING"));
    }
    system.kill_one("flagmeter-worker");
    until("all of it is forgotten", || {
        let left = system.sql(
            "SELECT 1 FROM event_ids WHERE tenant = 'forgotten'
             UNION ALL SELECT 2 FROM applied_batches WHERE batch_id = '00000000-0001-7000-8000-000000000001'
             UNION ALL SELECT 3 FROM rollups WHERE tenant = 'forgotten'",
        );
        left.is_empty().then_some(())
    });
}
