//! The native builds of the shipped policies, on the streams of this bus.

use std::sync::Arc;

use oona_core::policy::Kind;
use oona_wasm::{Names, Native, SymbolTable, Version};
use serde_json::{Value, json};

use super::schema::validate;
use super::{ActivateError, PolicyOptions};
use crate::bus::Streams;
use crate::native::{self, NativeError};
use crate::record::Recorded;

/// The native build of a shipped policy: with the configuration of its kind, or, if that is one of
/// another policy, with what makes it work on the streams of this bus.
pub(super) fn built_in<K: Recorded>(
    build: fn(&str, &Names) -> Result<Native<K>, NativeError>,
    options: &PolicyOptions,
    names: &Names,
) -> Native<K> {
    let own = options.config(K::KIND);
    let fits = validate(K::KIND, native::config_schema(K::KIND), own);
    let built = fits
        .ok()
        .and_then(|()| build(&native_config(options, K::KIND), names).ok());
    built
        .ok_or(())
        .or_else(|_| build(&native_base(options, K::KIND).to_string(), names))
        .unwrap_or_else(|error| {
            unreachable!("a shipped policy runs on the streams of any bus: {error}")
        })
}

/// What the native build of a kind is configured with: the configuration of its kind, over what
/// makes it work on the streams of this bus.
fn native_config(options: &PolicyOptions, kind: Kind) -> String {
    merged(&native_base(options, kind), options.config(kind))
}

fn merged(base: &Value, config: &Value) -> String {
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let mut merged = object(base);
    merged.extend(object(config));
    Value::Object(merged).to_string()
}

/// How the native build of a kind is made anew while the host runs, with another configuration.
pub(super) struct Builder<K: Recorded> {
    build: fn(&str, &Names) -> Result<Native<K>, NativeError>,
    base: Value,
}

impl<K: Recorded> Builder<K> {
    pub(super) fn new(
        build: fn(&str, &Names) -> Result<Native<K>, NativeError>,
        options: &PolicyOptions,
    ) -> Self {
        Self {
            build,
            base: native_base(options, K::KIND),
        }
    }

    /// The native build, with another configuration.
    pub(super) fn version(
        &self,
        config: &Value,
        names: &Names,
    ) -> Result<Arc<Version<K>>, ActivateError> {
        validate(K::KIND, native::config_schema(K::KIND), config)?;
        let built = (self.build)(&merged(&self.base, config), names);
        let native = built.map_err(|error| refused(K::KIND, &error))?;
        Ok(Version::native(native, &config.to_string(), names.clone()))
    }
}

fn refused(kind: Kind, error: &NativeError) -> ActivateError {
    ActivateError::Config {
        kind,
        pointer: String::new(),
        problem: crate::chain::chain(error),
    }
}

fn native_base(options: &PolicyOptions, kind: Kind) -> Value {
    match kind {
        Kind::Routing => json!({ "streams": shipped_streams(&options.streams) }),
        _ => json!({}),
    }
}

/// The streams of the shipped routing policy, as far as the bus has them.
fn shipped_streams(streams: &Streams) -> Value {
    let own = |name: &str| {
        let known = streams.destinations().any(|stream| &**stream == name);
        known.then(|| name.to_owned())
    };
    json!({
        "normal": &*streams.normal,
        "emergency": &*streams.emergency,
        "telemetry": own("oona.telemetry"),
        "policy": own("oona.policy"),
        "kernels_requests": own("oona.kernels.requests"),
        "kernels_ready": own("oona.kernels.ready"),
        "kernels_errors": own("oona.kernels.errors"),
    })
}

/// Whether the native build of a kind takes the configuration of that kind. [`super::Policies::new`] passes
/// over a configuration that it does not take, since that may be one of a component's.
///
/// # Errors
///
/// If the schema of the shipped policy refuses it, or the policy itself.
pub fn check_native(options: &PolicyOptions, kind: Kind) -> Result<(), ActivateError> {
    validate(kind, native::config_schema(kind), options.config(kind))?;
    let symbols = SymbolTable::default();
    let known = options
        .streams
        .destinations()
        .map(|stream| symbols.intern(stream));
    let names = Names {
        streams: Arc::new(known.collect()),
        symbols: symbols.clone(),
    };
    let built = match kind {
        Kind::Routing => native::routing(&native_config(options, kind), &names).map(drop),
        Kind::Backpressure => native::backpressure(&native_config(options, kind), &names).map(drop),
        Kind::Freshness => native::freshness(&native_config(options, kind), &names).map(drop),
        Kind::DeadLetter => native::dead_letter(&native_config(options, kind), &names).map(drop),
    };
    built.map_err(|error| refused(kind, &error))
}
