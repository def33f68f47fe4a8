//! Upstream images and disk formats.
//!
//! From the outside in: [`detect`] tells how a file is compressed, [`DecodedImage`] decodes it into a sparse raw file
//! that can be read while it grows, [`read_partitions`] reads its partition table, and [`open`] a filesystem in one of
//! the partitions (a [`Window`]). [`write_fat`] makes boot partitions,
//! [`verify_signature`] and [`Checksums`] tell whether an image is its maker's.
//!
//! All that is read here is hostile until shown otherwise: every count and offset is checked, every loop bounded.

mod bytes;
mod compression;
mod decode;
mod ext4;
mod fat;
mod fat_write;
mod filesystem;
mod partition;
mod read_at;
mod verify;

pub use compression::{Compression, DETECT_LENGTH, detect};
pub use decode::{DecodeError, DecodedImage, Input, Limits, Summary};
pub use fat_write::{FatContent, FatEntry, FatOptions, FatSummary, FatWriteError, OpenContent, write_fat};
pub use filesystem::{Entry, EntryKind, FileHandle, Filesystem, FilesystemError, open};
pub use partition::{
    Partition, PartitionError, PartitionKind, PartitionTable, TableKind, format_guid, read_partitions,
};
pub use read_at::{Cursor, ReadAt, Window};
pub use verify::{
    Checksums, ChecksumsError, Signature, SignatureError, Verified, verify_signature, verify_signature_by,
};
