//! The contract of `wit/`, for those who have no checkout of it.

use oona_core::policy::Kind;
use wit_parser::{PackageId, Resolve, SourceMap, WorldId};

macro_rules! files {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!("../../../wit/", $name)))),*]
    };
}

/// Every file of the contract, by its name.
pub const WIT: [(&str, &str); 5] = files![
    "backpressure.wit",
    "dead-letter.wit",
    "freshness.wit",
    "routing.wit",
    "types.wit"
];

/// The world that a policy of a kind is a component of.
#[must_use]
pub fn world(kind: Kind) -> String {
    format!("{}-policy", kind.name())
}

/// The contract, read.
pub(crate) fn resolve() -> Result<(Resolve, PackageId), String> {
    let mut sources = SourceMap::default();
    for (name, text) in WIT {
        sources.push_str(name, text);
    }
    let mut resolve = Resolve::default();
    let group = sources.parse().map_err(|(_, error)| error.to_string())?;
    let package = resolve
        .push_group(group)
        .map_err(|error| error.to_string())?;
    Ok((resolve, package))
}

/// The contract, and the world of a kind in it.
pub(crate) fn resolve_world(kind: Kind) -> Result<(Resolve, WorldId), String> {
    let (resolve, package) = resolve()?;
    let world = resolve
        .select_world(&[package], Some(&world(kind)))
        .map_err(|error| error.to_string())?;
    Ok((resolve, world))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_whole_contract_is_here_and_has_a_world_for_each_kind() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        let mut files: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, WIT.map(|(name, _)| name));
        for kind in Kind::ALL {
            resolve_world(kind).unwrap();
        }
    }
}
