//! What a decision costs, in the sandbox and natively, by the size of the batch.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oona_core::Timestamp;
use oona_core::policy::{
    Arrival, BusState, Candidate, Failed, Failure, Kind, Lookup, NoText, Slo, Subject,
};
use oona_wasm::{Engine, EngineConfig};
use tokio::task::spawn_blocking;

use super::report::Samples;
use super::{BenchError, MESSAGE_TYPE, component};
use crate::bus::Streams;
use crate::clock;
use crate::metrics::Metrics;
use crate::policies::{Asker, Policies, PolicyOptions};
use crate::record::Recorded;

/// How many messages are decided on at once.
const BATCHES: [usize; 4] = [1, 8, 64, 256];

/// How long each figure is measured in a round.
const ENOUGH: Duration = Duration::from_millis(10);

/// Each policy, each batch size, both builds.
pub(super) async fn measure(
    directory: Option<PathBuf>,
    samples: &mut Samples,
) -> Result<(), BenchError> {
    let measured = spawn_blocking(move || {
        let (native, sandboxed) = (policies(None)?, policies(Some(directory))?);
        let mut found = Vec::new();
        for batch in BATCHES {
            found.extend(time_all(&native, batch).map(|(kind, ns)| (kind, "native", batch, ns)));
            found.extend(time_all(&sandboxed, batch).map(|(kind, ns)| (kind, "wasm", batch, ns)));
        }
        Ok::<_, BenchError>(found)
    });
    for (kind, build, batch, ns) in measured.await?? {
        samples.cost(&format!("{kind}-{build}-{batch}"), ns);
    }
    Ok(())
}

/// Native builds, or the components of a directory.
fn policies(directory: Option<Option<PathBuf>>) -> Result<Policies, BenchError> {
    let streams = Streams::default();
    let mut options = PolicyOptions::new(streams, Arc::new(Metrics::new()), clock::system());
    let Some(directory) = directory else {
        return Ok(Policies::new(&options));
    };
    let engine = Engine::new(EngineConfig::default());
    options.engine = Some(engine.map_err(|error| BenchError::Bus(error.to_string()))?);
    let policies = Policies::new(&options);
    for kind in Kind::ALL {
        let bytes = component(directory.as_deref(), kind.name())?;
        let activated = policies.activate(Some(kind), &bytes, None);
        activated.map_err(Box::new)?;
    }
    Ok(policies)
}

/// ns per decision of each kind.
fn time_all(policies: &Policies, batch: usize) -> [(Kind, f64); 4] {
    let now = clock::system()();
    let subject = subject(policies, now);
    let candidate = Candidate {
        subject,
        stream: policies.symbols().intern("oona.telemetry"),
        depth: 100,
        capacity: 100_000,
        slo: Slo::Met,
        tokens: 120,
        tokens_max: 120,
        token_wait_ms: 0,
    };
    let state = BusState {
        emergency_stream: policies.symbols().intern("oona.emergency"),
        emergency_capacity: 100_000,
        normal_stream: policies.symbols().intern("oona.normal"),
        normal_capacity: 100_000,
        ..BusState::default()
    };
    let arrival = Arrival {
        subject,
        ..Arrival::default()
    };
    let failed = Failed {
        subject,
        failure: Failure::HandlerError,
        deliveries: 1,
        requested_delay_ms: 0,
    };
    let freshness = policies.freshness();
    let dead_letter = policies.dead_letter();
    [
        (
            Kind::Routing,
            time(&mut policies.routing(), now, &(), subject, batch),
        ),
        (
            Kind::Backpressure,
            time(&mut policies.backpressure(), now, &state, candidate, batch),
        ),
        (
            Kind::Freshness,
            freshness.with(|asker| time(asker, now, &(), arrival, batch)),
        ),
        (
            Kind::DeadLetter,
            dead_letter.with(|asker| time(asker, now, &(), failed, batch)),
        ),
    ]
}

fn subject(policies: &Policies, now: Timestamp) -> Subject {
    Subject {
        id: 7,
        message_type: MESSAGE_TYPE,
        source: policies.symbols().intern("bench"),
        payload_size: 280,
        created_at: Some(now),
        expires_at: Some(now + Duration::from_secs(3_600)),
        ..Subject::default()
    }
}

fn time<K: Recorded>(
    asker: &mut Asker<K>,
    now: Timestamp,
    state: &K::State,
    question: K::Question,
    batch: usize,
) -> f64 {
    let text: Arc<dyn Lookup> = Arc::new(NoText);
    let questions = vec![question; batch];
    let mut decisions = Vec::with_capacity(batch);
    let mut decided = 0;
    let begun = Instant::now();
    while begun.elapsed() < ENOUGH {
        for _ in 0..16 {
            asker.ask(now, state, &questions, &text, &mut decisions);
            decided += decisions.len();
        }
    }
    begun.elapsed().as_nanos() as f64 / decided.max(1) as f64
}
