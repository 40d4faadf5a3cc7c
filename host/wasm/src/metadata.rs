//! What travels with a component and is no code: the revision of its source, and its table of cases.
//!
//! Both are custom sections of the component, so its digest and its signatures cover them. `revision`
//! and `version` have the form that `wasm-tools metadata` shows.

use std::borrow::Cow;

use wasm_encoder::{ComponentSection, CustomSection};
use wasmparser::{Parser, Payload};

use crate::artifact::LABEL_BYTES_MAX;

/// How large a table of cases may be, in bytes.
pub const CASES_BYTES_MAX: usize = 1 << 20;

const REVISION: &str = "revision";
const VERSION: &str = "version";
const CASES: &str = "oona:cases";

/// What travels with a component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The version of the policy, as it says itself.
    pub version: Option<String>,
    /// The revision of its source, as the author's version control names it.
    pub revision: Option<String>,
    /// Its table of cases, as JSON.
    pub cases: Option<String>,
}

impl Metadata {
    /// Reads what travels with a component.
    ///
    /// # Errors
    ///
    /// If the component cannot be read, or a section of it is no text or too large.
    pub fn read(component: &[u8]) -> Result<Self, MetadataError> {
        let mut found = Self::default();
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(component) {
            match payload.map_err(|error| MetadataError::Component(error.to_string()))? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::CustomSection(section) if depth == 0 => {
                    let (field, bytes_max) = match section.name() {
                        VERSION => (&mut found.version, LABEL_BYTES_MAX),
                        REVISION => (&mut found.revision, LABEL_BYTES_MAX),
                        CASES => (&mut found.cases, CASES_BYTES_MAX),
                        _ => continue,
                    };
                    let wrong = || MetadataError::Section {
                        name: section.name().to_owned(),
                        bytes_max,
                    };
                    let label = section.name() != CASES;
                    let text = std::str::from_utf8(section.data()).ok();
                    let text = text.filter(|text| {
                        text.len() <= bytes_max && !(label && text.contains(char::is_control))
                    });
                    *field = Some(text.ok_or_else(wrong)?.to_owned());
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Writes this at the end of a component that carries none of it yet.
    pub fn append(&self, component: &mut Vec<u8>) {
        let fields = [
            (VERSION, &self.version),
            (REVISION, &self.revision),
            (CASES, &self.cases),
        ];
        for (name, text) in fields {
            if let Some(text) = text {
                let section = CustomSection {
                    name: Cow::Borrowed(name),
                    data: Cow::Borrowed(text.as_bytes()),
                };
                section.append_to_component(component);
            }
        }
    }
}

/// A component whose metadata cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// It is damaged.
    #[error("{0}")]
    Component(String),
    /// A section is not what it must be.
    #[error("its section `{name}` is no text of at most {bytes_max} bytes")]
    Section {
        /// Which.
        name: String,
        /// How large it may be.
        bytes_max: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Guest;

    #[test]
    fn what_is_written_is_read() {
        let plain = Guest::default().component();
        assert_eq!(Metadata::read(&plain).unwrap(), Metadata::default());
        let metadata = Metadata {
            version: Some("1.2.3".to_owned()),
            revision: Some("0c43cca".to_owned()),
            cases: Some("{}".to_owned()),
        };
        let mut component = plain;
        metadata.append(&mut component);
        assert_eq!(Metadata::read(&component).unwrap(), metadata);
    }

    #[test]
    fn what_is_too_large_or_no_text_is_named() {
        let check = |name: &str, data: &[u8], expected: &str| {
            let mut component = Guest::default().component();
            let section = CustomSection {
                name: name.into(),
                data: data.into(),
            };
            section.append_to_component(&mut component);
            let error = Metadata::read(&component).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(
            "revision",
            &[b'a'; 129],
            "`revision` is no text of at most 128 bytes",
        );
        check("version", &[0xff], "`version` is no text");
        check("revision", b"\x1b[2J", "`revision` is no text");
        check(
            "oona:cases",
            &vec![b' '; CASES_BYTES_MAX + 1],
            "`oona:cases` is no text",
        );
        assert!(Metadata::read(b"nonsense").is_err());
    }
}
