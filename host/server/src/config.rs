//! Configuration: the embedded defaults, a file, the environment and flags become one typed value,
//! or one message that names place, key and remedy.
//!
//! It happens in two stages. First each layer is laid over the one below, strictly: a key that the
//! embedded `default.toml` does not have is an error, and so is a value of another type. Then the whole is
//! turned into [`Config`], and combinations that cannot work are refused with the place of the
//! setting that was given last. Nothing falls back to a default because it was misspelt.

mod alerts;
mod bus;
mod check;
mod error;
mod layers;
mod schema;
mod typed;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt, fs};

use oona_core::budget::BudgetConfig;
use oona_core::dead_letter::audit::RiseConfig;
use oona_core::policy::Kind;
use oona_wasm::EngineConfig;

use crate::alerts::{AlertsConfig, ObjectivesConfig};
use crate::bus::BusConfig;
use crate::otel::TracingConfig;

pub use error::{ConfigError, Origin, Problem};
pub use schema::DEFAULT;

use layers::Layers;

/// The file that is read when none is named, if it exists.
pub const FILE_DEFAULT: &str = "oona.toml";

/// What a configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, or none.
    pub file: Option<PathBuf>,
    /// Environment variables, those of others included: what does not begin with `OONA_` is
    /// passed over.
    pub environment: Vec<(String, String)>,
    /// `section.key=value`, from `--set`.
    pub assignments: Vec<String>,
    /// Named flags: the key they set, the value, and the flag's name.
    pub flags: Vec<(&'static str, String, &'static str)>,
}

impl Sources {
    /// The environment of this process, and `oona.toml` of the current directory if there is one.
    #[must_use]
    pub fn surroundings() -> Self {
        let file = PathBuf::from(FILE_DEFAULT);
        Self {
            file: file.exists().then_some(file),
            environment: env::vars().collect(),
            ..Self::default()
        }
    }
}

/// Everything that a host is told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The port.
    pub server: ServerConfig,
    /// Where messages are kept.
    pub store: StoreConfig,
    /// What signs and verifies.
    pub signing: SigningConfig,
    /// The bus itself.
    pub bus: BusConfig,
    /// The policies.
    pub policies: PoliciesConfig,
    /// The registry that all hosts follow.
    pub registry: RegistryConfig,
    /// What is told on the bus.
    pub telemetry: TelemetryConfig,
    /// How dead letters are audited.
    pub audit: AuditConfig,
    /// What of messages is told to a collector.
    pub tracing: TracingConfig,
    /// What is promised.
    pub objectives: ObjectivesConfig,
    /// What is too much.
    pub alerts: AlertsConfig,
    /// Who may administer.
    pub access: AccessConfig,
    /// What is logged.
    pub log: LogConfig,
    places: Places,
}

/// What a host tells of itself on the bus.
#[derive(Clone, Copy, Debug)]
pub struct TelemetryConfig {
    /// How often; `None` for never.
    pub interval: Option<Duration>,
}

/// How dead letters are audited.
#[derive(Clone, Copy, Debug)]
pub struct AuditConfig {
    /// How often; `None` for never.
    pub interval: Option<Duration>,
    /// How many an audit reads.
    pub sample_max: u64,
    /// When more are filed than usual.
    pub rise: RiseConfig,
}

/// The port.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Address to listen on. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address on which health and metrics are served besides.
    pub health_listen: Option<SocketAddr>,
    /// Names by which browsers may ask this host, beside its addresses.
    pub names: Vec<String>,
    /// File to write the chosen address to.
    pub port_file: Option<PathBuf>,
    /// How long a graceful shutdown may take.
    pub drain: Duration,
    /// How many publishes of one `PublishStream` may be under way.
    pub in_flight_max: usize,
    /// How many connections are served at once.
    pub connections_max: usize,
    /// How many subscribers may be connected at once.
    pub subscribers_max: usize,
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// Redis or Valkey.
    Redis,
    /// In this process, not durable.
    Memory,
}

/// Where messages are kept.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Which store.
    pub kind: StoreKind,
    /// Where Redis is.
    pub url: StoreUrl,
    /// How many replicas must have an entry before its publish is accepted.
    pub replicas_min: u32,
    /// When to give up on a store that never answered. `None`: never.
    pub give_up_after: Option<Duration>,
}

/// The address of a store, which may carry a password. It is never printed with it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// The address as it was given, password included.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((before, host)) = self.0.rsplit_once('@') else {
            return f.write_str(&self.0);
        };
        match before.split_once("://") {
            Some((scheme, _)) => write!(f, "{scheme}://***@{host}"),
            None => write!(f, "***@{host}"),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

/// What signs and verifies: names of environment variables, never the secrets themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningConfig {
    /// Holds the secret that signs and verifies.
    pub secret_env: String,
    /// Hold secrets that verify.
    pub also_accept_env: Vec<String>,
}

/// The policies.
#[derive(Clone, Debug)]
pub struct PoliciesConfig {
    /// Where they are. `None`: the usual places are looked at.
    pub directory: Option<PathBuf>,
    /// Whether what is copied there is put in use.
    pub watch: bool,
    /// Whether policies without a signature may be used.
    pub allow_unsigned: bool,
    /// Files with the public keys that policies must be signed with.
    pub trusted_keys: Vec<PathBuf>,
    /// One decision in so many is logged; none if zero.
    pub log_every: u32,
    /// One decision in so many is recorded; none if zero.
    pub record_every: u32,
    /// Where records are written to.
    pub record_file: Option<PathBuf>,
    /// How large that file may become.
    pub record_bytes_max: u64,
    /// How many failures a version is forgiven.
    pub budget: BudgetConfig,
    /// Bounds of every policy, and where compiled ones are kept.
    pub engine: EngineConfig,
    /// What is said about each kind, in the order of [`Kind::ALL`].
    pub kinds: [PolicyConfig; 4],
}

impl PoliciesConfig {
    /// What is said about one kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> &PolicyConfig {
        let known = self.kinds.iter().find(|config| config.kind == kind);
        known.expect("there is one of each kind")
    }
}

/// The registry that all hosts follow.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// How often it is read.
    pub poll: Duration,
    /// Where it is kept beside the store.
    pub cache_directory: Option<PathBuf>,
}

/// Who may administer.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// The file of tokens.
    pub tokens_file: Option<PathBuf>,
}

/// What is said about the policy of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyConfig {
    /// The kind.
    pub kind: Kind,
    /// The component, instead of the one in the directory.
    pub file: Option<PathBuf>,
    /// The policy's own configuration, checked by the policy's own schema.
    pub config: serde_json::Value,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A level or a filter.
    pub filter: String,
    /// For people or for programs.
    pub format: LogFormat,
}

/// In which form logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Config {
    /// Reads all layers.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its place.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let text = match &sources.file {
            None => None,
            Some(file) => Some((file.as_path(), read(file)?)),
        };
        let text = text.as_ref().map(|(file, text)| (*file, text.as_str()));
        Self::assemble(text, sources)
    }

    /// As [`Config::load`], with the text of the file at hand.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its place.
    pub fn assemble(file: Option<(&Path, &str)>, sources: &Sources) -> Result<Self, ConfigError> {
        let mut layers = Layers::new();
        if let Some((file, text)) = file {
            layers.apply_file(file, text)?;
        }
        layers.apply_environment(&sources.environment)?;
        for (key, value, flag) in &sources.flags {
            layers.apply_flag(key, value, flag)?;
        }
        for assignment in &sources.assignments {
            layers.apply_assignment(assignment)?;
        }
        check::combinations(&layers)?;
        typed::config(layers)
    }

    /// Where a key was said, or the nearest table around it. Serves errors that are only found
    /// later, such as those of a policy's own schema.
    #[must_use]
    pub fn locate(&self, path: &[&str]) -> Option<Origin> {
        let path: Vec<_> = path.iter().map(|part| (*part).to_owned()).collect();
        self.places.0.locate(&path).cloned()
    }

    /// An error about a setting that only its user could find, with the setting's place.
    #[must_use]
    pub fn refusal(&self, path: &[&str], problem: String) -> ConfigError {
        let key: Vec<_> = path.iter().map(|part| (*part).to_owned()).collect();
        ConfigError {
            origin: self.locate(path).unwrap_or(Origin::Default),
            key: schema::show(&key),
            problem: Problem::Invalid(problem),
        }
    }

    /// An error about the configuration of a policy, with the place of the value at `pointer`, a
    /// JSON pointer within it.
    #[must_use]
    pub fn policy_error(&self, kind: Kind, pointer: &str, problem: String) -> ConfigError {
        let inner = pointer.split('/').filter(|part| !part.is_empty());
        let path: Vec<_> = ["policies", kind.name(), "config"]
            .into_iter()
            .chain(inner)
            .collect();
        self.refusal(&path, problem)
    }
}

/// Keeps what [`Config::locate`] needs.
#[derive(Clone)]
struct Places(Arc<Layers>);

/// Says nothing: the settings beneath hold the password of the store as it was given.
impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places")
    }
}

fn read(file: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(file).map_err(|error| ConfigError {
        origin: Origin::Flag(format!("--config {}", file.display())),
        key: String::new(),
        problem: Problem::Unreadable(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assemble(file: &str, sources: &Sources) -> Result<Config, ConfigError> {
        Config::assemble(Some((Path::new("oona.toml"), file)), sources)
    }

    fn environment(variables: &[(&str, &str)]) -> Sources {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Sources {
            environment: variables.iter().map(owned).collect(),
            ..Sources::default()
        }
    }

    fn assignments(assignments: &[&str]) -> Sources {
        let assignments = assignments.iter().map(|text| (*text).to_owned()).collect();
        Sources {
            assignments,
            ..Sources::default()
        }
    }

    #[track_caller]
    fn check_error(result: Result<Config, ConfigError>, message: &str) {
        let error = result.err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some(message));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_told_with_line_key_and_remedy() {
        let table = [
            (
                "[streams]\nnromal = 'x'",
                "oona.toml:2: streams.nromal: unknown key; did you mean `normal`?",
            ),
            (
                "\n\n[sever]\nlisten = 'x'",
                "oona.toml:3: sever: unknown key; did you mean `server`?",
            ),
            (
                "high_water = 1",
                "oona.toml:1: high_water: unknown key; did you mean `conservative.high_water`?",
            ),
            (
                "[log]\nqqqq = 1",
                "oona.toml:2: log.qqqq: unknown key; known here: `format`, `level`",
            ),
            (
                "[publish]\nqueue_max = 'many'",
                "oona.toml:2: publish.queue_max: expected a whole number, found a text",
            ),
            (
                "publish = 3",
                "oona.toml:1: publish: expected a table, found a whole number",
            ),
            (
                "[policies]\nwatch = 1",
                "oona.toml:2: policies.watch: expected true or false, found a whole number",
            ),
            (
                "[streams]\nothers = ['a', 1]",
                "oona.toml:2: streams.others: expected a list of texts, found a whole number",
            ),
            (
                "[publish]\n\nqueue_max = 0",
                "oona.toml:3: publish.queue_max: 0 is out of range; use 1 to 1000000",
            ),
            (
                "[store]\nkind = 'mysql'",
                "oona.toml:2: store.kind: `mysql` is none of redis, memory",
            ),
            (
                "[server]\nlisten = 'here'",
                "oona.toml:2: server.listen: `here` is no address; use for instance 127.0.0.1:7470",
            ),
            (
                "[server]\nlisten = '0.0.0.0:7470'",
                "oona.toml:2: server.listen: 0.0.0.0:7470 can be reached from other machines and \
                 there is no authentication; listen on 127.0.0.1, or set server.allow_remote = true",
            ),
            (
                "[server]\nhealth_listen = '0.0.0.0:7471'",
                "oona.toml:2: server.health_listen: 0.0.0.0:7471 can be reached from other machines and \
                 there is no authentication; listen on 127.0.0.1, or set server.allow_remote = true",
            ),
            (
                "[consume]\nclaim_idle_ms = 30000",
                "oona.toml:2: consume.claim_idle_ms: consume.claim_idle_ms (30000) must be more \
                 than consume.ack_deadline_ms (30000), or messages would be claimed from \
                 subscribers that are still at work",
            ),
            (
                "[conservative]\nlow_water = 4000",
                "oona.toml:2: conservative.low_water: conservative.high_water (4000) must be more \
                 than conservative.low_water (4000), or conservative mode would be left the moment \
                 it is entered",
            ),
            (
                "[streams]\ndead_letter = 'oona.normal'",
                "oona.toml:2: streams.dead_letter: `oona.normal` stands twice in [streams]; each \
                 stream needs its own name",
            ),
            (
                "[log]\nlevel = 'a=b=c'",
                "oona.toml:2: log.level: `a=b=c`: invalid filter directive: too many '=' in filter directive, expected 0 or 1",
            ),
        ];
        for (file, message) in table {
            check_error(assemble(file, &Sources::default()), message);
        }
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_with_its_line() {
        let error = assemble("[log]\nlevel = ", &Sources::default())
            .err()
            .map(|e| e.to_string());
        let error = error.expect("no TOML");
        assert!(error.starts_with("oona.toml:2: "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn what_is_wrong_is_told_in_one_line_whatever_it_repeats() {
        let expected = "oona.toml:1: \"a\\nb\": unknown key; known here: ";
        let error = assemble("\"a\\nb\" = 1", &Sources::default()).err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with(expected), "{error}");
        let file = "[store]\nkind = \"a\\u001b[2J\"";
        let told = "oona.toml:2: store.kind: `a\\u{1b}[2J` is none of redis, memory";
        check_error(assemble(file, &Sources::default()), told);
    }

    #[test]
    fn a_file_that_is_not_there_is_told() {
        let sources = Sources {
            file: Some("/nowhere/oona.toml".into()),
            ..Sources::default()
        };
        let error = Config::load(&sources).err().map(|error| error.to_string());
        let error = error.expect("there is no such file");
        assert!(
            error.starts_with("flag --config /nowhere/oona.toml: cannot be read: "),
            "{error}"
        );
    }

    #[test]
    fn what_is_wrong_in_the_environment_is_told_with_its_variable() {
        let table = [
            (
                ("OONA_SERVER_LISTENS", "x"),
                "environment variable OONA_SERVER_LISTENS: unknown; did you mean OONA_SERVER_LISTEN?",
            ),
            (
                ("OONA_Q", "x"),
                "environment variable OONA_Q: unknown; variables that begin with OONA_ are \
                 settings, named after their keys",
            ),
            (
                ("OONA_PUBLISH_QUEUE_MAX", "many"),
                "environment variable OONA_PUBLISH_QUEUE_MAX: publish.queue_max: expected a whole \
                 number, found a text",
            ),
            (
                ("OONA_BREAKER_TRIALS", "0"),
                "environment variable OONA_BREAKER_TRIALS: breaker.trials: 0 is out of range; use \
                 1 to 1000",
            ),
        ];
        for (variable, message) in table {
            check_error(assemble("", &environment(&[variable])), message);
        }
        assert!(assemble("", &environment(&[("OONA_ADDRESS", "x"), ("HOME", "y")])).is_ok());
    }

    #[test]
    fn what_is_wrong_in_a_flag_is_told_with_the_flag() {
        let table = [
            (
                "streams.nromal=x",
                "flag --set streams.nromal: streams.nromal: unknown key; did you mean `normal`?",
            ),
            ("streams", "flag --set streams: expected section.key=value"),
            (
                "publish.group_max=9000",
                "flag --set publish.group_max: publish.group_max: publish.queue_max (8192) must \
                 be not less than publish.group_max (9000), or no group could ever be full",
            ),
        ];
        for (assignment, message) in table {
            check_error(assemble("", &assignments(&[assignment])), message);
        }
    }

    #[test]
    fn a_higher_layer_wins() {
        let file =
            "[server]\nlisten = '127.0.0.1:1'\ndrain_ms = 1\nhost = 'file'\nin_flight_max = 7";
        let mut sources = environment(&[
            ("OONA_SERVER_LISTEN", "127.0.0.1:2"),
            ("OONA_SERVER_DRAIN_MS", "2"),
            ("OONA_STREAMS_OTHERS", "a, b"),
            ("OONA_POLICIES_DEAD_LETTER_FILE", "x.wasm"),
        ]);
        sources
            .flags
            .push(("server.listen", "127.0.0.1:3".to_owned(), "--listen"));
        let config = assemble(file, &sources).expect("it is a good configuration");
        assert_eq!(config.server.listen.port(), 3);
        assert_eq!(config.server.drain, Duration::from_millis(2));
        assert_eq!(config.server.in_flight_max, 7);
        assert_eq!(
            config.policies.of(Kind::DeadLetter).file,
            Some("x.wasm".into())
        );
        let places = [
            (&["server", "listen"][..], "flag --listen"),
            (
                &["server", "drain_ms"],
                "environment variable OONA_SERVER_DRAIN_MS",
            ),
            (&["server", "in_flight_max"], "oona.toml:5"),
            (&["log", "level"], "default"),
        ];
        for (path, place) in places {
            let found = config.locate(path).map(|origin| origin.to_string());
            assert_eq!(found.as_deref(), Some(place));
        }
    }

    #[test]
    fn the_configuration_of_a_policy_keeps_its_lines() {
        let file = "[policies.routing.config]\ndefault = 'a'\nrules = [\n  { to = 'x' },\n  { to = 3 },\n]\n";
        let sources = assignments(&["policies.routing.config.extra.limit=3"]);
        let config = assemble(file, &sources).expect("opaque");
        let expected = serde_json::json!({
            "default": "a",
            "rules": [{ "to": "x" }, { "to": 3 }],
            "extra": { "limit": 3 },
        });
        assert_eq!(config.policies.of(Kind::Routing).config, expected);
        let table = [
            (
                "/rules/1/to",
                "oona.toml:5: policies.routing.config.rules.1.to: no text",
            ),
            (
                "/rules/7",
                "oona.toml:3: policies.routing.config.rules.7: no text",
            ),
            (
                "/extra/limit",
                "flag --set policies.routing.config.extra.limit: \
                 policies.routing.config.extra.limit: no text",
            ),
            ("", "oona.toml:1: policies.routing.config: no text"),
        ];
        for (pointer, message) in table {
            let error = config.policy_error(Kind::Routing, pointer, "no text".to_owned());
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let file = "[store]\nurl = 'redis://oona:hunter2@db:6379/1'";
        let config = assemble(file, &Sources::default()).expect("it is a good configuration");
        assert_eq!(config.store.url.reveal(), "redis://oona:hunter2@db:6379/1");
        assert_eq!(config.store.url.to_string(), "redis://***@db:6379/1");
        let told = format!("{config:?}");
        assert!(!told.contains("hunter2"), "{told}");
        let unfinished = StoreUrl("oona:hunter2@db:6379".to_owned());
        assert_eq!(
            unfinished.to_string(),
            "***@db:6379",
            "nor before it is an address"
        );
    }
}
