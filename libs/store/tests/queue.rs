//! The queue, on a real Valkey.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::time::{Duration, Instant};

use flagmeter_core::scaling::sample::{Queue, Work};
use flagmeter_store::queue::{Durability, EventQueue, RawEntry};
use flagmeter_store::testing;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_millis(50);

fn payloads(entries: &[RawEntry]) -> Vec<&[u8]> {
    entries.iter().map(|entry| entry.payload.as_deref().unwrap()).collect()
}

async fn confirm(queue: &EventQueue, entries: &[RawEntry]) {
    let each_of_one: Vec<_> = entries.iter().map(|entry| (entry.entry_id.as_str(), 1)).collect();
    queue.confirm(&each_of_one).await.unwrap();
}

#[tokio::test]
async fn an_entry_stays_until_it_is_confirmed() {
    let queue = testing::queue().unwrap();
    queue.push(b"one", 1).await.unwrap();
    // The group is made after the first entry, and starts before it.
    let read = queue.read("a", 10, SOON).await.unwrap();
    assert_eq!(read, []);
    let read = queue.read("a", 10, SOON).await.unwrap();
    assert_eq!(payloads(&read), [b"one"]);
    assert_eq!(queue.depth().await.unwrap(), 1);
    let added = queue.oldest().await.unwrap().unwrap().as_millisecond().to_string();
    assert!(read[0].entry_id.starts_with(&added), "{added} {read:?}");
    assert_eq!(queue.pending("a", None, 10).await.unwrap(), read);
    confirm(&queue, &read).await;
    assert_eq!((queue.depth().await.unwrap(), queue.oldest().await.unwrap()), (0, None));
    assert_eq!(queue.pending("a", None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn entries_of_a_worker_that_died_go_to_another() {
    let queue = testing::queue().unwrap();
    queue.create_group().await.unwrap();
    queue.push(b"one", 1).await.unwrap();
    queue.push(b"two", 1).await.unwrap();
    assert_eq!(queue.read("dead", 10, SOON).await.unwrap().len(), 2);
    assert_eq!(queue.claim("heir", Duration::from_mins(1), 10).await.unwrap(), []);
    let claimed = queue.claim("heir", Duration::ZERO, 10).await.unwrap();
    assert_eq!(payloads(&claimed), [b"one", b"two"]);
    confirm(&queue, &claimed).await;
    queue.leave("dead").await.unwrap();
    queue.leave("heir").await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 0);
}

#[tokio::test]
async fn a_worker_that_leaves_with_entries_in_hand_is_not_forgotten() {
    let queue = testing::queue().unwrap();
    queue.create_group().await.unwrap();
    queue.push(b"one", 1).await.unwrap();
    let read = queue.read("a", 10, SOON).await.unwrap();
    queue.leave("a").await.unwrap();
    assert_eq!(queue.pending("a", None, 10).await.unwrap(), read);
}

#[tokio::test]
async fn the_test_server_syncs_before_it_answers() {
    assert_eq!(testing::queue().unwrap().durability().await.unwrap(), Durability::Fsync);
}

#[tokio::test]
async fn a_queue_that_is_down_is_an_error_within_the_time_limit_and_does_not_name_its_password() {
    let queue = EventQueue::new("redis://:hunter2@127.0.0.1:1").unwrap();
    let start = Instant::now();
    let error = queue.push(b"one", 1).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn the_queues_load_is_in_events_and_each_leaves_once() {
    let queue = testing::queue().unwrap();
    queue.create_group().await.unwrap();
    queue.push(b"one", 1).await.unwrap();
    queue.push(b"thousand", 1_000).await.unwrap();
    assert_eq!(queue.load().await.unwrap().events, 1_001);
    let read = queue.read("a", 10, SOON).await.unwrap();
    // Two workers have it: the second confirms what is gone.
    for _ in 0..2 {
        queue.confirm(&[(read[1].entry_id.as_str(), 1_000)]).await.unwrap();
        assert_eq!(queue.load().await.unwrap().events, 1);
    }
    // Nobody knows how many events are in an entry that cannot be read; an empty queue holds none.
    queue.confirm(&[(read[0].entry_id.as_str(), 0)]).await.unwrap();
    let load = queue.load().await.unwrap();
    assert_eq!(load.events, 0);
    // A server without a limit has none here, and not one of 0 bytes.
    assert!(load.used_memory > 0 && load.max_memory != Some(0), "{load:?}");
}

#[tokio::test]
async fn a_worker_is_heard_and_tenants_are_kept() {
    let queue = testing::queue().unwrap();
    queue.create_group().await.unwrap();
    queue.read("a", 1, SOON).await.unwrap();
    let mut work = Work { processed: 7, busy_seconds: 0.5, ..Work::default() };
    queue.heartbeat("a", work).await.unwrap();
    assert_eq!(queue.heartbeats().await.unwrap(), [("a".to_owned(), work)].into());
    work.add(3, 0.25);
    queue.heartbeat("a", work).await.unwrap();
    assert_eq!(queue.heartbeats().await.unwrap(), [("a".to_owned(), work)].into());
    assert_eq!(queue.sample().await.unwrap().workers, [("a".to_owned(), work)].into());
    assert_eq!(queue.kept_tenants().await.unwrap(), None);
    queue.keep_tenants(b"known").await.unwrap();
    assert_eq!(queue.kept_tenants().await.unwrap().as_deref(), Some(b"known".as_slice()));
}

#[tokio::test]
async fn a_sample_has_all_numbers_of_one_instant_and_they_agree() {
    let queue = testing::queue().unwrap();
    // Nobody has written, and no worker has ever been there.
    assert_eq!(queue.sample().await.unwrap(), Queue { lag: None, ..Queue::default() });
    queue.push(b"before", 3).await.unwrap();
    let sample = queue.sample().await.unwrap();
    assert_eq!((sample.pushed, sample.entries, sample.pending, sample.lag), (3, 1, 0, None));
    queue.create_group().await.unwrap();
    for _ in 0..4 {
        queue.push(b"more", 10).await.unwrap();
    }
    // Through delivery, confirmation in any order, new entries and a claim, nothing contradicts itself.
    let numbers = async |pushed, left, entries, pending| {
        let sample = queue.sample().await.unwrap();
        assert_eq!(
            (sample.pushed, sample.left, sample.entries, sample.pending),
            (pushed, left, entries, pending)
        );
        assert_eq!(sample.checked(), Ok(()), "{sample:?}");
        assert!((0.0..60.0).contains(&sample.oldest_wait_seconds), "{sample:?}");
        sample
    };
    numbers(43, 0, 5, 0).await;
    let read = queue.read("a", 3, SOON).await.unwrap();
    numbers(43, 0, 5, 3).await;
    queue.confirm(&[(&read[2].entry_id, 10), (&read[0].entry_id, 3)]).await.unwrap();
    numbers(43, 13, 3, 1).await;
    queue.push(b"new", 1).await.unwrap();
    queue.read("b", 10, SOON).await.unwrap();
    numbers(44, 13, 4, 4).await;
    let claimed = queue.claim("b", Duration::ZERO, 10).await.unwrap();
    assert_eq!(claimed.len(), 4);
    let all: Vec<_> = claimed.iter().map(|entry| (entry.entry_id.as_str(), 10)).collect();
    queue.confirm(&all).await.unwrap();
    let work = Work { processed: 44, busy_seconds: 0.25, ..Work::default() };
    queue.heartbeat("b", work).await.unwrap();
    let sample = numbers(44, 44, 0, 0).await;
    assert_eq!(sample.entries_added, 6);
    assert_eq!(sample.workers, [("b".to_owned(), work)].into());
}

#[tokio::test]
async fn of_scaling_decisions_the_newest_are_kept() {
    let queue = testing::queue().unwrap();
    assert_eq!(queue.scaling(10).await.unwrap(), flagmeter_store::queue::Scaling::default());
    for record in ["1", "2", "3", "4"] {
        queue.keep_scaling("policy", &format!("state {record}"), record, 3).await.unwrap();
    }
    let kept = queue.scaling(10).await.unwrap();
    assert_eq!((kept.policy.as_deref(), kept.state.as_deref()), (Some("policy"), Some("state 4")));
    assert_eq!(kept.records, ["4", "3", "2"]);
    assert_eq!(queue.scaling(1).await.unwrap().records, ["4"]);
    assert!(queue.scaling(0).await.unwrap().records.is_empty());
}

#[tokio::test]
async fn ids_are_forgotten_only_when_every_api_has_heard_that_they_are_refused() {
    let queue = testing::queue().unwrap();
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let (first, second) = (at("2026-06-01T00:00:00Z"), at("2026-06-02T00:00:00Z"));
    let refuse = async |since, now: &str| queue.refuse_ids_before(since, at(now)).await.unwrap();
    assert_eq!(queue.ids_since().await.unwrap(), None);
    assert_eq!(refuse(first, "2026-07-05T00:00:00Z").await, Timestamp::UNIX_EPOCH);
    assert_eq!(queue.ids_since().await.unwrap(), Some(first));
    // Another worker, a moment later.
    assert_eq!(refuse(first, "2026-07-05T00:00:59Z").await, Timestamp::UNIX_EPOCH);
    assert_eq!(refuse(first, "2026-07-05T00:01:00Z").await, first);
    // The next day is said, and until it is heard only the former goes.
    assert_eq!(refuse(second, "2026-07-06T00:00:00Z").await, first);
    assert_eq!(queue.ids_since().await.unwrap(), Some(second));
    assert_eq!(refuse(second, "2026-07-06T00:00:01Z").await, first);
    assert_eq!(refuse(second, "2026-07-06T00:10:00Z").await, second);
    // A larger budget brings nothing back.
    assert_eq!(refuse(first, "2026-07-06T00:20:00Z").await, second);
    assert_eq!(queue.ids_since().await.unwrap(), Some(second));
}

/// What Valkey 9 answers when its memory is full: it cannot be filled here, where other tests use it.
async fn answer_that_memory_is_full(listener: TcpListener) {
    let (mut client, _) = listener.accept().await.unwrap();
    let mut bytes = [0_u8; 4_096];
    loop {
        let read = client.read(&mut bytes).await.unwrap();
        let words = String::from_utf8_lossy(&bytes[..read]);
        for word in words.split("\r\n") {
            let answer = match word {
                "CLIENT" | "MULTI" => "+OK\r\n",
                "XADD" | "INCRBY" => "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
                "EXEC" => "-EXECABORT Transaction discarded because of previous errors.\r\n",
                _ => continue,
            };
            client.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_queue_whose_memory_is_full_is_told_from_one_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(answer_that_memory_is_full(listener));
    let full = EventQueue::new(&url).unwrap().push(b"entry", 7).await.unwrap_err();
    assert!(full.is_out_of_memory() && !full.is_broken_connection(), "{full:?}");
    let nowhere = EventQueue::new("redis://127.0.0.1:1").unwrap().push(b"entry", 7).await.unwrap_err();
    assert!(!nowhere.is_out_of_memory() && nowhere.is_broken_connection(), "{nowhere:?}");
}
