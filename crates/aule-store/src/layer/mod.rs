//! Layer blobs: tar+zstd for every OCI tool, and readable at random for us.
//!
//! A layer is a zstd file of many frames. Uncompressed they make up one tar archive in canonical order. A file's content
//! starts a frame of its own; content of more than [`CHUNK`] bytes takes one frame for each [`CHUNK`]. What lies between
//! contents (headers and padding) is in frames of its own, too. After the archive comes the *table*, which says for each
//! entry what it is and where its frames lie, and a footer of fixed length that says where the table lies. Table and
//! footer are skippable frames (RFC 8878, 3.1.2), which every zstd decoder passes over:
//!
//! ```text
//! frame frame frame …                                  the tar archive
//! 0x184D2A5A  u32 length   zstd(postcard(Table))       the table
//! 0x184D2A5A  u32 64       "AULETBL1" u64 u64 u64 …    the footer: offset, length, unpacked length and SHA-256 of the table
//! ```
//!
//! Numbers are little-endian. See `docs/layers.md` for why this and not the zstd:chunked table of containers/storage.

mod compress;
mod contents;
mod table;
mod tar_header;
mod verify;
mod writer;

pub use contents::{ContentError, ContentFrames, Contents};
pub use table::{Frame, LayerTable, TableEntry};
pub use verify::{LayerCheck, LayerProblem};
pub use writer::{Archive, ArchiveOptions, ArchiveWriter};

/// How many bytes of a file's content go into one frame.
pub const CHUNK: usize = 1 << 20;
