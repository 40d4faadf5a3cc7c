//! Finds what is known of an event: in memory, else in the store.
//!
//! What the store can tell is little and bounded: the memory of event ids that producers gave, the entries from
//! around the time that a generated id tells (UUID, version 7), and the last dead letters.

use std::sync::Arc;
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::broadcast::Standing;
use oona_core::dead_letter::Filter;
use oona_core::entry::{Entry, EntryId};
use oona_core::envelope::{Message, id_hash};
use oona_core::journey::{Journey, Place, Step, What};
use oona_core::outcome::{FirstOutcome, Outcome};
use oona_core::trace_context::{TRACEPARENT, TraceContext};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::super::Bus;
use super::super::letters::DeadLetterView;
use super::place;
use crate::store::{StoreError, StreamName, Written};

/// How long the store may take, all questions together.
const STORE_TIME_MAX: Duration = Duration::from_secs(2);

/// How many entries of each stream are looked at, from the time that an id tells.
const NEAR_MAX: usize = 1_024;

/// How many entries are read at once.
const PAGE: usize = 128;

/// How long before the time that an id tells the look begins: clocks differ.
const SKEW: Duration = Duration::from_millis(20);

/// How long before the last dead letter the look begins where no time is known.
const LETTERS_BACK: Duration = Duration::from_secs(600);

/// A step, for people and programs to look at.
#[derive(Clone, Debug, Serialize)]
pub struct StepView {
    /// When it ended, in ms since the epoch.
    pub at_ms: u64,
    /// What happened.
    pub step: &'static str,
    /// How long it took, in ms.
    pub took_ms: Option<f64>,
    /// The particulars.
    pub detail: String,
    /// The consumer group that it happened in.
    pub group: Option<Arc<str>>,
    /// The attempt that it belongs to, from 1.
    pub attempt: Option<u32>,
}

/// A message's journey, for people and programs to look at.
#[derive(Clone, Debug, Serialize)]
pub struct JourneyView {
    /// Its event id.
    pub event_id: String,
    /// The trace that it belongs to, in hexadecimal digits.
    pub trace_id: Option<String>,
    /// The stream that it was written to last.
    pub stream: Option<Arc<str>>,
    /// Its entry there.
    pub entry: Option<String>,
    /// Where it is now, in one sentence.
    pub state: String,
    /// What happened, the oldest first.
    pub steps: Vec<StepView>,
    /// How many steps are not held any more.
    pub left_out: u32,
    /// Who knows: `this host`, or `store`.
    pub from: &'static str,
}

impl JourneyView {
    fn new(journey: Journey, from: &'static str, state: String) -> Self {
        let steps = journey.steps.into_iter().map(|step| StepView {
            at_ms: step.at.as_millis(),
            step: step.what.name(),
            took_ms: step.took.map(|took| took.as_secs_f64() * 1e3),
            detail: step.detail,
            group: step.group,
            attempt: step.attempt,
        });
        let place = journey.place;
        Self {
            event_id: journey.event_id,
            trace_id: journey.trace_id,
            entry: place.as_ref().map(|place| place.entry.to_string()),
            stream: place.map(|place| place.stream),
            state,
            steps: steps.collect(),
            left_out: journey.left_out,
            from,
        }
    }
}

impl Bus {
    /// What is known of an event: what this host has seen of it, else what the store can tell.
    ///
    /// # Errors
    ///
    /// If nothing is in memory and the store fails, or takes longer than two seconds.
    pub async fn journey(&self, event_id: &str) -> Result<Option<JourneyView>, StoreError> {
        let until = Instant::now() + STORE_TIME_MAX;
        let known = self.shared.journeys.get(id_hash(event_id), event_id);
        let (journey, from) = match known {
            Some(journey) => (journey, "this host"),
            None => match self.in_time(until, self.recorded(event_id)).await? {
                Some(journey) => (journey, "store"),
                None => return Ok(None),
            },
        };
        let standings = self.standings(journey.place.as_ref());
        let standings = self.in_time(until, standings).await;
        let mut state = journey.state(standings.as_deref().unwrap_or_default());
        if let Err(error) = standings {
            state = format!("{state}; what other hosts did is unknown: {error}");
        }
        Ok(Some(JourneyView::new(journey, from, state)))
    }

    async fn in_time<T>(
        &self,
        until: Instant,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let late = |_| StoreError::Unavailable {
            address: self.shared.store.info().address,
            detail: format!("no answer within {} s", STORE_TIME_MAX.as_secs()),
        };
        timeout_at(until, asked).await.map_err(late)?
    }

    /// Where each group of its stream stands with an entry.
    async fn standings(
        &self,
        place: Option<&Place>,
    ) -> Result<Vec<(String, Standing)>, StoreError> {
        let Some(Place { stream, entry }) = place else {
            return Ok(Vec::new());
        };
        let store = &self.shared.store;
        let depths = store.depths(std::slice::from_ref(stream)).await?;
        let groups = depths.into_iter().flat_map(|depth| depth.groups);
        let groups: Vec<_> = groups.map(|group| group.name).collect();
        // Receipts are of broadcasts; whoever waits for one looks at them itself.
        let sights = store.sights(stream, *entry, "none", &groups).await?;
        let standings = sights.into_iter().map(|sight| sight.standing);
        Ok(groups.into_iter().zip(standings).collect())
    }

    async fn recorded(&self, event_id: &str) -> Result<Option<Journey>, StoreError> {
        let mut journey = Journey {
            event_id: event_id.to_owned(),
            ..Journey::default()
        };
        let mut since = generated_at(event_id);
        if let Some((place, first)) = self.recalled(event_id).await? {
            let written = Timestamp::from_millis(place.entry.ms);
            since = Some(written);
            journey.add(Step::new(written, What::Append, first));
            if let Some(entry) = self.entry(&place).await? {
                read(&mut journey, &place, &entry);
            }
            journey.place = Some(place);
        } else if let Some(at) = since {
            self.near(at, &mut journey).await?;
        }
        if let Some(letter) = self.letter(event_id, since).await? {
            filed(&mut journey, letter);
        }
        Ok((!journey.steps.is_empty()).then_some(journey))
    }

    /// What a producer was told that gave this event id.
    async fn recalled(&self, event_id: &str) -> Result<Option<(Place, String)>, StoreError> {
        let recalled = self.shared.store.recall(&[event_id.into()]).await?;
        let Some(Some(Written {
            id,
            before: Some(note),
        })) = recalled.into_iter().next()
        else {
            return Ok(None);
        };
        let first = FirstOutcome::decode(&note).map(|first| first.again(id));
        let Some(Outcome::Accepted { stream, reason, .. }) = first else {
            return Ok(None);
        };
        let detail = format!("to `{stream}` as entry {id}, reason `{reason}`");
        Ok(Some((place(&stream, id), detail)))
    }

    async fn entry(&self, place: &Place) -> Result<Option<Entry>, StoreError> {
        let store = &self.shared.store;
        let found = store
            .range(&place.stream, place.entry.previous(), 1)
            .await?;
        Ok(found.into_iter().find(|entry| entry.id == place.entry))
    }

    /// Looks for a message in the entries that were written after this time.
    async fn near(&self, at: Timestamp, journey: &mut Journey) -> Result<(), StoreError> {
        let streams: Vec<_> = self.config().streams.destinations().cloned().collect();
        for stream in streams {
            if let Some(entry) = self.near_in(&stream, at, &journey.event_id).await? {
                let place = place(&stream, entry.id);
                let written = Timestamp::from_millis(entry.id.ms);
                let detail = format!("to `{stream}` as entry {}", entry.id);
                journey.add(Step::new(written, What::Append, detail));
                read(journey, &place, &entry);
                journey.place = Some(place);
            }
        }
        Ok(())
    }

    async fn near_in(
        &self,
        stream: &StreamName,
        at: Timestamp,
        event_id: &str,
    ) -> Result<Option<Entry>, StoreError> {
        let ms = (at - SKEW).as_millis();
        let mut after = Some(EntryId { ms, seq: 0 });
        for _ in 0..NEAR_MAX / PAGE {
            let page = self.shared.store.range(stream, after, PAGE).await?;
            let ended = page.len() < PAGE;
            after = page.last().map(|entry| entry.id);
            let is_it = |entry: &Entry| message(entry).is_some_and(|it| it.id == event_id);
            if let Some(entry) = page.into_iter().find(is_it) {
                return Ok(Some(entry));
            }
            if ended {
                break;
            }
        }
        Ok(None)
    }

    /// Its dead letter, if it is among those that were filed since then: of 10 000 at most.
    async fn letter(
        &self,
        event_id: &str,
        since: Option<Timestamp>,
    ) -> Result<Option<DeadLetterView>, StoreError> {
        let stream = &self.config().streams.dead_letter;
        let Some(last) = self.shared.store.last(stream).await? else {
            return Ok(None);
        };
        let since = since.unwrap_or(Timestamp::from_millis(last.ms) - LETTERS_BACK);
        let after = EntryId {
            ms: (since - SKEW).as_millis(),
            seq: 0,
        };
        let filter = Filter {
            event_id: Some(event_id.to_owned()),
            ..Filter::default()
        };
        let found = self.find_dead_letters(&filter, Some(after), 1).await?;
        Ok(found.letters.into_iter().next())
    }
}

/// The message in an entry. Who asks may see every stream, so its signature is not looked at: a false entry is
/// shown as the entry that it is.
fn message(entry: &Entry) -> Option<Message> {
    Message::decode(entry.payload()?, entry.id).ok()
}

/// Adds what the message in an entry says of itself.
fn read(journey: &mut Journey, place: &Place, entry: &Entry) {
    let Some(message) = message(entry) else {
        return;
    };
    let context = message.attributes.get(TRACEPARENT);
    let context = context.and_then(|text| TraceContext::parse(text));
    journey.trace_id = context.map(|context| context.trace_id_hex());
    let Some(failed_at) = message.first_failed_at else {
        return;
    };
    let stream = &place.stream;
    let detail = format!(
        "first of {} failed attempts, in `{stream}`",
        message.attempt
    );
    let mut step = Step::new(failed_at, What::Fail, detail);
    step.group = message.retry_group.as_deref().map(Arc::from);
    journey.add(step);
}

/// Adds what a dead letter says.
fn filed(journey: &mut Journey, letter: DeadLetterView) {
    let group: Arc<str> = letter.group.into();
    let context = letter.attributes.get(TRACEPARENT);
    if let Some(context) = context.and_then(|text| TraceContext::parse(text)) {
        journey.trace_id = Some(context.trace_id_hex());
    }
    if journey.place.is_none()
        && let Ok(entry) = letter.entry.parse()
    {
        journey.place = Some(place(&letter.stream.into(), entry));
    }
    let failed_at = Timestamp::from_millis(letter.first_failed_ms);
    let failed = format!("{}: {}", letter.failure, letter.detail);
    journey.add(Step::new(failed_at, What::Fail, failed).of(&group, 1));
    let filed = format!(
        "as dead letter {}, class `{}`, reason `{}`, by {}",
        letter.id, letter.class, letter.reason, letter.policy
    );
    let at = Timestamp::from_millis(letter.at_ms);
    journey.add(Step::new(at, What::DeadLetter, filed).of(&group, letter.attempts));
}

/// When an id was made, if a host made it.
fn generated_at(event_id: &str) -> Option<Timestamp> {
    let time = uuid::Uuid::parse_str(event_id).ok()?.get_timestamp()?;
    let (seconds, nanos) = time.to_unix();
    let ms = seconds.checked_mul(1_000)?;
    Some(Timestamp::from_millis(ms) + Duration::from_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_a_host_made_tells_when() {
        let table = [
            (
                "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                Some(1_645_557_742_000),
            ),
            ("order-7", None),
            ("", None),
            ("f81d4fae-7dec-4bd0-a765-00a0c91e6bf6", None),
        ];
        for (id, ms) in table {
            let at = generated_at(id).map(Timestamp::as_millis);
            assert_eq!(at, ms, "{id}");
        }
    }
}
