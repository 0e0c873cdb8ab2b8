//! Clients that mean an api no good.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use flagmeter_core::event::UsageEvent;
use flagmeter_core::packed::Batch;
use flagmeter_store::postgres::batch::Entry;
use flagmeter_store::testing;
use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;

/// How long a client goes on trying.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long a client that reads nothing waits for room to send more.
const STUCK: Duration = Duration::from_millis(500);

/// Clients that connect at the same time: as many as the port's backlog takes.
const AT_ONCE: usize = 128;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer of this status.
    Answered(u16),
    /// The connection ended without one.
    Cut,
}

/// A connection.
pub(crate) struct Connection(TcpStream);

impl Connection {
    /// A connection from one of the addresses that this machine has for itself.
    pub(crate) async fn open(address: SocketAddr, number: usize) -> io::Result<Self> {
        Self::of(TcpSocket::new_v4()?, address, number).await
    }

    /// The same of a client whose kernel takes next to nothing that the client does not read.
    async fn deaf(address: SocketAddr, number: usize) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(1)?;
        Self::of(socket, address, number).await
    }

    async fn of(socket: TcpSocket, address: SocketAddr, number: usize) -> io::Result<Self> {
        let client = u8::try_from(number % 100).unwrap_or_default();
        socket.bind((Ipv4Addr::new(127, 0, 1, client), 0).into())?;
        socket.connect(address).await.map(Self)
    }

    /// Waits until an answer begins, and reads nothing of it.
    pub(crate) async fn is_answered(&self) -> bool {
        let first = tokio::time::timeout(PATIENCE, self.0.peek(&mut [0])).await;
        matches!(first, Ok(Ok(1)))
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// The status of the next answer.
    pub(crate) async fn answer(&mut self) -> io::Result<u16> {
        let mut line = [0; "HTTP/1.1 200".len()];
        self.0.read_exact(&mut line).await?;
        let status = line.last_chunk::<3>().and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        status.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// How many bytes come until nothing more does.
    pub(crate) async fn whole(&mut self) -> io::Result<usize> {
        let mut bytes = vec![0; 64 << 10];
        let mut sum = 0;
        while let Ok(read) = tokio::time::timeout(STUCK, self.0.read(&mut bytes)).await {
            sum += read?;
        }
        Ok(sum)
    }
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A request with a body that says to be so long.
pub(crate) fn post(length: usize, body: &str) -> String {
    format!(
        "POST /events HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Sends a request while it reads, as clients do, and answers what came of it.
pub(crate) async fn whole(address: SocketAddr, number: usize, request: &str) -> Outcome {
    let exchange = async {
        let Connection(stream) = Connection::open(address, number).await?;
        let (mut reading, mut writing) = stream.into_split();
        let sending = async {
            // An api that refuses reads no further.
            let _ = writing.write_all(request.as_bytes()).await;
            std::future::pending::<io::Result<Vec<u8>>>().await
        };
        let answer = async {
            let mut answer = vec![0; 12];
            reading.read_exact(&mut answer).await.map(|_| answer)
        };
        let answer = tokio::select! { answer = answer => answer, never = sending => never }?;
        let status = answer.get(9..).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        io::Result::Ok(status.unwrap_or_default())
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(status)) => Outcome::Answered(status),
        Ok(Err(_)) | Err(_) => Outcome::Cut,
    }
}

/// So many connections that send `bytes` as far as they can, and read nothing.
pub(crate) async fn held(address: SocketAddr, count: usize, bytes: &str) -> Vec<Connection> {
    let open = |number| async move {
        let mut connection = Connection::deaf(address, number).await.ok()?;
        let _ = tokio::time::timeout(STUCK, connection.send(bytes.as_bytes())).await;
        Some(connection)
    };
    stream::iter(0..count).map(open).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

/// Sends a small body a byte at a time, and then nothing more.
pub(crate) async fn byte_by_byte(address: SocketAddr, number: usize, bytes: usize) {
    let Ok(mut connection) = Connection::open(address, number).await else { return };
    let _ = connection.0.set_nodelay(true);
    let _ = connection.send(post(bytes + 1, "").as_bytes()).await;
    for _ in 0..bytes {
        if connection.send(b" ").await.is_err() {
            return;
        }
        // The api reads it before the next one comes.
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}

/// An event of this feature.
pub(crate) fn event(feature: &str) -> UsageEvent {
    UsageEvent { feature: feature.try_into().unwrap(), occurred_at: now(), ..testing::event("acme", 1) }
}

/// An entry of the queue with these events.
pub(crate) fn entry(events: Vec<UsageEvent>) -> Entry {
    let batch = Batch { batch_id: Uuid::from_u128(1 << 64), received_at: now(), events };
    Entry { entry_id: "1-0".to_owned(), batch }
}

#[expect(clippy::disallowed_methods, reason = "the api's program has the true time")]
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap()
}
