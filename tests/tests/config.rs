//! The configuration as a whole: its defaults are the bus's own, and everything in it is used.

use std::path::Path;

use oona::bus::BusConfig;
use oona::config::{Config, DEFAULT, Sources, StoreKind};
use oona_wasm::EngineConfig;

fn load(file: &str) -> Config {
    let file = (Path::new("oona.toml"), file);
    Config::assemble(Some(file), &Sources::default()).expect("it is a good configuration")
}

#[test]
fn the_embedded_defaults_are_those_of_the_bus_and_of_the_engine() {
    let config = load("");
    assert_eq!(
        format!("{:#?}", config.bus),
        format!("{:#?}", BusConfig::default())
    );
    assert_eq!(config.policies.engine, EngineConfig::default());
}

#[test]
fn the_embedded_defaults_say_nothing_else_than_nothing() {
    assert_eq!(format!("{:#?}", load(DEFAULT)), format!("{:#?}", load("")));
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let config = load("");
    assert_eq!(config.store.kind, StoreKind::Redis);
    assert!(config.server.listen.ip().is_loopback());
    assert!(!config.policies.allow_unsigned);
    assert_eq!(config.signing.secret_env, "ESPER_LEYLINE_SECRET");
    let bus = config.bus;
    assert_eq!(
        (
            bus.breaker.failures,
            bus.breaker.open_ms,
            bus.breaker.trials
        ),
        (3, 30_000, 5)
    );
    let conservative = &bus.conservative;
    assert_eq!(
        (conservative.high_water, conservative.low_water),
        (4_000, 1_000)
    );
    assert_eq!(conservative.recovery_ms, 60_000);
    assert_eq!(bus.emergency_per_minute, 120);
    assert_eq!(bus.stream_length_max, 100_000);
    assert_eq!(bus.housekeeping_interval.as_secs(), 100);
    assert_eq!(bus.limits.payload_bytes_max, 262_144);
    let minutes = |ms: u64| ms / 60_000;
    let ttls = &bus.ttls;
    assert_eq!(minutes(ttls.emergency_ms), 5);
    assert_eq!(minutes(ttls.critical_ms), 10);
    assert_eq!(minutes(ttls.high_ms), 30);
    assert_eq!(minutes(ttls.normal_ms), 60);
    assert_eq!(minutes(ttls.low_ms), 120);
}

/// A key that changes nothing would be a key that lies. Each number of the defaults is changed to
/// another within its range, each switch turned over, each text made another: the result differs.
#[test]
fn every_key_has_an_effect() {
    let usual = format!("{:?}", load(""));
    let table: toml::Table = DEFAULT.parse().expect("the defaults are TOML");
    let mut changed = 0;
    walk(&table, "", &mut |key, value| {
        // Decides whether another address is refused; see the tests of the command line.
        if key == "server.allow_remote" {
            return;
        }
        let other = match value {
            // Zero is never; else it must be more than what another key says.
            toml::Value::Integer(0) if key == "housekeeping.group_idle_ms" => "60001".to_owned(),
            toml::Value::Integer(number) => (number + 1).to_string(),
            toml::Value::Boolean(switch) => (!switch).to_string(),
            toml::Value::String(text) => other_text(key, text),
            toml::Value::Array(_) if key == "objectives.shed_for" => "recovery".to_owned(),
            toml::Value::Array(_) => "one".to_owned(),
            _ => return,
        };
        let sources = Sources {
            assignments: vec![format!("{key}={other}")],
            ..Sources::default()
        };
        let config = Config::assemble(None, &sources);
        let config = config.unwrap_or_else(|error| panic!("{key}={other}: {error}"));
        assert_ne!(format!("{config:?}"), usual, "{key} has no effect");
        changed += 1;
    });
    assert!(changed > 50, "only {changed} keys were tried");
}

fn other_text(key: &str, text: &str) -> String {
    match key {
        "server.listen" | "server.health_listen" => "127.0.0.1:1".to_owned(),
        "streams.overflow" => "drop-oldest".to_owned(),
        "store.kind" => "memory".to_owned(),
        "log.format" => "json".to_owned(),
        "consume.retry_order" => "block".to_owned(),
        "log.level" => "debug".to_owned(),
        "alerts.webhook_url" => "https://hooks.example.com/x".to_owned(),
        _ => format!("{text}x"),
    }
}

fn walk(table: &toml::Table, path: &str, visit: &mut dyn FnMut(&str, &toml::Value)) {
    for (name, value) in table {
        let key = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match value {
            toml::Value::Table(inner) => walk(inner, &key, visit),
            value => visit(&key, value),
        }
    }
}

#[test]
fn the_example_is_a_configuration() {
    let config = load(include_str!("../../examples/oona.toml"));
    assert_eq!(
        config.policies.directory.as_deref(),
        Some(Path::new("target/policies"))
    );
    assert!(config.policies.allow_unsigned);
}
