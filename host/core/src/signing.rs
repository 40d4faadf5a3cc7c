//! Signatures of envelopes: HMAC-SHA256, as every peer on the bus computes them.
//!
//! Keys rotate: one signs, several verify. First every host accepts the new key, then each begins to
//! sign with it, then the old one goes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Length of a signature on the wire: 32 bytes in standard base64 with padding.
pub const SIGNATURE_LENGTH: usize = 44;

/// Without its feature `zeroize`, `sha2` would compile all the same and wipe nothing.
const _: () = {
    const fn is_wiped<T: ZeroizeOnDrop>() {}
    is_wiped::<Sha256>();
};

/// A shared secret: the raw UTF-8 bytes are the key. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over a secret.
    ///
    /// # Errors
    ///
    /// If it is empty: an empty key signs what anybody can sign.
    pub fn new(secret: String) -> Result<Self, EmptySecret> {
        let secret = Zeroizing::new(secret);
        if secret.is_empty() {
            Err(EmptySecret)
        } else {
            Ok(Self(secret))
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret has no characters.
#[derive(Debug, thiserror::Error)]
#[error("the secret is empty")]
pub struct EmptySecret;

/// Why an entry is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It has no signature.
    #[error("the entry is not signed")]
    Unsigned,
    /// Its signature is not 32 bytes in base64.
    #[error("the signature is not a base64 of 32 bytes")]
    Malformed,
    /// No key gives this signature.
    #[error("no key verifies the signature")]
    Mismatch,
}

/// The keys of a host. What is kept of a key is the state of the hash after it, which is wiped when
/// dropped.
#[derive(Clone)]
pub struct Keyring {
    signing: Hmac<Sha256>,
    accepted: Vec<Hmac<Sha256>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", 1 + self.accepted.len())
    }
}

impl Keyring {
    /// A keyring that signs with `signing`, and verifies with that and with each of `also_accept`.
    #[must_use]
    pub fn new(signing: &Secret, also_accept: &[Secret]) -> Self {
        Self {
            signing: prepare(signing),
            accepted: also_accept.iter().map(prepare).collect(),
        }
    }

    /// The signature of `payload`, as it stands in the entry.
    #[must_use]
    pub fn sign(&self, payload: &[u8]) -> Bytes {
        let tag = tag(&self.signing, payload);
        let mut text = [0; SIGNATURE_LENGTH];
        match STANDARD.encode_slice(tag, &mut text) {
            Ok(length) => Bytes::copy_from_slice(&text[..length]),
            Err(_) => unreachable!("32 bytes are 44 characters of base64"),
        }
    }

    /// Whether `signature` is one of `payload` by any of the keys. Each comparison takes the same
    /// time wherever two signatures differ. Keys are tried in their order until one fits, so the
    /// time tells how many were tried: which key it was is no secret, what it is stays one.
    ///
    /// # Errors
    ///
    /// If there is no signature, it has another form, or no key gives it.
    pub fn verify(&self, payload: &[u8], signature: Option<&[u8]>) -> Result<(), VerifyError> {
        let signature = signature.ok_or(VerifyError::Unsigned)?;
        if signature.len() != SIGNATURE_LENGTH {
            return Err(VerifyError::Malformed);
        }
        // 44 characters are up to 33 bytes before the padding is looked at.
        let mut tag = [0; 33];
        let length = STANDARD
            .decode_slice(signature, &mut tag)
            .map_err(|_| VerifyError::Malformed)?;
        let tag: &[u8; 32] = tag[..length]
            .try_into()
            .map_err(|_| VerifyError::Malformed)?;
        let mut keys = std::iter::once(&self.signing).chain(&self.accepted);
        let verifies =
            |key: &Hmac<Sha256>| key.clone().chain_update(payload).verify(tag.into()).is_ok();
        if keys.any(verifies) {
            Ok(())
        } else {
            Err(VerifyError::Mismatch)
        }
    }
}

fn prepare(secret: &Secret) -> Hmac<Sha256> {
    match Hmac::new_from_slice(secret.0.as_bytes()) {
        Ok(prepared) => prepared,
        Err(_) => unreachable!("HMAC takes a key of any length"),
    }
}

fn tag(key: &Hmac<Sha256>, payload: &[u8]) -> [u8; 32] {
    key.clone()
        .chain_update(payload)
        .finalize()
        .into_bytes()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned()).unwrap()
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = secret("correct horse");
        let keyring = Keyring::new(&secret, &[]);
        assert_eq!(
            format!("{secret:?} {keyring:?}"),
            "Secret(…) Keyring(1 keys)"
        );
        assert!(Secret::new(String::new()).is_err());
    }

    #[test]
    fn keys_rotate() {
        let old = Keyring::new(&secret("old"), &[]);
        let both = Keyring::new(&secret("new"), &[secret("old")]);
        let new = Keyring::new(&secret("new"), &[]);
        let signed_old = old.sign(b"payload");
        let signed_new = both.sign(b"payload");
        assert_eq!(both.verify(b"payload", Some(&signed_old)), Ok(()));
        assert_eq!(both.verify(b"payload", Some(&signed_new)), Ok(()));
        assert_eq!(
            new.verify(b"payload", Some(&signed_old)),
            Err(VerifyError::Mismatch)
        );
    }

    #[test]
    fn what_is_not_signed_is_refused_by_name() {
        let keyring = Keyring::new(&secret("key"), &[]);
        let good = keyring.sign(b"payload");
        let mut flipped = good.to_vec();
        flipped[0] ^= 1;
        type Case<'a> = (&'a str, Option<&'a [u8]>, Result<(), VerifyError>);
        let cases: [Case<'_>; 8] = [
            ("good", Some(&good), Ok(())),
            ("none", None, Err(VerifyError::Unsigned)),
            ("empty", Some(b""), Err(VerifyError::Malformed)),
            ("short", Some(&good[..43]), Err(VerifyError::Malformed)),
            ("no base64", Some(&[b'!'; 44]), Err(VerifyError::Malformed)),
            ("33 bytes", Some(&[b'A'; 44]), Err(VerifyError::Malformed)),
            ("flipped", Some(&flipped), Err(VerifyError::Mismatch)),
            (
                "other payload's",
                Some(&keyring.sign(b"other")),
                Err(VerifyError::Mismatch),
            ),
        ];
        for (name, signature, expected) in cases {
            assert_eq!(keyring.verify(b"payload", signature), expected, "{name}");
        }
    }
}
