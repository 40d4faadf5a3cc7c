//! Artifacts: kept in the store under their digest, and out of it again.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use oona_core::policy::Kind;
use oona_core::registry::{Action, Artifact, Signature};

use super::{Author, Refused, Registry, RegistryError, Wanted, cache};
use crate::gates::Refusal;
use crate::store::StoreError;
use crate::sync::lock;

/// The fewest digits of a digest that name an artifact.
const DIGEST_PREFIX_MIN: usize = 6;

impl Registry {
    /// Keeps an artifact, and says in the list that it is there.
    ///
    /// # Errors
    ///
    /// If it is no policy, is not vouched for, or the store does not take it.
    pub async fn push(
        &self,
        component: Bytes,
        signatures: Vec<Signature>,
        author: &Author,
    ) -> Result<Artifact, RegistryError> {
        let (inner, bytes, held) = (Arc::clone(&self.0), component.clone(), signatures.clone());
        let loaded = tokio::task::spawn_blocking(move || {
            let loaded = inner.policies.load(None, &bytes).map_err(Refusal::from)?;
            inner
                .options
                .trust
                .check(loaded.digest(), &held)
                .map_err(Refusal::Unsigned)?;
            Ok(loaded)
        });
        let loaded = loaded
            .await
            .map_err(|error| RegistryError::Broken(error.to_string()))?;
        let loaded = loaded.map_err(|refusal| {
            Box::new(Refused {
                refusal,
                gates: Vec::new(),
            })
        })?;
        self.catch_up().await?;
        self.keep(&loaded, &component, signatures, author).await
    }

    /// All artifacts.
    #[must_use]
    pub fn artifacts(&self) -> Vec<Artifact> {
        lock(&self.0.followed).state.artifacts().cloned().collect()
    }

    /// An artifact, and its bytes.
    ///
    /// # Errors
    ///
    /// If there is none with this digest, or the store does not answer.
    pub async fn artifact(&self, digest: &str) -> Result<(Artifact, Bytes), RegistryError> {
        let artifact = self.find(digest)?;
        let bytes = self.fetch(&artifact.digest).await?;
        Ok((artifact, bytes))
    }

    /// Keeps an artifact and says so, unless that is known already and the store has its bytes.
    pub(super) async fn keep(
        &self,
        loaded: &oona_wasm::Artifact,
        component: &Bytes,
        signatures: Vec<Signature>,
        author: &Author,
    ) -> Result<Artifact, RegistryError> {
        let artifact = described(loaded, component.len(), signatures);
        // Before it is said in the list: whoever reads that finds the bytes.
        let repaired = self.keep_bytes(&artifact.digest, component).await?;
        cache::keep_artifact(self.cache(), &artifact.digest, component);
        let known = lock(&self.0.followed)
            .state
            .artifact(&artifact.digest)
            .cloned();
        let news = known.as_ref().is_none_or(|known| {
            artifact
                .signatures
                .iter()
                .any(|signature| !known.signatures.contains(signature))
        });
        if news || repaired {
            let entry = self.append(Action::Push(artifact.clone()), author).await?;
            self.has_read(entry).await;
        }
        Ok(artifact)
    }

    /// Has the store keep the bytes of an artifact; whether it had lost them, or held others.
    pub(super) async fn keep_bytes(
        &self,
        digest: &str,
        component: &Bytes,
    ) -> Result<bool, StoreError> {
        let name = kept_name(digest);
        if self.0.store.kept(&name).await?.as_ref() == Some(component) {
            return Ok(false);
        }
        self.0.store.keep(&name, component).await?;
        Ok(true)
    }

    /// Holds the bytes of an artifact while it is in use or tried.
    pub(super) fn hold(&self, digest: &str, component: &Bytes) {
        let followed = lock(&self.0.followed);
        let used = Kind::ALL.into_iter().flat_map(|kind| {
            let active = followed.state.active(kind).map(|active| &active.choice);
            let stage = followed.state.stage(kind).map(|stage| &stage.choice);
            active.into_iter().chain(stage)
        });
        let used: BTreeSet<_> = used.filter_map(|choice| choice.digest.clone()).collect();
        drop(followed);
        let mut held = lock(&self.0.components);
        held.insert(digest.to_owned(), component.clone());
        held.retain(|digest, _| used.contains(digest));
    }

    /// The bytes of an artifact, if this host has them without the store.
    pub(super) fn at_hand(&self, digest: &str) -> Option<Bytes> {
        let cached = cache::artifact(self.cache(), digest);
        cached.or_else(|| lock(&self.0.components).get(digest).cloned())
    }

    /// The component that is meant, and the signatures that are known of it.
    pub(super) async fn component(
        &self,
        wanted: &Wanted,
    ) -> Result<(Bytes, Vec<Signature>), RegistryError> {
        let digest = match wanted {
            Wanted::Component(bytes, signatures) => return Ok((bytes.clone(), signatures.clone())),
            Wanted::Digest(digest) => digest.clone(),
            Wanted::InUse(kind) => self.in_use(*kind).ok_or_else(|| {
                RegistryError::Unknown(format!(
                    "the {kind} policy in use is not from the registry: name a FILE or a digest"
                ))
            })?,
        };
        let (artifact, bytes) = self.artifact(&digest).await?;
        Ok((bytes, artifact.signatures))
    }

    /// The artifact in use, by its digest; none if it is what each host was started with.
    pub(super) fn in_use(&self, kind: Kind) -> Option<String> {
        let followed = lock(&self.0.followed);
        followed.state.active(kind)?.choice.digest.clone()
    }

    pub(super) fn find(&self, digest: &str) -> Result<Artifact, RegistryError> {
        let followed = lock(&self.0.followed);
        let mut found = followed
            .state
            .artifacts()
            .filter(|artifact| artifact.digest.starts_with(digest));
        match (found.next(), found.next()) {
            (Some(artifact), None) if digest.len() >= DIGEST_PREFIX_MIN => Ok(artifact.clone()),
            (Some(_), Some(_)) => Err(RegistryError::Unknown(format!(
                "several artifacts begin with `{digest}`: give more digits"
            ))),
            _ => Err(RegistryError::Unknown(format!(
                "the registry has no artifact `{digest}`: see `oona policy list --artifacts`"
            ))),
        }
    }

    /// The bytes of an artifact, from the cache or the store, and nothing but what its digest says.
    pub(super) async fn fetch(&self, digest: &str) -> Result<Bytes, RegistryError> {
        if let Some(bytes) = self.at_hand(digest) {
            return Ok(bytes);
        }
        let kept = self.0.store.kept(&kept_name(digest)).await?;
        let bytes = kept.ok_or_else(|| {
            RegistryError::Unknown(format!(
                "the bytes of artifact {digest} are gone from the store: push it again"
            ))
        })?;
        if cache::digest(&bytes) != digest {
            return Err(RegistryError::Unknown(format!(
                "the store holds other bytes under {digest}: they are not used; push it again"
            )));
        }
        cache::keep_artifact(self.cache(), digest, &bytes);
        Ok(bytes)
    }
}

/// Under which name the store keeps an artifact.
fn kept_name(digest: &str) -> String {
    format!("policy:{digest}")
}

pub(super) fn described(
    loaded: &oona_wasm::Artifact,
    size: usize,
    signatures: Vec<Signature>,
) -> Artifact {
    Artifact {
        digest: loaded.digest().to_owned(),
        kind: loaded.kind(),
        name: loaded.name().to_owned(),
        version: loaded.version().to_owned(),
        bytes: size as u64,
        signatures,
    }
}
