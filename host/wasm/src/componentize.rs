//! From the module that a compiler makes to the component that the sandbox loads.

use std::borrow::Cow;

use oona_core::policy::Kind;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata, metadata};

use crate::wit;

/// Wraps a core module, built for `wasm32-unknown-unknown`, into a component.
///
/// The world comes from the custom section that the bindings of an SDK leave in the module or, if
/// there is none, is that of `kind`. Takes one to two milliseconds, so nobody needs a tool of its own
/// for it.
///
/// # Errors
///
/// If the module is no core module, names no world and `kind` is none, or imports what its world does
/// not have.
pub fn componentize(core_module: &[u8], kind: Option<Kind>) -> Result<Vec<u8>, ComponentizeError> {
    let mut module = Cow::Borrowed(core_module);
    if let Some(kind) = kind.filter(|_| !has_world(core_module)) {
        let (resolve, world) = wit::resolve_world(kind).map_err(invalid)?;
        embed_component_metadata(module.to_mut(), &resolve, world, StringEncoding::UTF8)
            .map_err(|error| invalid(format!("{error:#}")))?;
    }
    let encoder = ComponentEncoder::default().validate(true);
    let mut encoder = encoder
        .module(&module)
        .map_err(|error| invalid(format!("{error:#}")))?;
    if !has_world(&module) {
        return Err(ComponentizeError::NoWorld);
    }
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
    #[error(
        "the module names no world: build it with the policy SDK and export a policy, or say its kind"
    )]
    NoWorld,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Artifact;
    use crate::testing::{self, Guest};

    #[track_caller]
    fn check(module: &[u8], expected: &str) {
        let error = componentize(module, None).unwrap_err().to_string();
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

    #[test]
    fn a_module_without_a_world_takes_that_of_its_kind() {
        let module = Guest::default().module();
        let engine = testing::engine();
        let component = componentize(&module, Some(Kind::Routing)).unwrap();
        assert!(Artifact::load(&engine, Kind::Routing, &component).is_ok());
        let error = componentize(&module, Some(Kind::Freshness)).unwrap_err();
        assert!(
            error.to_string().contains("no component can be made"),
            "{error}"
        );
    }
}
