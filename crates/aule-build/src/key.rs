//! Step keys: a digest over everything that decides a step's result.

use aule_store::StepKey;
use aule_tree::Hasher;
use serde::Serialize;

/// Changes whenever the same inputs would give other bytes. It is part of every step key and of every build.
pub const FORMAT_VERSION: u32 = 3;

/// The key of step `name` with these inputs, which are serialised as JSON in the order of their fields.
pub(crate) fn step_key(name: &str, inputs: &impl Serialize) -> Result<StepKey, crate::BuildError> {
    let inputs = serde_json::to_vec(inputs)
        .map_err(|_| crate::BuildError::Internal("the inputs of a step cannot be written as JSON"))?;
    let mut hasher = Hasher::new();
    hasher.field(b"aule step");
    hasher.field(&FORMAT_VERSION.to_le_bytes());
    hasher.field(name.as_bytes());
    hasher.field(&inputs);
    Ok(hasher.finish())
}
