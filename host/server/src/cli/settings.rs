//! The settings of a host, as flags: of those that run one, or look at what one would meet.

use std::path::PathBuf;

use clap::Args;

use crate::config::Sources;

/// What a host is told. Everything else comes from the file, the environment and the defaults.
#[derive(Args, Debug)]
pub(super) struct Settings {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// In memory, on this machine, unsigned policies allowed: nothing to set up, nothing kept
    #[arg(long)]
    pub(super) dev: bool,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// File to write the chosen address to
    #[arg(long, value_name = "FILE")]
    port_file: Option<String>,
    /// Address of Redis
    #[arg(long, value_name = "URL", conflicts_with = "dev")]
    redis: Option<String>,
    /// Directory with policies; what is copied into it is put in use
    #[arg(long, value_name = "DIRECTORY")]
    policies: Option<String>,
    /// error, warn, info, debug or trace; or a filter such as info,oona=debug
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Any setting; may be given several times
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    assignments: Vec<String>,
}

impl Settings {
    /// These flags, over the surroundings of this process.
    pub(super) fn sources(&self) -> Sources {
        let mut sources = Sources::surroundings();
        if self.config.is_some() || self.dev {
            sources.file.clone_from(&self.config);
        }
        if self.dev {
            sources.flags.extend([
                ("store.kind", "memory".to_owned(), "--dev"),
                ("server.allow_remote", "false".to_owned(), "--dev"),
                ("policies.allow_unsigned", "true".to_owned(), "--dev"),
                ("telemetry.interval_ms", "0".to_owned(), "--dev"),
            ]);
        }
        let named = [
            ("server.listen", &self.listen, "--listen"),
            ("server.port_file", &self.port_file, "--port-file"),
            ("store.url", &self.redis, "--redis"),
            ("policies.directory", &self.policies, "--policies"),
            ("log.level", &self.log_level, "--log-level"),
            ("log.format", &self.log_format, "--log-format"),
        ];
        for (key, value, flag) in named {
            sources
                .flags
                .extend(value.clone().map(|value| (key, value, flag)));
        }
        sources.assignments.clone_from(&self.assignments);
        sources
    }
}
