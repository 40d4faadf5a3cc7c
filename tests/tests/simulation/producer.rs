//! Producers: each publishes its messages one after the other, and those without an answer again.

use std::time::Duration;

use oona::bus::Draft;
use oona_core::envelope::message_type::{
    EMERGENCY_SIGNAL, FIELD_REPORT, KERNEL_PREFETCH_READY, KERNEL_PREFETCH_REQUEST, TELEMETRY,
};
use oona_core::outcome::{Outcome, RejectCause};
use oona_core::policy::Priority;
use tokio::time::timeout;

use crate::member::CURSED;
use crate::run::Hosts;
use crate::world::{World, short};

/// For how long a producer waits for an answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// How often it tries.
const TRIES: u32 = 4;

/// Publishes so many messages, at whichever hosts are there.
pub(crate) async fn run(world: World, hosts: Hosts, number: usize, messages: usize) {
    let name = format!("p{number}");
    for message in 0..messages {
        world.wait(0, 2_000).await;
        let draft = draft(&world, &name, message);
        let event = draft.id.clone().unwrap_or_default();
        for _ in 0..TRIES {
            world.ledger(|ledger, _| ledger.tried(&event));
            if publish(&world, &hosts, &name, draft.clone()).await {
                break;
            }
            world.wait(50, 1_500).await;
        }
    }
}

/// Whether there is nothing more to be done about it.
async fn publish(world: &World, hosts: &Hosts, name: &str, draft: Draft) -> bool {
    let event = draft.id.clone().unwrap_or_default();
    let Some((bus, link)) = hosts.any(world) else {
        return false;
    };
    world.note(name, format_args!("publishes {event} at {}", link.name));
    let outcome = tokio::select! {
        biased;
        () = link.died() => None,
        outcome = timeout(PATIENCE, bus.publish(draft)) => outcome.ok(),
    };
    match outcome {
        None => {
            world.note(name, format_args!("has no answer for {event}"));
            false
        }
        Some(Outcome::Accepted {
            stream,
            id,
            duplicate,
            ..
        }) => {
            let again = if duplicate { " already" } else { "" };
            let place = short(id);
            world.note(
                name,
                format_args!("{event} is accepted{again} as {stream} {place}"),
            );
            world.ledger(|ledger, _| ledger.accepted(&event, &stream, id));
            true
        }
        Some(Outcome::Rejected { cause, reason, .. }) => {
            world.note(name, format_args!("{event} is rejected: {reason}"));
            if matches!(
                cause,
                RejectCause::Backpressure | RejectCause::Policy | RejectCause::Invalid
            ) {
                world.ledger(|ledger, _| ledger.refused(&event));
            }
            false
        }
    }
}

fn draft(world: &World, name: &str, number: usize) -> Draft {
    let message_type = *world.pick(&[
        FIELD_REPORT,
        FIELD_REPORT,
        KERNEL_PREFETCH_REQUEST,
        KERNEL_PREFETCH_REQUEST,
        KERNEL_PREFETCH_READY,
        TELEMETRY,
        EMERGENCY_SIGNAL,
    ]);
    let cursed = if world.one_in(12) { CURSED } else { "event" };
    let priority = *world.pick(&[
        None,
        None,
        None,
        Some(Priority::Low),
        Some(Priority::High),
        Some(Priority::Critical),
    ]);
    let priority = priority.filter(|_| message_type != EMERGENCY_SIGNAL);
    Draft {
        id: Some(format!("{cursed}-{name}-{number}")),
        priority,
        source: name.to_owned(),
        key: (*world.pick(&["", "", "a", "b", "c"])).to_owned(),
        ttl: world.one_in(5).then(|| world.ms(500, 12_000)),
        ..Draft::new(message_type, format!("{number}"))
    }
}
