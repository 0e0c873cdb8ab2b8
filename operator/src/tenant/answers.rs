//! PostgreSQL's answers, which may never come: a server that is frozen, or whose host is gone, closes no connection.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flagmeter_store::StoreError;
use tokio::time::{Instant, timeout};

/// How soon somebody asks again after there was no answer.
const PAUSE: Duration = Duration::from_secs(2);

/// Whoever asks PostgreSQL for something asks through this, and has an answer in time. While there is none, one asks at
/// a time, and the others are told so at once: waiting, they would keep those from being worked on that need no answer.
#[derive(Debug)]
pub(super) struct Answers {
    /// How long an answer may take.
    patience: Duration,
    /// From when on somebody may ask; `None` while there are answers.
    silent_until: Mutex<Option<Instant>>,
}

impl Answers {
    pub(super) fn within(patience: Duration) -> Self {
        Self { patience, silent_until: Mutex::default() }
    }

    /// What `asked` is answered. It must bear being cut off anywhere.
    ///
    /// # Errors
    ///
    /// That of the answer; [`StoreError::Silent`] if there is none.
    pub(super) async fn of<T>(
        &self,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if !self.may_ask() {
            return Err(StoreError::Silent);
        }
        // In a box, since what sqlx makes of a statement is large, and would be a part of whoever asks.
        let answer = timeout(self.patience, Box::pin(asked)).await.unwrap_or(Err(StoreError::Silent));
        let is_silent = answer.as_ref().is_err_and(StoreError::is_silence);
        *self.lock() = is_silent.then(|| Instant::now() + PAUSE);
        answer
    }

    fn may_ask(&self) -> bool {
        let now = Instant::now();
        match &mut *self.lock() {
            None => true,
            Some(until) if now < *until => false,
            // Whoever asks now asks for all.
            Some(until) => {
                *until = now + self.patience;
                true
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        // A panic while it was held cannot leave it half changed.
        self.silent_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn while_there_is_no_answer_one_waits_for_it_and_the_others_are_told_at_once() {
        let answers = Answers::within(PATIENCE);
        let started = Instant::now();
        answers.of(pending::<Result<(), _>>()).await.unwrap_err();
        assert_eq!(started.elapsed(), PATIENCE);

        let started = Instant::now();
        answers.of(ready(Ok(()))).await.unwrap_err();
        assert_eq!(started.elapsed(), Duration::ZERO);
        tokio::time::advance(PAUSE).await;
        let (asks, told) = tokio::join!(answers.of(pending::<Result<(), _>>()), async {
            let told = answers.of(ready(Ok(()))).await;
            (told, started.elapsed())
        });
        assert!(matches!((asks, told.0), (Err(StoreError::Silent), Err(StoreError::Silent))));
        assert_eq!(told.1, PAUSE, "it did not wait for whoever asks");

        tokio::time::advance(PAUSE).await;
        answers.of(ready(Ok(()))).await.unwrap();
        answers.of(ready(Ok(()))).await.unwrap();
    }
}
