//! The API's port: how many connections, how long each may be silent, and how they end.

mod alarm;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use axum::response::Response;
use futures::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::alarm::Alarm;

/// What a connection may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at once; further ones wait to be accepted. Each costs some 10 KiB while it is idle.
    connections: usize,
    /// How long a connection may take to send a request's head, and how long it may be idle between two.
    /// One that is half open, or sends a byte now and then, is gone after this.
    head: Duration,
    /// How long what is sent may wait for the other side to take it. One that is gone without a word, or does not
    /// read its answer, is gone after this.
    write: Duration,
    /// How long requests under way may take once the port is closed.
    finish: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            head: Duration::from_mins(1),
            write: Duration::from_secs(30),
            finish: Duration::from_secs(10),
        }
    }
}

/// The largest head, and the part of a body that is read ahead. All connections may fill it before anybody is asked
/// for a key: 64 MiB.
const MAX_BUFFER_BYTES: usize = 16 << 10;

/// Headers in a request at most.
const MAX_HEADERS: usize = 64;

/// The wait after a connection could not be accepted: file descriptors may have run out.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Serves `answer` on `listener` until `drained`, then finishes the requests that are under way.
pub(crate) async fn serve<Answer>(
    listener: TcpListener,
    answer: impl Fn(Request<Incoming>) -> Answer + Clone + Send + 'static,
    limits: Limits,
    drained: impl Future<Output = ()>,
) where
    Answer: Future<Output = Response> + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.header_read_timeout(limits.head)
        .max_headers(MAX_HEADERS)
        // Answers are small: one buffer is cheaper to send than a list of two.
        .writev(false)
        // Who has closed its sending side is answered all the same. To look out for that while a request is under way
        // would cost each request a new buffer to read into.
        .half_close(true)
        .max_buf_size(MAX_BUFFER_BYTES);
    let places = Arc::new(Semaphore::new(limits.connections));
    let (connections, mut tasks) = (GracefulShutdown::new(), JoinSet::new());
    let mut drained = pin!(drained);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut drained => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        // An answer is one small packet; waiting to fill it would only delay it.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(limits.write));
        let answer = answer.clone();
        let service = service_fn(move |request| answer(request).map(Ok::<_, Infallible>));
        http.timer(Alarm::new(limits.head));
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        // Of those that ended nothing is kept.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended badly");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.finish, connections.shutdown()).await.is_err() {
        tracing::warn!("some requests were cut off: they took too long to finish");
    }
    // Whoever waits for what connections hold would wait for those, too.
    tasks.shutdown().await;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::response::IntoResponse as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    const LAST_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    const LARGE_BYTES: usize = 64 << 20;
    const SHORT: Duration = Duration::from_millis(200);
    /// How long a test waits for what should be so at once.
    const PATIENCE: Duration = Duration::from_secs(10);

    async fn start(limits: Limits) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = |request: Request<Incoming>| async move {
            if request.uri().path() == "/large" {
                return vec![b'x'; LARGE_BYTES].into_response();
            }
            "hello".into_response()
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let drained = async { stopped.await.unwrap_or_default() };
        (address, stop, tokio::spawn(serve(listener, answer, limits, drained)))
    }

    /// A client that asks for more than the sockets' buffers hold, and reads no more of it than that it comes.
    async fn unread(address: SocketAddr) -> TcpStream {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        client.read_u8().await.unwrap();
        client
    }

    /// What the server sends until it closes the connection.
    async fn all(mut connection: TcpStream) -> String {
        let mut text = String::new();
        connection.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_connection_that_never_finishes_its_head_gives_its_place_to_another() {
        let (address, _stop, _) = start(Limits { connections: 1, head: SHORT, ..Limits::default() }).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        let mut patient = TcpStream::connect(address).await.unwrap();
        patient.write_all(LAST_REQUEST).await.unwrap();
        assert!(all(patient).await.ends_with("hello"));
        assert!(!all(slow).await.contains("hello"));
    }

    #[tokio::test]
    async fn who_has_closed_its_sending_side_is_answered_all_the_same() {
        let (address, _stop, _) = start(Limits::default()).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        client.shutdown().await.unwrap();
        assert!(tokio::time::timeout(PATIENCE, all(client)).await.unwrap().ends_with("hello"));
    }

    #[tokio::test]
    async fn told_to_stop_it_closes_idle_connections_and_ends() {
        let (address, stop, served) = start(Limits::default()).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(REQUEST).await.unwrap();
        let mut answer = [0_u8; 15];
        idle.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        stop.send(()).unwrap();
        assert!(all(idle).await.ends_with("hello"));
        served.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_its_answer_gives_its_place_to_another() {
        let (address, _stop, _) = start(Limits { connections: 1, write: SHORT, ..Limits::default() }).await;
        let _unread = unread(address).await;
        let mut patient = TcpStream::connect(address).await.unwrap();
        patient.write_all(LAST_REQUEST).await.unwrap();
        assert!(tokio::time::timeout(PATIENCE, all(patient)).await.unwrap().ends_with("hello"));
    }

    #[tokio::test]
    async fn told_to_stop_it_waits_for_no_client_that_does_not_read_and_keeps_nothing_of_it() {
        let (address, stop, served) = start(Limits { finish: SHORT, ..Limits::default() }).await;
        let mut unread = unread(address).await;
        stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap();
        let rest = tokio::time::timeout(PATIENCE, unread.read_to_end(&mut Vec::new())).await.unwrap();
        assert!(!matches!(rest, Ok(read) if read >= LARGE_BYTES), "all of it came");
    }
}
