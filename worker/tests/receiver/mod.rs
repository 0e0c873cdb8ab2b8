//! A receiver of alerts on loopback, which answers as it is told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What it does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// Answers with a status, more headers, and a body.
    Answer(u16, &'static str, &'static str),
    /// Answers nothing, and keeps the connection.
    Hang,
    /// Breaks the connection.
    Reset,
    /// Answers with the status and the start of a body that never ends.
    SlowBody(u16),
    /// Answers 500 with a body that is sent for as long as somebody reads.
    HugeBody,
    /// Says that it has the request, and answers 200 when it is told to.
    Gate(Arc<Notify>, Arc<Notify>),
}

/// A request that it got.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// The first line.
    pub(crate) line: String,
    /// The headers, by their names in lower case.
    pub(crate) headers: HashMap<String, String>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A receiver, for as long as it lives.
pub(crate) struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    /// One that does to each request what its place in `behaviours` says, and to all after them what the last says.
    pub(crate) async fn start<const N: usize>(behaviours: [Behaviour; N]) -> Self {
        Self::listen(behaviours.into(), None).await
    }

    /// The same over TLS.
    pub(crate) async fn start_tls(behaviour: Behaviour, acceptor: TlsAcceptor) -> Self {
        Self::listen(vec![behaviour], Some(acceptor)).await
    }

    async fn listen(behaviours: Vec<Behaviour>, acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut conversations = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (kept, behaviours, acceptor) = (Arc::clone(&kept), behaviours.clone(), acceptor.clone());
                conversations.spawn(async move {
                    match acceptor {
                        None => converse(stream, &kept, &behaviours).await,
                        // A client that does not trust us goes away.
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => converse(stream, &kept, &behaviours).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { address, received, _tasks: tasks }
    }

    /// A URL of it, with a part that nobody may learn.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/services/T0/B0/s3cret-part", self.address)
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The requests that it got so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

/// `None` as soon as the client is gone, which is its right.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + AsReset,
    kept: &Mutex<Vec<Received>>,
    behaviours: &[Behaviour],
) -> Option<()> {
    let request = read(&mut stream).await?;
    let number = {
        let mut kept = kept.lock().unwrap();
        kept.push(request);
        kept.len()
    };
    let head = |status: u16, headers: &str, length: usize| {
        format!("HTTP/1.1 {status} Whatever\r\n{headers}Content-Length: {length}\r\n\r\n")
    };
    match &behaviours[number.min(behaviours.len()) - 1] {
        Behaviour::Answer(status, headers, body) => {
            let answer = format!("{}{body}", head(*status, headers, body.len()));
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Reset => {
            stream.reset();
            return None;
        }
        Behaviour::SlowBody(status) => {
            let answer = format!("{}half of", head(*status, "", 1_000_000));
            stream.write_all(answer.as_bytes()).await.ok()?;
            std::future::pending::<()>().await;
        }
        Behaviour::HugeBody => {
            stream.write_all(head(500, "", 1 << 40).as_bytes()).await.ok()?;
            loop {
                stream.write_all(&[b'x'; 8_192]).await.ok()?;
            }
        }
        Behaviour::Gate(arrived, open) => {
            arrived.notify_one();
            open.notified().await;
            stream.write_all(head(200, "", 0).as_bytes()).await.ok()?;
        }
    }
    // The client closes; until then the answer may be on its way.
    let _ = stream.read(&mut [0; 1]).await;
    Some(())
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Received> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4_096];
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines().map(str::to_owned);
        let line = lines.next().unwrap();
        let headers: HashMap<String, String> = lines
            .filter_map(|line| {
                line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            })
            .collect();
        let length: usize = headers["content-length"].parse().unwrap();
        let body = &bytes[end + 4..];
        if body.len() >= length {
            return Some(Received { line, headers, body: body.to_vec() });
        }
    }
}

/// A connection that can be broken instead of closed.
trait AsReset {
    fn reset(&self);
}

impl AsReset for TcpStream {
    fn reset(&self) {
        self.set_zero_linger().unwrap();
    }
}

impl AsReset for tokio_rustls::server::TlsStream<TcpStream> {
    fn reset(&self) {
        self.get_ref().0.reset();
    }
}
