//! Why a policy was not put in use.

use oona_core::policy::Kind;
use oona_wasm::{LoadError, StartError};

/// Why a policy was not put in use. The one that was stays.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// This process runs without a sandbox.
    #[error("this bus runs without a sandbox, so components cannot be activated")]
    NoEngine,
    /// The component is no policy of that kind.
    #[error("the file is refused")]
    Load(#[from] LoadError),
    /// The configuration is no JSON.
    #[error("the configuration is not JSON")]
    Json(#[from] serde_json::Error),
    /// The schema of the policy is no JSON Schema.
    #[error("the schema that the policy declares cannot be used: {0}")]
    Schema(String),
    /// The configuration is refused by the schema.
    #[error("the configuration of the {kind} policy is refused at `{pointer}`: {problem}")]
    Config {
        /// Which policy.
        kind: Kind,
        /// Where in the configuration: a JSON pointer.
        pointer: String,
        /// Why.
        problem: String,
    },
    /// The registry says which policy is in use, and not a file.
    #[error("the registry says which {0} policy is in use; use `oona policy activate`")]
    Followed(Kind),
    /// The policy does not start, refuses its configuration, or fails its trial.
    #[error("the policy does not run")]
    Start(#[from] StartError),
}
