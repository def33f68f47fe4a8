//! The netboot server: what was built, published straight out of the content store.
//!
//! Nothing is unpacked and nothing is written to an export: NFS reads decompress the frames that they ask for, TFTP names are
//! entries of a tree, and what differs between nodes is made when it is asked for.

mod boot_files;
mod check;
mod dhcp;
mod export;
mod frames;
mod host_key;
#[doc(hidden)]
pub mod hostile;
mod http;
mod images;
mod limits;
mod neighbours;
mod nfs;
pub mod nodes;
mod published;
pub mod render;
pub mod run;
pub mod server;
pub mod site;
pub mod state;
mod tftp;
mod udp;

pub use check::check;
pub use export::{Export, InodeNumber, Node, ROOT};
pub use frames::{FrameCache, ReadError};
pub use images::{Images, Refreshed, Switched};
pub use nfs::{HandleKey, NfsOptions};
