//! The API server is away for a whole minute.

use std::time::{Duration, Instant};

use flagmeter_crds::Tenant;
use flagmeter_operator::Error;
use flagmeter_store::PgPool;
use flagmeter_store::postgres::tenants;
use kube::Config;
use kube::api::DeleteParams;
use serde_json::json;

use crate::cluster::{Cluster, eventually, in_namespace};
use crate::resilience::over_a_wire;
use crate::running::{Running, sealer};

const AWAY: Duration = Duration::from_mins(1);

/// How long a lease holds.
const LEASE: Duration = Duration::from_secs(15);

/// The operator's pods: one that ends is started anew, as the kubelet would.
struct Pods<'a> {
    cluster: &'a Cluster,
    access: Config,
    db: &'a PgPool,
    running: Vec<Option<Running>>,
}

impl Pods<'_> {
    async fn start(&self, number: usize) -> Option<Running> {
        // A pod's restart takes a while, too.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let identity = format!("operator-{number}");
        Some(Running::reaching(self.access.clone(), &[self.cluster], self.db, &identity))
    }

    fn leaders(&self) -> i64 {
        self.running.iter().flatten().map(|pod| pod.metrics.leader.get()).sum()
    }

    /// Starts anew what has ended, and answers why it had.
    async fn tend(&mut self) -> Vec<Error> {
        let mut ends = Vec::new();
        for number in 0..self.running.len() {
            if self.running[number].as_ref().is_some_and(Running::has_ended) {
                let ended = self.running[number].take().unwrap().ended().await;
                ends.push(ended.expect_err("nobody asked it to end"));
                self.running[number] = self.start(number).await;
            }
        }
        ends
    }
}

#[sqlx::test(migrator = "flagmeter_store::MIGRATOR")]
async fn an_api_server_that_is_away_for_a_minute_has_no_leader_and_costs_nothing(db: PgPool) {
    in_namespace(async move |cluster| {
        let (access, wire) = over_a_wire(&cluster).await;
        let mut pods = Pods { cluster: &cluster, access, db: &db, running: vec![None, None] };
        for number in [0, 1] {
            pods.running[number] = pods.start(number).await;
            pods.running[number].as_ref().unwrap().is_ready().await;
        }
        for name in ["kept", "edited", "deleted"] {
            cluster.apply(name, json!({ "monthlyQuota": 1_000 })).await;
        }
        for name in ["kept", "edited", "deleted"] {
            cluster.reported(name, "Synced").await;
        }
        assert_eq!(pods.leaders(), 1);

        wire.cut();
        let cut = Instant::now();
        cluster.apply("edited", json!({ "monthlyQuota": 2_000 })).await;
        cluster.api::<Tenant>().delete("deleted", &DeleteParams::default()).await.unwrap();
        let mut leaderless = None;
        while cut.elapsed() < AWAY {
            for why in pods.tend().await {
                assert!(matches!(why, Error::LeaseLost | Error::Election(_)), "{why:?}");
            }
            match pods.leaders() {
                0 => leaderless = leaderless.or(Some(cut.elapsed())),
                leaders => assert!(leaders == 1 && leaderless.is_none(), "{leaders} lead"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(leaderless.unwrap() < LEASE, "it led for {leaderless:?}, longer than its lease");
        let row = async |name: &str| tenants::find(&db, &sealer(), name).await.unwrap().unwrap().row;
        assert_eq!((row("edited").await.monthly_quota, row("deleted").await.detached_at), (1_000, None));

        wire.mend();
        eventually("one leads again", async || {
            pods.tend().await;
            assert!(pods.leaders() <= 1, "two lead");
            (pods.leaders() == 1).then_some(())
        })
        .await;
        eventually("what happened meanwhile is followed", async || {
            let is_followed =
                row("edited").await.monthly_quota == 2_000 && row("deleted").await.detached_at.is_some();
            is_followed.then_some(())
        })
        .await;
        let kinds: Vec<String> = sqlx::query_scalar("SELECT kind FROM tenant_changes WHERE tenant = 'kept'")
            .fetch_all(&db)
            .await
            .unwrap();
        assert_eq!(kinds, ["created"], "nothing is written that need not be");
        for pod in pods.running.into_iter().flatten() {
            pod.stop().await;
        }
    })
    .await;
}
