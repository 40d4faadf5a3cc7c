//! The second stage: settings become types. Whatever could be wrong was found before, except for
//! what only the type itself can tell.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use oona_core::budget::BudgetConfig;
use oona_core::dead_letter::audit::RiseConfig;
use oona_core::policy::Kind;
use oona_wasm::EngineConfig;

use super::error::{ConfigError, Problem};
use super::layers::Layers;
use super::{
    AccessConfig, AuditConfig, Config, LogConfig, LogFormat, Places, PoliciesConfig, PolicyConfig,
    RegistryConfig, ServerConfig, SigningConfig, StoreConfig, StoreKind, StoreUrl, TelemetryConfig,
};
use crate::otel::TracingConfig;

/// Turns settings into the typed configuration.
pub(super) fn config(layers: Layers) -> Result<Config, ConfigError> {
    let read = Read(&layers);
    Ok(Config {
        server: server(&read)?,
        store: store(&read),
        signing: signing(&read),
        bus: super::bus::config(&read),
        policies: policies(&read)?,
        registry: RegistryConfig {
            poll: read.millis("registry.poll_ms"),
            cache_directory: read.path("registry.cache_directory"),
        },
        telemetry: TelemetryConfig {
            interval: Some(read.millis("telemetry.interval_ms")).filter(|period| !period.is_zero()),
        },
        audit: AuditConfig {
            interval: Some(read.millis("dead_letters.audit_interval_ms"))
                .filter(|period| !period.is_zero()),
            sample_max: read.count_u64("dead_letters.audit_sample_max"),
            rise: RiseConfig {
                per_minute_min: f64::from(read.count_u32("dead_letters.audit_rise_min")),
                factor: f64::from(read.count_u32("dead_letters.audit_rise_factor")),
            },
        },
        tracing: TracingConfig {
            otlp_endpoint: Some(read.text("tracing.otlp_endpoint")).filter(|url| !url.is_empty()),
            sample_every: read.count_u64("tracing.sample_every"),
            queue_max: read.count("tracing.queue_max"),
        },
        objectives: super::alerts::objectives(&read)?,
        alerts: super::alerts::alerts(&read)?,
        access: AccessConfig {
            tokens_file: read.path("access.tokens_file"),
        },
        log: log(&read)?,
        places: Places(Arc::new(layers)),
    })
}

fn server(read: &Read<'_>) -> Result<ServerConfig, ConfigError> {
    let address = |key| {
        let text = read.0.text(key);
        let parsed = text.parse();
        parsed.map_err(|_| read.invalid(key, format!("`{text}` is no address")))
    };
    let health = "server.health_listen";
    let health = Some(health).filter(|key| !read.0.text(key).is_empty());
    Ok(ServerConfig {
        listen: address("server.listen")?,
        health_listen: health.map(address).transpose()?,
        names: read.texts("server.names"),
        port_file: read.path("server.port_file"),
        drain: read.millis("server.drain_ms"),
        in_flight_max: read.count("server.in_flight_max"),
        connections_max: read.count("server.connections_max"),
        subscribers_max: read.count("server.subscribers_max"),
    })
}

fn store(read: &Read<'_>) -> StoreConfig {
    let give_up_after = read.millis("store.give_up_after_ms");
    StoreConfig {
        kind: match read.0.text("store.kind") {
            "memory" => StoreKind::Memory,
            _ => StoreKind::Redis,
        },
        url: StoreUrl(read.0.text("store.url").to_owned()),
        replicas_min: read.count_u32("store.replicas_min"),
        give_up_after: (!give_up_after.is_zero()).then_some(give_up_after),
    }
}

fn signing(read: &Read<'_>) -> SigningConfig {
    SigningConfig {
        secret_env: read.text("signing.secret_env"),
        also_accept_env: read.texts("signing.also_accept_env"),
    }
}

fn policies(read: &Read<'_>) -> Result<PoliciesConfig, ConfigError> {
    let mut kinds = Kind::ALL.into_iter().map(|kind| policy(read, kind));
    let mut next = || kinds.next().expect("there are four kinds");
    Ok(PoliciesConfig {
        directory: read.path("policies.directory"),
        watch: read.flag("policies.watch"),
        allow_unsigned: read.flag("policies.allow_unsigned"),
        trusted_keys: read
            .texts("policies.trusted_keys")
            .into_iter()
            .map(PathBuf::from)
            .collect(),
        log_every: read.count_u32("policies.log_every"),
        record_every: read.count_u32("policies.record_every"),
        record_file: read.path("policies.record_file"),
        record_bytes_max: read.count_u64("policies.record_bytes_max"),
        budget: BudgetConfig {
            failures: read.count_u32("policies.failures_max"),
            window_ms: read.count_u64("policies.failures_window_ms"),
        },
        engine: engine(read),
        kinds: [next()?, next()?, next()?, next()?],
    })
}

fn engine(read: &Read<'_>) -> EngineConfig {
    EngineConfig {
        call_ms_max: read.count_u64("policies.engine.call_ms_max"),
        start_ms_max: read.count_u64("policies.engine.start_ms_max"),
        memory_bytes_max: read.count("policies.engine.memory_bytes_max"),
        table_elements_max: read.count("policies.engine.table_elements_max"),
        stack_bytes_max: read.count("policies.engine.stack_bytes_max"),
        answer_bytes_max: read.count("policies.engine.answer_bytes_max"),
        description_bytes_max: read.count("policies.engine.description_bytes_max"),
        instances_max: read.count_u32("policies.engine.instances_max"),
        batch_max: read.count("policies.engine.batch_max"),
        cache_directory: read.path("policies.engine.cache_directory"),
    }
}

fn policy(read: &Read<'_>, kind: Kind) -> Result<PolicyConfig, ConfigError> {
    let key = format!("policies.{kind}.config");
    let table = &read.0.setting(&key).value;
    let config = serde_json::to_value(table);
    Ok(PolicyConfig {
        kind,
        file: read.path(&format!("policies.{kind}.file")),
        config: config.map_err(|error| read.invalid(&key, error.to_string()))?,
    })
}

fn log(read: &Read<'_>) -> Result<LogConfig, ConfigError> {
    let filter = read.text("log.level");
    if let Err(error) = filter.parse::<tracing_subscriber::filter::Targets>() {
        return Err(read.invalid("log.level", format!("`{filter}`: {error}")));
    }
    let format = match read.0.text("log.format") {
        "json" => LogFormat::Json,
        _ => LogFormat::Text,
    };
    Ok(LogConfig { filter, format })
}

/// Settings, by the types they become.
pub(super) struct Read<'a>(pub(super) &'a Layers);

impl Read<'_> {
    pub(super) fn count(&self, key: &str) -> usize {
        usize::try_from(self.0.number(key)).expect("ranges in the embedded defaults are positive")
    }

    pub(super) fn count_u64(&self, key: &str) -> u64 {
        self.0.number(key).unsigned_abs()
    }

    pub(super) fn count_u32(&self, key: &str) -> u32 {
        u32::try_from(self.0.number(key)).expect("ranges in the embedded defaults are positive")
    }

    pub(super) fn millis(&self, key: &str) -> Duration {
        Duration::from_millis(self.count_u64(key))
    }

    pub(super) fn text(&self, key: &str) -> String {
        self.0.text(key).to_owned()
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.0.flag(key)
    }

    pub(super) fn texts(&self, key: &str) -> Vec<String> {
        self.0.list(key).into_iter().map(str::to_owned).collect()
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        let text = self.0.text(key);
        (!text.is_empty()).then(|| PathBuf::from(text))
    }

    pub(super) fn invalid(&self, key: &str, what: String) -> ConfigError {
        let origin = self.0.setting(key).origin.clone();
        ConfigError {
            origin,
            key: key.to_owned(),
            problem: Problem::Invalid(what),
        }
    }
}
