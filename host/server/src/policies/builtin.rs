//! The native builds of the shipped policies, on the streams of this bus.

use std::sync::Arc;

use oona_core::policy::Kind;
use oona_wasm::{Names, Native, SymbolTable};
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
    let built = build(&native_config(options, K::KIND), names);
    built
        .or_else(|_| build(&native_base(options, K::KIND).to_string(), names))
        .unwrap_or_else(|error| {
            unreachable!("a shipped policy runs on the streams of any bus: {error}")
        })
}

/// What the native build of a kind is configured with: the configuration of its kind, over what
/// makes it work on the streams of this bus.
fn native_config(options: &PolicyOptions, kind: Kind) -> String {
    let mut merged = native_base(options, kind)
        .as_object()
        .cloned()
        .unwrap_or_default();
    merged.extend(
        options
            .config(kind)
            .as_object()
            .cloned()
            .unwrap_or_default(),
    );
    Value::Object(merged).to_string()
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
    let refused = |error: NativeError| ActivateError::Config {
        kind,
        pointer: String::new(),
        problem: crate::chain::chain(&error),
    };
    built.map_err(refused)
}
