//! The rules of FlagMeter, without I/O, clock or logging: values in, values out.
//!
//! - [`address`] and [`delivery`] say where an alert may be sent, and when it is tried again; [`signing_secret`] what
//!   it is signed with.
//! - [`event`] is what a usage event is, and what is wrong with one that is none.
//! - [`packed`] is the form in which events wait in the queue.
//! - [`rfc3339`] reads instants, [`minute`] and [`period`] divide time; [`rollup`] folds events into them.
//! - [`window`] cuts a range of time for a series.
//! - [`retention`] says how long what is kept.
//! - [`calendar`] is by which billing days and zones a tenant's periods are made, over time; [`recount`] puts what
//!   was counted into others.
//! - [`quota`] says how much may be used, and how much is; [`threshold`] at which percents that is recorded.
//! - [`projection`] says when all of a quota will be used, [`check`] whether some more is within it.
//! - [`scaling`] says how many workers there should be.
//! - [`number`] writes numbers for people.
//! - [`problem`] has the codes of refused requests.

pub mod address;
pub mod calendar;
pub mod check;
pub mod delivery;
pub mod event;
pub mod minute;
pub mod number;
pub mod packed;
pub mod period;
pub mod problem;
pub mod projection;
pub mod quota;
pub mod recount;
pub mod retention;
pub mod rfc3339;
pub mod rollup;
pub mod scaling;
pub mod signing_secret;
pub mod threshold;
pub mod window;
