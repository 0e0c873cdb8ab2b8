//! Work in parts that do not depend on each other: a part that fails keeps none of the others from its turn.

use crate::StoreError;

/// The first failure of the parts, if there was one.
#[derive(Debug, Default)]
pub(super) struct Turns {
    failure: Option<StoreError>,
}

impl Turns {
    /// What a part came to; `None` if it failed.
    ///
    /// # Errors
    ///
    /// That PostgreSQL is away: no other part would do better.
    pub(super) fn took<T>(&mut self, part: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match part {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.is_unreachable() => Err(error),
            Err(error) => {
                self.failure.get_or_insert(error);
                Ok(None)
            }
        }
    }

    /// Whether all parts are done.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub(super) fn end(self) -> Result<(), StoreError> {
        self.failure.map_or(Ok(()), Err)
    }
}
