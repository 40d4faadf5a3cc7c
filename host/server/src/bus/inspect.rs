//! What stands between an entry and its delivery: signature, decoding, freshness, nonce.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use oona_core::Timestamp;
use oona_core::entry::Entry;
use oona_core::envelope::Message;
use oona_core::nonces::{EntryKey, NonceWindow};
use oona_core::policy::{Arrival, Failure, FreshnessVerdict, Judgement, Lookup, NonceSeen};

use super::desk::{Content, Held, Verdict};
use super::shared::Shared;
use super::texts::Texts;
use crate::store::{NonceClaim, StreamName};
use crate::sync::lock;

/// An entry fresh from the store.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) stream: StreamName,
    pub(super) entry: Entry,
    pub(super) deliveries: u32,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Inspected {
    pub(super) deliverable: Vec<Held>,
    pub(super) refused: Vec<(Held, Verdict)>,
}

/// See the module.
pub(super) struct Inspector {
    shared: Arc<Shared>,
    group: Arc<str>,
    consumer: Arc<str>,
    nonces: Arc<Mutex<NonceWindow>>,
}

/// A message that has passed verification, on its way through freshness.
struct Candidate {
    held: Held,
    message: Arc<Message>,
    arrival: Arrival,
}

impl Candidate {
    fn owner(&self, shared: &Shared) -> EntryKey {
        EntryKey {
            stream: shared.symbol(&self.held.stream),
            id: self.held.entry,
        }
    }
}

impl Inspector {
    pub(super) fn new(shared: Arc<Shared>, group: Arc<str>, consumer: Arc<str>) -> Self {
        let nonces = shared.nonces(&group);
        Self {
            shared,
            group,
            consumer,
            nonces,
        }
    }

    /// Sorts a batch into what can be delivered and what cannot. An entry whose nonce could not be
    /// secured is in neither: it stays pending and is claimed again when its idle time is over.
    pub(super) async fn inspect(&self, found: Vec<Found>) -> Inspected {
        let mut inspected = Inspected::default();
        let mut candidates = Vec::with_capacity(found.len());
        for found in found {
            candidates.extend(self.verify(found, &mut inspected.refused));
        }
        // Twice at most: a nonce that another entry holds is only found out by claiming it.
        for _ in 0..2 {
            if candidates.is_empty() {
                break;
            }
            candidates = self.judge(candidates, &mut inspected).await;
        }
        inspected
    }

    /// Checks the signature and reads the envelope. What cannot be delivered is added to `refused`.
    fn verify(&self, found: Found, refused: &mut Vec<(Held, Verdict)>) -> Option<Candidate> {
        let Found {
            stream,
            entry,
            deliveries,
        } = found;
        let (message, failed) = match self.read(&entry) {
            Ok(message) => (message, None),
            Err((failure, detail)) => {
                let delay = None;
                let failed = Verdict::Failed {
                    failure,
                    delay,
                    detail,
                };
                (Message::default(), Some(failed))
            }
        };
        let subject = message.subject(self.shared.symbol(&message.source));
        let again = message.attempt > 0 || message.redrives > 0 || message.releases > 0;
        let message = Arc::new(message);
        let mut held = Held {
            stream,
            entry: entry.id,
            consumer: Arc::clone(&self.consumer),
            content: Content::Message(Arc::clone(&message)),
            fields: entry.fields,
            subject,
            deliveries,
            redelivered: again || deliveries > 1,
        };
        if let Some(failed) = failed {
            held.content = Content::Raw;
            refused.push((held, failed));
            return None;
        }
        let meant_for = message.retry_group.as_deref();
        if meant_for.is_some_and(|group| group != &*self.group) {
            refused.push((held, Verdict::Skip));
            return None;
        }
        let owner = EntryKey {
            stream: self.shared.symbol(&held.stream),
            id: held.entry,
        };
        let nonce = lock(&self.nonces).seen((self.shared.clock)(), message.nonce(), owner);
        Some(Candidate {
            held,
            message,
            arrival: Arrival { subject, nonce },
        })
    }

    fn read(&self, entry: &Entry) -> Result<Message, (Failure, String)> {
        let Some(payload) = entry.payload() else {
            return Err((
                Failure::Undecodable,
                "the entry has no payload field".to_owned(),
            ));
        };
        if let Some(keyring) = self.shared.keyring() {
            let verified = keyring.verify(payload, entry.signature().map(AsRef::as_ref));
            verified.map_err(|error| (Failure::Unverifiable, error.to_string()))?;
        }
        Message::decode(payload, entry.id)
            .map_err(|error| (Failure::Undecodable, error.to_string()))
    }

    /// Asks freshness, and secures the nonces of what is fresh. Returns those that another entry
    /// turned out to hold, to be asked about again.
    async fn judge(&self, candidates: Vec<Candidate>, inspected: &mut Inspected) -> Vec<Candidate> {
        let now = (self.shared.clock)();
        let judgements = self.ask(now, &candidates);
        let mut again = Vec::new();
        let mut claims = Vec::new();
        for (mut candidate, judgement) in candidates.into_iter().zip(judgements) {
            let failure = match judgement.verdict {
                FreshnessVerdict::Fresh { remember_ms: 0 } => {
                    inspected.deliverable.push(candidate.held);
                    continue;
                }
                FreshnessVerdict::Fresh { remember_ms } => {
                    let ttl = Duration::from_millis(remember_ms);
                    match self.remember(now, &candidate, ttl) {
                        Some(NonceSeen::OtherEntry)
                            if candidate.arrival.nonce != NonceSeen::OtherEntry =>
                        {
                            candidate.arrival.nonce = NonceSeen::OtherEntry;
                            again.push(candidate);
                        }
                        Some(_) => claims.push((candidate, ttl)),
                        None => {}
                    }
                    continue;
                }
                FreshnessVerdict::Stale => Failure::Stale,
                FreshnessVerdict::Replay => Failure::Replay,
                FreshnessVerdict::FromFuture => Failure::FromFuture,
            };
            let detail = self.shared.name(judgement.reason).to_string();
            let failed = Verdict::Failed {
                failure,
                delay: None,
                detail,
            };
            inspected.refused.push((candidate.held, failed));
        }
        self.claim(claims, inspected, &mut again).await;
        again
    }

    fn ask(&self, now: Timestamp, candidates: &[Candidate]) -> Vec<Judgement> {
        let arrivals: Vec<_> = candidates
            .iter()
            .map(|candidate| candidate.arrival)
            .collect();
        let texts = candidates
            .iter()
            .map(|candidate| Arc::clone(&candidate.message))
            .collect();
        let text: Arc<dyn Lookup> = Arc::new(Texts(texts));
        let mut judgements = Vec::with_capacity(arrivals.len());
        self.shared
            .policies
            .freshness()
            .with(|asker| asker.ask(now, &(), &arrivals, &text, &mut judgements));
        judgements
    }

    /// Remembers a nonce in memory. `None` if there is no room: the message is then not delivered,
    /// since forgetting another nonce would let a replay of it pass.
    fn remember(&self, now: Timestamp, candidate: &Candidate, ttl: Duration) -> Option<NonceSeen> {
        let owner = candidate.owner(&self.shared);
        let mut nonces = lock(&self.nonces);
        match nonces.remember(now, candidate.message.nonce(), owner, ttl) {
            Ok(seen) => Some(seen),
            Err(full) => {
                self.shared.metrics.nonces_refused.inc();
                tracing::error!(
                    error = %full,
                    stream = %candidate.held.stream,
                    entry = %candidate.held.entry,
                    "not delivered: raise consume.nonces_max or shorten the freshness window"
                );
                None
            }
        }
    }

    /// Claims nonces in the store, where replicas of this host share the group.
    async fn claim(
        &self,
        claims: Vec<(Candidate, Duration)>,
        inspected: &mut Inspected,
        again: &mut Vec<Candidate>,
    ) {
        if claims.is_empty() {
            return;
        }
        if !self.shared.config.consume.nonces_shared {
            inspected
                .deliverable
                .extend(claims.into_iter().map(|(candidate, _)| candidate.held));
            return;
        }
        let request: Vec<_> = claims
            .iter()
            .map(|(candidate, ttl)| NonceClaim {
                nonce: candidate.message.nonce(),
                owner: (candidate.held.stream.clone(), candidate.held.entry),
                ttl: *ttl,
            })
            .collect();
        let seen = match self.shared.store.remember(&self.group, &request).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::error!(%error, messages = request.len(), "nonces not secured; not delivered");
                return;
            }
        };
        for ((mut candidate, _), seen) in claims.into_iter().zip(seen) {
            let known = candidate.arrival.nonce == NonceSeen::OtherEntry;
            if seen == NonceSeen::OtherEntry && !known {
                candidate.arrival.nonce = seen;
                again.push(candidate);
            } else {
                inspected.deliverable.push(candidate.held);
            }
        }
    }
}
