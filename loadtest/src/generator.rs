//! Load over HTTP/1.1: keep-alive connections that write ready-made bytes.
//!
//! In a closed loop each connection sends its next request when the last one was answered: that finds the
//! highest throughput, and its latency is only connections ÷ throughput. In an open loop requests start at a
//! constant rate whatever the answers do, and latency counts from the instant at which a request should have
//! started, so that a stall is felt by every request that it delays (no coordinated omission).

mod closed;
mod connection;
mod open;
pub(crate) mod schedule;
mod tally;
mod users;

pub(crate) use closed::closed;
pub(crate) use connection::Connection;
pub(crate) use open::open;
pub(crate) use tally::Load;
pub(crate) use users::{Second, users};
