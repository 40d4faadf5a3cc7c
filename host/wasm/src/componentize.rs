//! From the module that a compiler makes to the component that the sandbox loads.

use wit_component::{ComponentEncoder, metadata};

/// Wraps a core module, built for `wasm32-unknown-unknown` with the policy SDK, into a component.
///
/// The world comes from the custom section that the SDK's bindings leave in the module. Takes one
/// to two milliseconds, so nobody needs a tool of its own for it.
///
/// # Errors
///
/// If the module is no core module, was built without the SDK's bindings, or imports what its
/// world does not have.
pub fn componentize(core_module: &[u8]) -> Result<Vec<u8>, ComponentizeError> {
    let encoder = ComponentEncoder::default().validate(true);
    let module = encoder
        .module(core_module)
        .map_err(|error| invalid(format!("{error:#}")))?;
    if !has_world(core_module) {
        return Err(ComponentizeError::NoWorld);
    }
    let mut encoder = module;
    encoder
        .encode()
        .map_err(|error| invalid(format!("{error:#}")))
}

/// Whether the module says which world it was built for. Without one the encoder would make a
/// component that exports nothing.
fn has_world(core_module: &[u8]) -> bool {
    metadata::decode(core_module).is_ok_and(|(_, bindgen)| {
        bindgen
            .resolve
            .worlds
            .get(bindgen.world)
            .is_some_and(|world| !world.exports.is_empty())
    })
}

fn invalid(reason: String) -> ComponentizeError {
    ComponentizeError::Invalid(reason)
}

/// A module of which no component can be made.
#[derive(Debug, thiserror::Error)]
pub enum ComponentizeError {
    /// The encoder refused it.
    #[error("no component can be made of this module: {0}")]
    Invalid(String),
    /// It carries no world.
    #[error("the module names no world: build it with the policy SDK, and export a policy")]
    NoWorld,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(module: &[u8], expected: &str) {
        let error = componentize(module).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_is_no_policy_module_is_refused() {
        check(b"", "no component can be made");
        check(b"not wasm", "no component can be made");
        check(
            &wat::parse_str("(component)").unwrap(),
            "no component can be made",
        );
        check(&wat::parse_str("(module)").unwrap(), "names no world");
    }
}
