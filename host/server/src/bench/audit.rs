//! What an audit of dead letters costs: the store, beside reading all of them; and who publishes meanwhile.

use std::time::{Duration, Instant};

use oona_core::dead_letter::audit::Survey;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::memory::Memory;
use super::raw::Raw;
use super::report::Samples;
use super::{BenchError, GROUP, STREAM, draft, publish};
use crate::auditor;
use crate::bus::{Bus, Nack, SURVEY_STEP, SubscribeOptions};
use crate::host::Host;

/// How often an audit begins, at most: at once after the one before.
const PERIOD: Duration = Duration::from_millis(1);

/// Audits so many dead letters, and publishes as many messages with and without an audit beside.
pub(super) async fn measure(
    host: &Host,
    raw: &mut Raw,
    letters: usize,
    samples: &mut Samples,
) -> Result<(), BenchError> {
    let bus = host.bus();
    let config = host.config();
    let stream = &config.bus.streams.dead_letter;
    file_one(bus, raw, stream).await?;
    raw.copy(stream, letters - 1).await?;

    let before = Memory::reset();
    survey(bus, config.audit.sample_max, letters, samples).await?;
    if let Some(grown) = before.and_then(Memory::grown) {
        samples.cost("audit-memory", grown.max(1) as f64);
    }
    let begun = Instant::now();
    let read = raw.read(stream, SURVEY_STEP).await?;
    samples.rate("raw-letters", read, begun.elapsed());

    publish_beside(host, raw, letters, samples).await?;
    raw.forget(stream).await
}

/// Files one dead letter, the way that letters are filed.
async fn file_one(bus: &Bus, raw: &mut Raw, stream: &str) -> Result<(), BenchError> {
    // Of other subjects something may be left.
    raw.forget(STREAM).await?;
    raw.forget(stream).await?;
    let failed = |error: &dyn std::error::Error| BenchError::Bus(error.to_string());
    let options = SubscribeOptions {
        streams: vec![STREAM.into()],
        ..SubscribeOptions::new(GROUP)
    };
    let mut subscription = bus.subscribe(options).map_err(|error| failed(&error))?;
    publish::check(&bus.publish(draft()).await)?;
    let delivery = subscription.next().await;
    let delivery = delivery.ok_or_else(|| BenchError::Bus("nothing was delivered".to_owned()))?;
    let nack = Nack {
        poison: true,
        ..Nack::default()
    };
    let nacked = subscription.nack(delivery.id, nack);
    nacked.map_err(|error| failed(&error))?;
    let mut looks = interval(Duration::from_millis(1));
    while raw.length(stream).await? == 0 {
        looks.tick().await;
    }
    subscription.close();
    raw.forget(STREAM).await
}

/// A whole audit, without the pauses that an auditor makes.
async fn survey(
    bus: &Bus,
    sample_max: u64,
    letters: usize,
    samples: &mut Samples,
) -> Result<(), BenchError> {
    let mut longest = Duration::ZERO;
    let begun = Instant::now();
    let mut survey = Survey::new(letters as u64, sample_max);
    let mut after = None;
    loop {
        let step = Instant::now();
        let reached = bus.survey_dead_letters(&mut survey, after).await?;
        longest = longest.max(step.elapsed());
        if reached.is_none() {
            break;
        }
        after = reached;
    }
    samples.rate("audit", letters, begun.elapsed());
    samples.latency_at("audit-step-max", 1.0, &mut [longest]);
    let found = survey.picture(bus.now());
    if found.length != letters as u64 || found.sampled == 0 || found.sampled > sample_max {
        let (length, sampled) = (found.length, found.sampled);
        let told = format!("the audit met {length} of {letters} dead letters and read {sampled}");
        return Err(BenchError::Bus(told));
    }
    Ok(())
}

/// Without, with, with, without: so that neither has the better half of a round.
async fn publish_beside(
    host: &Host,
    raw: &mut Raw,
    messages: usize,
    samples: &mut Samples,
) -> Result<(), BenchError> {
    let mut took = [Duration::ZERO; 2];
    for audited in [false, true, true, false] {
        let stop = CancellationToken::new();
        let audit = host.config().audit;
        let auditing = audited.then(|| {
            tokio::spawn(auditor::audit(
                host.bus().clone(),
                audit,
                PERIOD,
                stop.clone(),
            ))
        });
        took[usize::from(audited)] += publish::throughput(host.bus(), messages).await?;
        stop.cancel();
        if let Some(auditing) = auditing {
            auditing.await?;
        }
        raw.forget(STREAM).await?;
    }
    let [alone, audited] = took;
    samples.rate("publish-alone", 2 * messages, alone);
    samples.rate("publish-audited", 2 * messages, audited);
    Ok(())
}
