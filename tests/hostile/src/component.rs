//! The component.

use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use oona_policy_sdk::bindings::routing as bindings;
use oona_policy_sdk::bindings::routing::oona::policy::host;

use crate::config::{CONFIG_SCHEMA, Config, Mode, When};
use bindings::exports::oona::policy::routing::{Decision, Message, Verdict};

/// No table of names is as large.
const NO_SYMBOL: u32 = u32::MAX;

/// More than any host lifts, and little enough for the memory of an instance.
const HUGE_DECISIONS: usize = 1_000_000;
const HUGE_ERROR_BYTES: usize = 8 << 20;

/// More than any table of names holds.
const NAMES: u32 = 1_000_000;

const PAGE_BYTES: usize = 64 << 10;

struct Hostile {
    config: Config,
    stream: u32,
    reason: u32,
    calls: AtomicU32,
}

static HOSTILE: OnceLock<Hostile> = OnceLock::new();

struct Component;

impl bindings::Guest for Component {
    fn describe() -> bindings::Description {
        bindings::Description {
            name: "hostile".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_schema: CONFIG_SCHEMA.to_owned(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        let config: Config = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        if config.at == When::Configure {
            match config.mode {
                Mode::HugeAnswer => return Err("x".repeat(HUGE_ERROR_BYTES)),
                Mode::Refuse => return Err("it was told to refuse".to_owned()),
                Mode::Intern => (0..NAMES).for_each(|number| {
                    host::intern(&format!("hostile-{number}"));
                }),
                mode => misbehave(mode),
            }
        }
        let hostile = Hostile {
            stream: host::intern(&config.stream),
            reason: host::intern("hostile"),
            calls: AtomicU32::new(0),
            config,
        };
        HOSTILE
            .set(hostile)
            .map_err(|_| "an instance is configured once".to_owned())
    }
}

impl bindings::exports::oona::policy::routing::Guest for Component {
    fn decide(_now: u64, messages: Vec<Message>) -> Vec<Decision> {
        let Some(hostile) = HOSTILE.get() else {
            std::process::abort()
        };
        let call = hostile.calls.fetch_add(1, Ordering::Relaxed);
        let misbehaves = hostile.config.at == When::Decide && call >= hostile.config.after;
        let mode = if misbehaves {
            hostile.config.mode
        } else {
            Mode::Good
        };
        misbehave(mode);
        hostile.answer(mode, messages.len())
    }
}

impl Hostile {
    fn answer(&self, mode: Mode, asked: usize) -> Vec<Decision> {
        let good = Decision::route(self.stream, self.reason);
        let (decision, count) = match mode {
            Mode::HugeAnswer => (good, HUGE_DECISIONS),
            Mode::TooFew => (good, asked.saturating_sub(1)),
            Mode::TooMany => (good, asked + 1),
            Mode::UnknownStream => (
                Decision {
                    stream: NO_SYMBOL,
                    ..good
                },
                asked,
            ),
            Mode::NoStream => (Decision { stream: 0, ..good }, asked),
            Mode::UnknownReason => (
                Decision {
                    reason: NO_SYMBOL,
                    ..good
                },
                asked,
            ),
            Mode::NoReason => (Decision { reason: 0, ..good }, asked),
            Mode::Refuse => (
                Decision {
                    verdict: Verdict::Reject,
                    ..good
                },
                asked,
            ),
            _ => (good, asked),
        };
        vec![decision; count]
    }
}

/// What does not show in the answer.
fn misbehave(mode: Mode) {
    match mode {
        Mode::Loop => loop {
            black_box(());
        },
        Mode::Memory => loop {
            keep_page();
        },
        Mode::Grow => keep_page(),
        Mode::Recursion => {
            black_box(recurse(black_box(1)));
        }
        Mode::Trap => std::process::abort(),
        Mode::Intern => {
            host::intern("hostile-late");
        }
        Mode::ForeignMessage => {
            black_box(host::payload(u32::MAX, 0, 1));
        }
        _ => {}
    }
}

/// Takes memory and never gives it back.
fn keep_page() {
    black_box(vec![1u8; PAGE_BYTES].leak());
}

/// Without end, and with something left to do after each call, so that no loop can replace it.
#[expect(unconditional_recursion, reason = "that is the point")]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1))) ^ depth
}

bindings::export!(Component with_types_in oona_policy_sdk::bindings::routing);
