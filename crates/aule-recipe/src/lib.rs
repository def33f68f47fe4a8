//! Recipes: what a build is made of, as people write it.
//!
//! A recipe is a YAML file; it extends another, has variants, and names local files, URLs and settings. [`load`] reads
//! one with all that it extends and gives each variant as a [`Recipe`] with the [`Origins`] of every value. A mistake is
//! a [`Diagnostic`] with file, line and column; all that are found come together as [`Diagnostics`].
//!
//! The crate does no I/O: files come through [`Sources`]. Whatever the input, it neither panics nor takes more memory
//! and time than the bounds in [`limits`] allow.

mod canonical;
mod convert;
mod diagnostic;
pub mod limits;
mod load;
mod lock;
mod merge;
mod origins;
mod path;
mod recipe;
mod schema;
mod show;
mod source;
mod suggest;
mod user_data;
mod value;
mod yaml;

pub use canonical::{CanonicalError, canonical, from_canonical, recipe_digest};
pub use diagnostic::{Diagnostic, Diagnostics, Location, Snippet};
pub use indexmap::IndexMap;
pub use load::{Merged, RecipeSet, load};
pub use lock::{BaseEntry, KeptPackage, Lock, LockDifference, LockItem, LockedBase, LockedFile, LockedPackage};
pub use origins::Origins;
pub use path::{ImagePath, ImagePathError, LocalPath};
pub use recipe::{
    Base, BaseImage, BasePackages, Boot, CloudInit, Cmdline, Document, FileEntry, FileKind, Input, Output, Packages,
    Recipe, Repository, Root, RootOver, Services, Writes,
};
pub use schema::json_schema;
pub use show::show;
pub use source::Sources;
pub use suggest::nearest;
pub use user_data::{merge_user_data, with_instance_id};
pub use value::{Mode, Principal, Sha256, Timestamp, Url, ValueError};
