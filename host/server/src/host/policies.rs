//! Which policies a host starts with.
//!
//! Of each kind the component that the configuration names, or the one in the policy directory, or
//! the native build of the shipped one. What the operator named must work, and so must every
//! configuration: else the host does not start. What merely lies in the directory and cannot be used
//! is left alone, with a warning: a bus with built-in policies is better than none.

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
        let file = component(config, &policies, kind, base)?;
        if file.is_none() {
            check_native(&options, kind).map_err(|error| config_error(config, kind, &error))?;
        }
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

/// Puts the component of a kind in use, if there is one; answers where it is.
fn component(
    config: &Config,
    policies: &Policies,
    kind: Kind,
    base: &Base<'_>,
) -> Result<Option<PathBuf>, HostError> {
    if let Some(file) = &config.policies.of(kind).file {
        return named(config, policies, kind, file, base.trust)
            .map(|()| Some(file.clone()))
            .map_err(Into::into);
    }
    let file = base
        .directory
        .map(|directory| directory.join(format!("{kind}.wasm")));
    let Some(file) = file.filter(|file| file.exists()) else {
        return Ok(None);
    };
    match activate(policies, kind, &file, base.trust) {
        Ok(()) => Ok(Some(file)),
        Err(Refused::Policy(error @ ActivateError::Config { .. })) => {
            Err(config_error(config, kind, &error).into())
        }
        Err(refused) => {
            tracing::warn!(file = %file.display(), reason = %refused, "not used");
            Ok(None)
        }
    }
}

/// Puts a component in use that the configuration names.
fn named(
    config: &Config,
    policies: &Policies,
    kind: Kind,
    file: &Path,
    trust: &Trust,
) -> Result<(), ConfigError> {
    let key = ["policies", kind.name(), "file"];
    activate(policies, kind, file, trust).map_err(|refused| match refused {
        Refused::Policy(error @ ActivateError::Config { .. }) => config_error(config, kind, &error),
        refused => config.refusal(&key, format!("{}: {refused}", file.display())),
    })
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
