//! A shipped policy gives the same answers as a component and as a native build, and in an instance
//! that is fresh and one that has been used: it is a pure function.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock};

use oona::native::NativeError;
use oona_core::Timestamp;
use oona_core::policy::{
    Arrival, Backpressure, BusState, Candidate, DeadLetter, Decide, Failed, Failure, Freshness,
    Kind, Lookup, Mode, NonceSeen, PolicyKind, Priority, Routing, Slo, Subject,
};
use oona_core::symbols::Symbol;
use oona_tests::policies::{STREAMS, names, policy};
use oona_wasm::{Artifact, Engine, EngineConfig, Names, Native, Sandboxed, StartError, Version};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

/// How large a batch may be here.
const BATCH_MAX: usize = 64;

/// Around when messages are issued, in ms; ages are measured in minutes.
const NOW_MS: u64 = 1_700_000_000_000;

static ENGINE: LazyLock<Arc<Engine>> =
    LazyLock::new(|| Engine::new(EngineConfig::default()).unwrap());

/// One question to the whole of a policy.
#[derive(Clone, Debug)]
struct Case<K: PolicyKind> {
    config: Value,
    now: Timestamp,
    state: K::State,
    questions: Vec<K::Question>,
    texts: Texts,
}

/// Attributes and payload of each message.
#[derive(Clone, Debug)]
struct Texts(Vec<(BTreeMap<String, String>, Vec<u8>)>);

impl Lookup for Texts {
    fn attribute(&self, index: usize, name: &str) -> Option<&str> {
        self.0.get(index)?.0.get(name).map(String::as_str)
    }

    fn attributes(&self, index: usize, each: &mut dyn FnMut(&str, &str)) {
        let attributes = self
            .0
            .get(index)
            .into_iter()
            .flat_map(|(attributes, _)| attributes);
        attributes.for_each(|(name, value)| each(name, value));
    }

    fn payload(&self, index: usize) -> Option<&[u8]> {
        Some(&self.0.get(index)?.1)
    }
}

impl<K: Sandboxed + Debug> Case<K> {
    fn ask(&self, policy: &mut dyn Decide<K>) -> Vec<K::Decision> {
        let text: Arc<dyn Lookup> = Arc::new(self.texts.clone());
        let mut decisions = Vec::new();
        policy
            .decide(
                self.now,
                &self.state,
                &self.questions,
                &text,
                &mut decisions,
            )
            .unwrap();
        decisions
    }

    /// Whether all builds of the policy agree, about the configuration to begin with.
    fn check(&self, native: impl Fn(&str, &Names) -> Result<Native<K>, NativeError>) {
        let names = bus();
        let config = self.config.to_string();
        let version = Version::<K>::new(&artifact(K::KIND), &config, names.clone()).unwrap();
        let native = native(&config, &names);
        let mut used = match (version.instance(), &native) {
            (Ok(instance), Ok(_)) => instance,
            (Err(StartError::Refused(wasm)), Err(NativeError::Refused { reason, .. })) => {
                assert_eq!(wasm, *reason);
                return;
            }
            (wasm, native) => panic!("{config}: {:?} but {native:?}", wasm.map(drop)),
        };
        let expected = self.ask(native.unwrap().policy().as_mut());
        for round in ["fresh", "used", "used again"] {
            assert_eq!(self.ask(&mut used), expected, "{round}");
        }
        for (index, question) in self.questions.iter().enumerate() {
            let alone = Self {
                questions: vec![*question],
                texts: Texts(vec![self.texts.0[index].clone()]),
                ..self.clone()
            };
            assert_eq!(alone.ask(&mut used), expected[index..=index], "alone");
        }
    }
}

fn artifact(kind: Kind) -> Artifact {
    static ALL: LazyLock<BTreeMap<Kind, Artifact>> = LazyLock::new(|| {
        let load = |kind: Kind| Artifact::load(&ENGINE, kind, &policy(kind.name())).unwrap();
        Kind::ALL
            .into_iter()
            .map(|kind| (kind, load(kind)))
            .collect()
    });
    ALL[&kind].clone()
}

/// The same names for all cases, so that a symbol can be drawn before its case is known.
fn bus() -> Names {
    static BUS: LazyLock<Names> = LazyLock::new(|| {
        let names = names();
        for source in SOURCES {
            assert!(!names.symbols.intern(source).is_none());
        }
        names
    });
    BUS.clone()
}

const SOURCES: [&str; 3] = ["kernel-host", "trainer", "edge-7"];

fn symbols(of: &'static [&'static str]) -> impl Strategy<Value = Symbol> {
    select(of).prop_map(|name| bus().symbols.intern(name))
}

/// Around now, long ago, at the ends of time, or never.
fn time() -> impl Strategy<Value = Option<Timestamp>> {
    prop_oneof![
        1 => Just(None),
        8 => (NOW_MS - 200_000..NOW_MS + 200_000).prop_map(Some),
        1 => any::<u64>().prop_map(Some),
    ]
    .prop_map(|ms| ms.filter(|ms| *ms > 0).map(Timestamp::from_millis))
}

fn now() -> impl Strategy<Value = Timestamp> {
    prop_oneof![9 => NOW_MS - 1_000..NOW_MS + 1_000, 1 => any::<u64>()]
        .prop_map(Timestamp::from_millis)
}

fn subject() -> impl Strategy<Value = Subject> {
    let source = prop_oneof![1 => Just(Symbol::NONE), 4 => symbols(&SOURCES)];
    let count = || prop_oneof![8 => 0..12_u32, 1 => any::<u32>()];
    (
        any::<u64>(),
        prop_oneof![8 => 0..24_u32, 1 => any::<u32>()],
        select(&Priority::ALL),
        source,
        count(),
        count(),
        time(),
        time(),
    )
        .prop_map(
            |(id, message_type, priority, source, payload_size, attempt, created, expires)| {
                Subject {
                    id,
                    message_type,
                    priority,
                    source,
                    payload_size,
                    attempt,
                    created_at: created,
                    expires_at: expires,
                }
            },
        )
}

fn text() -> impl Strategy<Value = (BTreeMap<String, String>, Vec<u8>)> {
    let attributes = prop::collection::btree_map(
        select(&["tier", "region"]),
        select(&["gold", "eu", ""]),
        0..3,
    );
    let attributes = attributes.prop_map(|all| {
        all.into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    });
    (attributes, prop::collection::vec(any::<u8>(), 0..4))
}

fn case<K: Sandboxed + Debug>(
    config: impl Strategy<Value = Value>,
    state: impl Strategy<Value = K::State>,
    question: impl Strategy<Value = K::Question>,
) -> impl Strategy<Value = Case<K>> {
    let questions = prop::collection::vec((question, text()), 0..=BATCH_MAX);
    (config, now(), state, questions).prop_map(|(config, now, state, questions)| {
        let (questions, texts) = questions.into_iter().unzip();
        Case {
            config,
            now,
            state,
            questions,
            texts: Texts(texts),
        }
    })
}

/// A configuration by the policy's own schema: each number within its limits and each word one of
/// those that it may be. Whatever has another form keeps its default.
fn config(kind: Kind) -> BoxedStrategy<Value> {
    let schema: Value = serde_json::from_str(oona::native::config_schema(kind)).unwrap();
    prop_oneof![1 => Just(json!({})), 2 => object(&schema)].boxed()
}

fn object(schema: &Value) -> BoxedStrategy<Value> {
    let mut all = Just(Map::new()).boxed();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let Some(value) = value(property) else {
            continue;
        };
        let name = name.clone();
        all = (all, prop::option::of(value))
            .prop_map(move |(mut all, value)| {
                all.extend(value.map(|value| (name.clone(), value)));
                all
            })
            .boxed();
    }
    all.prop_map(Value::Object).boxed()
}

fn value(schema: &Value) -> Option<BoxedStrategy<Value>> {
    if let Some(words) = schema["enum"].as_array() {
        return Some(select(words.clone()).boxed());
    }
    match schema["type"].as_str()? {
        "object" if schema["properties"].is_object() => Some(object(schema)),
        "boolean" => Some(any::<bool>().prop_map(Value::from).boxed()),
        "number" => {
            let (from, to) = (schema["minimum"].as_f64()?, schema["maximum"].as_f64()?);
            Some((from..=to).prop_map(Value::from).boxed())
        }
        "integer" => {
            let (from, to) = (schema["minimum"].as_u64()?, schema["maximum"].as_u64()?);
            let near = from..=to.min(from.saturating_add(1_000));
            Some(prop_oneof![near, from..=to].prop_map(Value::from).boxed())
        }
        _ => None,
    }
}

/// Rules have no default to learn from, so they are made here.
fn rules() -> impl Strategy<Value = Value> {
    let rule = (
        prop::option::of(select(&["telemetry", "emergency_signal", "7", "99"])),
        prop::option::of(select(&SOURCES)),
        prop::option::of((select(&["tier", "region"]), select(&["gold", "eu", ""]))),
        prop::option::of(select(&["low", "normal", "critical"])),
        prop::option::of(select(&STREAMS)),
    );
    prop::collection::vec(rule, 0..6).prop_map(|rules| {
        let rules = rules.into_iter().enumerate();
        let rules = rules.map(
            |(index, (message_type, source, attribute, priority, stream))| {
                let attribute =
                    attribute.map(|(name, value)| json!({"name": name, "value": value}));
                json!({
                    "name": format!("rule-{index}"),
                    "message_type": message_type,
                    "source": source,
                    "attribute": attribute,
                    "priority_from": priority,
                    "stream": stream,
                })
            },
        );
        Value::from_iter(rules)
    })
}

fn routing_config() -> impl Strategy<Value = Value> {
    (config(Kind::Routing), rules()).prop_map(|(mut config, rules)| {
        config["rules"] = rules;
        config
    })
}

fn bus_state() -> impl Strategy<Value = BusState> {
    let mode = select(&[Mode::Normal, Mode::Conservative]);
    (mode, 0..200_u64, 1..200_u64, 0..200_u64, 1..200_u64).prop_map(
        |(mode, emergency_depth, emergency_capacity, normal_depth, normal_capacity)| {
            let symbol = |name| bus().symbols.intern(name);
            BusState {
                mode,
                emergency_stream: symbol("oona.emergency"),
                emergency_depth,
                emergency_capacity,
                normal_stream: symbol("oona.normal"),
                normal_depth,
                normal_capacity,
            }
        },
    )
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let slo = select(&[Slo::Met, Slo::AtRisk, Slo::Violated]);
    let depth = prop_oneof![8 => 0..200_u64, 1 => any::<u64>()];
    let capacity = prop_oneof![8 => 1..200_u64, 1 => 1..=u64::MAX];
    (
        subject(),
        symbols(&STREAMS),
        depth,
        capacity,
        slo,
        0..130_u32,
        1..130_u32,
        0..2_000_u32,
    )
        .prop_map(
            |(subject, stream, depth, capacity, slo, tokens, tokens_max, token_wait_ms)| {
                Candidate {
                    subject,
                    stream,
                    depth,
                    capacity,
                    slo,
                    tokens: tokens.min(tokens_max),
                    tokens_max,
                    token_wait_ms,
                }
            },
        )
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let nonce = select(&[
        NonceSeen::Unseen,
        NonceSeen::SameEntry,
        NonceSeen::OtherEntry,
    ]);
    (subject(), nonce).prop_map(|(subject, nonce)| Arrival { subject, nonce })
}

fn failed() -> impl Strategy<Value = Failed> {
    let delay = prop_oneof![4 => Just(0), 4 => 0..100_000_u64, 1 => any::<u64>()];
    let deliveries = prop_oneof![8 => 1..12_u32, 1 => 1..=u32::MAX];
    (subject(), select(&Failure::ALL), deliveries, delay).prop_map(
        |(subject, failure, deliveries, requested_delay_ms)| Failed {
            subject,
            failure,
            deliveries,
            requested_delay_ms,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn routing(case in case::<Routing>(routing_config(), Just(()), subject())) {
        case.check(oona::native::routing);
    }

    #[test]
    fn backpressure(
        case in case::<Backpressure>(config(Kind::Backpressure), bus_state(), candidate())
    ) {
        case.check(oona::native::backpressure);
    }

    #[test]
    fn freshness(case in case::<Freshness>(config(Kind::Freshness), Just(()), arrival())) {
        case.check(oona::native::freshness);
    }

    #[test]
    fn dead_letter(case in case::<DeadLetter>(config(Kind::DeadLetter), Just(()), failed())) {
        case.check(oona::native::dead_letter);
    }
}
