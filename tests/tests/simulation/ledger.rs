//! The account of a run: what was written, delivered, handled and settled, as the store and the
//! handlers saw it. It knows nothing of how the bus does it. Every entry in it is checked as it is
//! made; the first invariant that does not hold is kept in [`Ledger::broken`].
//!
//! A message is *due* to each group once for every time it was appended, and to one group again when it
//! is redriven. What is due ends in exactly one of: acknowledged after it was handled, filed as a dead
//! letter, expired and let go. A retry ends nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use oona::bus::Delivery;
use oona::store::{Step, StreamName};
use oona_core::Timestamp;
use oona_core::dead_letter::DeadLetter;
use oona_core::entry::{Entry, EntryId, Fields};
use oona_core::envelope::Message;
use oona_core::policy::Failure;
use oona_core::signing::Keyring;

use crate::account::{Account, Broken, Event, Totals, has_nonce, is_stale};
use crate::link::Link;
use crate::scenario::{FRESHNESS_WINDOW, Scenario};
use crate::world::short;

/// How an entry came into its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A host wrote it for a producer.
    Published,
    /// A host wrote it for an operator.
    Redriven,
    /// Somebody wrote it who has no key, or wrote again what somebody else has signed.
    Foreign,
}

/// An entry in the hands of a group.
type Place = (String, StreamName, EntryId);

/// Who has an entry in hand.
pub(crate) struct Hand {
    link: Arc<Link>,
    member: u64,
}

/// See the module.
pub(crate) struct Ledger {
    scenario: Scenario,
    keyring: Keyring,
    events: BTreeMap<String, Event>,
    /// By stream and key: what was appended, in order.
    lines: BTreeMap<(StreamName, String), Vec<String>>,
    /// By group and nonce: the entry that was delivered with it.
    nonces: BTreeMap<(String, u64), (StreamName, EntryId)>,
    handled: BTreeSet<Place>,
    in_hand: BTreeMap<Place, Hand>,
    /// What each life of a host has let go because it had expired.
    discards: BTreeMap<String, u64>,
    pub(crate) totals: Totals,
    pub(crate) broken: Option<Broken>,
}

impl Ledger {
    pub(crate) fn new(scenario: Scenario, keyring: Keyring) -> Self {
        Self {
            scenario,
            keyring,
            events: BTreeMap::new(),
            lines: BTreeMap::new(),
            nonces: BTreeMap::new(),
            handled: BTreeSet::new(),
            in_hand: BTreeMap::new(),
            discards: BTreeMap::new(),
            totals: Totals::default(),
            broken: None,
        }
    }

    /// Says that an invariant does not hold. The first counts.
    pub(crate) fn breaks(&mut self, invariant: &'static str, detail: String) {
        self.broken.get_or_insert(Broken { invariant, detail });
    }

    fn check(&mut self, invariant: &'static str, holds: bool, detail: impl FnOnce() -> String) {
        if !holds {
            self.breaks(invariant, detail());
        }
    }

    /// The message in an entry, if it can be believed.
    fn read(&self, id: EntryId, fields: &Fields) -> Option<Message> {
        let entry = Entry {
            id,
            fields: fields.clone(),
        };
        let payload = entry.payload()?;
        let signature = entry.signature().map(AsRef::as_ref);
        self.keyring.verify(payload, signature).ok()?;
        Message::decode(payload, id).ok()
    }

    /// Under which name an entry stands in the account.
    pub(crate) fn name(&self, stream: &StreamName, id: EntryId, fields: &Fields) -> String {
        match self.read(id, fields) {
            Some(message) => message.id,
            None => format!("foreign {stream} {}", short(id)),
        }
    }

    // ---- what producers see ----

    pub(crate) fn tried(&mut self, event: &str) {
        self.events.entry(event.to_owned()).or_default().tries += 1;
    }

    pub(crate) fn accepted(&mut self, event: &str, stream: &StreamName, id: EntryId) {
        self.totals.accepted += 1;
        let place = (stream.clone(), id);
        let known = self.events.get(event);
        let written = known.is_some_and(|event| event.published.contains(&place));
        self.check("accepted means written", written, || {
            format!("{event} was accepted as {stream} {}", short(id))
        });
    }

    /// A policy has refused it.
    pub(crate) fn refused(&mut self, event: &str) {
        let known = self.events.get(event);
        let nothing = known.is_none_or(|event| event.tries > 1 || event.published.is_empty());
        self.check("refused means not written", nothing, || event.to_owned());
    }

    // ---- what the store sees ----

    pub(crate) fn appended(
        &mut self,
        stream: &StreamName,
        id: EntryId,
        fields: &Fields,
        origin: Origin,
    ) {
        let name = self.name(stream, id, fields);
        let message = self.read(id, fields);
        let meant = message
            .as_ref()
            .and_then(|message| message.retry_group.clone());
        let event = self.events.entry(name.clone()).or_default();
        event.written += u32::from(origin != Origin::Redriven);
        for &group in self.scenario.groups() {
            if meant.as_deref().is_none_or(|meant| meant == group) {
                event.accounts.entry(group.to_owned()).or_default().due += 1;
            }
        }
        self.totals.redriven += u64::from(origin == Origin::Redriven);
        if origin == Origin::Published {
            event.published.push((stream.clone(), id));
            let once = event.published.len() == 1 || !self.scenario.dedup;
            self.check("an event id is written once", once, || name.clone());
        }
        if let Some(message) = message.filter(|message| !message.key.is_empty())
            && origin != Origin::Redriven
        {
            let line = self.lines.entry((stream.clone(), message.key));
            line.or_default().push(name);
        }
    }

    /// Somebody takes over what others are idle with.
    pub(crate) fn claimed(&mut self, group: &str, stream: &StreamName, ids: &[EntryId]) {
        for id in ids {
            let place = (group.to_owned(), stream.clone(), *id);
            let Some(hand) = self.in_hand.get(&place) else {
                continue;
            };
            let holder = Arc::clone(&hand.link);
            self.check("what is held is not claimed", holder.disturbed(), || {
                format!(
                    "{group} {stream} {} is in hand at {}",
                    short(*id),
                    holder.name
                )
            });
        }
    }

    /// A group is done with an entry, which was `fields`.
    pub(crate) fn settled(
        &mut self,
        link: &Link,
        (group, stream, id): (&str, &StreamName, EntryId),
        fields: Option<&Fields>,
        step: &Step,
    ) {
        let place = (group.to_owned(), stream.clone(), id);
        self.in_hand.remove(&place);
        let Some(fields) = fields else {
            let detail = format!("{group} {stream} {} was not there any more", short(id));
            return self.breaks("nothing unfinished is removed", detail);
        };
        let name = self.name(stream, id, fields);
        let message = self.read(id, fields);
        let other = message
            .as_ref()
            .and_then(|message| message.retry_group.as_deref());
        if *step == Step::Ack && other.is_some_and(|other| other != group) {
            return;
        }
        match step {
            Step::Ack if self.handled.remove(&place) => self.totals.acked += 1,
            Step::Ack => {
                let now = link.latest();
                let expired = message.is_some_and(|message| is_stale(&message, now));
                let let_go = expired && self.scenario.discard_stale;
                self.check("acknowledged means handled", let_go, || {
                    format!("{group} acknowledged {name}, {stream} {}", short(id))
                });
                self.totals.expired += 1;
                *self.discards.entry(link.name.clone()).or_default() += 1;
            }
            Step::Retry { record, .. } => {
                let again = self.read(id, &record.clone().into_fields());
                return self.retried(group, &name, message, again);
            }
            Step::DeadLetter {
                record, original, ..
            } => {
                self.totals.dead += 1;
                let mut written = record.clone().into_fields();
                let field = bytes::Bytes::from_static(oona_core::entry::ORIGINAL.as_bytes());
                written.extend(original.clone().map(|original| (field, original)));
                self.filed(
                    (group, stream, id),
                    &name,
                    fields,
                    &Entry {
                        id,
                        fields: written,
                    },
                );
            }
        }
        self.ended(group, stream, &name);
    }

    fn retried(
        &mut self,
        group: &str,
        name: &str,
        before: Option<Message>,
        after: Option<Message>,
    ) {
        let (Some(before), Some(after)) = (before, after) else {
            let detail = format!("{name} cannot be read");
            return self.breaks("a retry is the same message", detail);
        };
        let failed = after.attempt == before.attempt + 1 && after.releases == before.releases;
        let released = after.attempt == before.attempt && after.releases == before.releases + 1;
        self.check("a retry counts", failed || released, || {
            let counts = |of: &Message| format!("attempt {} release {}", of.attempt, of.releases);
            format!("{name}: {} after {}", counts(&after), counts(&before))
        });
        let same = Message {
            attempt: before.attempt,
            releases: before.releases,
            first_failed_at: before.first_failed_at,
            retry_group: before.retry_group.clone(),
            ..after.clone()
        };
        let meant = after.retry_group.as_deref() == Some(group);
        self.check(
            "a retry is the same message",
            same == before && meant,
            || format!("{name}: {after:?} after {before:?}"),
        );
        if failed {
            self.totals.retries += 1;
            let attempts_max = self.scenario.attempts_max;
            let account = self.account(name, group);
            account.retries += 1;
            let within = account.retries <= account.due * (attempts_max - 1);
            self.check("attempts are limited", within, || {
                format!(
                    "{name} is tried again by {group}, attempt {}",
                    after.attempt
                )
            });
        }
    }

    fn filed(
        &mut self,
        (group, stream, id): (&str, &StreamName, EntryId),
        name: &str,
        fields: &Fields,
        entry: &Entry,
    ) {
        let letter = match DeadLetter::decode(entry) {
            Ok(letter) => letter,
            Err(error) => return self.breaks("a dead letter keeps the entry", error.to_string()),
        };
        let of = &letter.circumstances;
        let right = of.group == group && *of.stream == **stream && of.entry == id;
        let kept = letter.original_fields().is_ok_and(|kept| kept == *fields);
        self.check("a dead letter keeps the entry", right && kept, || {
            format!("{name}: {of:?}")
        });
        let written = self.events.get(name).map_or(0, |event| event.written);
        let copied = written > 1 || of.failure != Failure::Replay;
        self.check("a redelivery is no replay", copied, || {
            format!("{name}: {of:?}")
        });
        let past = of.failure != Failure::FromFuture || !self.scenario.strict_clocks;
        self.check("nothing is from the future", past, || {
            format!("{name}: {of:?}")
        });
    }

    fn account(&mut self, name: &str, group: &str) -> &mut Account {
        let event = self.events.entry(name.to_owned()).or_default();
        event.accounts.entry(group.to_owned()).or_default()
    }

    fn ended(&mut self, group: &str, stream: &StreamName, name: &str) {
        let account = self.account(name, group);
        account.done += 1;
        *account.done_in.entry(stream.clone()).or_default() += 1;
        let (due, done) = (account.due, account.done);
        self.check("what is due ends once", done <= due, || {
            format!("{name} has ended {done} times in {group}, and was due {due} times")
        });
    }

    // ---- what subscribers see ----

    pub(crate) fn delivered(
        &mut self,
        now: Timestamp,
        link: &Arc<Link>,
        (group, member): (&str, u64),
        delivery: &Delivery,
    ) {
        self.totals.deliveries += 1;
        let Delivery {
            stream,
            entry,
            message,
            ..
        } = delivery;
        let name = &message.id;
        let known = self.events.get(name);
        self.check("delivered means written", known.is_some(), || name.clone());
        let attempts_max = self.scenario.attempts_max;
        self.check(
            "attempts are limited",
            message.attempt < attempts_max,
            || {
                format!(
                    "{name} is delivered to {group} at attempt {}",
                    message.attempt
                )
            },
        );
        self.check_nonce(now, group, delivery);
        self.check_turn(group, delivery);
        let place = (group.to_owned(), stream.clone(), *entry);
        let link = Arc::clone(link);
        self.in_hand.insert(place, Hand { link, member });
    }

    /// No two entries are accepted with one nonce within its window, by clocks that agree.
    fn check_nonce(&mut self, now: Timestamp, group: &str, delivery: &Delivery) {
        let message = &delivery.message;
        if !has_nonce(message.message_type) || !self.scenario.strict_clocks {
            return;
        }
        let place = (delivery.stream.clone(), delivery.entry);
        let nonce = (group.to_owned(), message.nonce());
        let first = self.nonces.entry(nonce).or_insert_with(|| place.clone());
        let first = first.clone();
        let created = message.created_at.unwrap_or(now);
        let over = now.since(created) + Scenario::SKEW_MAX * 2 > FRESHNESS_WINDOW;
        self.check("a nonce is accepted once", first == place || over, || {
            let both = [first, place.clone()].map(|(stream, id)| format!("{stream} {}", short(id)));
            format!("{} reached {group} as {}", message.id, both.join(" and "))
        });
    }

    /// Nothing is handed out while an earlier message of its key is not finished.
    fn check_turn(&mut self, group: &str, delivery: &Delivery) {
        let message = &delivery.message;
        if !self.scenario.block || message.key.is_empty() {
            return;
        }
        let line = (delivery.stream.clone(), message.key.clone());
        let mut ahead: BTreeMap<&str, u32> = BTreeMap::new();
        for earlier in self.lines.get(&line).into_iter().flatten() {
            if *earlier == message.id {
                break;
            }
            *ahead.entry(earlier).or_default() += 1;
        }
        let open = ahead.into_iter().find(|(earlier, due)| {
            let account = self.events.get(*earlier);
            let account = account.and_then(|event| event.accounts.get(group));
            let done = account.and_then(|account| account.done_in.get(&delivery.stream));
            done.copied().unwrap_or(0) < *due
        });
        let detail = open.map(|(earlier, _)| {
            format!(
                "{} of key {} is delivered to {group} before {earlier} is finished",
                message.id, message.key
            )
        });
        if let Some(detail) = detail {
            self.breaks("the order of a key is kept", detail);
        }
    }

    /// The handler has done its work, and says so next.
    pub(crate) fn handled(&mut self, group: &str, delivery: &Delivery) {
        let place = (group.to_owned(), delivery.stream.clone(), delivery.entry);
        self.handled.insert(place);
    }

    /// The handler has answered.
    pub(crate) fn answered(&mut self, group: &str, delivery: &Delivery) {
        let place = (group.to_owned(), delivery.stream.clone(), delivery.entry);
        self.in_hand.remove(&place);
    }

    /// A member has gone, and whatever it had in hand.
    pub(crate) fn gone(&mut self, member: u64) {
        self.in_hand.retain(|_, hand| hand.member != member);
    }

    // ---- at the end ----

    /// Events that a group is not done with.
    pub(crate) fn open(&self) -> Vec<String> {
        let accounts = self.events.iter().flat_map(|(name, event)| {
            let of = move |(group, account)| (name, group, account);
            event.accounts.iter().map(of)
        });
        let open = accounts.filter(|(_, _, account)| account.due != account.done);
        open.map(|(name, group, account)| {
            format!(
                "{name} in {group}: due {}, done {}",
                account.due, account.done
            )
        })
        .collect()
    }

    /// What the dead-letter stream holds when everything has ended.
    pub(crate) fn letters(&mut self, held: u64) {
        let Totals { dead, redriven, .. } = self.totals;
        self.check(
            "a dead letter is there until it is redriven",
            held + redriven == dead,
            || format!("{dead} filed, {redriven} redriven, {held} held"),
        );
    }

    /// A life of a host has ended in good order, and tells how much it let go.
    pub(crate) fn counted(&mut self, host: &str, counted: u64) {
        let discards = self.discards.get(host).copied().unwrap_or(0);
        self.check("what expired is counted", counted >= discards, || {
            format!("{host} let {discards} go and counted {counted}")
        });
    }

    /// Where hosts wrote what producers gave them.
    pub(crate) fn published(&self) -> Vec<(StreamName, EntryId)> {
        let published = self.events.values().flat_map(|event| &event.published);
        published.cloned().collect()
    }
}
