//! What an error of wasmtime means to the host.

use oona_core::policy::Fault;
use wasmtime::{Error, Trap};

use crate::guest::Guest;

/// Part of wasmtime's message when an answer is larger than it may be; its type is not public.
const ANSWER_TOO_LARGE: &str = "fuel allocated for hostcalls has been exhausted";

/// The longest description of a fault that is kept, in characters: it goes into logs and events.
const WORDS_MAX: usize = 512;

/// Sorts an error. After any of them the store is not used again.
pub(crate) fn classify(error: &Error, guest: &Guest, limit_ms: u64) -> Fault {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => return Fault::Deadline { limit_ms },
        Some(Trap::StackOverflow) => return Fault::Bound("its stack overflowed".to_owned()),
        _ => {}
    }
    // A guest that is refused memory gives up on its own, by whichever trap.
    if let Some(denied) = &guest.denied {
        return Fault::Bound(denied.clone());
    }
    let words: String = format!("{error:#}").chars().take(WORDS_MAX).collect();
    if words.contains(ANSWER_TOO_LARGE) {
        Fault::Bound("its answer is too large".to_owned())
    } else {
        Fault::Trap(words)
    }
}
