//! How far counting has come.

use deadpool_redis::redis;
use redis::AsyncCommands as _;
use redis::streams::StreamRangeReply;

use super::EventQueue;
use crate::StoreError;

impl EventQueue {
    /// The id of the entry that was added last, if any entry waits or is in a worker's hand.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`].
    pub async fn newest(&self) -> Result<Option<String>, StoreError> {
        let doing = "ask for the queue's newest entry";
        let mut connection = self.connection(doing).await?;
        let range: redis::RedisResult<StreamRangeReply> =
            connection.xrevrange_count(&self.stream, "+", "-", 1).await;
        Ok(self.checked(doing, range)?.ids.into_iter().next().map(|entry| entry.id))
    }

    /// Whether the entry of this id, and all before it, have left the queue: PostgreSQL has committed them.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`].
    pub async fn is_counted_up_to(&self, entry_id: &str) -> Result<bool, StoreError> {
        let doing = "ask how far counting has come";
        let mut connection = self.connection(doing).await?;
        let range: redis::RedisResult<StreamRangeReply> =
            connection.xrange_count(&self.stream, "-", entry_id, 1).await;
        Ok(self.checked(doing, range)?.ids.is_empty())
    }
}
