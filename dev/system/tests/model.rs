//! A minute of everything that clients do, counted beside FlagMeter by a few lines of arithmetic.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use system_tests::client::Client;
use system_tests::{System, now, unique, until};
use uuid::Uuid;

/// How long events are sent.
const DURATION: Duration = Duration::from_mins(1);

/// Events a second, of all clients.
const RATE: f64 = 2_000.0;

/// Clients, each with a connection.
const CLIENTS: u32 = 4;

/// Events in one request at most.
const LARGEST: u64 = 150;

/// The billing days of the tenants.
const BILLING_DAYS: [i8; 3] = [1, 15, 31];

const FEATURES: [&str; 5] = ["chat", "gpt-4 turbo", "embeddings", "images", "~"];

/// Numbers that look random, and are the same in every run with the same seed (`SplitMix64`, by Sebastiano Vigna).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// True in `percent` of all cases.
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// An event as a client made it.
#[derive(Clone)]
struct Event {
    tenant: usize,
    feature: &'static str,
    tokens: i64,
    id: Option<Uuid>,
    at: Timestamp,
}

impl Event {
    fn random(random: &mut Random) -> Self {
        // Late by up to 34 days.
        let late = if random.chance(5) { random.below(34 * 86_400_000) } else { 0 };
        let id = match random.below(10) {
            0..3 => None,
            3..7 => Some(Uuid::now_v7()),
            // A UUID of another kind, of which there are no two alike either.
            _ => Some(Uuid::from_u128(Uuid::now_v7().as_u128().rotate_left(64) & !(0xf << 76) | 0x4 << 76)),
        };
        Self {
            tenant: usize::try_from(random.below(BILLING_DAYS.len() as u64)).unwrap(),
            feature: random.pick::<&str>(&FEATURES),
            // Some used none.
            tokens: if random.chance(5) { 0 } else { i64::try_from(1 + random.below(5_000)).unwrap() },
            id,
            at: now() - SignedDuration::from_millis(i64::try_from(late).unwrap()),
        }
    }

    fn json(&self, tenants: &[String]) -> Value {
        let mut event = json!({
            "tenant": tenants[self.tenant],
            "feature": self.feature,
            "tokens": self.tokens,
            "timestamp": self.at.to_string(),
        });
        if let Some(id) = self.id {
            event["id"] = id.to_string().into();
        }
        event
    }
}

/// What there should be: tokens by tenant, and by minute or period and feature.
#[derive(Default)]
struct Model {
    events: BTreeMap<usize, i64>,
    minutes: BTreeMap<(usize, &'static str, i64), i64>,
    periods: BTreeMap<(usize, String), i64>,
    features: BTreeMap<(usize, String, &'static str), i64>,
    repeated: u64,
    reversed: u64,
    invalid: u64,
}

impl Model {
    /// `sign` is −1 for an event that is taken back.
    fn count(&mut self, event: &Event, sign: i64) {
        let tokens = sign * event.tokens;
        let period = period_start(event.at, BILLING_DAYS[event.tenant]);
        *self.events.entry(event.tenant).or_default() += 1;
        let minute = event.at.as_second().div_euclid(60);
        *self.minutes.entry((event.tenant, event.feature, minute)).or_default() += tokens;
        *self.periods.entry((event.tenant, period.clone())).or_default() += tokens;
        *self.features.entry((event.tenant, period, event.feature)).or_default() += tokens;
    }

    fn merge(&mut self, other: Self) {
        fn add<K: Ord>(to: &mut BTreeMap<K, i64>, from: BTreeMap<K, i64>) {
            for (key, value) in from {
                *to.entry(key).or_default() += value;
            }
        }
        add(&mut self.events, other.events);
        add(&mut self.minutes, other.minutes);
        add(&mut self.periods, other.periods);
        add(&mut self.features, other.features);
        self.repeated += other.repeated;
        self.reversed += other.reversed;
        self.invalid += other.invalid;
    }
}

/// The day on which the billing period of `at` starts, in UTC.
fn period_start(at: Timestamp, day: i8) -> String {
    let date = TimeZone::UTC.to_datetime(at).date();
    let in_month = |first: Date| first.with().day(day.min(first.days_in_month())).build().unwrap();
    let this = in_month(date.first_of_month());
    let start = if date >= this {
        this
    } else {
        in_month(date.first_of_month().yesterday().unwrap().first_of_month())
    };
    start.to_string()
}

/// What one client does in its minute; answers what it expects to be counted.
fn client(system: &System, tenants: &[String], seed: u64) -> Model {
    let connection = system.client();
    let mut random = Random(seed);
    let mut model = Model::default();
    // What was accepted under an id, and not yet taken back.
    let mut accepted: Vec<Event> = Vec::new();
    let start = Instant::now();
    let mut sent = 0_u32;
    while start.elapsed() < DURATION {
        // Not faster than the rate: this is a load, and no race.
        let due = Duration::from_secs_f64(f64::from(sent) / (RATE / f64::from(CLIENTS)));
        std::thread::sleep(due.saturating_sub(start.elapsed()));

        let (mut batch, mut bad) = (Vec::new(), Vec::new());
        let mut fresh = Vec::new();
        for place in 0..=random.below(LARGEST) {
            if random.chance(1) {
                bad.push(place);
                batch.push(invalid(&mut random, &tenants[0]));
                continue;
            }
            if random.chance(10) && !accepted.is_empty() {
                batch.push(random.pick(&accepted).json(tenants));
                model.repeated += 1;
                continue;
            }
            let event = Event::random(&mut random);
            batch.push(event.json(tenants));
            fresh.push(event);
        }
        sent += u32::try_from(batch.len()).unwrap();
        model.invalid += bad.len() as u64;
        let left = batch.len() - bad.len();
        post(&connection, &Value::Array(batch), left, &bad);
        for event in fresh {
            model.count(&event, 1);
            accepted.extend(event.id.is_some().then_some(event));
        }
        // One in a hundred is taken back, once it is counted.
        while model.reversed < u64::from(sent) / 100 && accepted.len() > 1_000 {
            let place = usize::try_from(random.below(accepted.len() as u64)).unwrap();
            let event = accepted.swap_remove(place);
            take_back(&connection, tenants, &event, random.chance(20));
            model.count(&event, -1);
            model.reversed += 1;
        }
    }
    model
}

/// An event that is none.
fn invalid(random: &mut Random, tenant: &str) -> Value {
    match random.below(4) {
        0 => json!({ "tenant": tenant, "feature": "chat", "tokens": -1 }),
        1 => json!({ "tenant": "nobody", "feature": "chat", "tokens": 1 }),
        2 => json!({ "tenant": tenant, "feature": "chat", "tokens": 1, "timestamp": "2020-01-01T00:00:00Z" }),
        _ => json!([tenant]),
    }
}

/// Sends a batch: as it is if all of it is valid; else strictly, which must queue nothing, and then leniently.
fn post(connection: &Client, batch: &Value, valid: usize, bad: &[u64]) {
    if !bad.is_empty() {
        let refused = connection.post(batch).unwrap();
        assert_eq!(refused.status, 422, "{}", refused.body);
        assert_eq!(indices(&refused.json()), bad);
        if valid == 0 {
            return;
        }
    }
    let answer = if bad.is_empty() { connection.post(batch) } else { connection.post_leniently(batch) };
    let answer = answer.unwrap();
    assert_eq!((answer.status, &answer.json()["accepted"]), (202, &json!(valid)), "{}", answer.body);
    assert_eq!(indices(&answer.json()), bad);
}

/// Which events an answer says are wrong.
fn indices(answer: &Value) -> Vec<u64> {
    let errors = answer["errors"].as_array();
    errors.into_iter().flatten().map(|error| error["index"].as_u64().unwrap()).collect()
}

/// Takes an event back, now and then twice.
fn take_back(connection: &Client, tenants: &[String], event: &Event, twice: bool) {
    let path = format!("/events/{}/{}", tenants[event.tenant], event.id.unwrap());
    for _ in 0..=i32::from(twice) {
        until("the event can be taken back", || {
            let answer = connection.delete(&path).unwrap();
            // 503 `still_counting`: it waits in the queue.
            assert!([202, 503].contains(&answer.status), "{}", answer.body);
            (answer.status == 202).then_some(())
        });
    }
}

/// The rows of a table by its key, without those that add up to nothing.
fn rows(system: &System, query: &str) -> BTreeMap<String, i64> {
    let rows = system.sql(query).into_iter().map(|row| {
        let (key, tokens) = row.rsplit_once('|').unwrap();
        (key.to_owned(), tokens.parse().unwrap())
    });
    rows.filter(|(_, tokens)| *tokens != 0).collect()
}

fn expected<K>(sums: BTreeMap<K, i64>, key: impl Fn(&K) -> String) -> BTreeMap<String, i64> {
    sums.into_iter().filter(|(_, tokens)| *tokens != 0).map(|(k, tokens)| (key(&k), tokens)).collect()
}

#[test]
fn a_minute_of_batches_repeats_late_events_corrections_and_nonsense_is_counted_as_a_model_counts_it() {
    let system = System::running();
    let tenants: Vec<String> = BILLING_DAYS
        .iter()
        .map(|day| {
            let name = unique(&format!("model-{day}"));
            system.apply_tenant_of(&name, 1_000_000_000, &json!({ "billingDay": day }));
            name
        })
        .collect();
    let seed = now().as_microsecond().unsigned_abs();
    println!("seed {seed}");
    let mut model = Model::default();
    std::thread::scope(|scope| {
        let clients = (0..CLIENTS).map(|number| {
            let (system, tenants) = (&system, &tenants);
            scope.spawn(move || client(system, tenants, seed.wrapping_add(u64::from(number) << 40)))
        });
        for client in clients.collect::<Vec<_>>() {
            model.merge(client.join().unwrap());
        }
    });

    for (tenant, events) in &model.events {
        let query = format!("SELECT count(*) FROM events WHERE tenant = '{}'", tenants[*tenant]);
        until("everything is counted", || (system.sql(&query) == [events.to_string()]).then_some(()));
        assert_eq!(system.book(&tenants[*tenant]).0, *events);
    }
    let ours = format!("tenant IN ('{}')", tenants.join("', '"));
    let minutes = format!(
        "SELECT tenant, feature, extract(epoch FROM minute)::bigint / 60, total_tokens FROM rollups WHERE {ours}"
    );
    let by_minute =
        |(tenant, feature, minute): &(usize, &str, i64)| format!("{}|{feature}|{minute}", tenants[*tenant]);
    assert_eq!(rows(&system, &minutes), expected(model.minutes, by_minute));
    let start = "to_char(period_start AT TIME ZONE 'UTC', 'YYYY-MM-DD')";
    let periods = format!("SELECT tenant, {start}, total_tokens FROM usage_periods WHERE {ours}");
    let by_period = |(tenant, start): &(usize, String)| format!("{}|{start}", tenants[*tenant]);
    assert_eq!(rows(&system, &periods), expected(model.periods, by_period));
    let features = format!("SELECT tenant, {start}, feature, total_tokens FROM usage_features WHERE {ours}");
    let by_feature =
        |(tenant, start, feature): &(usize, String, &str)| format!("{}|{start}|{feature}", tenants[*tenant]);
    assert_eq!(rows(&system, &features), expected(model.features, by_feature));

    let sent: i64 = model.events.values().sum();
    println!(
        "{sent} rows: {} taken back; beside them {} repeated, {} invalid",
        model.reversed, model.repeated, model.invalid
    );
    // Less would not be the load that this test is about.
    assert!(sent > 80_000 && model.reversed > 500 && model.repeated > 5_000 && model.invalid > 500);
}
