//! `oona policy keygen | sign | verify`: who vouches for a policy. No server is needed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::super::output::Output;
use super::super::{EXIT_FAILED, EXIT_OK, Failure};
use super::read;
use crate::author::build::replace;
use crate::signature::{PrivateKey, PublicKey, SignatureFile, TrustedKeys, hex};

const KEYGEN_HELP: &str = "\
Writes NAME.key, which signs and which nobody else may read, and NAME.pub, which verifies. Both are PEM
files that OpenSSL reads and writes too.

Example:
  oona policy keygen release
  oona policy sign routing.wasm --key release.key";

#[derive(Args, Debug)]
#[command(after_help = KEYGEN_HELP)]
pub(in crate::cli) struct Keygen {
    /// The files without their ending
    #[arg(value_name = "NAME")]
    name: PathBuf,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Generated {
    private: PathBuf,
    public: PathBuf,
    key: String,
}

pub(super) fn keygen(args: &Keygen) -> Result<u8, Failure> {
    let key = PrivateKey::generate().map_err(anyhow::Error::from)?;
    let ending = |ending: &str| {
        let mut path = args.name.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    };
    let generated = Generated {
        private: ending(".key"),
        public: ending(".pub"),
        key: key.public().id(),
    };
    write_private(&generated.private, key.to_pem().as_bytes())?;
    fs::write(&generated.public, key.public().to_pem())
        .with_context(|| format!("cannot write {}", generated.public.display()))?;
    let text = |generated: &Generated| {
        let Generated {
            private, public, ..
        } = generated;
        format!(
            "{} signs; {} verifies: name it in policies.trusted_keys",
            private.display(),
            public.display()
        )
    };
    args.output
        .write(&generated, text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

/// Writes a file that is not there yet, for its owner alone.
fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path);
    let mut file = file.with_context(|| {
        format!(
            "cannot write {}: a key that is there is never replaced",
            path.display()
        )
    })?;
    file.write_all(bytes)
        .with_context(|| format!("cannot write {}", path.display()))
}

const SIGN_HELP: &str = "\
The signature is written beside the component, to FILE.sig; one of the same key is replaced, others
stay. The component itself does not change, and neither does its digest.

Example:
  oona policy sign routing.wasm --key release.key";

#[derive(Args, Debug)]
#[command(after_help = SIGN_HELP)]
pub(in crate::cli) struct Sign {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The private key, a PEM file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Signed {
    digest: String,
    key: String,
    file: PathBuf,
}

pub(super) fn sign(args: &Sign) -> Result<u8, Failure> {
    let key = PrivateKey::read(&args.key).map_err(anyhow::Error::from)?;
    let digest = hex(&Sha256::digest(read(&args.file)?));
    let beside = SignatureFile::read(&args.file).map_err(anyhow::Error::from)?;
    // Signatures of what the file held before are worth nothing.
    let mut beside = beside
        .filter(|beside| beside.digest == digest)
        .unwrap_or_default();
    beside.digest.clone_from(&digest);
    beside.add(key.sign(&digest));
    let path = SignatureFile::path(&args.file);
    let json = serde_json::to_vec_pretty(&beside).map_err(anyhow::Error::from)?;
    replace(&path, &json)?;
    let signed = Signed {
        digest,
        key: key.public().id(),
        file: path,
    };
    let text = |signed: &Signed| format!("{}: signed {}", signed.file.display(), signed.digest);
    args.output
        .write(&signed, text)
        .map_err(anyhow::Error::from)?;
    Ok(EXIT_OK)
}

const VERIFY_HELP: &str = "\
Exit code 1 if none of the keys has signed it.

Example:
  oona policy verify routing.wasm --key release.pub";

#[derive(Args, Debug)]
#[command(after_help = VERIFY_HELP)]
pub(in crate::cli) struct Verify {
    /// The component; its signatures are in FILE.sig
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A public key that is trusted, a PEM file; can be given more than once
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Verified {
    digest: String,
    verified: bool,
    by: Option<String>,
    reason: Option<String>,
}

pub(super) fn verify(args: &Verify) -> Result<u8, Failure> {
    let keys = args.key.iter().map(|path| PublicKey::read(path));
    let keys = TrustedKeys::new(
        keys.collect::<Result<_, _>>()
            .map_err(anyhow::Error::from)?,
    );
    let digest = hex(&Sha256::digest(read(&args.file)?));
    let beside = SignatureFile::read(&args.file).map_err(anyhow::Error::from)?;
    let by = beside
        .as_ref()
        .and_then(|beside| keys.verify(&digest, &beside.signatures));
    let reason = match (&by, &beside) {
        (Some(_), _) => None,
        (None, None) => Some(format!(
            "there is no {}",
            SignatureFile::path(&args.file).display()
        )),
        (None, Some(beside)) if beside.digest != digest => {
            Some("its signatures are of other bytes: it was changed after it was signed".to_owned())
        }
        (None, Some(_)) => Some("none of its signatures is by these keys".to_owned()),
    };
    let verified = Verified {
        by: by.map(|key| key.name().to_owned()),
        verified: by.is_some(),
        digest,
        reason,
    };
    let text = |verified: &Verified| {
        let Verified {
            digest, by, reason, ..
        } = verified;
        match (by, reason) {
            (Some(by), _) => format!("{digest}: signed by {by}"),
            (None, reason) => format!(
                "{digest}: not verified: {}",
                reason.as_deref().unwrap_or_default()
            ),
        }
    };
    args.output
        .write(&verified, text)
        .map_err(anyhow::Error::from)?;
    Ok(if verified.verified {
        EXIT_OK
    } else {
        EXIT_FAILED
    })
}
