//! A routing policy by hand, small enough to be bent into every shape that a test needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use oona_core::Timestamp;
use oona_core::policy::{Decide, Fault, Lookup, NoText, Route, Routing, Subject};
use oona_core::symbols::Symbol;
use wit_component::StringEncoding;

use crate::{Artifact, Engine, EngineConfig, Names, SymbolTable, Version, componentize, wit};

/// What a guest does instead of routing everything to `oona.normal` for the reason `default`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest<'a> {
    /// The world that it says it is of.
    pub(crate) world: &'a str,
    /// Run when it is instantiated.
    pub(crate) start: &'a str,
    /// Run when it is configured, before anything else.
    pub(crate) configure: &'a str,
    /// Run when it decides, before anything else; `$type` is the first message's type. The
    /// decisions are about `$count` messages, to `$stream`, for `$reason`.
    pub(crate) decide: &'a str,
    /// Its memory at the start, in pages of 64 KiB.
    pub(crate) pages: u32,
    /// More items of the module.
    pub(crate) more: &'a str,
}

impl Default for Guest<'_> {
    fn default() -> Self {
        Self {
            world: "routing-policy",
            start: "",
            configure: "",
            decide: "",
            pages: 1,
            more: "",
        }
    }
}

/// A guest that loops for messages of type 66 and behaves otherwise.
pub(crate) const LOOPS_AT_66: &str =
    "(if (i32.eq (local.get $type) (i32.const 66)) (then (loop $ever (br $ever))))";

impl Guest<'_> {
    /// As a core module, without its world.
    pub(crate) fn module(&self) -> Vec<u8> {
        let Self {
            start,
            configure,
            decide,
            pages,
            more,
            ..
        } = self;
        let text = format!(
            r#"(module
  (import "oona:policy/host@0.1.0" "intern" (func $intern (param i32 i32) (result i32)))
  (import "oona:policy/host@0.1.0" "payload" (func $payload (param i32 i32 i32 i32)))
  (memory (export "memory") {pages})
  (global $top (mut i32) (i32.const 4096))
  (global $stream (mut i32) (i32.const 0))
  (global $reason (mut i32) (i32.const 0))
  (data (i32.const 16) "by-hand")
  (data (i32.const 32) "1.0.0")
  (data (i32.const 48) "{{}}")
  (data (i32.const 64) "oona.normal")
  (data (i32.const 80) "default")
  (data (i32.const 96) "it wants {{}}")
  (data (i32.const 128) "\10\00\00\00\07\00\00\00\20\00\00\00\05\00\00\00\30\00\00\00\02\00\00\00")
  {more}
  (func $start {start})
  (start $start)
  (func $allocate (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "describe") (result i32) (i32.const 128))
  (func (export "configure") (param $at i32) (param $length i32) (result i32)
    {configure}
    (global.set $stream (call $intern (i32.const 64) (i32.const 11)))
    (global.set $reason (call $intern (i32.const 80) (i32.const 7)))
    (i32.store (i32.const 192) (i32.ne (local.get $length) (i32.const 2)))
    (i32.store (i32.const 196) (i32.const 96))
    (i32.store (i32.const 200) (i32.const 11))
    (i32.const 192))
  (func $decide (export "oona:policy/routing@0.1.0#decide")
    (param $now i64) (param $at i32) (param $length i32) (result i32)
    (local $type i32) (local $count i32) (local $to i32) (local $next i32)
    (local $stream i32) (local $reason i32)
    (local.set $type (i32.load offset=8 (local.get $at)))
    (local.set $count (local.get $length))
    (local.set $stream (global.get $stream))
    (local.set $reason (global.get $reason))
    {decide}
    (local.set $to (i32.const 32768))
    (block $done (loop $more
      (br_if $done (i32.ge_u (local.get $next) (local.get $count)))
      (i32.store8 (local.get $to) (i32.const 0))
      (i32.store offset=4 (local.get $to) (local.get $stream))
      (i32.store offset=8 (local.get $to) (local.get $reason))
      (local.set $to (i32.add (local.get $to) (i32.const 12)))
      (local.set $next (i32.add (local.get $next) (i32.const 1)))
      (br $more)))
    (global.set $top (i32.const 4096))
    (i32.store (i32.const 256) (i32.const 32768))
    (i32.store (i32.const 260) (local.get $count))
    (i32.const 256)))"#
        );
        wat::parse_str(text).unwrap()
    }

    /// As a component of its world.
    pub(crate) fn component(&self) -> Vec<u8> {
        let (resolve, package) = wit::resolve().unwrap();
        let world = resolve.select_world(&[package], Some(self.world)).unwrap();
        let mut module = self.module();
        wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .unwrap();
        componentize(&module, None).unwrap()
    }
}

/// Bounds that are quickly reached.
pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        memory_bytes_max: 1 << 20,
        ..EngineConfig::default()
    }
}

pub(crate) fn engine() -> Arc<Engine> {
    Engine::new(config()).unwrap()
}

/// A bus with one stream, `oona.normal`.
pub(crate) fn names() -> Names {
    let symbols = SymbolTable::default();
    let streams = BTreeSet::from([symbols.intern("oona.normal")]);
    Names {
        symbols,
        streams: Arc::new(streams),
    }
}

pub(crate) fn version(
    engine: &Arc<Engine>,
    guest: &Guest<'_>,
    names: &Names,
) -> Arc<Version<Routing>> {
    let artifact = Artifact::load_any(engine, &guest.component()).unwrap();
    Version::new(&artifact, "{}", names.clone()).unwrap()
}

/// Messages of one type.
pub(crate) fn messages(message_type: u32, count: usize) -> Vec<Subject> {
    vec![
        Subject {
            message_type,
            ..Subject::default()
        };
        count
    ]
}

/// What `policy` says of them.
pub(crate) fn ask(
    policy: &mut impl Decide<Routing>,
    messages: &[Subject],
) -> Result<Vec<Route>, Fault> {
    let text: Arc<dyn Lookup> = Arc::new(NoText);
    let mut decisions = Vec::new();
    let now = Timestamp::from_millis(1);
    policy
        .decide(now, &(), messages, &text, &mut decisions)
        .map(|()| decisions)
}

/// What the guest says of each message, if nothing keeps it from that.
pub(crate) fn default_route(names: &Names) -> Route {
    let symbol = |name| names.symbols.get(name).unwrap_or(Symbol::NONE);
    Route::To {
        stream: symbol("oona.normal"),
        reason: symbol("default"),
    }
}
