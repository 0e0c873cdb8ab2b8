//! The API's port: how many connections, how long each may be silent, what each may hold, and how they end.

mod alarm;
mod farewell;
mod peers;
mod places;
mod rest;
mod stream;

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request};
use axum::response::Response;
use flagmeter_core::problem::{Code, Problem};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::server::graceful::GracefulShutdown;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use self::alarm::Alarm;
use self::farewell::Farewell;
pub use self::peers::{Peers, TrustedProxies};
use self::places::{Admission, Place, Places, Serving};
pub(crate) use self::rest::Arriving;
use self::stream::Stream;
use crate::budget::SMALL_ANSWER_BYTES;
use crate::metrics::Metrics;

/// What a connection may cost.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Connections at once. For one more, the one that has waited for a request the longest is closed. Each costs some
    /// 10 KiB while it is idle.
    connections: usize,
    /// How many of them one peer may have.
    peers: Peers,
    /// How long a new connection may take to send its first request's head.
    first_head: Duration,
    /// How long it may take to send the head of a later one, from the first byte on. One that sends a byte now and
    /// then is gone after this.
    head: Duration,
    /// How long it may be idle between two requests. A proxy that keeps connections must give up its own earlier, or
    /// it sends a request over one that is being closed.
    idle: Duration,
    /// How long what is sent may wait for the other side to take it. One that is gone without a word, or does not
    /// read its answer, is gone after this.
    write: Duration,
    /// How long requests under way may take once the port is closed.
    finish: Duration,
}

impl Limits {
    /// The usual ones, so many connections for each peer, and so long between two requests.
    pub(crate) fn new(peers: Peers, idle: Duration) -> Self {
        Self {
            connections: 4_096,
            peers,
            first_head: Duration::from_secs(10),
            head: Duration::from_mins(1),
            idle,
            write: Duration::from_secs(30),
            finish: Duration::from_secs(10),
        }
    }
}

/// The largest head, and the part of a body that is read ahead, before anybody is asked for a key.
const MAX_BUFFER_BYTES: usize = 16 << 10;

/// Headers in a request at most.
const MAX_HEADERS: usize = 64;

/// A body of at least this size is worth wide buffers.
const LARGE_BODY_BYTES: u64 = 64 << 10;

/// The wait after a connection could not be accepted: file descriptors may have run out.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// How often it is looked for a connection to close while all places are taken.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What answers requests.
pub(crate) trait Answers: Clone + Send + Sync + 'static {
    /// Answers a request. The body is lent: what is not read of it is thrown away.
    fn answer(&self, request: Request<&mut Arriving>) -> impl Future<Output = Response> + Send;
}

/// Has `answers` answer on `listener` until `drained`, then finishes the requests that are under way.
pub(crate) async fn serve(
    listener: TcpListener,
    answers: impl Answers,
    limits: Limits,
    metrics: Metrics,
    drained: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.header_read_timeout(limits.idle)
        .max_headers(MAX_HEADERS)
        // Answers are small: one buffer is cheaper to send than a list of two.
        .writev(false)
        // Who has closed its sending side is answered all the same. To look out for that while a request is under way
        // would cost each request a new buffer to read into.
        .half_close(true)
        .max_buf_size(MAX_BUFFER_BYTES);
    if let Err(error) = stream::bound_buffers(&listener) {
        tracing::warn!(%error, "the kernel keeps its own limits of the connections' buffers");
    }
    let places = Places::new(limits.connections, limits.peers);
    let farewell = Farewell::new();
    let connections = GracefulShutdown::new();
    let mut drained = pin!(drained);
    loop {
        let (stream, place) = tokio::select! {
            accepted = accept(&listener, &places, &farewell, &metrics) => accepted,
            () = &mut drained => break,
        };
        // An answer is one small packet; waiting to fill it would only delay it.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(limits.write));
        let (answers, served) = (answers.clone(), place.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let serving = served.serve();
            if request.body().size_hint().lower() >= LARGE_BODY_BYTES {
                served.widen();
            }
            let answers = answers.clone();
            async move {
                match serving {
                    Some(serving) => Ok::<_, Infallible>(answered(&answers, request, serving).await),
                    // The connection is being closed: its client sends the request again over another.
                    None => std::future::pending().await,
                }
            }
        });
        let alarm = Alarm::new(limits.first_head, limits.head);
        http.timer(alarm.clone());
        let connection = http.serve_connection(Stream::new(stream, place.clone(), alarm), service);
        let connection = connections.watch(connection);
        let counted = metrics.connection();
        let taken = place.clone();
        // Nobody keeps its handle: of a connection that has ended nothing stays.
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended badly");
            }
            drop((taken, counted));
        });
        place.is_served_by(task.abort_handle());
    }
    drop(listener);
    if tokio::time::timeout(limits.finish, connections.shutdown()).await.is_err() {
        tracing::warn!("some requests were cut off: they took too long to finish");
    }
    // Whoever waits for what connections hold would wait for those, too.
    places.clear().await;
}

/// The answer to a request that is being served.
async fn answered(answers: &impl Answers, request: Request<Incoming>, serving: Serving) -> Response {
    let (head, body) = request.into_parts();
    let (waits, mut body) = (rest::waits(&head.headers), Arriving::new(body, serving.place().clone()));
    let mut response = answers.answer(Request::from_parts(head, &mut body)).await;
    if !body.is_read() {
        // Boxed, so that other requests are no larger for it.
        Box::pin(body.leave(&mut response, waits, serving.place())).await;
    }
    until_sent(response, serving)
}

/// The next connection, and its place.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Places>,
    farewell: &Farewell,
    metrics: &Metrics,
) -> (TcpStream, Place) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        if let Some(admission) = places.admit(peer.ip()) {
            return (stream, place(admission, places, metrics).await);
        }
        metrics.connection_rejected();
        farewell.say(stream, &too_many());
    }
}

/// A place, for which another connection may have to be closed: the one that has waited for a request the longest.
async fn place(mut admission: Admission, places: &Arc<Places>, metrics: &Metrics) -> Place {
    loop {
        admission = match places.try_take(admission) {
            Ok(place) => return place,
            Err(admission) => admission,
        };
        if places.close_longest_waiting() {
            metrics.connection_closed();
        }
        // Its place is free in a moment. Where all connections serve requests, one will wait again soon.
        if let Ok(Some(free)) = tokio::time::timeout(LOOK_AGAIN, places.free()).await {
            return places.occupy(admission, free);
        }
    }
}

/// What a peer is answered that has as many connections as it may. Nothing that it sends is read.
fn too_many() -> Vec<u8> {
    let detail = "this address has as many connections as it may; use those again, or close some";
    let problem = Problem::new(Code::Overloaded, detail.to_owned());
    // Text and numbers always are JSON.
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let (status, retry, length) =
        (problem.status, Code::Overloaded.retry_after_seconds().unwrap_or(1), body.len());
    let head = format!(
        "HTTP/1.1 {status} Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: {retry}\r\n\
         cache-control: no-store\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    (head + &body).into_bytes()
}

/// `response`, whose request is being served until its body is sent. A small one is sent at once.
fn until_sent(mut response: Response, serving: Serving) -> Response {
    if response.body().size_hint().exact().is_some_and(|bytes| bytes <= SMALL_ANSWER_BYTES as u64) {
        return response;
    }
    // A connection's buffer stays as large as its largest answer made it.
    if !serving.place().widen() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| Body::new(Sending { body, _serving: serving }))
}

/// The body of an answer while it is being sent.
struct Sending {
    body: Body,
    _serving: Serving,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::response::IntoResponse as _;
    use http_body_util::BodyExt as _;
    use prometheus::Registry;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpSocket, TcpStream};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    const LAST_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    const LARGE_BYTES: usize = 64 << 20;
    const SHORT: Duration = Duration::from_millis(200);
    /// How long a test waits for what should be so at once.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn usual() -> Limits {
        Limits::new(Peers::default(), Duration::from_mins(2))
    }

    /// Answers what the path asks for, and reads no body.
    #[derive(Clone)]
    struct Paths;

    impl Answers for Paths {
        async fn answer(&self, request: Request<&mut Arriving>) -> Response {
            if request.uri().path() == "/large" {
                return vec![b'x'; LARGE_BYTES].into_response();
            }
            if request.uri().path() == "/read" {
                let _ = request.into_body().collect().await;
            } else if request.uri().path() == "/never" {
                return std::future::pending().await;
            }
            "hello".into_response()
        }
    }

    async fn start(limits: Limits) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let drained = async { stopped.await.unwrap_or_default() };
        let metrics = Metrics::register(&Registry::new()).unwrap();
        (address, stop, tokio::spawn(serve(listener, Paths, limits, metrics, drained)))
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
        let limits = Limits { connections: 1, first_head: SHORT, head: SHORT, ..usual() };
        let (address, _stop, _) = start(limits).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        let mut patient = TcpStream::connect(address).await.unwrap();
        patient.write_all(LAST_REQUEST).await.unwrap();
        assert!(all(patient).await.ends_with("hello"));
        // What it has sent may not have been read by then: the end of its connection is an error to it.
        let mut text = String::new();
        let _ = tokio::time::timeout(PATIENCE, slow.read_to_string(&mut text)).await.unwrap();
        assert!(!text.contains("hello"), "{text}");
    }

    #[tokio::test]
    async fn a_connection_that_never_finishes_its_body_gives_its_place_to_another() {
        let (address, _stop, _) = start(Limits { connections: 1, ..usual() }).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"POST /read HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n ").await.unwrap();
        let mut patient = TcpStream::connect(address).await.unwrap();
        patient.write_all(LAST_REQUEST).await.unwrap();
        assert!(tokio::time::timeout(PATIENCE, all(patient)).await.unwrap().ends_with("hello"));
        let mut text = String::new();
        let _ = tokio::time::timeout(PATIENCE, slow.read_to_string(&mut text)).await.unwrap();
        assert!(!text.contains("hello"), "{text}");
    }

    #[tokio::test]
    async fn who_has_closed_its_sending_side_is_answered_all_the_same() {
        let (address, _stop, _) = start(usual()).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        client.shutdown().await.unwrap();
        assert!(tokio::time::timeout(PATIENCE, all(client)).await.unwrap().ends_with("hello"));
    }

    #[tokio::test]
    async fn told_to_stop_it_closes_idle_connections_and_ends() {
        let (address, stop, served) = start(usual()).await;
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
        let (address, _stop, _) = start(Limits { connections: 1, write: SHORT, ..usual() }).await;
        let _unread = unread(address).await;
        let mut patient = TcpStream::connect(address).await.unwrap();
        patient.write_all(LAST_REQUEST).await.unwrap();
        assert!(tokio::time::timeout(PATIENCE, all(patient)).await.unwrap().ends_with("hello"));
    }

    #[tokio::test]
    async fn told_to_stop_it_waits_for_no_client_that_does_not_read_and_keeps_nothing_of_it() {
        let (address, stop, served) = start(Limits { finish: SHORT, ..usual() }).await;
        let mut unread = unread(address).await;
        stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap();
        let rest = tokio::time::timeout(PATIENCE, unread.read_to_end(&mut Vec::new())).await.unwrap();
        assert!(!matches!(rest, Ok(read) if read >= LARGE_BYTES), "all of it came");
    }

    /// A client that was answered, and sends nothing more.
    async fn idle(address: SocketAddr) -> TcpStream {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            answer.push(client.read_u8().await.unwrap());
        }
        client
    }

    /// Whether the server has closed this connection.
    async fn is_closed(client: &mut TcpStream) -> bool {
        let read = tokio::time::timeout(SHORT, client.read_u8()).await;
        matches!(read, Ok(Err(_)))
    }

    #[tokio::test]
    async fn where_all_places_are_taken_the_connection_that_waits_the_longest_makes_room() {
        let (address, _stop, _) = start(Limits { connections: 3, ..usual() }).await;
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"GET /never HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        let (mut silent, mut used) = (idle(address).await, idle(address).await);
        silent.write_all(REQUEST).await.unwrap();
        let mut first = [0; 8];
        silent.read_exact(&mut first).await.unwrap();
        // The one that was used last stays, and so does the one that is served.
        let mut new = tokio::time::timeout(PATIENCE, idle(address)).await.unwrap();
        assert!(is_closed(&mut used).await, "it has waited the longest");
        assert!(!is_closed(&mut busy).await && !is_closed(&mut new).await);
    }

    #[tokio::test]
    async fn silent_connections_on_all_places_keep_no_client_out() {
        let (address, _stop, _) = start(Limits { connections: 100, ..usual() }).await;
        let mut silent = Vec::new();
        for number in 0..100 {
            let mut client = TcpStream::connect(address).await.unwrap();
            // Some begin to send a head.
            client.write_all(&REQUEST[..number % 7]).await.unwrap();
            silent.push(client);
        }
        for _ in 0..10 {
            tokio::time::timeout(PATIENCE, idle(address)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_peer_has_only_so_many_connections_and_is_told_so_and_others_and_proxies_have_theirs() {
        let limits = |trusted: &str| Limits { peers: Peers::new(2, trusted.parse().unwrap()), ..usual() };
        let (address, _stop, _) = start(limits("")).await;
        let (first, _second) = (idle(address).await, idle(address).await);
        let refused = all(TcpStream::connect(address).await.unwrap()).await;
        for part in ["HTTP/1.1 503 ", "retry-after: 1", "\"code\":\"overloaded\"", "use those again"] {
            assert!(refused.contains(part), "{refused}");
        }
        let (head, body) = refused.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{refused}");
        let other = TcpSocket::new_v4().unwrap();
        other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = other.connect(address).await.unwrap();
        other.write_all(LAST_REQUEST).await.unwrap();
        assert!(all(other).await.ends_with("hello"));
        // A place that is given back is had by the next one.
        drop(first);
        let again = async {
            loop {
                let mut client = TcpStream::connect(address).await.unwrap();
                let _ = client.write_all(LAST_REQUEST).await;
                let mut text = String::new();
                if client.read_to_string(&mut text).await.is_ok() && text.ends_with("hello") {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, again).await.unwrap();

        let (address, _stop, _) = start(limits("127.0.0.0/8")).await;
        let mut many = Vec::new();
        for _ in 0..5 {
            many.push(idle(address).await);
        }
    }

    #[tokio::test]
    async fn a_new_connection_has_less_time_for_its_first_head_than_one_that_was_used() {
        let (address, _stop, _) = start(Limits { first_head: SHORT, ..usual() }).await;
        let mut used = idle(address).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        assert!(!tokio::time::timeout(PATIENCE, all(slow)).await.unwrap().contains("hello"));
        used.write_all(LAST_REQUEST).await.unwrap();
        assert!(all(used).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_slow_head_has_less_time_than_an_idle_connection() {
        let (address, _stop, _) = start(Limits { head: SHORT, ..usual() }).await;
        let (mut silent, mut slow) = (idle(address).await, idle(address).await);
        slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        assert!(tokio::time::timeout(PATIENCE, slow.read_u8()).await.unwrap().is_err());
        assert!(!is_closed(&mut silent).await, "it sends nothing, and has its time");
        // A head that comes in pieces, but in time.
        for part in LAST_REQUEST.chunks(9) {
            silent.write_all(part).await.unwrap();
        }
        assert!(all(silent).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_after_its_time() {
        let (address, _stop, _) = start(Limits { idle: SHORT, ..usual() }).await;
        let mut idle = idle(address).await;
        assert!(tokio::time::timeout(PATIENCE, idle.read_u8()).await.unwrap().is_err());
    }

    /// What is answered to a request with such headers, of whose body only the first part is sent at first, and then
    /// `rest`.
    async fn answer_with_a_rest(client: &mut TcpStream, headers: &str, rest: &[u8]) -> String {
        let head = format!("POST / HTTP/1.1\r\nHost: test\r\n{headers}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            answer.push(client.read_u8().await.unwrap());
        }
        client.write_all(rest).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_connection_whose_request_had_a_small_body_that_nobody_read_serves_the_next_one() {
        let (address, _stop, _) = start(usual()).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        for bytes in [1, 50_000, 200_000] {
            let length = format!("Content-Length: {bytes}");
            let answer = answer_with_a_rest(&mut client, &length, &vec![b'x'; bytes]).await;
            assert!(!answer.contains("connection: close"), "{answer}");
        }
        client.write_all(LAST_REQUEST).await.unwrap();
        assert!(all(client).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn an_answer_says_that_its_connection_closes_where_the_rest_of_the_body_is_not_awaited() {
        let (address, _stop, _) = start(usual()).await;
        let large = vec![b'x'; 4 << 20];
        let chunk = format!("{:x}\r\n{}\r\n", 5_000, "x".repeat(5_000));
        for (headers, rest) in [
            ("Content-Length: 4194304", large.as_slice()),
            ("Transfer-Encoding: chunked", chunk.as_bytes()),
            ("Content-Length: 10\r\nExpect: 100-continue", b""),
        ] {
            let mut client = TcpStream::connect(address).await.unwrap();
            let answer = answer_with_a_rest(&mut client, headers, rest).await;
            assert!(answer.contains("connection: close"), "{answer}");
            assert_eq!(tokio::time::timeout(PATIENCE, all(client)).await.unwrap(), "", "{headers}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_left_unread_and_never_ends_gives_its_connection_up() {
        let (address, _stop, _) = start(Limits { connections: 1, ..usual() }).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        answer_with_a_rest(&mut client, "Content-Length: 1000", b"x").await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, client.read_to_end(&mut rest)).await;
        assert!(ended.is_ok() && rest.is_empty(), "{ended:?}");
    }
}
