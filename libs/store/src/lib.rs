//! Everything FlagMeter keeps: all SQL and all Valkey commands, and nothing else.
//!
//! - [`postgres`] has a file for each table, and [`postgres::batch`], the one transaction that counts.
//! - [`queue`] is the stream of packed entries in Valkey.
//! - [`sealed`] is how secrets are kept, and [`api_key`], what stands for those that are only compared.

pub mod api_key;
mod error;
pub mod postgres;
pub mod queue;
pub mod sealed;

pub use error::StoreError;
pub use sqlx::PgPool;

/// The migrations of this build, as `flagmeter migrate` applies them.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

#[cfg(any(test, feature = "testing"))]
pub mod testing;
