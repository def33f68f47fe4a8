//! Outputs: what is made of the finished tree. Each is an OCI artifact with its blobs in the store.

pub(crate) mod artifact;
pub(crate) mod boot;
pub(crate) mod image;
pub(crate) mod provenance;
pub(crate) mod source;
