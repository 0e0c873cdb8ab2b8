//! The queue, on a real Valkey.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::time::{Duration, Instant};

use flagmeter_store::queue::{Durability, EventQueue, Heartbeat, RawEntry};
use flagmeter_store::testing;

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
    assert_eq!(queue.pending("a", 10).await.unwrap(), read);
    confirm(&queue, &read).await;
    assert_eq!((queue.depth().await.unwrap(), queue.oldest().await.unwrap()), (0, None));
    assert_eq!(queue.pending("a", 10).await.unwrap(), []);
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
    assert_eq!(queue.pending("a", 10).await.unwrap(), read);
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
    let heartbeat = Heartbeat { processed: 7, busy_seconds: 0.5 };
    queue.heartbeat("a", heartbeat).await.unwrap();
    assert_eq!(queue.heartbeats().await.unwrap(), [("a".to_owned(), heartbeat)].into());
    assert_eq!(queue.kept_tenants().await.unwrap(), None);
    queue.keep_tenants(b"known").await.unwrap();
    assert_eq!(queue.kept_tenants().await.unwrap().as_deref(), Some(b"known".as_slice()));
}
