//! Configurations, and the schemas that policies declare.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use oona_core::policy::Kind;
use serde_json::Value;

use super::ActivateError;

/// Holds a configuration against the schema that the policy declares.
pub(super) fn validate(kind: Kind, schema: &str, config: &Value) -> Result<(), ActivateError> {
    let schema = serde_json::from_str(schema);
    let schema: Value = schema.map_err(|error| ActivateError::Schema(error.to_string()))?;
    let validator = jsonschema::validator_for(&schema);
    let validator = validator.map_err(|error| ActivateError::Schema(error.to_string()))?;
    validator
        .validate(config)
        .map_err(|error| ActivateError::Config {
            kind,
            pointer: pointer(&error),
            problem: error.to_string(),
        })
}

/// The place that an error is about: of a key that should not be there, the key itself.
fn pointer(error: &ValidationError<'_>) -> String {
    let place = error.instance_path();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            format!("{place}/{}", unexpected.first().map_or("", String::as_str))
        }
        _ => place.to_string(),
    }
}
