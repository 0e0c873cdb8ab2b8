//! One keep-alive connection.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long an answer may take before it counts as failed.
const LIMIT: Duration = Duration::from_secs(20);

/// Room for a head and what is read of a body with it.
const BUFFER_BYTES: usize = 16 << 10;

pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Where the last answer's body is in `buffer`; empty if there was no room for it.
    body: Range<usize>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES], body: 0..0 })
    }

    /// Sends a request, reads the whole answer, and returns its status.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> std::io::Result<u16> {
        tokio::time::timeout(LIMIT, self.exchange_unlimited(request)).await?
    }

    async fn exchange_unlimited(&mut self, request: &[u8]) -> std::io::Result<u16> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let head = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if let Some(head) = Head::read(&self.buffer[..filled])? {
                break head;
            }
        };
        // Where a body has no room it is read over what came before.
        let fits = head.total <= BUFFER_BYTES;
        self.body = if fits { head.length..head.total } else { 0..0 };
        let mut left = head.total.saturating_sub(filled);
        while left > 0 {
            let room = if fits { filled..head.total } else { 0..left.min(BUFFER_BYTES) };
            let read = self.stream.read(&mut self.buffer[room]).await?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            left -= read;
            filled += read;
        }
        Ok(head.status)
    }

    /// The last answer's body, if it is not larger than a page.
    pub(crate) fn body(&self) -> &[u8] {
        &self.buffer[self.body.clone()]
    }
}

/// What has to be known of an answer to read the next one.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of the head.
    length: usize,
    /// Bytes of head and body.
    total: usize,
}

impl Head {
    /// Reads a head that starts `bytes`; nothing if it is not all there yet.
    fn read(bytes: &[u8]) -> std::io::Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let malformed = || Error::new(ErrorKind::InvalidData, "the answer's head is malformed");
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| malformed())?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok()).ok_or_else(malformed)?;
        let length = lines
            .find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            })
            .ok_or_else(malformed)?;
        Ok(Some(Self { status, length: end + 4, total: end + 4 + length }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_head_is_read_once_it_is_all_there() {
        let answer = b"HTTP/1.1 202 Accepted\r\ncontent-type: x\r\nContent-Length: 3\r\n\r\nabc";
        let head = Head { status: 202, length: answer.len() - 3, total: answer.len() };
        assert_eq!(Head::read(answer).unwrap(), Some(head));
        assert_eq!(Head::read(&answer[..30]).unwrap(), None);
        assert!(Head::read(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }
}
