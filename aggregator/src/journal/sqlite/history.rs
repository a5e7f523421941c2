//! The journal's history: questions go to threads of their own, a bounded number of them.

use std::time::{Duration, Instant};

use crossbeam_channel::TrySendError;
use tokio::sync::oneshot;

use super::SqliteJournal;
use super::asker::{Asked, Question};
use crate::history::query::{Count, CountBy, Filter, Search};
use crate::history::{History, HistoryError, Page};

impl History for SqliteJournal {
    async fn search(&self, search: Search) -> Result<Page, HistoryError> {
        let deadline = search.deadline;
        self.ask(deadline, |answer| Asked::Search(Box::new(search), answer)).await
    }

    async fn count(
        &self,
        filter: Filter,
        by: CountBy,
        deadline: Duration,
    ) -> Result<Vec<Count>, HistoryError> {
        self.ask(deadline, |answer| Asked::Count(Box::new(filter), by, answer)).await
    }
}

impl SqliteJournal {
    async fn ask<T>(
        &self,
        deadline: Duration,
        asked: impl FnOnce(oneshot::Sender<Result<T, HistoryError>>) -> Asked,
    ) -> Result<T, HistoryError> {
        let stopped = || HistoryError::Storage("the journal has stopped".to_owned());
        let until = Instant::now() + deadline;
        let place = self.question_places.clone().try_acquire_owned().map_err(|_| HistoryError::Busy)?;
        let (answer, answered) = oneshot::channel();
        let question = Question { asked: asked(answer), until, deadline, place };
        self.questions.try_send(question).map_err(|error| match error {
            TrySendError::Full(_) => HistoryError::Busy,
            TrySendError::Disconnected(_) => stopped(),
        })?;
        match answered.await {
            Ok(answer) => answer,
            Err(_) => Err(stopped()),
        }
    }
}
