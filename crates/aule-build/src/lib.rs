//! The pipeline: a recipe and an upstream image become layers, and layers become artifacts.
//!
//! A build is a chain of steps, `base` (the upstream image), `packages` (Debian packages), `files` (overlays, files, services) and `config`
//! (boot files, root, cloud-init). Each has a key made of everything that decides its result, and gives one OCI layer.
//! Outputs are made of the finished tree, each with a key of its own, so that an output whose part of the tree did not
//! change is not made again.
//!
//! Nothing here prints, reads the environment or asks the clock: such things come in with a [`BuildRequest`].

mod base;
mod chain;
mod decisive;
mod error;
mod import;
mod inputs;
mod key;
mod outputs;
mod packages;
mod pins;
mod pipeline;
mod preview;
mod request;
mod sbom;
mod stage;
mod steps;

pub mod check;

pub use aule_store::artifact::TEMPLATES;
pub use error::{BuildError, Result};
pub use import::BaseInfo;
pub use inputs::{Bytes, DiskFile, InputEntry, InputKind, Inputs, LocalInputs};
pub use key::FORMAT_VERSION;
pub use outputs::{
    artifact::types,
    provenance::{Origin, Provenance, ProvenanceStep, read as read_provenance},
};
pub use packages::{Forgotten, SandboxTools, forget_trees};
pub use pipeline::{build, lock, rebuild, refuse_unsupported};
pub use preview::{
    Against, Change, Comparison, Download, DownloadKind, Knowledge, PackageChange, Packages, Preview, Step, StepState,
    preview,
};
pub use request::{Artifact, ArtifactFile, BuildOutcome, BuildRequest, LockMode, Network, Observer, StepOutcome};
pub use sbom::{BillForm, read_bill};
pub use stage::LayerRecord;
