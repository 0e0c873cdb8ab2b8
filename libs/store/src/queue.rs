//! The queue: a Valkey stream of packed entries, read by one consumer group.
//!
//! An entry leaves the stream only by [`EventQueue::confirm`], after PostgreSQL has committed it.
//! Nothing trims the stream, so its length is what is not yet counted.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deadpool_redis::redis;
use jiff::Timestamp;
use redis::aio::MultiplexedConnection;
use redis::streams::{
    StreamAutoClaimOptions, StreamAutoClaimReply, StreamId, StreamRangeReply, StreamReadOptions,
    StreamReadReply,
};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, FromRedisValue};

use crate::StoreError;

/// The stream of packed entries. The version is the key's: entries carry their own.
const STREAM: &str = "flagmeter:v1:events";

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
    /// [`StoreError::Queue`] if `url` is no such URL.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        Self::of_stream(url, STREAM.to_owned())
    }

    pub(crate) fn of_stream(url: &str, stream: String) -> Result<Self, StoreError> {
        let client = Client::open(url).map_err(StoreError::queue("read the queue's URL"))?;
        Ok(Self { client, stream, connection: Mutex::default() })
    }

    /// Adds an entry.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; whether the entry is in the queue is then not known. The same bytes
    /// may be pushed again: they carry their batch's id, so both copies count once.
    pub async fn push(&self, payload: &[u8]) -> Result<(), StoreError> {
        let doing = "add an entry to the queue";
        let mut connection = self.connection(doing).await?;
        let added: redis::RedisResult<String> = connection.xadd(&self.stream, "*", &[(FIELD, payload)]).await;
        self.checked(doing, added).map(drop)
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

    /// Entries that no worker has seen, at most `count`; waits up to `wait` for the first.
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
        let wait = usize::try_from(wait.as_millis()).unwrap_or(usize::MAX);
        self.read_from(consumer, ">", StreamReadOptions::default().count(count).block(wait)).await
    }

    /// Entries that `consumer` was given and did not confirm, from the oldest, at most `count`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; the same call may be made again.
    pub async fn pending(&self, consumer: &str, count: usize) -> Result<Vec<RawEntry>, StoreError> {
        self.read_from(consumer, "0", StreamReadOptions::default().count(count)).await
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

    /// Removes entries that PostgreSQL has committed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; the entries may come again, and count once all the same.
    pub async fn confirm(&self, entry_ids: &[&str]) -> Result<(), StoreError> {
        if entry_ids.is_empty() {
            return Ok(());
        }
        let doing = "confirm entries";
        let mut connection = self.connection(doing).await?;
        let mut both = redis::pipe();
        both.atomic().xack(&self.stream, GROUP, entry_ids).ignore().xdel(&self.stream, entry_ids).ignore();
        let confirmed: redis::RedisResult<()> = both.query_async(&mut connection).await;
        self.checked(doing, confirmed)
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
