//! What one component costs, beside another.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oona_core::Timestamp;
use oona_core::policy::{self, Decide, Fault, Kind};
use oona_wasm::{
    Artifact, Engine, EngineConfig, EngineError, LoadError, Names, StartError, Version,
};
use serde::Serialize;

use crate::cases::{NOW_MS, names};
use crate::record::{Message, MessageType, Recorded, State, Texts};

/// The sizes of batches that are measured.
const BATCHES: [usize; 4] = [1, 8, 64, 256];

/// How long one figure is measured in one round.
const ENOUGH: Duration = Duration::from_millis(20);

/// How many instances are started in one round.
const STARTS: u32 = 20;

/// A component to be measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Its bytes.
    pub component: Vec<u8>,
    /// Its configuration, a JSON object.
    pub config: String,
}

/// What a component costs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cost {
    /// Its name and version.
    pub policy: String,
    /// Its size in bytes.
    pub bytes: usize,
    /// What compiling it takes, in ms: once on each host, unless it is cached.
    pub compile_ms: f64,
    /// What starting and configuring an instance takes, in µs.
    pub start_us: f64,
    /// How much memory an instance has, in bytes.
    pub memory_bytes: usize,
    /// What a decision costs, by the size of the batch.
    pub decisions: Vec<Decision>,
}

/// What a decision costs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Decision {
    /// How many messages one call is about.
    pub batch: usize,
    /// For each message, in ns.
    pub ns: f64,
}

/// What components cost. Medians of the rounds, in which they took turns.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    /// How many rounds.
    pub rounds: u32,
    /// The one that was asked for.
    pub policy: Cost,
    /// The one that it is held against.
    pub against: Option<Cost>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum CostError {
    /// There is no sandbox.
    #[error("cannot start the policy engine")]
    Engine(#[from] EngineError),
    /// It is no policy.
    #[error("the file is refused")]
    Load(#[from] LoadError),
    /// It does not start.
    #[error("the policy does not run")]
    Start(#[from] StartError),
    /// It fails on a plain message.
    #[error("the policy fails on a plain message")]
    Fault(#[from] Fault),
}

/// Measures one component, or two in turns.
///
/// # Errors
///
/// If one of them is no policy, or does not run.
pub fn measure(
    policy: &Measured,
    against: Option<&Measured>,
    rounds: u32,
    listener: &dyn Fn(u32),
) -> Result<Costs, CostError> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        ours.push(cost(policy)?);
        if let Some(against) = against {
            theirs.push(cost(against)?);
        }
        listener(round + 1);
    }
    Ok(Costs {
        rounds,
        policy: median(&ours),
        against: against.map(|_| median(&theirs)),
    })
}

fn cost(measured: &Measured) -> Result<Cost, CostError> {
    let engine = Engine::new(EngineConfig::default())?;
    let begun = Instant::now();
    let artifact = Artifact::load_any(&engine, &measured.component)?;
    let compile_ms = begun.elapsed().as_secs_f64() * 1e3;
    let names = names(&[]);
    let timed = match artifact.kind() {
        Kind::Routing => time::<policy::Routing>(&artifact, &measured.config, &names),
        Kind::Backpressure => time::<policy::Backpressure>(&artifact, &measured.config, &names),
        Kind::Freshness => time::<policy::Freshness>(&artifact, &measured.config, &names),
        Kind::DeadLetter => time::<policy::DeadLetter>(&artifact, &measured.config, &names),
    }?;
    Ok(Cost {
        policy: format!("{} {}", artifact.name(), artifact.version()),
        bytes: measured.component.len(),
        compile_ms,
        ..timed
    })
}

fn time<K: Recorded>(artifact: &Artifact, config: &str, names: &Names) -> Result<Cost, CostError> {
    let version = Version::<K>::new(artifact, config, names.clone())?;
    let begun = Instant::now();
    for _ in 0..STARTS {
        drop(version.instance()?);
    }
    let start_us = begun.elapsed().as_secs_f64() * 1e6 / f64::from(STARTS);
    let mut instance = version.instance()?;
    let now = Timestamp::from_millis(NOW_MS);
    let message = Message {
        id: "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
        message_type: MessageType(4),
        age_ms: Some(5),
        payload_size: Some(280),
        ..Message::default()
    };
    let asked = K::question(&message, &State::default(), now, &names.symbols);
    let (state, question) = asked.unwrap_or_else(|error| unreachable!("a plain message: {error}"));
    let mut decisions = Vec::new();
    let mut costs = Vec::with_capacity(BATCHES.len());
    for batch in BATCHES {
        let questions = vec![question; batch];
        let text: Arc<dyn policy::Lookup> = Arc::new(Texts(vec![message.clone(); batch]));
        let mut decided = 0_u64;
        let begun = Instant::now();
        while begun.elapsed() < ENOUGH {
            instance.decide(now, &state, &questions, &text, &mut decisions)?;
            decided += batch as u64;
        }
        costs.push(Decision {
            batch,
            ns: begun.elapsed().as_nanos() as f64 / decided.max(1) as f64,
        });
    }
    Ok(Cost {
        start_us,
        memory_bytes: instance.memory_bytes().unwrap_or_default(),
        decisions: costs,
        ..Cost::default()
    })
}

/// Each figure's median.
fn median(costs: &[Cost]) -> Cost {
    let Some(first) = costs.first() else {
        return Cost::default();
    };
    let of =
        |figure: &dyn Fn(&Cost) -> f64| super::report::median(costs.iter().map(figure).collect());
    let decisions = first
        .decisions
        .iter()
        .enumerate()
        .map(|(index, decision)| Decision {
            batch: decision.batch,
            ns: of(&|cost| cost.decisions[index].ns),
        });
    Cost {
        compile_ms: of(&|cost| cost.compile_ms),
        start_us: of(&|cost| cost.start_us),
        decisions: decisions.collect(),
        ..first.clone()
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let against = self.against.as_ref();
        let title = against.map_or_else(String::new, |against| {
            format!(", against {}", against.policy)
        });
        writeln!(
            f,
            "{}{title}; medians of {} rounds\n",
            self.policy.policy, self.rounds
        )?;
        let mut line = |what: &str, unit: &str, figure: &dyn Fn(&Cost) -> f64| {
            let ours = figure(&self.policy);
            write!(f, "{what:<32} {ours:>12.1} {unit:<5}")?;
            if let Some(theirs) = against.map(figure) {
                write!(f, " {theirs:>12.1} {unit:<5} {:>6.2} x", ours / theirs)?;
            }
            writeln!(f)
        };
        line("size", "KiB", &|cost| cost.bytes as f64 / 1_024.0)?;
        line("compile", "ms", &|cost| cost.compile_ms)?;
        line("start an instance", "us", &|cost| cost.start_us)?;
        line("memory of an instance", "KiB", &|cost| {
            cost.memory_bytes as f64 / 1_024.0
        })?;
        for (index, decision) in self.policy.decisions.iter().enumerate() {
            let what = format!("a decision, batch of {}", decision.batch);
            line(&what, "ns", &|cost| {
                cost.decisions
                    .get(index)
                    .map_or(0.0, |decision| decision.ns)
            })?;
        }
        Ok(())
    }
}
