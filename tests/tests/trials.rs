//! A candidate on live traffic: compared, counted, promoted and taken back; and on recorded traffic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oona::explain::{Asked, explain};
use oona::gates::{Gate, Status};
use oona::record::{Message, MessageType};
use oona::registry::{LIST, Proposal, RegistryError, Use, Wanted};
use oona::replay;
use oona::store::Store;
use oona::store::redis::RedisStore;
use oona_core::entry::Record;
use oona_core::policy::Kind;
use oona_core::registry::Action;
use oona_core::stage::{StageMode, TRIAL_MS_MAX, Thresholds, TimeMax};
use oona_tests::by_hand::ByHand;
use oona_tests::desk::{Desk, author, keys, proposal, until};
use oona_tests::policies::policy;
use oona_tests::redis_server::RedisServer;

/// It answers one batch and traps at the next: so it starts, and passes for a policy.
const TRAPS: &str = r#"{"mode": "trap", "after": 1}"#;

const PATIENT: Thresholds = Thresholds {
    disagreements_per_million: 1_000_000,
    faults: 0,
    time_max: None,
    for_ms: 0,
    trial_ms_max: TRIAL_MS_MAX,
    decisions: 0,
    promote: false,
};

/// A routing policy by hand, past all gates that can be forced.
fn by_hand(by_hand: ByHand) -> Proposal {
    Proposal {
        wanted: Wanted::Component(by_hand.component(), Vec::new()),
        ..proposal("routing", "{}", &[Gate::Laws, Gate::Cases, Gate::Trial])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_is_compared_and_changes_nothing() {
    let desk = Desk::new().await;
    desk.propose(
        "routing-by-origin",
        "{}",
        Use::Staged(StageMode::Shadow, PATIENT),
    )
    .await
    .unwrap();
    let landed = desk.publish("edge", keys(30)).await;
    let elsewhere = desk.publish("centre", keys(20)).await;
    for (key, stream) in landed.iter().chain(&elsewhere) {
        assert_eq!(stream, "oona.normal", "{key}");
    }
    let tried = desk.tried().unwrap();
    assert_eq!(
        (
            tried.seen.decisions,
            tried.seen.disagreements,
            tried.seen.faults
        ),
        (50, 30, 0)
    );
    assert_eq!(tried.decided, 0);
    let [pair] = &tried.pairs[..] else {
        panic!("{:?}", tried.pairs)
    };
    assert_eq!(
        (&*pair.in_use, &*pair.candidate, pair.count),
        ("type", "origin", 30)
    );
    let example = &pair.examples[0];
    assert_eq!(example.message.attributes["origin"], "edge");
    assert_eq!(example.in_use.to_string(), "route oona.normal (type)");
    assert_eq!(
        example.candidate.to_string(),
        "route oona.telemetry (origin)"
    );

    let (_, report) = desk
        .registry
        .conclude(Kind::Routing, true, &author())
        .await
        .unwrap();
    assert_eq!(report.unwrap().activation.version.name, "routing-by-origin");
    assert!(desk.tried().is_none());
    let landed = desk.publish("edge", keys(1)).await;
    assert_eq!(landed[0].1, "oona.telemetry");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_decides_for_its_share_of_the_keys_and_always_for_the_same() {
    let desk = Desk::new().await;
    let canary = Use::Staged(StageMode::Canary { per_mille: 250 }, PATIENT);
    desk.propose("routing-by-origin", "{}", canary)
        .await
        .unwrap();
    let chosen = |landed: Vec<(String, String)>| {
        let theirs = landed
            .into_iter()
            .filter(|(_, stream)| stream == "oona.telemetry");
        theirs.map(|(key, _)| key).collect::<BTreeSet<_>>()
    };
    let first = chosen(desk.publish("edge", keys(400)).await);
    let second = chosen(desk.publish("edge", keys(400)).await);
    assert_eq!(first, second, "a key goes one way");
    // 400 keys, a quarter of them: 100, and four standard deviations to either side.
    assert!((65..=135).contains(&first.len()), "{}", first.len());
    let tried = desk.tried().unwrap();
    assert_eq!(tried.decided, 2 * first.len() as u64);
    assert_eq!(tried.seen.disagreements, 800);
    let exposition = desk.bus.metrics().render();
    let counted = format!(
        r#"oona_policy_decisions_total{{kind="routing",name="routing-by-origin",version="2.0.0",reason="origin"}} {}"#,
        tried.decided
    );
    assert!(exposition.contains(&counted), "no {counted}");

    // Each decision is on record under the version that made it, and in its mix.
    let records = desk.bus.policies().decisions().last(Kind::Routing, 800);
    assert_eq!(records.len(), 800, "every one is recorded");
    for record in &records {
        let by = match record.decision.stream.as_deref() {
            Some("oona.telemetry") => "routing-by-origin",
            _ => "routing",
        };
        assert_eq!(record.policy, by, "{record:?}");
    }
    let mix = desk.registry.mix_in_use(Kind::Routing);
    assert_eq!(mix.values().sum::<u64>(), 800 - tried.decided, "{mix:?}");

    let (_, report) = desk
        .registry
        .conclude(Kind::Routing, false, &author())
        .await
        .unwrap();
    assert!(report.is_none());
    assert!(chosen(desk.publish("edge", keys(400)).await).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_agrees_is_promoted_by_itself() {
    let desk = Desk::new().await;
    let thresholds = Thresholds {
        disagreements_per_million: 10_000,
        decisions: 150,
        promote: true,
        ..PATIENT
    };
    desk.propose(
        "routing-by-origin",
        "{}",
        Use::Staged(StageMode::Shadow, thresholds),
    )
    .await
    .unwrap();
    desk.publish("centre", keys(149)).await;
    assert!(desk.tried().is_some());
    desk.publish("centre", keys(1)).await;
    until("it is promoted", || desk.in_use() == "routing-by-origin").await;
    let promote = |action: &Action| matches!(action, Action::Promote { .. });
    let (_, message) = desk.written("that is written down", promote).await;
    assert!(message.starts_with("150 decisions in"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_disagrees_or_fails_is_taken_back_by_itself() {
    let desk = Desk::new().await;
    let thresholds = Thresholds {
        disagreements_per_million: 10_000,
        promote: true,
        decisions: 1_000_000,
        ..PATIENT
    };
    desk.propose(
        "routing-by-origin",
        "{}",
        Use::Staged(StageMode::Shadow, thresholds),
    )
    .await
    .unwrap();
    desk.publish("edge", keys(120)).await;
    let message = desk.withdrawn().await;
    assert!(
        message.contains("10000 in a million are allowed"),
        "{message}"
    );
    assert_eq!(desk.in_use(), "routing");

    let canary = Use::Staged(StageMode::Canary { per_mille: 1_000 }, PATIENT);
    let forced = proposal("hostile", TRAPS, &[Gate::Laws, Gate::Trial]);
    desk.registry
        .propose(forced, canary, &author())
        .await
        .unwrap();
    let landed = desk.publish("centre", keys(5)).await;
    assert_eq!(landed.len(), 5, "each has its decision");
    let message = desk.withdrawn().await;
    assert!(
        message.contains("of its calls failed, 0 are allowed; the last one: it trapped"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_takes_too_long_is_taken_back_by_itself() {
    let desk = Desk::new().await;
    let slow = ByHand {
        each: "(local.set $left (i32.const 40000))
            (loop $spin
              (local.set $left (i32.sub (local.get $left) (i32.const 1)))
              (br_if $spin (local.get $left)))",
        ..ByHand::new(Kind::Routing)
    };
    // A round of the loop takes a cycle at least: 40 000 take 5 µs and more.
    let thresholds = Thresholds {
        time_max: Some(TimeMax::Ns(5_000)),
        ..PATIENT
    };
    let shadow = Use::Staged(StageMode::Shadow, thresholds);
    desk.registry
        .propose(by_hand(slow), shadow, &author())
        .await
        .unwrap();
    desk.publish("centre", keys(99)).await;
    let tried = desk.tried().unwrap();
    assert_eq!(tried.seen.timed, 99, "too few to be judged by");
    assert!(tried.seen.means_ns().0 > 5_000, "{:?}", tried.seen);
    assert!(tried.seen.in_use_ns > 0);
    desk.publish("centre", keys(1)).await;
    let message = desk.withdrawn().await;
    assert!(
        message.starts_with("it takes ") && message.ends_with("; 5.000 µs are allowed"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_fails_is_left_alone_for_a_while_and_its_failure_is_kept() {
    let desk = Desk::new().await;
    let forgiving = Thresholds {
        faults: 1_000_000,
        ..PATIENT
    };
    let forced = proposal("hostile", TRAPS, &[Gate::Laws, Gate::Trial]);
    desk.registry
        .propose(forced, Use::Staged(StageMode::Shadow, forgiving), &author())
        .await
        .unwrap();
    desk.publish("edge", keys(500)).await;
    let tried = desk.tried().unwrap();
    // Without a pause every second call would fail: each new instance answers one.
    let asked = tried.seen.decisions + tried.seen.faults;
    assert!(tried.seen.faults > 0 && asked < 400, "{:?}", tried.seen);
    let failure = tried.failure.unwrap();
    assert!(failure.fault.starts_with("it trapped"), "{failure:?}");
    assert_eq!(failure.message.attributes["origin"], "edge");
    assert_eq!(tried.seen.fault, Some(failure.fault));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_that_nobody_ends_ends() {
    let desk = Desk::new().await;
    let short = Thresholds {
        trial_ms_max: 1,
        ..PATIENT
    };
    desk.propose(
        "routing-by-origin",
        "{}",
        Use::Staged(StageMode::Shadow, short),
    )
    .await
    .unwrap();
    let message = desk.withdrawn().await;
    assert!(message.contains("1 are allowed, and nobody"), "{message}");
}

/// Traps for messages of a type that no trial asks about.
const TRAPS_AT_66: &str =
    "(if (i32.eq (i32.load offset=8 (local.get $message)) (i32.const 66)) (then unreachable))";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_explain_has_no_effect() {
    let desk = Desk::new().await;
    let traps = ByHand {
        each: TRAPS_AT_66,
        ..ByHand::new(Kind::Routing)
    };
    desk.registry
        .propose(by_hand(traps), Use::Active, &author())
        .await
        .unwrap();
    let before = desk.bus.policies().list()[0].slot.clone();
    for number in 0..20 {
        let asked = Asked {
            message: Message {
                message_type: MessageType(66),
                source: format!("stranger-{number}"),
                ..Message::default()
            },
            states: Default::default(),
            now: None,
        };
        let explained = explain(&desk.bus, &asked).unwrap();
        assert_eq!(explained[0].policy, "routing", "the last good one answers");
        let fault = explained[0].fault.as_deref().unwrap_or_default();
        assert!(fault.starts_with("it trapped"), "{fault}");
        let symbols = desk.bus.policies().symbols();
        assert_eq!(symbols.get(&asked.message.source), None, "it is not kept");
    }
    let after = desk.bus.policies().list()[0].slot.clone();
    assert_eq!(
        (after.generation, after.decisions, after.failures),
        (before.generation, before.decisions, before.failures)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_fall_back_the_configuration_is_that_of_what_decides() {
    let desk = Desk::new().await;
    let in_use = desk.bus.policies().config(Kind::Routing);
    let forced = proposal("hostile", TRAPS, &[Gate::Laws, Gate::Trial]);
    desk.registry
        .propose(forced, Use::Active, &author())
        .await
        .unwrap();
    assert_ne!(desk.bus.policies().config(Kind::Routing), in_use);
    for _ in 0..40 {
        desk.publish("edge", keys(1)).await;
    }
    until("it is taken out", || desk.in_use() == "routing").await;
    assert_eq!(desk.bus.policies().config(Kind::Routing), in_use);
    assert_eq!(desk.bus.policies().list()[0].config, in_use);
    let exposition = desk.bus.metrics().render();
    let counted = r#"oona_policy_fallbacks_total{kind="routing"} 1"#;
    assert!(exposition.contains(counted), "no {counted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_host_finds_while_the_store_is_away_is_done_at_once_and_written_down_later() {
    let mut redis = RedisServer::start();
    let desk = Desk::on(Arc::new(RedisStore::new(&redis.url()).unwrap())).await;
    // It traps from its second batch on, and takes all keys.
    let canary = Use::Staged(StageMode::Canary { per_mille: 1_000 }, PATIENT);
    let gates = [Gate::Laws, Gate::Trial];
    let hostile = || proposal("hostile", TRAPS, &gates);
    desk.registry
        .propose(hostile(), canary, &author())
        .await
        .unwrap();
    redis.kill();
    desk.publish("centre", keys(5)).await;
    until("it is taken back without the store", || {
        desk.tried().is_none()
    })
    .await;
    let why = || desk.registry.standing(Kind::Routing).trial?.withdrawn;
    until("and it is known why", || why().is_some()).await;
    assert!(why().unwrap().contains("of its calls failed"));
    redis.restart();
    desk.withdrawn().await;

    let activated = desk
        .registry
        .propose(hostile(), Use::Active, &author())
        .await
        .unwrap();
    redis.kill();
    desk.publish("centre", keys(20)).await;
    until("it is taken out", || desk.in_use() == "routing").await;
    redis.restart();
    let fell_back = |action: &Action| matches!(action, Action::FellBack { .. });
    let (action, _) = desk.written("written down", fell_back).await;
    let Action::FellBack { activation, .. } = action else {
        panic!("{action:?}")
    };
    assert_eq!(Some(activation), activated.revision);
    let all = desk.registry.history(None, 100);
    let fell = all
        .iter()
        .filter(|told| matches!(told.change.change.action, Action::FellBack { .. }));
    assert_eq!(fell.count(), 1, "it is written once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_lasts_by_the_clock_of_the_host_that_judges_it() {
    let redis = RedisServer::start();
    let store: Arc<dyn Store> = Arc::new(RedisStore::new(&redis.url()).unwrap());
    let desk = Desk::on(Arc::clone(&store)).await;
    let thresholds = Thresholds {
        for_ms: 3_600_000,
        promote: true,
        ..PATIENT
    };
    let shadow = Use::Staged(StageMode::Shadow, thresholds);
    desk.propose("routing-by-origin", "{}", shadow)
        .await
        .unwrap();
    // The same again, as a host writes it whose clock stands at the epoch.
    let entries = store.range(&LIST.into(), None, 100).await.unwrap();
    let json = entries.last().unwrap().payload().unwrap();
    let mut change: serde_json::Value = serde_json::from_slice(json).unwrap();
    change["at_ms"] = 0.into();
    let record = Record {
        payload: change.to_string().into(),
        signature: None,
    };
    let last = entries.last().map(|entry| entry.id);
    store
        .append_after(&LIST.into(), last, None, &record)
        .await
        .unwrap()
        .unwrap();
    let revision = entries.len() as u64 + 1;
    until("it is tried anew", || {
        desk.tried()
            .is_some_and(|tried| tried.stage.revision == revision)
    })
    .await;
    // It has decided on enough, and is judged again and again meanwhile.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        desk.publish("centre", keys(5)).await;
    }
    assert!(desk.tried().is_some(), "{:?}", desk.last_change());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_on_the_last_messages_does_not_pass_unless_it_is_forced() {
    let desk = Desk::new().await;
    desk.publish("edge", keys(40)).await;
    let past_the_laws = proposal("hostile", TRAPS, &[Gate::Laws]);
    let refused = desk
        .registry
        .propose(past_the_laws, Use::Active, &author())
        .await
        .unwrap_err();
    let RegistryError::Refused(refused) = refused else {
        panic!("{refused}")
    };
    let said = refused.to_string();
    assert!(
        said.contains("the gate `trial`: it fails on ")
            && said.contains(" of the last 40 decisions"),
        "{said}"
    );
    assert!(said.contains("--force trial"), "{said}");
    let status = |gate| {
        refused
            .gates
            .iter()
            .find(|report| report.gate == gate)
            .unwrap()
            .status
    };
    assert_eq!(status(Gate::Start), Status::Passed);
    assert_eq!(status(Gate::Trial), Status::Failed);
    assert_eq!(desk.in_use(), "routing");

    let forced = proposal("hostile", TRAPS, &[Gate::Laws, Gate::Trial]);
    let outcome = desk
        .registry
        .propose(forced, Use::Active, &author())
        .await
        .unwrap();
    let trial = outcome
        .gates
        .iter()
        .find(|report| report.gate == Gate::Trial)
        .unwrap();
    assert_eq!(trial.status, Status::Forced);
    let (action, _) = desk.last_change();
    let Action::Activate { forced, .. } = action else {
        panic!("{action:?}")
    };
    assert_eq!(forced, ["laws", "trial"]);

    // Its failures cost no message, and take it out; that is written down.
    let landed = desk.publish("centre", keys(20)).await;
    assert!(landed.iter().all(|(_, stream)| stream == "oona.normal"));
    let fell_back = |action: &Action| matches!(action, Action::FellBack { .. });
    let (_, message) = desk.written("that is written down", fell_back).await;
    assert!(
        message.starts_with("hostile") && message.contains("was taken out: it trapped"),
        "{message}"
    );
    assert_eq!(desk.in_use(), "routing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_decisions_can_be_replayed() {
    let desk = Desk::new().await;
    desk.publish("edge", keys(30)).await;
    desk.publish("centre", keys(70)).await;
    let policies = desk.bus.policies();
    let records = policies.decisions().last(Kind::Routing, 1_000);
    assert_eq!(records.len(), 100);
    // Through the file, as `oona policy replay` reads it.
    let records: Vec<Arc<oona::decisions::Recorded>> = records
        .iter()
        .map(|record| {
            Arc::new(serde_json::from_str(&serde_json::to_string(record).unwrap()).unwrap())
        })
        .collect();
    let replayed = |name| {
        let artifact = policies.load(None, &policy(name)).unwrap();
        let seen = AtomicU64::new(0);
        let count = |done| {
            seen.fetch_add(done, Ordering::Relaxed);
        };
        let replayed = replay::replay(&artifact, "{}", policies.names(), &records, &count).unwrap();
        assert_eq!(seen.into_inner(), 100);
        replayed
    };
    let same = replayed("routing");
    assert_eq!((same.decisions, same.changed, same.faults), (100, 0, 0));
    let other = replayed("routing-by-origin");
    assert_eq!((other.decisions, other.changed, other.faults), (100, 30, 0));
    let [pair] = &other.pairs[..] else {
        panic!("{:?}", other.pairs)
    };
    assert_eq!(pair.from, "route oona.normal (type)");
    assert_eq!(pair.to, "route oona.telemetry (origin)");
    assert_eq!((pair.count, pair.examples.len()), (30, 3));
    let loads: Vec<_> = other
        .streams
        .iter()
        .map(|load| (&*load.stream, load.before, load.after))
        .collect();
    assert_eq!(loads, [("oona.normal", 100, 70), ("oona.telemetry", 0, 30)]);

    // Out of the file itself, in blocks, with what is no record among it.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("decisions.jsonl");
    let lines = records
        .iter()
        .map(|record| serde_json::to_string(&**record).unwrap());
    let mut lines: Vec<String> = lines.collect();
    lines.insert(50, "no record".to_owned());
    std::fs::write(&path, lines.join("\n")).unwrap();
    let log = replay::Log {
        files: vec![path],
        from_ms: 0,
    };
    assert_eq!(
        replay::streams(&log, &|_| {})
            .unwrap()
            .into_iter()
            .collect::<Vec<_>>(),
        ["oona.normal"]
    );
    let artifact = policies.load(None, &policy("routing-by-origin")).unwrap();
    let streamed = replay::replay_log(&artifact, "{}", policies.names(), &log, &|_| {}).unwrap();
    assert_eq!(streamed.unreadable, 1);
    let counts = |replayed: &replay::Replayed| {
        let pairs: Vec<_> = replayed.pairs.iter().map(|pair| pair.count).collect();
        let replay::Replayed {
            decisions,
            stand_for,
            changed,
            faults,
            streams,
            ..
        } = replayed.clone();
        (decisions, stand_for, changed, faults, pairs, streams)
    };
    assert_eq!(counts(&streamed), counts(&other));

    // Of another kind, with its state.
    let records = policies.decisions().last(Kind::Backpressure, 1_000);
    let artifact = policies.load(None, &policy("backpressure")).unwrap();
    let same = replay::replay(&artifact, "{}", policies.names(), &records, &|_| {}).unwrap();
    assert_eq!((same.decisions, same.changed), (100, 0), "{same:?}");
}
