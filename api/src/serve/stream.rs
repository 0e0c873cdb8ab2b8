//! A connection's socket: its buffers, whether what is sent is taken, and that nothing of it stays when it is closed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};

use super::alarm::Alarm;
use super::places::Place;

/// What the kernel may hold of what a client sends and nobody has read yet, and of what it was sent and has not taken.
/// Linux takes twice as much for its own records. Left to itself it would take megabytes a connection, which a
/// container's memory limit counts.
const RECEIVE_BYTES: usize = 8 << 10;
const SEND_BYTES: usize = 8 << 10;

/// The same of connections through which large bodies or answers go, so that they go fast over a long way.
const WIDE_RECEIVE_BYTES: usize = 64 << 10;
const WIDE_SEND_BYTES: usize = 64 << 10;

/// How long a client has to take the last answer, and to close the connection, before that is done for it.
const LINGER: Duration = Duration::from_secs(2);

/// What is taken and forgotten meanwhile: a client that goes on sending all of this has not looked for its answer.
const LINGER_BYTES: usize = 8 << 20;

/// How long the kernel may try to send what a client has not taken that closed its side itself.
const LAST_TRY: Duration = Duration::from_secs(5);

/// Limits the buffers of all connections that `listener` will accept. Clients hear of it with the first packet.
pub(super) fn bound_buffers(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    socket.set_send_buffer_size(SEND_BYTES)
}

/// A connection's socket.
pub(super) struct Stream {
    socket: TokioIo<TcpStream>,
    place: Place,
    alarm: Alarm,
    wide: bool,
    /// Whether something was sent, which may not have been taken yet.
    sent: bool,
    /// Until when the other side may close the connection, once this side has.
    closing: Option<Pin<Box<Sleep>>>,
    /// What was taken and forgotten since.
    forgotten: usize,
    /// Whether the other side has.
    closed: bool,
}

impl Stream {
    /// The socket of a connection that has this place, and whose timer is `alarm`.
    pub(super) fn new(socket: TcpStream, place: Place, alarm: Alarm) -> Self {
        let socket = TokioIo::new(socket);
        Self { socket, place, alarm, wide: false, sent: false, closing: None, forgotten: 0, closed: false }
    }

    fn widen(&mut self) {
        if !self.wide && self.place.is_wide() {
            self.wide = true;
            let socket = SockRef::from(self.socket.inner());
            // Narrow buffers are only slower.
            let _ = socket.set_recv_buffer_size(WIDE_RECEIVE_BYTES);
            let _ = socket.set_send_buffer_size(WIDE_SEND_BYTES);
        }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.widen();
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        if read.is_ready() {
            self.alarm.something_came();
        }
        read
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.widen();
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.place.is_stuck(written.is_pending());
        self.sent = true;
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    /// Closes this side, and then takes and forgets what the client still sends until it closes its own: to close both
    /// at once would take from it the answer that it has not read yet (RFC 9112, section 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.widen();
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.socket).poll_shutdown(context))?;
        }
        let closing = this.closing.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        loop {
            let mut bytes = [0; 4 << 10];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut this.socket).poll_read(context, buffer.unfilled()) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    this.forgotten += buffer.filled().len();
                    if this.forgotten > LINGER_BYTES {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(_) => {
                    this.closed = true;
                    return Poll::Ready(Ok(()));
                }
            }
        }
        closing.as_mut().poll(context).map(Ok)
    }
}

impl Drop for Stream {
    /// The kernel would go on holding what was sent and not taken, for connections without number.
    fn drop(&mut self) {
        let socket = SockRef::from(self.socket.inner());
        let _ = if self.closed {
            socket.set_tcp_user_timeout(Some(LAST_TRY))
        } else if self.sent {
            socket.set_linger(Some(Duration::ZERO))
        } else {
            Ok(())
        };
    }
}
