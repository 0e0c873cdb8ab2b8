//! The queue: a Valkey stream of packed entries, read by one consumer group.
//!
//! An entry leaves the stream only by [`EventQueue::confirm`], after PostgreSQL has committed it.
//! Nothing trims the stream, so its length is what is not yet counted.

mod progress;
mod scaling;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deadpool_redis::redis;
use flagmeter_core::scaling::sample::Work;
use jiff::{SignedDuration, Timestamp};
use redis::aio::MultiplexedConnection;
use redis::streams::{
    StreamAutoClaimOptions, StreamAutoClaimReply, StreamId, StreamInfoConsumersReply, StreamRangeReply,
    StreamReadOptions, StreamReadReply,
};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, FromRedisValue};

pub use self::scaling::Scaling;
use crate::StoreError;

/// The stream of packed entries. The version is the key's: entries carry their own.
const STREAM: &str = "flagmeter:v1:events";

/// Beside the stream: how many events were ever pushed, and how many have left it. The difference is what
/// waits, in events, which the stream's length in entries does not tell.
const PUSHED: &str = "pushed";
const LEFT: &str = "left";

/// Beside the stream: the tenants as an api last knew them, for one that starts while PostgreSQL is away.
const TENANTS: &str = "tenants";

/// Beside the stream: what each worker did lately.
const WORKER: &str = "worker";

/// Beside the stream: since when clients' ids are known.
const IDS: &str = "ids";

/// How long after it was said every api knows which UUIDv7 are refused: they ask every few seconds.
const HEARD_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// For how long a worker's word counts.
const HEARTBEAT_SECONDS: u64 = 30;

/// The consumer group of all workers.
const GROUP: &str = "workers";

/// The one field of an entry.
const FIELD: &str = "e";

/// Connecting to a Valkey that is there takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A flush to a slow disk may take a while; a command that takes longer has failed.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The stream of entries, over one connection that is made when first used and made anew after it broke.
///
/// Commands of several tasks share the connection. A blocking [`EventQueue::read`] holds it, so a
/// worker has one queue for reading and another for the rest.
pub struct EventQueue {
    client: Client,
    stream: String,
    connection: Mutex<Option<MultiplexedConnection>>,
}

/// An entry as it stands in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEntry {
    /// The stream's id for it: milliseconds and a number.
    pub entry_id: String,
    /// The packed events, or every field's name and value if somebody else wrote it.
    pub payload: Result<Vec<u8>, Vec<u8>>,
}

/// How full the queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Events that wait, or that a worker has in hand.
    pub events: u64,
    /// Bytes that Valkey uses.
    pub used_memory: u64,
    /// Bytes that it may use; `None` if nobody set a limit.
    pub max_memory: Option<u64>,
}

/// What Valkey does before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On disk: `appendonly yes`, `appendfsync always`.
    Fsync,
    /// On disk within a second: `appendfsync everysec`.
    Everysec,
    /// In memory, or on disk whenever the system likes.
    Memory,
}

impl Durability {
    /// The word in the answer to a client.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Everysec => "everysec",
            Self::Memory => "memory",
        }
    }
}

impl EventQueue {
    /// The queue at `url` (`redis://[user]:password@host:port`). Nothing is connected to yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::QueueUrl`] if `url` is no such URL.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        Self::of_stream(url, STREAM.to_owned())
    }

    pub(crate) fn of_stream(url: &str, stream: String) -> Result<Self, StoreError> {
        let client = Client::open(url).map_err(StoreError::QueueUrl)?;
        Ok(Self { client, stream, connection: Mutex::default() })
    }

    /// Adds an entry of so many events.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; whether the entry is in the queue is then not known. The same bytes
    /// may be pushed again: they carry their batch's id, so both copies count once.
    pub async fn push(&self, payload: &[u8], events: usize) -> Result<(), StoreError> {
        let doing = "add an entry to the queue";
        let mut connection = self.connection(doing).await?;
        let mut both = redis::pipe();
        both.atomic().xadd(&self.stream, "*", &[(FIELD, payload)]).ignore();
        both.incr(self.beside(PUSHED), events).ignore();
        let added: redis::RedisResult<()> = both.query_async(&mut connection).await;
        self.checked(doing, added)
    }

    /// What Valkey's answer to [`EventQueue::push`] means.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`] if Valkey does not answer or does not let this user ask.
    pub async fn durability(&self) -> Result<Durability, StoreError> {
        let doing = "ask how durable the queue is";
        let mut connection = self.connection(doing).await?;
        let answer: redis::RedisResult<Vec<String>> = redis::cmd("CONFIG")
            .arg("GET")
            .arg("appendonly")
            .arg("appendfsync")
            .query_async(&mut connection)
            .await;
        let settings = self.checked(doing, answer)?;
        let value = |name: &str| settings.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
        Ok(match (value("appendonly"), value("appendfsync")) {
            (Some("yes"), Some("always")) => Durability::Fsync,
            (Some("yes"), Some("everysec")) => Durability::Everysec,
            _ => Durability::Memory,
        })
    }

    /// Makes the stream and its group, if they are not there. A new group starts at the stream's
    /// beginning, so that nothing that was taken in before is passed over.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; the same call may be made again.
    pub async fn create_group(&self) -> Result<(), StoreError> {
        let doing = "make the queue's consumer group";
        let mut connection = self.connection(doing).await?;
        let made: redis::RedisResult<()> = connection.xgroup_create_mkstream(&self.stream, GROUP, "0").await;
        match made {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            other => self.checked(doing, other),
        }
    }

    /// Entries that no worker has seen, at most `count`; waits up to `wait` for the first, if that is a millisecond or more.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; entries that were on their way wait for [`EventQueue::pending`].
    pub async fn read(
        &self,
        consumer: &str,
        count: usize,
        wait: Duration,
    ) -> Result<Vec<RawEntry>, StoreError> {
        let options = StreamReadOptions::default().count(count);
        // To Valkey, BLOCK 0 is for ever.
        let options = match usize::try_from(wait.as_millis()).unwrap_or(usize::MAX) {
            0 => options,
            wait => options.block(wait),
        };
        self.read_from(consumer, ">", options).await
    }

    /// Entries that `consumer` was given and did not confirm, from the oldest, or the first after the entry `after`; at
    /// most `count`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; the same call may be made again.
    pub async fn pending(
        &self,
        consumer: &str,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<RawEntry>, StoreError> {
        self.read_from(consumer, after.unwrap_or("0"), StreamReadOptions::default().count(count)).await
    }

    async fn read_from(
        &self,
        consumer: &str,
        from: &str,
        options: StreamReadOptions,
    ) -> Result<Vec<RawEntry>, StoreError> {
        let doing = "read from the queue";
        let mut connection = self.connection(doing).await?;
        let options = options.group(GROUP, consumer);
        let read: redis::RedisResult<Option<StreamReadReply>> =
            connection.xread_options(&[&self.stream], &[from], &options).await;
        match read {
            // Valkey came back without the stream: make it again, and read with the next call.
            Err(error) if error.code() == Some("NOGROUP") => self.create_group().await.map(|()| Vec::new()),
            read => {
                let keys = self.checked(doing, read)?.map(|reply| reply.keys).unwrap_or_default();
                Ok(keys.into_iter().flat_map(|key| key.ids).map(RawEntry::from).collect())
            }
        }
    }

    /// Takes over entries that other workers were given at least `idle` ago and did not confirm, at
    /// most `count`. If such a worker was only slow, both apply them, and they count once.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; the same call may be made again.
    pub async fn claim(
        &self,
        consumer: &str,
        idle: Duration,
        count: usize,
    ) -> Result<Vec<RawEntry>, StoreError> {
        let doing = "claim entries of other workers";
        let mut connection = self.connection(doing).await?;
        let idle = usize::try_from(idle.as_millis()).unwrap_or(usize::MAX);
        let options = StreamAutoClaimOptions::default().count(count);
        let claimed: redis::RedisResult<StreamAutoClaimReply> =
            connection.xautoclaim_options(&self.stream, GROUP, consumer, idle, "0-0", options).await;
        match claimed {
            Err(error) if error.code() == Some("NOGROUP") => self.create_group().await.map(|()| Vec::new()),
            claimed => Ok(self.checked(doing, claimed)?.claimed.into_iter().map(RawEntry::from).collect()),
        }
    }

    /// Removes entries that PostgreSQL has committed, each given with the number of its events.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; the entries may come again, and count once all the same.
    pub async fn confirm(&self, entries: &[(&str, usize)]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let doing = "confirm entries";
        // Only who really removes an entry counts its events as gone: two workers may confirm the same one.
        // An empty stream holds no event, which mends whatever the counters missed.
        let script = redis::Script::new(
            "local left = 0
             for i = 2, #ARGV, 2 do
                 redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
                 left = left + redis.call('XDEL', KEYS[1], ARGV[i]) * ARGV[i + 1]
             end
             if redis.call('XLEN', KEYS[1]) == 0 then
                 redis.call('SET', KEYS[3], redis.call('GET', KEYS[2]) or 0)
             elseif left > 0 then
                 redis.call('INCRBY', KEYS[3], left)
             end",
        );
        let mut call = script.key(&self.stream);
        call.key(self.beside(PUSHED)).key(self.beside(LEFT)).arg(GROUP);
        for (entry_id, events) in entries {
            call.arg(*entry_id).arg(*events);
        }
        let mut connection = self.connection(doing).await?;
        let confirmed: redis::RedisResult<()> = call.invoke_async(&mut connection).await;
        self.checked(doing, confirmed)
    }

    /// How full the queue is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`].
    pub async fn load(&self) -> Result<Load, StoreError> {
        let doing = "ask how full the queue is";
        let mut connection = self.connection(doing).await?;
        let mut both = redis::pipe();
        both.mget(&[self.beside(PUSHED), self.beside(LEFT)]).cmd("INFO").arg("memory");
        let answer: redis::RedisResult<(Vec<Option<u64>>, String)> = both.query_async(&mut connection).await;
        let (counters, info) = self.checked(doing, answer)?;
        let counter = |index: usize| counters.get(index).copied().flatten().unwrap_or_default();
        let bytes = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or_default()
        };
        Ok(Load {
            events: counter(0).saturating_sub(counter(1)),
            used_memory: bytes("used_memory"),
            max_memory: Some(bytes("maxmemory")).filter(|limit| *limit > 0),
        })
    }

    /// Keeps the tenants as they are known, for an api that starts while PostgreSQL is away.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; what was kept before stays.
    pub async fn keep_tenants(&self, tenants: &[u8]) -> Result<(), StoreError> {
        let doing = "keep the tenants";
        let mut connection = self.connection(doing).await?;
        let kept: redis::RedisResult<()> = connection.set(self.beside(TENANTS), tenants).await;
        self.checked(doing, kept)
    }

    /// What [`EventQueue::keep_tenants`] kept, if it ever did.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`].
    pub async fn kept_tenants(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let doing = "look for the tenants that were kept";
        let mut connection = self.connection(doing).await?;
        let kept: redis::RedisResult<Option<Vec<u8>>> = connection.get(self.beside(TENANTS)).await;
        self.checked(doing, kept)
    }

    /// Says what `consumer` did, for whoever scales workers. Forgotten if it is not said again.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`].
    pub async fn heartbeat(&self, consumer: &str, work: Work) -> Result<(), StoreError> {
        let doing = "say what this worker did";
        let mut connection = self.connection(doing).await?;
        let key = self.beside(&format!("{WORKER}:{consumer}"));
        // Numbers always are JSON. Fields that are new are no trouble to a reader of an earlier version.
        let text = serde_json::to_string(&work).unwrap_or_default();
        // Also where Valkey is full: then it matters most.
        let script = redis::Script::new(
            "#!lua flags=allow-oom
             redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])",
        );
        let said: redis::RedisResult<()> =
            script.key(key).arg(text).arg(HEARTBEAT_SECONDS).invoke_async(&mut connection).await;
        self.checked(doing, said)
    }

    /// What the group's workers said lately, by their names.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`].
    pub async fn heartbeats(&self) -> Result<BTreeMap<String, Work>, StoreError> {
        let doing = "hear what the workers did";
        let mut connection = self.connection(doing).await?;
        let consumers: redis::RedisResult<StreamInfoConsumersReply> =
            connection.xinfo_consumers(&self.stream, GROUP).await;
        let consumers = self.checked(doing, consumers)?.consumers;
        let mut heartbeats = BTreeMap::new();
        for consumer in consumers {
            let key = self.beside(&format!("{WORKER}:{}", consumer.name));
            let said: redis::RedisResult<Option<String>> = connection.get(key).await;
            if let Some(work) = self.checked(doing, said)?.and_then(|said| serde_json::from_str(&said).ok()) {
                heartbeats.insert(consumer.name, work);
            }
        }
        Ok(heartbeats)
    }

    /// Says at `now` that from now on no UUIDv7 is taken that was made before `since`, because the ledger is about to
    /// forget those. Answers which may be forgotten now: those before an instant that was said long enough ago for every
    /// api to have heard of it. What was said is never taken back.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; the same call may be made again.
    pub async fn refuse_ids_before(&self, since: Timestamp, now: Timestamp) -> Result<Timestamp, StoreError> {
        let doing = "say which ids are refused";
        let mut connection = self.connection(doing).await?;
        let script = redis::Script::new(
            "#!lua flags=allow-oom
             local said = redis.call('HMGET', KEYS[1], 'since', 'said_at', 'heard')
             local since, said_at, heard = tonumber(said[1]), tonumber(said[2]), tonumber(said[3] or 0)
             local wanted, now, heard_after = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
             if since and now - said_at >= heard_after then
                 heard = since
             end
             if not since or wanted > since then
                 since, said_at = wanted, now
             end
             redis.call('HSET', KEYS[1], 'since', since, 'said_at', said_at, 'heard', heard)
             return heard",
        );
        let heard: redis::RedisResult<i64> = script
            .key(self.beside(IDS))
            .arg(since.as_millisecond())
            .arg(now.as_millisecond())
            .arg(i64::try_from(HEARD_AFTER.as_millis()).unwrap_or(i64::MAX))
            .invoke_async(&mut connection)
            .await;
        let heard = self.checked(doing, heard)?;
        Ok(Timestamp::from_millisecond(heard).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// Since when clients' ids are known, as [`EventQueue::refuse_ids_before`] said last; `None` if it never did.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`].
    pub async fn ids_since(&self) -> Result<Option<Timestamp>, StoreError> {
        let doing = "ask which ids are refused";
        let mut connection = self.connection(doing).await?;
        let since: redis::RedisResult<Option<i64>> = connection.hget(self.beside(IDS), "since").await;
        let since = self.checked(doing, since)?;
        Ok(since.and_then(|since| Timestamp::from_millisecond(since).ok()))
    }

    /// The key of something kept beside the stream.
    fn beside(&self, what: &str) -> String {
        format!("{}:{what}", self.stream)
    }

    /// Forgets `consumer`, if it has nothing left to confirm: for workers that stop in order.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; the consumer then stays in the list, which harms nothing.
    pub async fn leave(&self, consumer: &str) -> Result<(), StoreError> {
        let doing = "leave the queue's consumer group";
        // One script, or an entry that is claimed in between would be forgotten with the consumer.
        let script = redis::Script::new(
            "if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
                 redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
             end",
        );
        let mut connection = self.connection(doing).await?;
        let left: redis::RedisResult<()> =
            script.key(&self.stream).arg(GROUP).arg(consumer).invoke_async(&mut connection).await;
        self.checked(doing, left)
    }

    /// Entries in the stream: waiting, or given to a worker and not yet confirmed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`].
    pub async fn depth(&self) -> Result<u64, StoreError> {
        let doing = "ask for the queue's length";
        let mut connection = self.connection(doing).await?;
        let length: redis::RedisResult<u64> = connection.xlen(&self.stream).await;
        self.checked(doing, length)
    }

    /// When the oldest entry was added that is not confirmed yet, by Valkey's clock; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`].
    pub async fn oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        let doing = "ask for the queue's oldest entry";
        let mut connection = self.connection(doing).await?;
        let range: redis::RedisResult<StreamRangeReply> =
            connection.xrange_count(&self.stream, "-", "+", 1).await;
        let range = self.checked(doing, range)?;
        // An entry's id starts with its milliseconds since 1970.
        let milliseconds = range.ids.first().and_then(|entry| entry.id.split('-').next()?.parse().ok());
        Ok(milliseconds.and_then(|milliseconds| Timestamp::from_millisecond(milliseconds).ok()))
    }

    async fn connection(&self, doing: &'static str) -> Result<MultiplexedConnection, StoreError> {
        if let Some(connection) = self.kept().clone() {
            return Ok(connection);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(StoreError::queue(doing))?;
        *self.kept() = Some(connection.clone());
        Ok(connection)
    }

    /// The outcome of a command. After one that broke the connection the next makes another.
    fn checked<T: FromRedisValue>(
        &self,
        doing: &'static str,
        outcome: redis::RedisResult<T>,
    ) -> Result<T, StoreError> {
        outcome.map_err(|error| {
            if error.is_io_error() || error.is_unrecoverable_error() {
                *self.kept() = None;
            }
            StoreError::queue(doing)(error)
        })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<MultiplexedConnection>> {
        // A panic while it was held leaves a connection or none, both of which are fine.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<StreamId> for RawEntry {
    fn from(entry: StreamId) -> Self {
        let bytes = |value: &redis::Value| Vec::<u8>::from_redis_value_ref(value).unwrap_or_default();
        let payload = match entry.map.get(FIELD) {
            Some(value) if entry.map.len() == 1 => Ok(bytes(value)),
            _ => {
                let mut fields: Vec<_> = entry.map.iter().collect();
                fields.sort_by_key(|(name, _)| *name);
                let line = |(name, value): (&String, &redis::Value)| {
                    [name.as_bytes(), b"=", &bytes(value), b"\n"].concat()
                };
                Err(fields.into_iter().flat_map(line).collect())
            }
        };
        Self { entry_id: entry.id, payload }
    }
}
