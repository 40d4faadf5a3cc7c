//! The shipped policies in the sandbox: loaded, checked, configured, and swapped under load.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use oona_core::Timestamp;
use oona_core::budget::BudgetConfig;
use oona_core::policy::{
    Backpressure, DeadLetter, Decide, Fault, Freshness, Kind, Lookup, NoText, Priority, Route,
    Routing, Subject,
};
use oona_tests::policies::{names, policy};
use oona_wasm::{
    Artifact, Engine, EngineConfig, LoadError, Names, Native, Sandboxed, Slot, Source, StartError,
    Version,
};

static ENGINE: LazyLock<Arc<Engine>> =
    LazyLock::new(|| Engine::new(EngineConfig::default()).unwrap());

/// The shipped policy of a kind, compiled once for all tests.
fn artifact(kind: Kind) -> &'static Artifact {
    static ALL: LazyLock<BTreeMap<Kind, Artifact>> = LazyLock::new(|| {
        let load = |kind: Kind| Artifact::load(&ENGINE, kind, &policy(kind.name())).unwrap();
        Kind::ALL
            .into_iter()
            .map(|kind| (kind, load(kind)))
            .collect()
    });
    &ALL[&kind]
}

fn version<K: Sandboxed>(config: &str, names: &Names) -> Arc<Version<K>> {
    Version::new(artifact(K::KIND), config, names.clone()).unwrap()
}

#[test]
fn the_shipped_policies_are_what_they_say() {
    for kind in Kind::ALL {
        let artifact = artifact(kind);
        assert_eq!(artifact.kind(), kind);
        assert_eq!(artifact.digest().len(), 64);
        assert_eq!(
            artifact.config_schema(),
            oona::native::config_schema(kind),
            "{kind}"
        );
    }
}

#[test]
fn a_policy_of_another_kind_is_refused() {
    let load = |expected| Artifact::load(&ENGINE, expected, &policy("freshness")).unwrap_err();
    let error = load(Kind::DeadLetter);
    let LoadError::WrongKind { expected, found } = error else {
        panic!("{error:?}")
    };
    assert_eq!((expected, found), (Kind::DeadLetter, Kind::Freshness));
}

#[test]
fn a_component_and_its_native_build_bear_the_same_name() {
    fn check<K: Sandboxed>(native: &Native<K>) {
        let info = native.info();
        let artifact = artifact(K::KIND);
        assert_eq!(info.source, Source::Native);
        assert_eq!(artifact.name(), info.name);
        assert_eq!(artifact.version(), info.version);
    }
    let names = names();
    check(&oona::native::routing("{}", &names).unwrap());
    check(&oona::native::backpressure("{}", &names).unwrap());
    check(&oona::native::freshness("{}", &names).unwrap());
    check(&oona::native::dead_letter("{}", &names).unwrap());
}

#[test]
fn a_key_that_nobody_knows_is_refused_by_name() {
    fn check<K: Sandboxed>() {
        let version = version::<K>(r#"{"no_such_key": 1}"#, &names());
        let error = version.instance().unwrap_err();
        let StartError::Refused(words) = &error else {
            panic!("{error:?}")
        };
        assert!(words.contains("no_such_key"), "{words}");
    }
    check::<Routing>();
    check::<Backpressure>();
    check::<Freshness>();
    check::<DeadLetter>();
}

#[test]
fn a_stream_that_the_bus_does_not_have_refuses_the_configuration() {
    let config = r#"{"streams": {"kernels_errors": "oona.misspelt"}}"#;
    let names = names();
    let native = oona::native::routing(config, &names).unwrap_err();
    assert!(native.to_string().contains("streams"), "{native}");

    let slot = slot(&names);
    let misspelt = version::<Routing>(config, &names);
    let error = slot.activate(&misspelt, Timestamp::EPOCH).unwrap_err();
    assert!(
        matches!(error, StartError::Trial(Fault::UnknownStream(_))),
        "{error:?}"
    );
    assert!(slot.current().is_none());
}

#[test]
fn the_cache_gives_back_the_same_policy() {
    let directory = tempfile::tempdir().unwrap();
    let cache_directory = Some(directory.path().join("compiled"));
    let config = EngineConfig {
        cache_directory,
        ..EngineConfig::default()
    };
    let names = names();
    let decisions = [(); 2].map(|()| {
        let engine = Engine::new(config.clone()).unwrap();
        let artifact = Artifact::load(&engine, Kind::Routing, &policy("routing")).unwrap();
        let version = Version::<Routing>::new(&artifact, "{}", names.clone()).unwrap();
        let mut instance = version.instance().unwrap();
        let text: Arc<dyn Lookup> = Arc::new(NoText);
        let mut decisions = Vec::new();
        let messages = [Subject::default(); 3];
        instance
            .decide(Timestamp::EPOCH, &(), &messages, &text, &mut decisions)
            .unwrap();
        decisions
    });
    assert_eq!(decisions[0], decisions[1]);
    assert_eq!(
        std::fs::read_dir(directory.path().join("compiled"))
            .unwrap()
            .count(),
        1
    );
}

fn slot(names: &Names) -> Slot<Routing> {
    let native = oona::native::routing("{}", names).unwrap();
    Slot::new(
        native,
        BudgetConfig::default(),
        Arc::new(drop),
        Timestamp::EPOCH,
    )
}

/// A change that is visible in each decision: where a message of high priority goes.
#[test]
fn a_policy_is_replaced_under_load_without_a_message_lost() {
    const SWAPS: usize = 40;
    let names = names();
    let slot = slot(&names);
    let urgent = version::<Routing>(r#"{"emergency_from": "high"}"#, &names);
    let usual = version::<Routing>(r#"{"emergency_from": "critical"}"#, &names);
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut worker = slot.worker();
                    let text: Arc<dyn Lookup> = Arc::new(NoText);
                    let messages = [Subject {
                        priority: Priority::High,
                        ..Subject::default()
                    }; 8];
                    let mut decisions = Vec::new();
                    let mut seen = BTreeSet::new();
                    while !done.load(Ordering::Acquire) {
                        let now = Timestamp::from_millis(1);
                        let answer = worker.decide(now, &(), &messages, &text, &mut decisions);
                        assert_eq!(answer.fault, None);
                        assert_eq!(decisions.len(), messages.len());
                        let Route::To { stream, .. } = decisions[0] else {
                            panic!("rejected")
                        };
                        seen.insert(stream);
                    }
                    seen
                })
            })
            .collect();
        for version in [&urgent, &usual].into_iter().cycle().take(SWAPS) {
            slot.activate(version, Timestamp::from_millis(1)).unwrap();
            while slot.status(Timestamp::EPOCH).decisions < 1_000 {
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Release);
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect::<Vec<_>>()
    });
    let both = ["oona.emergency", "oona.normal"].map(|name| names.symbols.get(name).unwrap());
    for seen in seen {
        assert_eq!(seen, both.into_iter().collect());
    }
    let status = slot.status(Timestamp::EPOCH);
    assert_eq!(status.generation, SWAPS as u64);
    assert_eq!(status.failures, 0);
    assert!(status.decisions >= 1_000);
}
