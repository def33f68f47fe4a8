//! Bounds on what a recipe, a lock or a user-data document may hold. Input is hostile: each bound turns an attack on
//! memory, time or the stack into a diagnostic. All are far above what a person writes.

/// Longest recipe, lock or user-data document that is read, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// Deepest nesting of lists and maps, aliases expanded.
pub const MAX_DEPTH: usize = 64;

/// Most YAML nodes in one document, aliases expanded ("billion laughs" stops here).
pub const MAX_NODES: usize = 100_000;

/// Most bytes of scalar text in one document, aliases expanded.
pub const MAX_EXPANDED_BYTES: usize = 4 << 20;

/// Longest chain of `extends`, the first recipe included.
pub const MAX_EXTENDS: usize = 16;

/// Most variants of one recipe, those that it inherits included.
pub const MAX_VARIANTS: usize = 64;

/// Most diagnostics that one run gathers; the rest is counted, not kept.
pub const MAX_DIAGNOSTICS: usize = 100;
