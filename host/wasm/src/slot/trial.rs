//! What a version must show before it is used.
//!
//! It must start, take its configuration, and answer plain questions: a message of each type and
//! priority, on an idle bus. So a stream that is misspelt in its configuration refuses the version
//! now, instead of failing calls later; and the instance that was tried is warm.

use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{Decide, Fault, Lookup, NoText, Priority, Subject};
use oona_core::symbols::Symbol;

use crate::instance::Instance;
use crate::version::{Names, StartError, Version};
use crate::wire::Sandboxed;

/// Message types are tried from zero up to this one, which no peer uses.
const TYPES: u32 = 32;

/// Starts an instance and tries it.
pub(crate) fn run<K: Sandboxed>(
    version: &Arc<Version<K>>,
    now: Timestamp,
) -> Result<Instance<K>, StartError> {
    let mut instance = version.on_trial()?;
    decide(&mut instance, version.names(), now).map_err(StartError::Trial)?;
    let mut instance = instance.into_inner();
    instance.judge_by_thread(false);
    Ok(instance)
}

/// What it says to the plain questions.
pub(super) fn decide<K: Sandboxed>(
    policy: &mut dyn Decide<K>,
    names: &Names,
    now: Timestamp,
) -> Result<Vec<K::Decision>, Fault> {
    let stream = names.streams.first().copied().unwrap_or(Symbol::NONE);
    let questions: Vec<_> = subjects(now)
        .map(|it| K::trial_question(it, stream))
        .collect();
    let text: Arc<dyn Lookup> = Arc::new(NoText);
    let mut decisions = Vec::with_capacity(questions.len());
    policy.decide(
        now,
        &K::trial_state(stream),
        &questions,
        &text,
        &mut decisions,
    )?;
    Ok(decisions)
}

/// One message of each type and priority, issued just now.
fn subjects(now: Timestamp) -> impl Iterator<Item = Subject> {
    let types = 0..TYPES;
    types.flat_map(move |message_type| {
        Priority::ALL.into_iter().map(move |priority| Subject {
            message_type,
            priority,
            created_at: Some(now),
            ..Subject::default()
        })
    })
}
