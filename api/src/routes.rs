//! The routes, a module for each group.

pub(crate) mod dashboard;
pub(crate) mod event;
pub(crate) mod events;
pub(crate) mod live;
pub(crate) mod usage;
