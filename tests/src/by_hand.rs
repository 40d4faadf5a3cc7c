//! Policies of each kind by hand, small enough to be bent into every way to misbehave.
//!
//! As they are, they keep every law of their kind: all is routed to `oona.normal`, emergencies are
//! admitted and the rest until the stream is full, what is older than two minutes is stale and a nonce
//! on another entry a replay, and retrying ends after three failures. The configuration is `{}`.

use bytes::Bytes;
use oona_core::policy::Kind;

/// A policy of a kind, and what it does besides.
#[derive(Clone, Copy, Debug)]
pub struct ByHand {
    /// The kind.
    pub kind: Kind,
    /// Run when it is configured, before anything else.
    pub configure: &'static str,
    /// Run once for each call, before anything else. `$calls` is the number of those before.
    pub call: &'static str,
    /// Run for each message, after its decision is made: `$message` is where it stands in memory,
    /// `$verdict` and `$reason` what is decided, `$stream` where to, `$pressure` how full that is, and
    /// `$number` for how long: to try again (backpressure), to remember (freshness), to wait
    /// (dead-letter). `$now` is the time.
    pub each: &'static str,
    /// The schema that it declares.
    pub schema: &'static str,
}

/// How a kind lies in memory, by the canonical ABI, and what it decides when it behaves.
struct Layout {
    /// The parameters of `decide` between the time and the list.
    state: &'static str,
    question_bytes: u32,
    decision_bytes: u32,
    /// Decides.
    decide: &'static str,
    /// Writes the decision down at `$to`.
    write: &'static str,
}

const fn layout(kind: Kind) -> Layout {
    match kind {
        Kind::Routing => Layout {
            state: "",
            question_bytes: 48,
            decision_bytes: 12,
            decide: "(local.set $verdict (i32.const 0))",
            write: "(i32.store8 (local.get $to) (local.get $verdict))
                (i32.store offset=4 (local.get $to) (local.get $stream))
                (i32.store offset=8 (local.get $to) (local.get $reason))",
        },
        Kind::Backpressure => Layout {
            state: "(param $mode i32) (param i32) (param i64) (param i64) (param i32) (param i64) (param i64)",
            question_bytes: 88,
            decision_bytes: 20,
            // Admitted (0) if it is an emergency (4) or there is room, rejected (3) otherwise.
            decide: "(local.set $verdict (select (i32.const 0) (i32.const 3) (i32.or
                    (i32.eq (i32.load8_u offset=12 (local.get $message)) (i32.const 4))
                    (i64.lt_u (i64.load offset=56 (local.get $message)) (i64.load offset=64 (local.get $message))))))
                (local.set $pressure (f32.min (f32.const 1) (f32.div
                    (f32.convert_i64_u (i64.load offset=56 (local.get $message)))
                    (f32.convert_i64_u (i64.load offset=64 (local.get $message))))))",
            write: "(i32.store8 (local.get $to) (local.get $verdict))
                (i32.store offset=4 (local.get $to) (i32.const 0))
                (i32.store offset=8 (local.get $to) (local.get $reason))
                (i32.store offset=12 (local.get $to) (i32.wrap_i64 (local.get $number)))
                (f32.store offset=16 (local.get $to) (local.get $pressure))",
        },
        Kind::Freshness => Layout {
            state: "",
            question_bytes: 56,
            decision_bytes: 24,
            // Stale (1) if older than two minutes, a replay (2) if the nonce is on another entry (2).
            decide: "(local.set $number (i64.const 120000))
                (local.set $verdict (select (i32.const 2)
                    (i64.gt_u (local.get $now) (i64.add (i64.load offset=32 (local.get $message)) (i64.const 120000)))
                    (i32.eq (i32.load8_u offset=48 (local.get $message)) (i32.const 2))))",
            write: "(i32.store8 (local.get $to) (local.get $verdict))
                (i64.store offset=8 (local.get $to) (local.get $number))
                (i32.store offset=16 (local.get $to) (local.get $reason))",
        },
        Kind::DeadLetter => Layout {
            state: "",
            question_bytes: 64,
            decision_bytes: 24,
            // Tried again (0) after a second, and away (1) after three failures.
            decide: "(local.set $number (i64.const 1000))
                (local.set $verdict (i32.ge_u (i32.load offset=24 (local.get $message)) (i32.const 3)))",
            write: "(i32.store8 (local.get $to) (local.get $verdict))
                (i64.store offset=8 (local.get $to) (local.get $number))
                (i32.store offset=16 (local.get $to) (local.get $reason))
                (i32.store offset=20 (local.get $to) (local.get $reason))",
        },
    }
}

impl ByHand {
    /// One that behaves.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            configure: "",
            call: "",
            each: "",
            schema: "{}",
        }
    }

    /// As a component of the world of its kind.
    ///
    /// # Panics
    ///
    /// If what it does is no text of WebAssembly.
    #[must_use]
    pub fn component(&self) -> Bytes {
        let text = self.module();
        let module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let component = oona_wasm::componentize(&module, Some(self.kind));
        component
            .unwrap_or_else(|error| panic!("{error}\n{text}"))
            .into()
    }

    fn module(&self) -> String {
        let Self {
            kind,
            configure,
            call,
            each,
            schema,
        } = self;
        let Layout {
            state,
            question_bytes,
            decision_bytes,
            decide,
            write,
        } = layout(*kind);
        let quoted = schema.replace('"', "\\\"");
        let length = schema.len();
        format!(
            r#"(module
  (import "oona:policy/host@0.1.0" "intern" (func $intern (param i32 i32) (result i32)))
  (memory (export "memory") 4)
  (global $top (mut i32) (i32.const 16384))
  (global $stream (mut i32) (i32.const 0))
  (global $reason (mut i32) (i32.const 0))
  (global $other (mut i32) (i32.const 0))
  (global $calls (mut i32) (i32.const 0))
  (data (i32.const 16) "by-hand")
  (data (i32.const 32) "1.0.0")
  (data (i32.const 64) "oona.normal")
  (data (i32.const 80) "plain")
  (data (i32.const 96) "other")
  (data (i32.const 512) "{quoted}")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "describe") (result i32)
    (i32.store (i32.const 128) (i32.const 16))
    (i32.store (i32.const 132) (i32.const 7))
    (i32.store (i32.const 136) (i32.const 32))
    (i32.store (i32.const 140) (i32.const 5))
    (i32.store (i32.const 144) (i32.const 512))
    (i32.store (i32.const 148) (i32.const {length}))
    (i32.const 128))
  (func (export "configure") (param $at i32) (param $length i32) (result i32)
    {configure}
    (global.set $stream (call $intern (i32.const 64) (i32.const 11)))
    (global.set $reason (call $intern (i32.const 80) (i32.const 5)))
    (global.set $other (call $intern (i32.const 96) (i32.const 5)))
    (i32.store (i32.const 192) (i32.const 0))
    (i32.const 192))
  (func $recurse (param $depth i32) (result i32)
    (i32.add (local.get $depth) (call $recurse (i32.add (local.get $depth) (i32.const 1)))))
  (func (export "oona:policy/{kind}@0.1.0#decide")
    (param $now i64) {state} (param $message i32) (param $count i32) (result i32)
    (local $to i32) (local $next i32) (local $left i32) (local $calls i32)
    (local $verdict i32) (local $stream i32) (local $reason i32)
    (local $number i64) (local $pressure f32)
    (local.set $calls (global.get $calls))
    (global.set $calls (i32.add (local.get $calls) (i32.const 1)))
    {call}
    (local.set $to (i32.const 131072))
    (block $done (loop $more
      (br_if $done (i32.ge_u (local.get $next) (local.get $count)))
      (local.set $stream (global.get $stream))
      (local.set $reason (global.get $reason))
      {decide}
      {each}
      {write}
      (local.set $message (i32.add (local.get $message) (i32.const {question_bytes})))
      (local.set $to (i32.add (local.get $to) (i32.const {decision_bytes})))
      (local.set $next (i32.add (local.get $next) (i32.const 1)))
      (br $more)))
    (global.set $top (i32.const 16384))
    (i32.store (i32.const 256) (i32.const 131072))
    (i32.store (i32.const 260) (local.get $count))
    (i32.const 256)))"#
        )
    }
}
