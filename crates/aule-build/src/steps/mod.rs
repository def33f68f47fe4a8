//! The steps of a build after the import: each changes the tree as one part of the recipe says.

pub(crate) mod accounts;
pub(crate) mod attributes;
pub(crate) mod boot;
pub(crate) mod files;
pub(crate) mod nfs_root;
pub(crate) mod overlays;
pub(crate) mod seed;
pub(crate) mod services;
