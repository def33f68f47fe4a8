//! NFSv3, NFSACL, MOUNT and portmap over TCP, read-only, straight from the store.
//!
//! `xdr` and `rpc` read calls and write replies, bounded and without I/O; `portmap`, `mount` and `procedures` answer them
//! over the trees of [`Export`](crate::Export)s, with `access`, `acl` and `attributes` for one inode; `handle` names an inode in a way that holds on every replica; `server`
//! moves the bytes.

mod access;
mod acl;
mod attributes;
mod handle;
mod mount;
mod portmap;
mod procedures;
mod rpc;
mod server;
mod xdr;

pub use handle::HandleKey;
pub(crate) use handle::{HANDLE, Prefix, prefix};
pub(crate) use mount::Names;
pub(crate) use procedures::{Builds, Located};
pub use server::NfsOptions;
pub(crate) use server::{Service, Site, answer_all, serve};
