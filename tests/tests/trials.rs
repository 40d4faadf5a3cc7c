//! A candidate on live traffic: compared, counted, promoted and taken back; and on recorded traffic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oona::gates::{Gate, Status};
use oona::registry::{RegistryError, Use};
use oona::replay;
use oona_core::policy::Kind;
use oona_core::registry::Action;
use oona_core::stage::{StageMode, Thresholds};
use oona_tests::desk::{Desk, author, keys, proposal, until};
use oona_tests::policies::policy;

/// It answers one batch and traps at the next: so it starts, and passes for a policy.
const TRAPS: &str = r#"{"mode": "trap", "after": 1}"#;

const PATIENT: Thresholds = Thresholds {
    disagreements_per_million: 1_000_000,
    faults: 0,
    for_ms: 0,
    decisions: 0,
    promote: false,
};

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
    let (action, message) = desk.last_change();
    assert!(matches!(action, Action::Promote { .. }), "{action:?}");
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
    until("it is taken back", || desk.tried().is_none()).await;
    let (action, message) = desk.last_change();
    assert!(matches!(action, Action::Withdraw { .. }), "{action:?}");
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
    until("it is taken back", || desk.tried().is_none()).await;
    assert!(
        desk.last_change()
            .1
            .contains("of its calls failed, 0 are allowed"),
        "{}",
        desk.last_change().1
    );
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
    until("it is written down", || {
        matches!(desk.last_change().0, Action::FellBack { .. })
    })
    .await;
    let (_, message) = desk.last_change();
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
    let records: Vec<_> = records
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

    // Of another kind, with its state.
    let records = policies.decisions().last(Kind::Backpressure, 1_000);
    let artifact = policies.load(None, &policy("backpressure")).unwrap();
    let same = replay::replay(&artifact, "{}", policies.names(), &records, &|_| {}).unwrap();
    assert_eq!((same.decisions, same.changed), (100, 0), "{same:?}");
}
