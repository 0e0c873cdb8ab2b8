//! Connections that are answered once, and then closed, without a place.

use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// So many are closed in peace at once. Each costs a task and a small buffer.
const MOST: usize = 128;

/// How long a client has to take the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is read and thrown away of what it sends.
const REST_BYTES: u64 = 64 << 10;

/// Closes connections in peace: a client that has sent something which nobody read would lose its answer to a reset.
pub(super) struct Farewell(Arc<Semaphore>);

impl Farewell {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }

    /// Sends `answer` over `stream`, and closes it. Beyond [`MOST`] it is closed at once.
    pub(super) fn say(&self, mut stream: TcpStream, answer: &[u8]) {
        // Nobody waits until it is taken: the buffer of a new connection has room for it.
        let _ = SockRef::from(&stream).send(answer);
        let Ok(permit) = Arc::clone(&self.0).try_acquire_owned() else { return };
        tokio::spawn(async move {
            let closed = async {
                stream.shutdown().await?;
                tokio::io::copy_buf(
                    &mut tokio::io::BufReader::with_capacity(2 << 10, (&mut stream).take(REST_BYTES)),
                    &mut tokio::io::sink(),
                )
                .await
            };
            let _ = tokio::time::timeout(PATIENCE, closed).await;
            drop((stream, permit));
        });
    }
}
