//! Steps of an auditor over the dead letters.

use oona_core::dead_letter::audit::{Stride, Survey};
use oona_core::entry::EntryId;

use super::Bus;
use super::letters::read;
use crate::store::StoreError;

/// How many entries one step goes over. With payloads of the largest size that is 32 MB, which the store
/// reads and keeps to itself.
pub(crate) const SURVEY_STEP: usize = 128;

impl Bus {
    /// How many entries the dead-letter stream holds, and the last of them.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(crate) async fn dead_letters_end(&self) -> Result<(u64, Option<EntryId>), StoreError> {
        let shared = &self.shared;
        let stream = &shared.config.streams.dead_letter;
        let depths = shared.store.depths(std::slice::from_ref(stream)).await?;
        let length = depths.first().map_or(0, |depth| depth.length);
        Ok((length, shared.store.last(stream).await?))
    }

    /// One step of a survey, from `after` on. Answers where it has come to; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the store fails. The survey is as it was.
    pub(crate) async fn survey_dead_letters(
        &self,
        survey: &mut Survey,
        after: Option<EntryId>,
    ) -> Result<Option<EntryId>, StoreError> {
        let shared = &self.shared;
        let stream = &shared.config.streams.dead_letter;
        let stride = survey.stride();
        let found = shared
            .store
            .sample(stream, after, SURVEY_STEP, stride)
            .await?;
        for entry in &found.entries {
            match read(shared, entry) {
                Ok(letter) => survey.add(entry.id, &letter),
                Err(_) => survey.foreign(),
            }
        }
        survey.stepped(found.seen);
        Ok(found.last)
    }

    /// Goes one step on from `after` and reads nothing. Answers how many entries it was, and the last.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(crate) async fn count_dead_letters(
        &self,
        after: Option<EntryId>,
    ) -> Result<(u64, Option<EntryId>), StoreError> {
        let stream = &self.shared.config.streams.dead_letter;
        let store = &self.shared.store;
        let found = store
            .sample(stream, after, SURVEY_STEP, Stride::NOTHING)
            .await?;
        Ok((found.seen, found.last))
    }
}
