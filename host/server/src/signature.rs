//! Signatures of policies: who vouches for an artifact, and whom a host believes.
//!
//! Ed25519, with keys in the PEM files that OpenSSL and everybody else writes (PKCS #8, and
//! `SubjectPublicKeyInfo` for public keys). What is signed is the digest of the component, after words
//! that no other protocol signs, so that a signature means this and nothing else. Signatures stand
//! beside a component, in `FILE.sig`, so a signed component has the digest that it had before.

use std::path::{Path, PathBuf};
use std::{fs, io};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use oona_core::registry::Signature;
use serde::{Deserialize, Serialize};

/// What stands before the digest in what is signed.
const CONTEXT: &str = "oona policy v1 sha256:";

/// How large a file with a key or signatures may be, in bytes.
const FILE_BYTES_MAX: u64 = 65_536;

/// Why a key or a signature is none.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be had.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} holds no {expected}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// A key that signs.
pub struct PrivateKey(SigningKey);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivateKey(of {})", self.public().id())
    }
}

impl PrivateKey {
    /// A new key.
    ///
    /// # Errors
    ///
    /// If the system gives no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|error| KeyError::Random(error.to_string()))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// The key in a PEM file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or holds no Ed25519 private key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let pem = zeroize::Zeroizing::new(read(path)?);
        SigningKey::from_pkcs8_pem(&pem)
            .map(Self)
            .map_err(|error| KeyError::Content {
                path: path.to_owned(),
                expected: "Ed25519 private key (PKCS #8, PEM)",
                reason: error.to_string(),
            })
    }

    /// The key as PEM, wiped when it is dropped.
    #[must_use]
    pub fn to_pem(&self) -> zeroize::Zeroizing<String> {
        let pem = self.0.to_pkcs8_pem(LineEnding::LF);
        pem.unwrap_or_else(|error| unreachable!("32 bytes are always a key: {error}"))
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey {
            key: self.0.verifying_key(),
            name: String::new(),
        }
    }

    /// Signs the component with this digest.
    #[must_use]
    pub fn sign(&self, digest: &str) -> Signature {
        Signature {
            key: self.public().id(),
            signature: hex(&self.0.sign(&statement(digest)).to_bytes()),
        }
    }
}

/// A key that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    /// The name of its file, for people.
    name: String,
}

impl PublicKey {
    /// The key in a PEM file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or holds no Ed25519 public key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_public_key_pem(&read(path)?);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            key: key.map_err(|error| KeyError::Content {
                path: path.to_owned(),
                expected: "Ed25519 public key (PEM)",
                reason: error.to_string(),
            })?,
            name: name.into_owned(),
        })
    }

    /// The key as PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let pem = self.key.to_public_key_pem(LineEnding::LF);
        pem.unwrap_or_else(|error| unreachable!("32 bytes are always a key: {error}"))
    }

    /// The key itself, as 64 hex digits.
    #[must_use]
    pub fn id(&self) -> String {
        hex(self.key.as_bytes())
    }

    /// The name of its file; empty if it came from none.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn verifies(&self, digest: &str, signature: &Signature) -> bool {
        let bytes: Option<[u8; 64]> = unhex(&signature.signature);
        bytes.is_some_and(|bytes| {
            let signature = ed25519_dalek::Signature::from_bytes(&bytes);
            self.key
                .verify_strict(&statement(digest), &signature)
                .is_ok()
        })
    }
}

/// The keys that a host believes.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys(Vec<PublicKey>);

impl TrustedKeys {
    /// These keys.
    #[must_use]
    pub fn new(keys: Vec<PublicKey>) -> Self {
        Self(keys)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first key that verifies one of these signatures of the component with this digest.
    #[must_use]
    pub fn verify(&self, digest: &str, signatures: &[Signature]) -> Option<&PublicKey> {
        let verified = |key: &&PublicKey| {
            let own = signatures
                .iter()
                .filter(|signature| signature.key == key.id());
            own.into_iter()
                .any(|signature| key.verifies(digest, signature))
        };
        self.0.iter().find(verified)
    }
}

/// What stands in `FILE.sig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureFile {
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// Its signatures.
    pub signatures: Vec<Signature>,
}

impl SignatureFile {
    /// Where the signatures of a component are.
    #[must_use]
    pub fn path(component: &Path) -> PathBuf {
        let mut path = component.as_os_str().to_owned();
        path.push(".sig");
        path.into()
    }

    /// The signatures that stand beside a component; none if there is no such file.
    ///
    /// # Errors
    ///
    /// If the file is there and cannot be read, or holds something else.
    pub fn read(component: &Path) -> Result<Option<Self>, KeyError> {
        let path = Self::path(component);
        let text = match read(&path) {
            Err(KeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            text => text?,
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| KeyError::Content {
                path,
                expected: "signatures",
                reason: error.to_string(),
            })
    }

    /// Adds a signature; one of the same key is replaced.
    pub fn add(&mut self, signature: Signature) {
        self.signatures.retain(|known| known.key != signature.key);
        self.signatures.push(signature);
    }
}

fn statement(digest: &str) -> Vec<u8> {
    [CONTEXT.as_bytes(), digest.as_bytes()].concat()
}

fn read(path: &Path) -> Result<String, KeyError> {
    let refused = |source| KeyError::Read {
        path: path.to_owned(),
        source,
    };
    let size = fs::metadata(path).map_err(refused)?.len();
    if size > FILE_BYTES_MAX {
        let reason = format!("{size} bytes, over {FILE_BYTES_MAX}");
        return Err(refused(io::Error::other(reason)));
    }
    fs::read_to_string(path).map_err(refused)
}

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    // A number may begin with a sign, two digits may not.
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text.len() != 2 * N || !digits {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "0c43ccaa678f";

    #[test]
    fn only_a_trusted_key_and_the_right_digest_verify() {
        let (ada, eve) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        let trusted = TrustedKeys::new(vec![ada.public()]);
        let by = |key: &PrivateKey, digest| vec![key.sign(digest)];
        assert_eq!(
            trusted.verify(DIGEST, &by(&ada, DIGEST)),
            Some(&ada.public())
        );
        assert_eq!(trusted.verify(DIGEST, &by(&ada, "another")), None);
        assert_eq!(trusted.verify(DIGEST, &by(&eve, DIGEST)), None);
        assert_eq!(trusted.verify(DIGEST, &[]), None);
        let both = [eve.sign(DIGEST), ada.sign(DIGEST)];
        assert_eq!(trusted.verify(DIGEST, &both), Some(&ada.public()));
        let claimed = Signature {
            key: ada.public().id(),
            ..eve.sign(DIGEST)
        };
        assert_eq!(trusted.verify(DIGEST, &[claimed]), None);
        assert_eq!(TrustedKeys::default().verify(DIGEST, &both), None);
    }

    #[test]
    fn what_is_no_signature_verifies_nothing() {
        let key = PrivateKey::generate().unwrap();
        let trusted = TrustedKeys::new(vec![key.public()]);
        let good = key.sign(DIGEST);
        let mut flipped = good.signature.clone();
        let last = if flipped.pop() == Some('0') { '1' } else { '0' };
        flipped.push(last);
        for wrong in [
            "",
            "zz",
            "ä",
            &"é".repeat(64),
            &good.signature[2..],
            &flipped,
        ] {
            let signature = Signature {
                signature: wrong.to_owned(),
                ..good.clone()
            };
            assert_eq!(trusted.verify(DIGEST, &[signature]), None, "{wrong}");
        }
        assert_eq!(unhex::<2>("0a0B"), Some([10, 11]));
        assert_eq!(unhex::<2>("+a0b"), None, "a sign is no digit");
    }

    #[test]
    fn keys_are_kept_in_files() {
        let directory = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate().unwrap();
        let (private, public) = (
            directory.path().join("a.key"),
            directory.path().join("a.pub"),
        );
        fs::write(&private, key.to_pem().as_bytes()).unwrap();
        fs::write(&public, key.public().to_pem()).unwrap();
        let read = PublicKey::read(&public).unwrap();
        assert_eq!((read.id(), read.name()), (key.public().id(), "a.pub"));
        assert_eq!(PrivateKey::read(&private).unwrap().public(), key.public());
        assert!(!format!("{key:?}").contains("PRIVATE"));
        let mixed_up = PublicKey::read(&private).unwrap_err().to_string();
        assert!(
            mixed_up.contains("holds no Ed25519 public key"),
            "{mixed_up}"
        );
        let missing = PrivateKey::read(&directory.path().join("none")).unwrap_err();
        assert!(missing.to_string().starts_with("cannot read"), "{missing}");
    }

    /// Written by `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout`.
    #[test]
    fn keys_of_openssl_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let private = "-----BEGIN PRIVATE KEY-----\n\
             MC4CAQAwBQYDK2VwBCIEIOQETQdIiT2kCqKD69BWdE59lDbvmpuMhDl9AHLLoNQL\n\
             -----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\n\
             MCowBQYDK2VwAyEAWpkAXjkWOsbobbKJOT/YaVOqSrk4V7CncUuujW1rQ9g=\n\
             -----END PUBLIC KEY-----\n";
        let path = directory.path().join("key");
        fs::write(&path, private).unwrap();
        let read = PrivateKey::read(&path).unwrap();
        fs::write(&path, public).unwrap();
        assert_eq!(PublicKey::read(&path).unwrap().id(), read.public().id());
    }
}
