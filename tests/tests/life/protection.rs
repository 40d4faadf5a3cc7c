//! The bus protects itself, and those who have something urgent to say.

use std::collections::BTreeMap;
use std::time::Duration;

use oona::bus::{Draft, Nack};
use oona_core::envelope::message_type::{EMERGENCY_SIGNAL, TELEMETRY};
use oona_core::outcome::{Outcome, RejectCause};
use oona_core::policy::{Kind, Mode};
use oona_tests::bus::{Stand, draft, eventually, next, take};
use serde_json::json;

pub(super) async fn a_full_bus_protects_itself_and_recovers(stand: Stand) {
    let bus = stand.bus(|setup| {
        setup.config.stream_length_max = 100;
        setup.config.conservative.high_water = 50;
        setup.config.conservative.low_water = 10;
    });
    // 60 of 100 is nothing that a bus in its normal mode would refuse.
    let mut accepted = 0;
    for number in 0..60 {
        let outcome = bus.bus.publish(draft(TELEMETRY, number)).await;
        accepted += usize::from(outcome.is_accepted());
    }
    let mode = async |wanted| (bus.bus.status().mode == wanted).then_some(());
    eventually(async || mode(Mode::Conservative).await).await;
    match bus.bus.publish(draft(TELEMETRY, 100)).await {
        Outcome::Rejected {
            cause: RejectCause::Backpressure,
            reason,
            retry_after: Some(_),
            ..
        } => assert_eq!(&*reason, "conservative"),
        other => panic!("{other:?}"),
    }
    bus.publish(draft(EMERGENCY_SIGNAL, 101)).await;
    let mut subscription = bus.join("g");
    take(&mut subscription, accepted + 1).await;
    eventually(async || mode(Mode::Normal).await).await;
    bus.publish(draft(TELEMETRY, 102)).await;
    take(&mut subscription, 1).await;
    bus.settled().await;
}

pub(super) async fn an_emergency_without_a_token_is_demoted(stand: Stand) {
    let bus = stand.bus(|setup| {
        setup.config.emergency_per_minute = 10;
        setup.policy(Kind::Backpressure, json!({"over_rate": "demote"}));
    });
    let mut lanes = BTreeMap::<_, usize>::new();
    for number in 0..40 {
        match bus.bus.publish(draft(EMERGENCY_SIGNAL, number)).await {
            Outcome::Accepted { stream, reason, .. } => {
                let demoted = &*stream != "oona.emergency";
                assert_eq!(demoted, &*reason == "emergency-rate", "{reason}");
                *lanes.entry(stream.to_string()).or_default() += 1;
            }
            rejected => panic!("an emergency is never lost: {rejected:?}"),
        }
    }
    // One more token every six seconds: the machine may have been slow.
    assert!((10..20).contains(&lanes["oona.emergency"]), "{lanes:?}");
    assert_eq!(lanes["oona.emergency"] + lanes["oona.normal"], 40);
    let mut subscription = bus.join("g");
    take(&mut subscription, 40).await;
    bus.settled().await;
}

pub(super) async fn an_emergency_without_a_token_is_deferred_if_so_configured(stand: Stand) {
    const PUBLISHED: usize = 300;
    let bus = stand.bus(|setup| {
        setup.policy(Kind::Backpressure, json!({"over_rate": "defer"}));
    });
    let mut accepted = 0;
    for number in 0..PUBLISHED {
        match bus.bus.publish(draft(EMERGENCY_SIGNAL, number)).await {
            Outcome::Accepted { stream, .. } => {
                assert_eq!(&*stream, "oona.emergency");
                accepted += 1;
            }
            Outcome::Rejected {
                cause,
                reason,
                retry_after,
                ..
            } => {
                assert!(accepted >= 120, "{accepted} are no 120 a minute");
                assert_eq!(
                    (cause, &*reason),
                    (RejectCause::Backpressure, "emergency-rate")
                );
                assert!(retry_after > Some(Duration::ZERO));
            }
        }
    }
    // Two more tokens every second: the machine may have been slow.
    assert!((120..PUBLISHED).contains(&accepted), "{accepted}");
    let mut subscription = bus.join("g");
    take(&mut subscription, accepted).await;
    bus.settled().await;
}

pub(super) async fn a_handler_that_fails_at_everything_is_given_a_rest(stand: Stand) {
    const REST: Duration = Duration::from_secs(2);
    let bus = stand.bus(|setup| {
        setup.config.handler_breaker.failures = 3;
        setup.config.handler_breaker.open_ms = 2_000;
        setup.config.handler_breaker.trials = 2;
    });
    for number in 0..10 {
        bus.publish(draft(TELEMETRY, number)).await;
    }
    let mut subscription = bus.join("g");
    let failed = || Nack::default();
    let mut rests = bus.bus.now();
    for _ in 0..3 {
        let delivery = next(&mut subscription).await;
        rests = bus.bus.now();
        subscription.nack(delivery.id, failed()).unwrap();
    }
    // Whatever else waits, an emergency is delivered, and changes nothing for the others.
    bus.publish(draft(EMERGENCY_SIGNAL, 100)).await;
    let emergency = next(&mut subscription).await;
    assert_eq!(&*emergency.stream, "oona.emergency");
    subscription.ack(emergency.id).unwrap();
    let trial = next(&mut subscription).await;
    let rested = bus.bus.now().since(rests);
    assert!(rested >= REST, "{rested:?}");
    let second = next(&mut subscription).await;
    assert_eq!(
        subscription.ready(10).len(),
        0,
        "two are on trial, and no more"
    );
    // One that can never be handled says nothing of the handler: another takes its place.
    let poison = Nack {
        poison: true,
        ..failed()
    };
    subscription.nack(second.id, poison).unwrap();
    let third = next(&mut subscription).await;
    assert_eq!(subscription.ready(10).len(), 0);
    subscription.ack(trial.id).unwrap();
    subscription.ack(third.id).unwrap();
    // 10 and 3 retries, without those that have been seen and one that is filed.
    take(&mut subscription, 7).await;
    bus.settled().await;
    let metrics = bus.bus.metrics().render();
    for (to, reason) in [("open", "failures"), ("closed", "trials-passed")] {
        let counted = format!(
            "oona_breaker_transitions_total{{breaker=\"handler\",to=\"{to}\",reason=\"{reason}\"}} 1"
        );
        assert!(metrics.contains(&counted), "{to}");
    }
}

pub(super) async fn a_source_that_raises_alarms_without_end_leaves_others_theirs(stand: Stand) {
    let bus = stand.bus(|setup| {
        setup.config.emergency_per_source_per_minute = 10;
        setup.policy(Kind::Backpressure, json!({"over_rate": "defer"}));
    });
    let mut accepted = BTreeMap::<_, usize>::new();
    for number in 0..40 {
        let source = if number < 30 { "loud" } else { "other" };
        let alarm = Draft {
            source: source.to_owned(),
            ..draft(EMERGENCY_SIGNAL, number)
        };
        let outcome = bus.bus.publish(alarm).await;
        *accepted.entry(source).or_default() += usize::from(outcome.is_accepted());
    }
    // One more token every six seconds: the machine may have been slow.
    assert!((10..20).contains(&accepted["loud"]), "{accepted:?}");
    assert_eq!(accepted["other"], 10);
    let metrics = bus.bus.metrics().render();
    let of = |source: &str, outcome: &str| {
        format!("oona_emergency_total{{source=\"{source}\",outcome=\"{outcome}\"}}")
    };
    let over_rate = format!("{} {}", of("loud", "over-rate"), 30 - accepted["loud"]);
    assert!(metrics.contains(&over_rate), "{metrics}");
    let passed = format!("{} 10", of("other", "accepted"));
    assert!(metrics.contains(&passed), "{metrics}");
    take(&mut bus.join("g"), accepted.values().sum()).await;
    bus.settled().await;
}
