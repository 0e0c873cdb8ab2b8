//! Requests at saturation: what the api does, and what its baselines do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Extent;
use crate::baseline::Kind;
use crate::books::Books;
use crate::generator::{Load, closed};
use crate::part;
use crate::report::Report;
use crate::row::Goal;
use crate::stores::{Server, Stores};
use crate::traffic::Traffic;

/// Connections where nothing else is said.
const CONNECTIONS: usize = 64;

/// Connections where each answer waits for the disk.
const CONNECTIONS_ALWAYS: usize = 256;

/// A run and what it cost the servers.
struct Run {
    load: Load,
    /// CPU time of the server.
    server: Duration,
    valkey: Duration,
}

impl Run {
    /// CPU time of server and Valkey an event, in microseconds.
    fn cost(&self) -> f64 {
        self.each(self.server + self.valkey)
    }

    fn each(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.load.events as f64
    }
}

/// One round's values, by the figure's place in [`goals`].
type Values = Vec<f64>;

fn goals() -> Vec<Goal> {
    vec![
        Goal::at_least("post_everysec", "durable POST ÷ empty 202, 64 connections, everysec", 0.60, 0.75),
        Goal::at_least(
            "post_always",
            "durable POST at always, 256 connections ÷ empty 202 at 64",
            0.45,
            0.65,
        ),
        Goal::at_most(
            "cpu_to_decode",
            "api + Valkey CPU per event ÷ axum JSON decode and validate",
            1.6,
            1.25,
        ),
        Goal::at_most("auth", "authentication: CPU per event with keys ÷ without", 1.10, 1.04),
        Goal::at_least("pool_to_cpu", "per-request pool's CPU per event ÷ ours", 3.5, 5.0),
        Goal::at_least("lists", "list POST events/s (best of 100 and 1,000) ÷ single POST", 12.0, 30.0),
        Goal::told("array_100", "JSON array of 100: events/s ÷ single POST"),
        Goal::told("array_1000", "JSON array of 1,000: events/s ÷ single POST"),
        Goal::told("lines_100", "NDJSON of 100: events/s ÷ single POST"),
        Goal::told("lines_1000", "NDJSON of 1,000: events/s ÷ single POST"),
        Goal::at_least("worker_to_api", "worker capacity ÷ api capacity, single POSTs at always", 2.0, 4.0),
        Goal::at_least("usage", "GET /usage ÷ empty 202", 0.75, 0.90),
        Goal::at_least("check", "GET /check ÷ empty 202", 0.75, 0.90),
        Goal::at_least("mix", "80/20 mix, stored and counted, everysec ÷ empty 202", 0.40, 0.60),
        Goal::told("mix_always", "80/20 mix, stored and counted, always ÷ empty 202"),
        Goal::told("empty", "for scale: empty 202").in_unit("req/s"),
        Goal::told("cost_decode", "CPU per event: axum JSON decode and validate").in_unit("µs"),
        Goal::told("cost_api", "CPU per event: api").in_unit("µs"),
        Goal::told("cost_valkey", "CPU per event: Valkey").in_unit("µs"),
        Goal::told("generator_cost", "the generator's CPU per request").in_unit("µs"),
    ]
}

pub(crate) async fn measure(stores: &Stores, extent: Extent, report: &mut Report) -> Result<()> {
    let api = stores.start_api().await?;
    let guarded = stores.start_guarded_api().await?;
    let empty = stores.start_baseline(Kind::Empty).await?;
    let decode = stores.start_baseline(Kind::Decode).await?;
    let pool = stores.start_baseline(Kind::Pool).await?;
    let servers = Servers { stores, extent, api, guarded, empty, decode, pool };
    // Pages, pools and caches are warm before anything counts.
    let mut books = Books::default();
    servers.warm_up(&mut books).await?;
    servers.drain(books, report).await?;

    let mut columns: Vec<Values> = Vec::new();
    for round in 1..=extent.rounds {
        println!("requests, round {round} of {}", extent.rounds);
        columns.push(servers.round(report).await?);
    }
    for (place, goal) in goals().into_iter().enumerate() {
        report.rows.push(goal.row(columns.iter().map(|values| values[place]).collect()));
    }
    for server in [servers.api, servers.guarded, servers.empty, servers.decode, servers.pool] {
        server.part.stop().await?;
    }
    Ok(())
}

struct Servers<'a> {
    stores: &'a Stores,
    extent: Extent,
    api: Server,
    /// The api again, which asks for keys.
    guarded: Server,
    empty: Server,
    decode: Server,
    pool: Server,
}

impl Servers<'_> {
    async fn warm_up(&self, books: &mut Books) -> Result<()> {
        let single = Arc::new(Traffic::single());
        for server in [&self.api, &self.empty, &self.decode, &self.pool] {
            let load = closed(server.address, &single, CONNECTIONS, self.extent.run / 3).await?;
            if std::ptr::eq(server, &raw const self.api) {
                books.note(&load);
            }
        }
        let keys = Arc::new(Traffic::with_keys());
        books.note(&closed(self.guarded.address, &keys, CONNECTIONS, self.extent.run / 3).await?);
        self.stores.forget_list().await
    }

    /// One of everything, in turn.
    async fn round(&self, report: &mut Report) -> Result<Values> {
        let single = Arc::new(Traffic::single());
        let mut books = Books::default();
        self.stores.durability("everysec").await?;
        let empty = self.run(&self.empty, &single, CONNECTIONS, report, "empty 202").await?;
        let everysec = self.run(&self.api, &single, CONNECTIONS, report, "POST, everysec").await?;
        let keys = Arc::new(Traffic::with_keys());
        let keys = self.run(&self.guarded, &keys, CONNECTIONS, report, "POST with keys, everysec").await?;
        let decode = self.run(&self.decode, &single, CONNECTIONS, report, "decode").await?;
        let pool = self.run(&self.pool, &single, CONNECTIONS, report, "pool").await?;
        self.stores.forget_list().await?;
        let usage = Arc::new(Traffic::usage());
        let usage = self.run(&self.api, &usage, CONNECTIONS, report, "GET /usage").await?;
        let check = Arc::new(Traffic::check());
        let check = self.run(&self.api, &check, CONNECTIONS, report, "GET /check").await?;
        self.stores.durability("always").await?;
        let always = self.run(&self.api, &single, CONNECTIONS_ALWAYS, report, "POST, always, 256").await?;
        books.note(&everysec.load);
        books.note(&keys.load);
        books.note(&always.load);
        let worker = self.drain(books, report).await?;

        self.stores.durability("everysec").await?;
        let mut lists = Vec::new();
        for (name, traffic) in [
            ("arrays of 100", Traffic::arrays(100)),
            ("arrays of 1,000", Traffic::arrays(1_000)),
            ("lines of 100", Traffic::lines(100)),
            ("lines of 1,000", Traffic::lines(1_000)),
        ] {
            let mut books = Books::default();
            let run = self
                .run_for(self.extent.list_run, &self.api, &Arc::new(traffic), CONNECTIONS, report, name)
                .await?;
            books.note(&run.load);
            self.drain(books, report).await?;
            lists.push(run.load.events_per_second() / everysec.load.events_per_second());
        }
        let mix = self.mix("80/20, everysec", report).await?;
        self.stores.durability("always").await?;
        let mix_always = self.mix("80/20, always", report).await?;

        let per_second = empty.load.per_second();
        let best = lists.iter().copied().fold(0.0, f64::max);
        let mut values = vec![
            everysec.load.per_second() / per_second,
            always.load.per_second() / per_second,
            everysec.cost() / decode.cost(),
            keys.each(keys.server) / everysec.each(everysec.server),
            pool.cost() / everysec.cost(),
            best,
        ];
        values.extend(lists);
        values.extend([
            worker / always.load.events_per_second(),
            usage.load.per_second() / per_second,
            check.load.per_second() / per_second,
            mix / per_second,
            mix_always / per_second,
            per_second,
            decode.cost(),
            everysec.each(everysec.server),
            everysec.each(everysec.valkey),
            empty.load.generator_cpu.as_secs_f64() * 1e6 / empty.load.requests as f64,
        ]);
        Ok(values)
    }

    /// The mix with a worker beside it. Answers requests per second until the last event is counted.
    async fn mix(&self, name: &str, report: &mut Report) -> Result<f64> {
        let worker = self.stores.start_worker("worker").await?;
        let start = Instant::now();
        let mut books = Books::default();
        let mix = self.run(&self.api, &Arc::new(Traffic::mix()), CONNECTIONS, report, name).await?;
        books.note(&mix.load);
        self.stores.drained().await?;
        let elapsed = start.elapsed();
        worker.stop().await?;
        report.balances.push(books.close(self.stores).await?);
        Ok(mix.load.requests as f64 / elapsed.as_secs_f64())
    }

    async fn run(
        &self,
        server: &Server,
        traffic: &Arc<Traffic>,
        connections: usize,
        report: &mut Report,
        name: &str,
    ) -> Result<Run> {
        self.run_for(self.extent.run, server, traffic, connections, report, name).await
    }

    async fn run_for(
        &self,
        duration: Duration,
        server: &Server,
        traffic: &Arc<Traffic>,
        connections: usize,
        report: &mut Report,
        name: &str,
    ) -> Result<Run> {
        let cpu = || (part::cpu(server.part.pid), part::cpu(self.stores.valkey_pid));
        let before = cpu();
        let load = closed(server.address, traffic, connections, duration).await?;
        let after = cpu();
        let (server, valkey) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        report.note(name, &load, server + valkey);
        if load.refused + load.failed > 0 {
            bail!("{name}: {} requests were refused and {} failed", load.refused, load.failed);
        }
        Ok(Run { load, server, valkey })
    }

    /// Lets a worker count what is in the queue, checks the books, and answers how fast the worker was.
    async fn drain(&self, books: Books, report: &mut Report) -> Result<f64> {
        let start = Instant::now();
        let worker = self.stores.start_worker("worker").await?;
        self.stores.drained().await?;
        let elapsed = start.elapsed();
        worker.stop().await?;
        let balance = books.close(self.stores).await?;
        report.balances.push(balance);
        Ok(balance.counted as f64 / elapsed.as_secs_f64())
    }
}
