//! What becomes of workers while versions come, fail and go.

use oona_core::policy::{Kind, Lookup, NoText, Route, Routing, Subject};
use oona_core::symbols::Symbol;

use super::*;
use crate::testing::{self, Guest, LOOPS_AT_66, messages};
use crate::{Engine, Source};

/// Rejects everything, for a reason of its own.
struct RejectAll(Symbol);

impl Decide<Routing> for RejectAll {
    fn decide(
        &mut self,
        _now: Timestamp,
        _state: &(),
        questions: &[Subject],
        _text: &Arc<dyn Lookup>,
        decisions: &mut Vec<Route>,
    ) -> Result<(), Fault> {
        decisions.clear();
        decisions.extend(questions.iter().map(|_| Route::Reject { reason: self.0 }));
        Ok(())
    }
}

struct Desk {
    engine: Arc<Engine>,
    names: Names,
    slot: Slot<Routing>,
    events: Arc<Mutex<Vec<String>>>,
}

impl Desk {
    fn new(failures: u32) -> Self {
        let names = testing::names();
        let reason = names.symbols.intern("native");
        let info = VersionInfo {
            kind: Kind::Routing,
            name: "reject-all".to_owned(),
            version: "1.0.0".to_owned(),
            digest: String::new(),
            source: Source::Native,
        };
        let make: MakeNative<Routing> = Box::new(move || Box::new(RejectAll(reason)));
        let native = Native::new(info, &names, make).unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&events);
        let sink: EventSink = Arc::new(move |event| lock(&log).push(told(&event)));
        let budget = BudgetConfig {
            failures,
            window_ms: 10_000,
        };
        let slot = Slot::new(native, budget, sink, Timestamp::EPOCH);
        Self {
            engine: testing::engine(),
            names,
            slot,
            events,
        }
    }

    /// A version that gives this reason.
    fn version(&self, reason: &str, decide: &str) -> Arc<Version<Routing>> {
        let symbol = self.names.symbols.intern(reason).0;
        let decide = format!("(local.set $reason (i32.const {symbol})) {decide}");
        let guest = Guest {
            decide: &decide,
            ..Guest::default()
        };
        testing::version(&self.engine, &guest, &self.names)
    }

    fn activate(&self, version: &Arc<Version<Routing>>) -> Activation {
        self.slot
            .activate(version, Timestamp::from_millis(5))
            .unwrap()
    }

    /// Asks about two messages of a type; answers with the reason for both.
    #[track_caller]
    fn reason(&self, worker: &mut Worker<Routing>, message_type: u32) -> (String, bool) {
        let text: Arc<dyn Lookup> = Arc::new(NoText);
        let mut decisions = Vec::new();
        let now = Timestamp::from_millis(10);
        let questions = messages(message_type, 2);
        let answer = worker.decide(now, &(), &questions, &text, &mut decisions);
        let [one, other] = decisions.try_into().unwrap();
        assert_eq!(one, other);
        let (Route::To { reason, .. } | Route::Reject { reason }) = one;
        (
            self.names.symbols.name(reason).unwrap().to_string(),
            answer.fault.is_some(),
        )
    }

    fn events(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.events))
    }
}

fn told(event: &Event) -> String {
    match event {
        Event::Activated {
            version,
            generation,
        } => format!("{generation}: {}", version.name),
        Event::Refused { reason, .. } => format!("refused: {reason}"),
        Event::Failed {
            answered_by, fault, ..
        } => {
            format!("{} for {}", answered_by.name, fault.name())
        }
        Event::FellBack { from, to, .. } => format!("{} back to {}", from.name, to.name),
    }
}

fn well(reason: &str) -> (String, bool) {
    (reason.to_owned(), false)
}

fn rescued(reason: &str) -> (String, bool) {
    (reason.to_owned(), true)
}

#[test]
fn workers_change_over_with_their_next_batch() {
    let desk = Desk::new(5);
    let mut early = desk.slot.worker();
    assert_eq!(desk.reason(&mut early, 1), well("native"));
    assert_eq!(desk.slot.status(Timestamp::from_millis(10)).decisions, 2);

    let activation = desk.activate(&desk.version("one", ""));
    assert_eq!((activation.generation, activation.instances), (1, 1));
    assert_eq!(activation.replaced.name, "reject-all");
    let mut late = desk.slot.worker();
    assert_eq!(desk.reason(&mut early, 1), well("one"));
    assert_eq!(desk.reason(&mut late, 1), well("one"));

    let activation = desk.activate(&desk.version("two", ""));
    assert_eq!((activation.generation, activation.instances), (2, 2));
    assert_eq!(desk.reason(&mut late, 1), well("two"));
    assert_eq!(desk.reason(&mut early, 1), well("two"));
    let status = desk.slot.status(Timestamp::from_millis(10));
    assert_eq!(
        (status.generation, status.decisions, status.failures),
        (2, 4, 0)
    );
    assert!(status.pause_ns_max > 0);
    assert_eq!(desk.events(), ["1: by-hand", "2: by-hand"]);
}

#[test]
fn a_worker_that_slept_through_changes_takes_up_the_last() {
    let desk = Desk::new(5);
    let mut worker = desk.slot.worker();
    for reason in ["one", "two", "three"] {
        desk.activate(&desk.version(reason, ""));
    }
    assert_eq!(desk.reason(&mut worker, 1), well("three"));
}

#[test]
fn a_version_that_fails_its_trial_is_refused_and_the_current_one_stays() {
    let desk = Desk::new(5);
    let mut worker = desk.slot.worker();
    desk.activate(&desk.version("one", ""));
    let loops = desk.version("two", "(loop $ever (br $ever))");
    let error = desk
        .slot
        .activate(&loops, Timestamp::from_millis(6))
        .unwrap_err();
    assert!(
        matches!(error, StartError::Trial(Fault::Deadline { .. })),
        "{error:?}"
    );
    assert_eq!(desk.reason(&mut worker, 1), well("one"));
    assert_eq!(desk.slot.status(Timestamp::from_millis(10)).generation, 1);
    let refused = "refused: it failed its trial: it took longer than its 10 ms";
    assert_eq!(desk.events(), ["1: by-hand", refused]);
}

#[test]
fn a_stream_that_the_bus_does_not_have_is_found_before_a_message_is() {
    let desk = Desk::new(5);
    // Type 7 is among the messages after the first: each record has 48 bytes.
    let strays = "(local.set $next (i32.const 0))
        (if (i32.gt_u (local.get $count) (i32.const 35)) (then
          (if (i32.eq (i32.load offset=1688 (local.get $at)) (i32.const 7)) (then
            (local.set $stream (local.get $reason))))))";
    let error = desk
        .slot
        .activate(&desk.version("one", strays), Timestamp::EPOCH)
        .unwrap_err();
    assert!(
        matches!(error, StartError::Trial(Fault::UnknownStream(_))),
        "{error:?}"
    );

    let info = VersionInfo::clone(&desk.slot.status(Timestamp::from_millis(10)).version);
    let make: MakeNative<Routing> = Box::new(|| Box::new(RejectAll(Symbol::NONE)));
    let fault = Native::new(info, &desk.names, make).unwrap_err();
    assert_eq!(fault, Fault::UnknownReason(Symbol::NONE));
}

#[test]
fn a_failed_call_is_answered_by_the_last_good_version() {
    let desk = Desk::new(5);
    let mut worker = desk.slot.worker();
    desk.activate(&desk.version("good", ""));
    desk.activate(&desk.version("bad", LOOPS_AT_66));
    assert_eq!(desk.reason(&mut worker, 1), well("bad"));
    assert_eq!(desk.reason(&mut worker, 66), rescued("good"));
    assert_eq!(desk.reason(&mut worker, 1), well("bad"));
    assert_eq!(desk.slot.status(Timestamp::from_millis(10)).failures, 1);
}

#[test]
fn a_failed_call_is_answered_by_the_native_build_if_nothing_else_is_left() {
    let desk = Desk::new(5);
    let mut worker = desk.slot.worker();
    desk.activate(&desk.version("worse", LOOPS_AT_66));
    assert_eq!(desk.reason(&mut worker, 66), rescued("native"));
    desk.activate(&desk.version("bad", LOOPS_AT_66));
    assert_eq!(
        desk.reason(&mut worker, 66),
        rescued("native"),
        "the last good one fails too"
    );
    assert_eq!(desk.reason(&mut worker, 1), well("bad"));
}

#[test]
fn what_fails_right_now_is_no_last_good_version() {
    let desk = Desk::new(5);
    let mut worker = desk.slot.worker();
    desk.activate(&desk.version("good", ""));
    desk.activate(&desk.version("bad", LOOPS_AT_66));
    assert_eq!(desk.reason(&mut worker, 66), rescued("good"));
    desk.activate(&desk.version("worse", LOOPS_AT_66));
    assert_eq!(desk.reason(&mut worker, 66), rescued("good"));
    // Failures of long ago are forgiven.
    let later = Timestamp::from_millis(99_000);
    let worse = desk.slot.current().unwrap();
    let next = desk.version("next", "");
    desk.slot.activate(&next, later).unwrap();
    let last_good = desk.slot.status(later).last_good.unwrap();
    assert!(Arc::ptr_eq(&last_good, worse.info()));
}

#[test]
fn what_is_asked_apart_has_no_effect() {
    let desk = Desk::new(0);
    desk.activate(&desk.version("good", ""));
    desk.activate(&desk.version("bad", LOOPS_AT_66));
    desk.events();
    let text: Arc<dyn Lookup> = Arc::new(NoText);
    let now = Timestamp::from_millis(10);
    for (message_type, fails) in [(1, false), (66, true), (66, true)] {
        let mut decisions = Vec::new();
        let questions = messages(message_type, 1);
        let answer = desk
            .slot
            .ask_apart(now, &(), &questions, &text, &mut decisions);
        assert_eq!((decisions.len(), answer.fault.is_some()), (1, fails));
    }
    let status = desk.slot.status(now);
    assert_eq!(
        (status.generation, status.decisions, status.failures),
        (2, 0, 0)
    );
    assert!(desk.events().is_empty());
}

#[test]
fn a_version_over_its_budget_is_taken_out() {
    let desk = Desk::new(1);
    let mut worker = desk.slot.worker();
    let mut other = desk.slot.worker();
    desk.activate(&desk.version("good", ""));
    desk.activate(&desk.version("bad", LOOPS_AT_66));
    desk.events();
    assert_eq!(desk.reason(&mut worker, 66), rescued("good"));
    assert_eq!(desk.reason(&mut other, 1), well("bad"));
    assert_eq!(desk.reason(&mut worker, 66), rescued("good"));
    assert_eq!(desk.reason(&mut worker, 66), well("good"));
    assert_eq!(desk.reason(&mut other, 66), well("good"));
    let events = [
        "by-hand for deadline",
        "by-hand for deadline",
        "by-hand back to by-hand",
    ];
    assert_eq!(desk.events(), events);
    let status = desk.slot.status(Timestamp::from_millis(10));
    assert_eq!((status.generation, status.failures), (3, 0));
    assert_eq!(
        status.fallback.unwrap().fault,
        "it took longer than its 10 ms"
    );
    assert!(status.last_good.is_none());
}

#[test]
fn the_native_build_takes_over_from_the_last_version() {
    let desk = Desk::new(0);
    let mut worker = desk.slot.worker();
    desk.activate(&desk.version("bad", LOOPS_AT_66));
    assert_eq!(desk.reason(&mut worker, 66), rescued("native"));
    assert_eq!(desk.reason(&mut worker, 66), well("native"));
    assert!(desk.slot.current().is_none());
    let events = [
        "1: by-hand",
        "reject-all for deadline",
        "by-hand back to reject-all",
    ];
    assert_eq!(desk.events(), events);
    desk.activate(&desk.version("again", ""));
    assert_eq!(desk.reason(&mut worker, 66), well("again"));
}

#[test]
fn every_batch_is_answered_while_versions_come_and_go() {
    let desk = Desk::new(0);
    let versions = ["one", "two", "three"].map(|reason| desk.version(reason, LOOPS_AT_66));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut worker = desk.slot.worker();
                let mut batches = 0_u32;
                // `reason` insists on a decision for each message.
                while !done.load(Ordering::Acquire) || batches < 100 {
                    batches += 1;
                    desk.reason(&mut worker, if batches.is_multiple_of(50) { 66 } else { 1 });
                }
            });
        }
        for version in versions.iter().cycle().take(60) {
            desk.activate(version);
        }
        done.store(true, Ordering::Release);
    });
    assert!(desk.slot.status(Timestamp::from_millis(10)).generation >= 60);
}
