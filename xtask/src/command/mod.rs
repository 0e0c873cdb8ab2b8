//! The commands, a file each.

pub(crate) mod down;
pub(crate) mod measure;
pub(crate) mod restart;
pub(crate) mod sqlx;
pub(crate) mod status;
pub(crate) mod supervise;
pub(crate) mod test;
pub(crate) mod tools;
pub(crate) mod up;
