//! The content store: an OCI image layout on disk whose layers can be read at random.
//!
//! See [`Store`] for the files, [`layer`] for the form of a layer blob, and `docs/layers.md` for why it is so.

mod blob;
mod build;
mod error;
mod gc;
mod index;
mod layout;
mod lease;
mod reference;
mod steps;

pub mod artifact;
pub mod download;
pub mod layer;
pub mod oci;

pub use blob::{BlobWriter, DOCUMENT_MAX};
pub use build::{ARTIFACT_NAME, Build, FORMAT};
pub use error::{Result, StoreError};
pub use gc::Collected;
pub use index::{GENERATIONS_KEPT, Generation};
pub use layout::Store;
pub use reference::Reference;
pub use steps::StepKey;
