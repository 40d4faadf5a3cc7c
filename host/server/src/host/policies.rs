//! Which policies a host starts with.
//!
//! Of each kind the component that the configuration names, or the one in the policy directory, or
//! the native build of the shipped one. A component that cannot be read, is not vouched for, or does
//! not start is no reason to have no bus: the native build decides then, with its defaults if the
//! configuration was for the component, and logs, the registry and `oona policy list` say why. A
//! configuration that its policy refuses is an error of whoever wrote it, and the host does not start.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oona_core::policy::Kind;
use oona_wasm::{Engine, VersionInfo};

use super::HostError;
use crate::chain::chain;
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::decisions::DecisionLog;
use crate::gates::Trust;
use crate::metrics::Metrics;
use crate::policies::{ActivateError, Policies, PolicyOptions, check_native};
use crate::watch;

/// Where policies are when the configuration does not say it: where they are built, and beside the
/// program or one level above it.
const PLACES: [&str; 3] = ["target/policies", "policies", "../policies"];

/// A policy and where it came from.
#[derive(Clone, Debug)]
pub struct LoadedFrom {
    /// What is in use.
    pub version: Arc<VersionInfo>,
    /// The component; none for a native build.
    pub file: Option<PathBuf>,
}

impl fmt::Display for LoadedFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VersionInfo {
            kind,
            name,
            version,
            ..
        } = &*self.version;
        match &self.file {
            Some(file) => write!(f, "{kind}: {name} {version} from {}", file.display()),
            None => write!(f, "{kind}: {name} {version}, built in"),
        }
    }
}

/// The policy directory: the one that is named, or the first of the usual places that exists.
pub(crate) fn directory(named: Option<&Path>) -> Option<PathBuf> {
    if let Some(named) = named {
        return Some(named.to_owned());
    }
    let [built, beside, above] = PLACES;
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::parent);
    let near = |place: &str| program.map(|program| program.join(place));
    let places = [Some(PathBuf::from(built)), near(beside), near(above)];
    places.into_iter().flatten().find(|place| place.is_dir())
}

/// The component of a kind: the one that is named, or the one in the policy directory.
pub(crate) fn component_file(
    config: &Config,
    kind: Kind,
    directory: Option<&Path>,
) -> Option<PathBuf> {
    let lies_there = || {
        let file = directory?.join(format!("{kind}.wasm"));
        file.exists().then_some(file)
    };
    let named = config.policies.of(kind).file.clone();
    named.or_else(lies_there)
}

/// What the policies of a host stand on.
pub(super) struct Base<'a> {
    pub(super) directory: Option<&'a Path>,
    pub(super) trust: &'a Trust,
    pub(super) decisions: Arc<DecisionLog>,
    pub(super) metrics: &'a Arc<Metrics>,
}

/// Loads the policies that a host starts with. Compiles, so it may take a while.
pub(super) fn load(
    config: &Config,
    base: &Base<'_>,
) -> Result<(Policies, Vec<LoadedFrom>), HostError> {
    let engine = Engine::new(config.policies.engine.clone()).map_err(HostError::Engine)?;
    let options = PolicyOptions {
        engine: Some(engine),
        configs: Kind::ALL.map(|kind| (kind, config.policies.of(kind).config.clone())),
        budget: config.policies.budget,
        log_every: config.policies.log_every,
        decisions: Arc::clone(&base.decisions),
        ..PolicyOptions::new(
            config.bus.streams.clone(),
            Arc::clone(base.metrics),
            clock::system(),
        )
    };
    let policies = Policies::new(&options);
    let mut files = Vec::with_capacity(Kind::ALL.len());
    for kind in Kind::ALL {
        let check = || check_native(&options, kind);
        let file = match component(config, &policies, kind, base)? {
            Found::InUse(file) => Some(file),
            Found::Nothing => {
                check().map_err(|error| config_error(config, kind, &error))?;
                None
            }
            Found::Failed { file, reason } => {
                policies.not_started(kind, &file, &reason, check().is_err());
                None
            }
        };
        files.push(file);
    }
    if files.iter().all(Option::is_none) {
        tracing::warn!("no policy components: the built-in policies decide");
    }
    let versions = policies
        .list()
        .into_iter()
        .map(|status| status.slot.version);
    let loaded = versions
        .zip(files)
        .map(|(version, file)| LoadedFrom { version, file });
    Ok((policies, loaded.collect()))
}

/// What became of the component of a kind.
enum Found {
    /// There is none.
    Nothing,
    /// It decides.
    InUse(PathBuf),
    /// It cannot be used.
    Failed { file: PathBuf, reason: String },
}

/// Puts the component of a kind in use, if there is one.
fn component(
    config: &Config,
    policies: &Policies,
    kind: Kind,
    base: &Base<'_>,
) -> Result<Found, ConfigError> {
    let Some(file) = component_file(config, kind, base.directory) else {
        return Ok(Found::Nothing);
    };
    match activate(policies, kind, &file, base.trust) {
        Ok(()) => Ok(Found::InUse(file)),
        Err(Refused::Policy(error @ ActivateError::Config { .. })) => {
            Err(config_error(config, kind, &error))
        }
        Err(refused) => Ok(Found::Failed {
            file,
            reason: refused.to_string(),
        }),
    }
}

/// Why a file is no policy in use.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("cannot be read: {0}")]
    Unreadable(std::io::Error),
    #[error("{0}")]
    Unsigned(String),
    #[error("{}", chain(.0))]
    Policy(ActivateError),
}

fn activate(policies: &Policies, kind: Kind, file: &Path, trust: &Trust) -> Result<(), Refused> {
    let component = watch::read(file).map_err(Refused::Unreadable)?;
    trust
        .check_file(file, &component)
        .map_err(Refused::Unsigned)?;
    policies
        .activate(Some(kind), &component, None)
        .map(drop)
        .map_err(Refused::Policy)
}

fn config_error(config: &Config, kind: Kind, error: &ActivateError) -> ConfigError {
    match error {
        ActivateError::Config {
            pointer, problem, ..
        } => config.policy_error(kind, pointer, problem.clone()),
        other => config.policy_error(kind, "", chain(other)),
    }
}
