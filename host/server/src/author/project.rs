//! What there is to be built at a path: a crate, or a policy in another language.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use oona_core::policy::Kind;
use serde::Deserialize;

/// A policy that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Project {
    /// Where it is.
    pub(super) directory: PathBuf,
    /// The name of its component's file.
    pub(super) name: String,
    /// Where what is built is kept.
    pub(super) target: PathBuf,
    /// How it is built.
    pub(super) recipe: Recipe,
}

/// How a policy is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Recipe {
    /// By cargo.
    Crate(Package),
    /// By a command of its own.
    Command(Manifest),
}

/// A crate of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    /// As cargo names it.
    pub(super) id: String,
    /// The file that is made of it, without its directory.
    pub(super) module: String,
    /// The root of its workspace.
    pub(super) workspace: PathBuf,
}

/// `policy.toml`: how a policy is built that is written in another language.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The kind, for modules that do not say which world they are of.
    pub(super) kind: Kind,
    /// A program and its arguments.
    pub(super) build: Vec<String>,
}

impl Project {
    /// Looks what there is.
    pub(super) fn find(path: &Path) -> anyhow::Result<Self> {
        let directory = path.canonicalize();
        let directory = directory.with_context(|| format!("there is no {}", path.display()))?;
        let name = directory.file_name().and_then(|name| name.to_str());
        let name = name
            .with_context(|| format!("{} has no name", path.display()))?
            .to_owned();
        let manifest = directory.join("policy.toml");
        if manifest.exists() {
            let shown = path.join("policy.toml");
            let text = fs::read_to_string(&manifest)
                .with_context(|| format!("cannot read {}", shown.display()))?;
            let manifest: Manifest =
                toml::from_str(&text).with_context(|| shown.display().to_string())?;
            if manifest.build.is_empty() {
                bail!("{}: `build` names no program", shown.display());
            }
            return Ok(Self {
                target: directory.join("target"),
                directory,
                name,
                recipe: Recipe::Command(manifest),
            });
        }
        if !directory.join("Cargo.toml").exists() {
            bail!(
                "{} holds neither a Cargo.toml nor a policy.toml; `oona policy new` makes a policy",
                path.display()
            );
        }
        let (package, target) = find_package(&directory, path)?;
        Ok(Self {
            directory,
            name,
            target,
            recipe: Recipe::Crate(package),
        })
    }
}

/// What `cargo metadata` tells, as far as it is needed.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct MetadataPackage {
    id: String,
    manifest_path: PathBuf,
    targets: Vec<MetadataTarget>,
}

#[derive(Deserialize)]
struct MetadataTarget {
    name: String,
    crate_types: Vec<String>,
}

/// Asks cargo about the crate in a directory: what it is, and where its workspace builds.
fn find_package(directory: &Path, shown: &Path) -> anyhow::Result<(Package, PathBuf)> {
    let manifest = directory.join("Cargo.toml");
    let asked = Command::new("cargo")
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--manifest-path",
        ])
        .arg(&manifest)
        .output()
        .context("cargo cannot be run; a Rust toolchain comes from https://rustup.rs")?;
    if !asked.status.success() {
        bail!("{}", String::from_utf8_lossy(&asked.stderr).trim());
    }
    let metadata: Metadata = serde_json::from_slice(&asked.stdout).context("cargo metadata")?;
    let mut packages = metadata.packages.into_iter();
    let package = packages.find(|package| package.manifest_path == manifest);
    let package = package.with_context(|| {
        format!(
            "{} holds no crate, but a workspace: name the crate's directory",
            shown.display()
        )
    })?;
    let library = package
        .targets
        .iter()
        .find(|target| target.crate_types.iter().any(|kind| kind == "cdylib"));
    let library = library.with_context(|| {
        format!(
            "{} is no policy: its Cargo.toml needs crate-type = [\"cdylib\", \"rlib\"]",
            shown.display()
        )
    })?;
    let module = format!("{}.wasm", library.name.replace('-', "_"));
    let package = Package {
        id: package.id,
        module,
        workspace: metadata.workspace_root,
    };
    Ok((package, metadata.target_directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_policy_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let check = |expected: &str| {
            let error = format!("{:#}", Project::find(directory.path()).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        check("neither a Cargo.toml nor a policy.toml");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write(
            "Cargo.toml",
            "[package]\nname = 'a'\n[lib]\npath = 'a.rs'\n[workspace]\n",
        );
        write("a.rs", "");
        check("needs crate-type = [\"cdylib\", \"rlib\"]");
        write("Cargo.toml", "[workspace]\n");
        check("holds no crate, but a workspace");
        write("policy.toml", "kind = 'routing'\nbuild = []\n");
        check("`build` names no program");
        write("policy.toml", "kind = 'router'\nbuild = ['make']\n");
        check("unknown variant `router`");
        let missing = Project::find(&directory.path().join("none")).unwrap_err();
        assert!(missing.to_string().starts_with("there is no "), "{missing}");
    }

    #[test]
    fn another_language_says_how() {
        let directory = tempfile::tempdir().unwrap();
        let text = "kind = 'freshness'\nbuild = ['sh', 'build.sh']\n";
        fs::write(directory.path().join("policy.toml"), text).unwrap();
        let project = Project::find(directory.path()).unwrap();
        let recipe = Recipe::Command(Manifest {
            kind: Kind::Freshness,
            build: vec!["sh".to_owned(), "build.sh".to_owned()],
        });
        assert_eq!(project.recipe, recipe);
    }
}
