//! Rows by binary COPY: the fastest way that PostgreSQL takes them, encoded by hand.

use jiff::Timestamp;
use sqlx::PgConnection;
use sqlx::postgres::PgCopyIn;

use crate::StoreError;

/// From this many rows on a COPY is faster than an INSERT of arrays: measured, both with ids and without.
///
/// A COPY of few rows is two small packets with nothing answered in between, and the driver leaves Nagle's algorithm on:
/// the second packet waits for the acknowledgement of the first, which PostgreSQL's kernel delays by some 40 ms.
pub(super) const LEAST_ROWS: usize = 3_000;

/// What every binary COPY starts with: a signature, flags and the length of an extension
/// (PostgreSQL 18, "COPY", section "Binary Format").
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The number of columns that no row has: the end.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// PostgreSQL counts microseconds from 2000-01-01T00:00Z; this is that instant since 1970.
const POSTGRES_EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// A message to PostgreSQL is filled up to about this size.
const MESSAGE_BYTES: usize = 64 * 1024;

/// Copies rows of a fixed number of columns. Must be finished; dropped before that, it copies nothing.
pub(super) struct Copy<'connection> {
    into: PgCopyIn<&'connection mut PgConnection>,
    doing: &'static str,
    message: Vec<u8>,
}

impl<'connection> Copy<'connection> {
    /// Begins to copy into `table`, rows of `columns`; `doing` names it in errors.
    pub(super) async fn begin(
        connection: &'connection mut PgConnection,
        table: &str,
        columns: &'static str,
        doing: &'static str,
    ) -> Result<Self, StoreError> {
        let statement = format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)");
        let into = connection.copy_in_raw(&statement).await.map_err(StoreError::postgres(doing))?;
        let mut message = Vec::with_capacity(MESSAGE_BYTES + 512);
        message.extend_from_slice(HEADER);
        Ok(Self { into, doing, message })
    }

    /// Adds a row of its columns, each as PostgreSQL sends the type in binary.
    pub(super) async fn row<const COLUMNS: usize>(
        &mut self,
        columns: [&[u8]; COLUMNS],
    ) -> Result<(), StoreError> {
        // A table has at most 1,600 columns, and no field is longer than a feature's 128 bytes.
        let count = i16::try_from(COLUMNS).unwrap_or(i16::MAX);
        self.message.extend_from_slice(&count.to_be_bytes());
        for column in columns {
            let length = i32::try_from(column.len()).unwrap_or(i32::MAX);
            self.message.extend_from_slice(&length.to_be_bytes());
            self.message.extend_from_slice(column);
        }
        if self.message.len() >= MESSAGE_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Sends what is still held back for a larger message.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        self.into.send(self.message.as_slice()).await.map_err(StoreError::postgres(self.doing))?;
        self.message.clear();
        Ok(())
    }

    /// Ends it. An error that came up on the way is answered here; the connection is in order after it.
    pub(super) async fn finish(mut self) -> Result<(), StoreError> {
        self.message.extend_from_slice(&TRAILER);
        self.flush().await?;
        self.into.finish().await.map(drop).map_err(StoreError::postgres(self.doing))
    }
}

/// A timestamptz.
pub(super) fn instant(instant: Timestamp) -> [u8; 8] {
    (instant.as_microsecond() - POSTGRES_EPOCH_MICROSECONDS).to_be_bytes()
}
