//! A new policy: a crate that builds, whose tests pass, and whose table of cases is complete.
//!
//! The crate needs no checkout of Oona: it carries the contract and the SDK, of the version of the
//! tool that makes it, and its lock file names the versions that the SDK was tested with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use include_dir::{Dir, include_dir};
use oona_core::policy::Kind;
use toml::{Table, Value};

static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../policies/templates");
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../policies/sdk");
static WORKSPACE: &str = include_str!("../../../../Cargo.toml");
static LOCK: &str = include_str!("../../../../Cargo.lock");

/// How long a name may be. It becomes the name of a crate and of a file.
const NAME_BYTES_MAX: usize = 64;

/// A crate that is to be made.
#[derive(Clone, Debug)]
pub struct Scaffold {
    /// The kind of policy.
    pub kind: Kind,
    /// Its name: lower case, digits and hyphens.
    pub name: String,
    /// Where: a directory that is not there yet, or is empty.
    pub directory: PathBuf,
    /// An SDK elsewhere. Without it the crate carries a copy.
    pub sdk: Option<PathBuf>,
}

impl Scaffold {
    /// Writes the crate, and answers with the files that it wrote.
    ///
    /// # Errors
    ///
    /// If the name is none, the directory is taken, or something cannot be written.
    pub fn write(&self) -> anyhow::Result<Vec<PathBuf>> {
        check_name(&self.name)?;
        let taken = fs::read_dir(&self.directory).is_ok_and(|mut files| files.next().is_some());
        if taken || self.directory.is_file() {
            bail!(
                "{} is there already, and not empty",
                self.directory.display()
            );
        }
        let mut files = Vec::new();
        let kind = self.kind.name();
        for template in ["common", kind] {
            let template = TEMPLATES.get_dir(template);
            self.copy(template.context("no template")?, &mut files)?;
        }
        if self.sdk.is_none() {
            for (name, text) in oona_wasm::WIT {
                self.add(Path::new("wit").join(name), text, &mut files)?;
            }
            let sdk = Path::new("vendor/sdk");
            for file in sources(&SDK) {
                let text = file.contents_utf8().context("no text")?;
                let own = file.path() == Path::new("Cargo.toml");
                let text = if own {
                    manifest(text)?
                } else {
                    text.to_owned()
                };
                self.add(sdk.join(file.path()), &text, &mut files)?;
            }
        }
        self.add("Cargo.lock".into(), LOCK, &mut files)?;
        Ok(files)
    }

    /// Writes the files of a template, with the names filled in.
    fn copy(&self, template: &Dir<'_>, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
        for file in sources(template) {
            let path = file.path().strip_prefix(template.path())?;
            let path = match path.to_str() {
                Some("gitignore") => Path::new(".gitignore"),
                _ => path,
            };
            let text = file.contents_utf8().context("no text")?;
            let mut text = text
                .replace("template-policy", &self.name)
                .replace("template-kind", self.kind.name())
                .replace("TemplatePolicy", &type_name(&self.name));
            if let Some(sdk) = &self.sdk {
                let sdk = sdk.canonicalize();
                let sdk = sdk.context("--sdk names no directory")?;
                text = text.replace(
                    "\"vendor/sdk\"",
                    &format!("{:?}", sdk.display().to_string()),
                );
            }
            self.add(path.to_owned(), &text, files)?;
        }
        Ok(())
    }

    fn add(&self, path: PathBuf, text: &str, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
        let file = self.directory.join(&path);
        let directory = file.parent().unwrap_or(&self.directory);
        let written = fs::create_dir_all(directory).and_then(|()| fs::write(&file, text));
        written.with_context(|| format!("cannot write {}", file.display()))?;
        files.push(path);
        Ok(())
    }
}

/// The files of a directory and of those in it.
fn sources<'a>(directory: &'a Dir<'a>) -> Vec<&'a include_dir::File<'a>> {
    let within = directory.dirs().flat_map(sources);
    directory.files().chain(within).collect()
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let begins = name.starts_with(|first: char| first.is_ascii_lowercase());
    if !begins || name.ends_with('-') || name.contains("--") || !name.bytes().all(letters) {
        bail!(
            "`{name}` is no name for a policy: lower case, digits and single hyphens, a letter first"
        );
    }
    if name.len() > NAME_BYTES_MAX {
        bail!(
            "a name may have {NAME_BYTES_MAX} bytes, and this one has {}",
            name.len()
        );
    }
    if ["oona-policy-sdk", "serde", "test", "core", "std", "alloc"].contains(&name) {
        bail!("`{name}` is the name of something else: choose another one");
    }
    Ok(())
}

/// `ByCustomer` of `by-customer`.
fn type_name(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_ascii_uppercase() + rest
    });
    words.collect()
}

/// The manifest of the SDK outside of its workspace: what it inherits is written out.
fn manifest(text: &str) -> anyhow::Result<String> {
    let workspace: Table = toml::from_str(WORKSPACE)?;
    let workspace = &workspace["workspace"];
    let mut manifest: Table = toml::from_str(text)?;
    manifest.remove("lints");
    for (section, origin) in [("package", "package"), ("dependencies", "dependencies")] {
        let entries = manifest.get_mut(section).and_then(Value::as_table_mut);
        for (name, entry) in entries.into_iter().flatten() {
            let inherits = entry.get("workspace").and_then(Value::as_bool);
            if inherits == Some(true) {
                *entry = workspace[origin][name].clone();
            }
        }
    }
    Ok(toml::to_string(&manifest)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_become_types() {
        for wrong in [
            "", "By", "1st", "-a", "a-", "a--b", "a_b", "a b", "../a", "test", "é",
        ] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
        assert!(check_name(&"a".repeat(NAME_BYTES_MAX + 1)).is_err());
        assert!(check_name("by-customer-2").is_ok());
        assert_eq!(type_name("by-customer-2"), "ByCustomer2");
    }

    #[test]
    fn a_crate_is_complete_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        for kind in Kind::ALL {
            let scaffold = Scaffold {
                kind,
                name: "mine".to_owned(),
                directory: directory.path().join(kind.name()),
                sdk: None,
            };
            let files = scaffold.write().unwrap();
            for file in [
                "Cargo.toml",
                "src/tests.rs",
                "cases.toml",
                "config.schema.json",
                ".gitignore",
                "wit/types.wit",
                "vendor/sdk/src/lib.rs",
            ] {
                assert!(files.contains(&PathBuf::from(file)), "{kind}: {file}");
            }
            for file in files
                .iter()
                .filter(|file| **file != Path::new("Cargo.lock"))
            {
                let text = fs::read_to_string(scaffold.directory.join(file)).unwrap();
                assert!(
                    !text.to_lowercase().contains("template"),
                    "{kind}: {}",
                    file.display()
                );
                assert!(
                    !text.contains("workspace = true"),
                    "{kind}: {}",
                    file.display()
                );
            }
            let again = scaffold.write().unwrap_err().to_string();
            assert!(again.contains("is there already"), "{again}");
        }
    }
}
