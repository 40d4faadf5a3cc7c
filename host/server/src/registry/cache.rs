//! What a host keeps of the registry beside the store: artifacts by their digest, and the list as it
//! has read it. A cache that cannot be written or read costs a warning, and the store is asked.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use oona_core::entry::{Entry, EntryId, Record};
use oona_core::registry::Change;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::signature::hex;

/// The file that holds the list, a line of JSON for each entry.
const LIST: &str = "list.jsonl";

/// Where the list goes that the store no longer has: what was in there is not thrown away unseen.
const REPLACED: &str = "list.replaced.jsonl";

/// One entry of the list, as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// Where it stands: milliseconds, and number within them.
    pub(super) at: (u64, u64),
    /// The JSON of the change; none if the entry held none, which has a number too. As it is, so that
    /// nothing is lost of what another version of the host has written.
    pub(super) change: Option<Value>,
}

impl Line {
    pub(super) fn id(&self) -> EntryId {
        let (ms, seq) = self.at;
        EntryId { ms, seq }
    }

    pub(super) fn of(entry: &Entry) -> Self {
        let json = entry.payload();
        Self {
            at: (entry.id.ms, entry.id.seq),
            change: json.and_then(|json| serde_json::from_slice(json).ok()),
        }
    }

    /// The change, if it is one that this host knows.
    pub(super) fn parsed(&self) -> Option<Change> {
        serde_json::from_value(self.change.clone()?).ok()
    }

    /// The entry that holds it.
    pub(super) fn record(&self) -> Record {
        let json = self.change.as_ref().map(Value::to_string);
        Record {
            payload: json.unwrap_or_default().into(),
            signature: None,
        }
    }
}

/// SHA-256 in hex.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The bytes of an artifact, if they are in the cache and are what the digest says.
pub(super) fn artifact(cache: Option<&Path>, of: &str) -> Option<Bytes> {
    let bytes = fs::read(file(cache?, of)).ok()?;
    (digest(&bytes) == of).then(|| bytes.into())
}

pub(super) fn keep_artifact(cache: Option<&Path>, of: &str, bytes: &[u8]) {
    let Some(cache) = cache else { return };
    let path = file(cache, of);
    let part = path.with_extension("part");
    let kept = fs::create_dir_all(cache)
        .and_then(|()| fs::write(&part, bytes))
        .and_then(|()| fs::rename(&part, &path));
    warn(cache, kept);
}

/// The list, as far as whole lines of it were written.
pub(super) fn list(cache: Option<&Path>) -> Vec<Line> {
    let text = cache.and_then(|cache| fs::read_to_string(cache.join(LIST)).ok());
    let text = text.unwrap_or_default();
    let lines = text.lines().map(serde_json::from_str);
    lines.map_while(Result::ok).collect()
}

/// Puts the list aside, since the store has another one now.
pub(super) fn put_aside(cache: Option<&Path>) {
    let Some(cache) = cache else { return };
    if cache.join(LIST).exists() {
        warn(cache, fs::rename(cache.join(LIST), cache.join(REPLACED)));
    }
}

/// Writes the list anew, as it was read from the cache: what ends in half a line, as after a crash, is
/// cut to whole ones.
pub(super) fn rewrite(cache: Option<&Path>, lines: &[Line]) {
    let Some(cache) = cache else { return };
    let path = cache.join(LIST);
    let part = path.with_extension("part");
    let written = fs::create_dir_all(cache)
        .and_then(|()| fs::write(&part, text(lines)))
        .and_then(|()| fs::rename(&part, &path));
    warn(cache, written);
}

pub(super) fn add(cache: Option<&Path>, lines: &[Line]) {
    let Some(cache) = cache.filter(|_| !lines.is_empty()) else {
        return;
    };
    let file = fs::create_dir_all(cache).and_then(|()| {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(cache.join(LIST))
    });
    warn(
        cache,
        file.and_then(|mut file| file.write_all(text(lines).as_bytes())),
    );
}

fn text(lines: &[Line]) -> String {
    let json = |line| {
        serde_json::to_string(line).unwrap_or_else(|error| unreachable!("a line is JSON: {error}"))
    };
    lines.iter().map(|line| json(line) + "\n").collect()
}

fn file(cache: &Path, digest: &str) -> PathBuf {
    cache.join(format!("{digest}.wasm"))
}

fn warn(cache: &Path, done: std::io::Result<()>) {
    if let Err(error) = done {
        tracing::warn!(directory = %cache.display(), %error, "the cache of the registry is not written");
    }
}
