//! Configuration: a file, the environment, assignments; and the part of it that is a policy's own.

use std::path::Path;
use std::sync::Arc;

use oona::clock;
use oona::config::{Config, Sources};
use oona::metrics::Metrics;
use oona::policies::{Policies, PolicyOptions, check_native};

/// The line between the file and what is laid over it: variables as `OONA_NAME=value`, and the rest as
/// for `--set`.
const OVER: &str = "\n%%\n";

/// A configuration that is taken is safe, hides its password and can be run; of one that is not, one
/// line tells what is wrong.
pub(super) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (file, over) = text.split_once(OVER).unwrap_or((text, ""));
    let (variables, assignments): (Vec<&str>, _) =
        over.lines().partition(|line| line.starts_with("OONA_"));
    let pair = |line: &&str| {
        let (name, value) = line.split_once('=').unwrap_or((*line, ""));
        (name.to_owned(), value.to_owned())
    };
    let sources = Sources {
        environment: variables.iter().map(pair).collect(),
        assignments: assignments.into_iter().map(str::to_owned).collect(),
        ..Sources::default()
    };
    let config = match Config::assemble(Some((Path::new("oona.toml"), file)), &sources) {
        Ok(config) => config,
        Err(error) => {
            let told = error.to_string();
            assert!(
                !told.contains(char::is_control),
                "{told:?} is no line of text"
            );
            return;
        }
    };
    let listen = config.server.listen;
    let remote =
        listen.ip().is_loopback() || text.contains("allow_remote") || text.contains("ALLOW_REMOTE");
    assert!(remote, "{listen} was not allowed");
    let url = config.store.url.reveal();
    if let Some((secret, _)) = url.rsplit_once('@') {
        let secret = secret
            .split_once("://")
            .map_or(secret, |(_, secret)| secret);
        let shown = config.store.url.to_string();
        assert!(
            secret.is_empty() || !shown.contains(&format!("{secret}@")),
            "{shown}"
        );
    }
    start(&config);
}

/// What a host does with it first: a configuration of a policy that does not fit is told, and the
/// fail-safe starts all the same.
fn start(config: &Config) {
    let metrics = Arc::new(Metrics::new());
    let streams = config.bus.streams.clone();
    let mut options = PolicyOptions::new(streams, metrics, clock::system());
    for (kind, own) in &mut options.configs {
        own.clone_from(&config.policies.of(*kind).config);
    }
    for (kind, _) in &options.configs {
        if let Err(error) = check_native(&options, *kind) {
            assert!(!error.to_string().is_empty());
        }
    }
    assert_eq!(Policies::new(&options).list().len(), options.configs.len());
}
