//! Files that say whom a host believes: tokens, keys, and the signatures beside a component.

use std::fs;
use std::path::Path;

use oona::access::{Access, Denied, Right};
use oona::signature::{PrivateKey, PublicKey, SignatureFile, TrustedKeys};

/// The component that signatures are about.
const DIGEST: &str = "abababababababababababababababababababababababababababababababab";

/// The key of RFC 8410, 10.3, which signs nothing else.
const SIGNER: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";

/// A file of tokens lets nobody in who has none; a key that is read is the same when it is written; a
/// component is believed for the signature of a trusted key alone.
pub(super) fn keys(bytes: &[u8]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, content).expect("it can be written");
        path
    };
    let given = write("given", bytes);
    write("component.sig", bytes);
    match Access::read(&given) {
        Ok(access) => {
            let nobody = access.who(None, Some("ada"), Right::ReadPolicies);
            assert_eq!(nobody, Err(Denied::Unknown));
        }
        Err(told) => assert!(told.contains(&given.display().to_string()), "{told}"),
    }
    if let Ok(key) = PublicKey::read(&given) {
        let again = PublicKey::read(&write("public", key.to_pem().as_bytes()));
        assert_eq!(again.expect("a key").id(), key.id());
    }
    if let Ok(key) = PrivateKey::read(&given) {
        let again = private(&write("private", key.to_pem().as_bytes()));
        assert_eq!(again.public().id(), key.public().id());
    }
    let Ok(Some(signatures)) = SignatureFile::read(&directory.path().join("component")) else {
        return;
    };
    let signer = private(&write("signer", SIGNER.as_bytes()));
    let trusted = TrustedKeys::new(vec![signer.public()]);
    if trusted.verify(DIGEST, &signatures.signatures).is_some() {
        let own = signer.sign(DIGEST);
        let mut texts = signatures.signatures.iter().map(|known| &known.signature);
        assert!(
            texts.any(|text| text.eq_ignore_ascii_case(&own.signature)),
            "{signatures:?}"
        );
    }
}

fn private(path: &Path) -> PrivateKey {
    PrivateKey::read(path).expect("a key")
}
