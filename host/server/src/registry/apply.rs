//! Bringing one kind of policy on this host to what the list says.
//!
//! What is in the way is told in `oona policy list`, and tried again as
//! [`Attempt`](oona_core::registry::Attempt) says. A component is compiled beside the one that decides;
//! if the list says something else before that is done, this host goes there at once.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use oona_core::entry::EntryId;
use oona_core::policy::Kind;
use oona_core::registry::{Activation, Attempt, Choice, Registry as State, Revision};
use oona_core::stage::Stage;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Read, Registry, RegistryError, TrialHere};
use crate::chain::chain;
use crate::policies::{ActivateError, ActivationReport};
use crate::sync::lock;

/// How many activations' decisions are remembered.
const MIXES_MAX: usize = 1_000;

/// How many changes of the version in use can be told apart when one of them has failed.
const GENERATIONS_MAX: usize = 16;

/// What came of the list on this host, for one kind.
#[derive(Debug, Default)]
pub(super) struct Here {
    applied: Option<Applied>,
    trial: Option<Tried>,
    /// Which activation each of the last changes of the version in use was.
    generations: VecDeque<(u64, Revision)>,
}

#[derive(Clone, Debug)]
struct Applied {
    revision: Revision,
    choice: Choice,
    outcome: Result<ActivationReport, Obstacle>,
}

#[derive(Clone, Debug)]
struct Tried {
    revision: Revision,
    choice: Choice,
    outcome: Result<(), Obstacle>,
    withdrawn: Option<String>,
}

/// What is in the way of a change.
#[derive(Clone, Debug)]
struct Obstacle {
    reason: String,
    /// Whether it is the store: then whoever waits for this host waits on.
    away: bool,
    attempt: Attempt,
}

impl Here {
    pub(super) fn applied(&self) -> Option<Revision> {
        self.applied.as_ref().map(|applied| applied.revision)
    }

    pub(super) fn refused(&self) -> Option<String> {
        let obstacle = self.applied.as_ref()?.outcome.as_ref().err()?;
        Some(obstacle.reason.clone())
    }

    pub(super) fn outcome(&self, of: Revision) -> Option<Result<ActivationReport, String>> {
        let applied = self.applied.as_ref()?;
        let outcome = applied.outcome.clone().map_err(|obstacle| obstacle.reason);
        (applied.revision == of).then_some(outcome)
    }

    pub(super) fn trial(&self) -> Option<TrialHere> {
        self.trial.as_ref().map(|tried| TrialHere {
            revision: tried.revision,
            refused: tried.outcome.clone().err().map(|obstacle| obstacle.reason),
            withdrawn: tried.withdrawn.clone(),
        })
    }

    pub(super) fn withdraw(&mut self, stage: Revision, reason: &str) {
        if let Some(tried) = &mut self.trial
            && tried.revision == stage
        {
            tried.withdrawn = Some(reason.to_owned());
        }
    }

    /// The activation that was in use as of a change of the version; 0 for what the host was started
    /// with.
    pub(super) fn activation(&self, generation: u64) -> Revision {
        let mut latest = self.generations.iter().rev();
        let found = latest.find(|(since, _)| *since <= generation);
        found.map_or(0, |(_, revision)| *revision)
    }

    fn obstacles(&self) -> impl Iterator<Item = (&Choice, &Obstacle)> {
        let applied = self.applied.as_ref();
        let applied =
            applied.and_then(|applied| Some((&applied.choice, applied.outcome.as_ref().err()?)));
        let tried = self.trial.as_ref();
        let tried = tried.and_then(|tried| Some((&tried.choice, tried.outcome.as_ref().err()?)));
        applied.into_iter().chain(tried)
    }
}

/// Why something was not done.
struct Hindrance {
    reason: String,
    /// Whether it may pass by itself.
    passes: bool,
    away: bool,
}

impl Hindrance {
    fn lasting(reason: String) -> Self {
        Self {
            reason,
            passes: false,
            away: false,
        }
    }

    fn passing(reason: String) -> Self {
        Self {
            passes: true,
            ..Self::lasting(reason)
        }
    }
}

impl From<RegistryError> for Hindrance {
    fn from(error: RegistryError) -> Self {
        let away = matches!(error, RegistryError::Store(_));
        Self {
            away,
            ..Self::passing(chain(&error))
        }
    }
}

impl From<ActivateError> for Hindrance {
    fn from(error: ActivateError) -> Self {
        // A start needs memory and time, which there may be later.
        let passes = matches!(error, ActivateError::Start(_));
        Self {
            passes,
            ..Self::lasting(chain(&error))
        }
    }
}

/// The list says something else by now.
struct Superseded;

/// One kind on this host.
#[derive(Debug)]
pub(super) struct Hand {
    registry: Registry,
    kind: Kind,
    read: watch::Receiver<Read>,
}

impl Hand {
    pub(super) fn new(registry: &Registry, kind: Kind) -> Self {
        Self {
            registry: registry.clone(),
            kind,
            read: registry.0.read.subscribe(),
        }
    }

    /// Does what the list says, for ever.
    pub(super) async fn keep_up(mut self) {
        loop {
            let pause = self.bring().await;
            let rest = async {
                match pause {
                    Some(pause) => sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.read.changed() => if changed.is_err() { return },
                () = rest => {}
            }
        }
    }

    /// Does what the list says, as far as that goes; how long to wait before it is tried again.
    pub(super) async fn bring(&mut self) -> Option<Duration> {
        let after = self.read.borrow_and_update().after;
        if self.activate().await.is_err() || self.stage().await.is_err() {
            return Some(Duration::ZERO);
        }
        let now = (self.registry.0.clock)();
        let followed = lock(&self.registry.0.followed);
        let here = followed.here.get(&self.kind);
        let obstacles = || here.into_iter().flat_map(Here::obstacles);
        let pushed = |choice: &Choice| pushed(&followed.pushed, choice);
        let waits =
            obstacles().filter_map(|(choice, obstacle)| obstacle.attempt.wait(pushed(choice), now));
        let (wait, away) = (waits.min(), obstacles().any(|(_, obstacle)| obstacle.away));
        drop(followed);
        if !away {
            let after = after.unwrap_or(EntryId::MIN);
            self.registry.0.reached.send_modify(|reached| {
                reached.insert(self.kind, after);
            });
        }
        wait
    }

    async fn activate(&mut self) -> Result<(), Superseded> {
        let (active, applied, known) = self.wanted();
        let Some(active) = active else {
            if applied.is_some() {
                self.return_to_start().await;
            }
            return Ok(());
        };
        let before = applied.as_ref().map_or(0, |applied| applied.revision);
        let same = applied.filter(|applied| {
            applied.revision == active.revision && applied.choice == active.choice
        });
        let failed = match same.map(|applied| applied.outcome) {
            Some(Ok(_)) => return Ok(()),
            Some(Err(obstacle)) if !self.is_due(&obstacle, known) => return Ok(()),
            Some(Err(obstacle)) => Some(obstacle),
            None => None,
        };
        let outcome = self.put_in_use(&active).await?;
        let outcome = outcome.map_err(|hindrance| self.obstacle(hindrance, failed.as_ref(), known));
        self.applied(before, active, outcome, failed.is_some());
        Ok(())
    }

    /// What shall be in use, what came of that so far, and when its artifact was pushed last.
    fn wanted(&self) -> (Option<Activation>, Option<Applied>, Option<Revision>) {
        let followed = lock(&self.registry.0.followed);
        let active = followed.state.active(self.kind).cloned();
        let here = followed.here.get(&self.kind);
        let applied = here.and_then(|here| here.applied.clone());
        let known = active
            .as_ref()
            .and_then(|active| pushed(&followed.pushed, &active.choice));
        (active, applied, known)
    }

    /// The list says nothing of this kind any more: it is another one than this host had followed.
    async fn return_to_start(&self) {
        let (policies, kind) = (self.registry.0.policies.clone(), self.kind);
        let returned = spawn_blocking(move || policies.follow(kind, None, None)).await;
        if let Ok(Err(error)) = returned {
            tracing::error!(%kind, reason = chain(&error), "not back to what the host was started with");
        }
        let mut followed = lock(&self.registry.0.followed);
        followed.here.entry(kind).or_default().applied = None;
    }

    fn is_due(&self, obstacle: &Obstacle, pushed: Option<Revision>) -> bool {
        let now = (self.registry.0.clock)();
        obstacle.attempt.wait(pushed, now) == Some(Duration::ZERO)
    }

    fn obstacle(
        &self,
        hindrance: Hindrance,
        before: Option<&Obstacle>,
        pushed: Option<Revision>,
    ) -> Obstacle {
        let Hindrance {
            reason,
            passes,
            away,
        } = hindrance;
        let now = (self.registry.0.clock)();
        let before = before.map(|before| &before.attempt);
        Obstacle {
            reason,
            away,
            attempt: Attempt::failed(before, now, passes, pushed),
        }
    }

    async fn put_in_use(
        &self,
        active: &Activation,
    ) -> Result<Result<ActivationReport, Hindrance>, Superseded> {
        let (kind, revision) = (self.kind, active.revision);
        let same = move |state: &State| {
            state
                .active(kind)
                .is_some_and(|active| active.revision == revision)
        };
        let component = match self.prepare(&active.choice, same).await? {
            Ok(component) => component,
            Err(hindrance) => return Ok(Err(hindrance)),
        };
        let policies = self.registry.0.policies.clone();
        let config = active.choice.config.clone();
        let activated =
            spawn_blocking(move || policies.follow(kind, component.as_deref(), config.as_deref()));
        Ok(match activated.await {
            Ok(activated) => activated.map_err(Hindrance::from),
            Err(error) => Err(Hindrance::passing(error.to_string())),
        })
    }

    /// Fetches and compiles what is chosen, unless the list stops saying so.
    async fn prepare(
        &self,
        choice: &Choice,
        holds: impl Fn(&State) -> bool,
    ) -> Result<Result<Option<Bytes>, Hindrance>, Superseded> {
        let mut read = self.read.clone();
        let superseded = async {
            while holds(&lock(&self.registry.0.followed).state) {
                if read.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            biased;
            component = self.compiled(choice) => Ok(component),
            () = superseded => Err(Superseded),
        }
    }

    /// The component that is chosen, trusted, and compiled; none if it is what this host has of its own.
    async fn compiled(&self, choice: &Choice) -> Result<Option<Bytes>, Hindrance> {
        let Some(digest) = &choice.digest else {
            return Ok(None);
        };
        let registry = &self.registry;
        let bytes = registry.fetch(digest).await?;
        let signatures = registry.find(digest)?.signatures;
        let trusted = registry.0.options.trust.check(digest, &signatures);
        trusted.map_err(|reason| Hindrance::lasting(format!("{reason} (artifact {digest})")))?;
        let (policies, kind, component) = (registry.0.policies.clone(), self.kind, bytes.clone());
        let loaded = spawn_blocking(move || policies.load(Some(kind), &component)).await;
        loaded.map_err(|error| Hindrance::passing(error.to_string()))??;
        registry.hold(digest, &bytes);
        Ok(Some(bytes))
    }

    fn applied(
        &self,
        before: Revision,
        active: Activation,
        outcome: Result<ActivationReport, Obstacle>,
        again: bool,
    ) {
        let (kind, revision) = (self.kind, active.revision);
        if let Err(obstacle) = &outcome {
            let reason = &obstacle.reason;
            tracing::error!(%kind, revision, reason, "this host does not follow the registry; the policy in use stays");
        }
        let mut followed = lock(&self.registry.0.followed);
        if !again {
            let mix = self.registry.0.policies.take_mix(kind);
            followed.mixes.insert((before, kind), mix);
            while followed.mixes.len() > MIXES_MAX {
                followed.mixes.pop_first();
            }
        }
        let here = followed.here.entry(kind).or_default();
        if let Ok(report) = &outcome {
            here.generations
                .push_back((report.activation.generation, revision));
            if here.generations.len() > GENERATIONS_MAX {
                here.generations.pop_front();
            }
        }
        here.applied = Some(Applied {
            revision,
            choice: active.choice,
            outcome,
        });
    }

    async fn stage(&mut self) -> Result<(), Superseded> {
        let kind = self.kind;
        let (stage, tried, known) = self.wanted_beside();
        let same = tried.as_ref().filter(|tried| {
            let same =
                |stage: &Stage| stage.revision == tried.revision && stage.choice == tried.choice;
            stage.as_ref().is_some_and(same)
        });
        if tried.is_some() && same.is_none() {
            self.registry.0.policies.unstage(kind);
            self.tried(None);
        }
        let Some(stage) = stage else { return Ok(()) };
        let failed = match same.map(|tried| &tried.outcome) {
            Some(Ok(())) => return Ok(()),
            Some(Err(obstacle)) if !self.is_due(obstacle, known) => return Ok(()),
            Some(Err(obstacle)) => Some(obstacle.clone()),
            None => None,
        };
        let (revision, choice) = (stage.revision, stage.choice.clone());
        let outcome = self.try_beside(stage).await?;
        let outcome = outcome.map_err(|hindrance| self.obstacle(hindrance, failed.as_ref(), known));
        if let Err(obstacle) = &outcome {
            let reason = &obstacle.reason;
            tracing::error!(%kind, revision, reason, "this host does not try the candidate");
        }
        self.tried(Some(Tried {
            revision,
            choice,
            outcome,
            withdrawn: None,
        }));
        Ok(())
    }

    /// As [`Hand::wanted`], of what shall be tried.
    fn wanted_beside(&self) -> (Option<Stage>, Option<Tried>, Option<Revision>) {
        let followed = lock(&self.registry.0.followed);
        let stage = followed.state.stage(self.kind).cloned();
        let here = followed.here.get(&self.kind);
        let tried = here.and_then(|here| here.trial.clone());
        let known = stage
            .as_ref()
            .and_then(|stage| pushed(&followed.pushed, &stage.choice));
        (stage, tried, known)
    }

    async fn try_beside(&self, mut stage: Stage) -> Result<Result<(), Hindrance>, Superseded> {
        let (kind, revision) = (self.kind, stage.revision);
        let same = move |state: &State| {
            state
                .stage(kind)
                .is_some_and(|stage| stage.revision == revision)
        };
        let component = match self.prepare(&stage.choice, same).await? {
            Ok(component) => component,
            Err(hindrance) => return Ok(Err(hindrance)),
        };
        let policies = self.registry.0.policies.clone();
        // From now on, whatever the clock of the host says that began the trial.
        stage.since = (self.registry.0.clock)();
        let staged = spawn_blocking(move || policies.stage(kind, component.as_deref(), stage));
        Ok(match staged.await {
            Ok(staged) => staged.map_err(Hindrance::from),
            Err(error) => Err(Hindrance::passing(error.to_string())),
        })
    }

    fn tried(&self, tried: Option<Tried>) {
        let mut followed = lock(&self.registry.0.followed);
        followed.here.entry(self.kind).or_default().trial = tried;
    }
}

fn pushed(
    pushes: &std::collections::BTreeMap<String, Revision>,
    choice: &Choice,
) -> Option<Revision> {
    pushes.get(choice.digest.as_ref()?).copied()
}
