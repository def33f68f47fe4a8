//! The table at the end of a layer blob: what each entry is, and where the frames of its content lie.

use crate::{Result, Store, StoreError};
use aule_tree::{Digest, Inode, Kind, Layer, LayerEntry};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{Read, Write},
    os::unix::fs::FileExt,
};

/// The magic number of the skippable frames that are used (RFC 8878: 0x184D2A50 to 0x184D2A5F).
const SKIPPABLE: [u8; 4] = 0x184D_2A5A_u32.to_le_bytes();
const MAGIC: &[u8; 8] = b"AULETBL1";
/// Magic, three numbers and a digest.
const FOOTER: usize = 8 + 3 * 8 + 32;
/// The largest unpacked table that is read: some two million entries.
const TABLE_MAX: u64 = 512 << 20;
/// The largest file that Linux takes (`off_t` is signed).
const SIZE_MAX: u64 = i64::MAX as u64;

/// A zstd frame within a layer blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// Where it starts in the blob.
    pub offset: u64,
    /// Its compressed length.
    pub length: u64,
    /// Its uncompressed length.
    pub plain: u64,
}

/// One entry of a layer with the frames that hold its content, in order; none for what has no content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// What the layer says.
    pub entry: LayerEntry,
    /// The frames of a file's stored bytes.
    pub frames: Vec<Frame>,
}

/// The table of a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerTable {
    /// In the order of the archive.
    pub entries: Vec<TableEntry>,
}

impl LayerTable {
    /// The layer without frames.
    pub fn into_layer(self) -> Layer {
        Layer { entries: self.entries.into_iter().map(|it| it.entry).collect() }
    }

    /// The table as it stands at the end of a blob whose archive has `offset` bytes: two skippable frames.
    pub(super) fn encode(&self, offset: u64) -> Result<Vec<u8>> {
        let damaged = |reason: String| StoreError::Layer { layer: "that is being written".into(), reason };
        let table = postcard::to_stdvec(self).map_err(|error| damaged(error.to_string()))?;
        let packed = zstd::bulk::compress(&table, 3).map_err(|error| damaged(error.to_string()))?;
        let length = u32::try_from(packed.len()).map_err(|_| damaged("its table has more than 4 GiB".into()))?;
        let mut bytes = Vec::with_capacity(packed.len() + 16 + FOOTER);
        bytes.extend_from_slice(&SKIPPABLE);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&packed);
        bytes.extend_from_slice(&SKIPPABLE);
        bytes.extend_from_slice(&(FOOTER as u32).to_le_bytes());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(offset + 8).to_le_bytes());
        bytes.extend_from_slice(&u64::from(length).to_le_bytes());
        bytes.extend_from_slice(&(table.len() as u64).to_le_bytes());
        bytes.extend_from_slice(Digest::of(&table).as_bytes());
        Ok(bytes)
    }

    /// Parses the footer: the last 64 bytes of a blob of `size` bytes.
    fn parse_footer(footer: &[u8; FOOTER], size: u64) -> Result<Footer, &'static str> {
        let number = |at: usize| {
            let bytes = footer.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
            u64::from_le_bytes(bytes)
        };
        if footer.get(..8) != Some(MAGIC.as_slice()) {
            return Err("it has no table at its end");
        }
        let (offset, packed, plain) = (number(8), number(16), number(24));
        let digest = footer.get(32..).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        if offset.checked_add(packed).is_none_or(|end| end > size) || plain > TABLE_MAX || packed > TABLE_MAX {
            return Err("its footer points outside of it");
        }
        Ok(Footer { offset, packed, plain, digest: Digest::from_bytes(digest) })
    }

    /// Unpacks a table.
    fn unpack(packed: &[u8], footer: &Footer) -> Result<Vec<u8>, &'static str> {
        let mut table = Vec::new();
        zstd::stream::read::Decoder::with_buffer(packed)
            .and_then(|decoder| decoder.take(footer.plain).read_to_end(&mut table))
            .map_err(|_| "its table cannot be decompressed")?;
        match Digest::of(&table) == footer.digest {
            true => Ok(table),
            false => Err("its table has another digest than its footer says"),
        }
    }

    /// Reads an unpacked table, of a blob whose frames end at `end`.
    ///
    /// # Errors
    /// When it cannot be understood, points outside of the frames, or contradicts itself.
    pub fn parse(table: &[u8], end: u64) -> Result<LayerTable, &'static str> {
        let (table, rest): (LayerTable, _) =
            postcard::take_from_bytes(table).map_err(|_| "its table cannot be understood")?;
        if !rest.is_empty() {
            return Err("its table is longer than its entries");
        }
        table.check(end)?;
        Ok(table)
    }

    /// Reads the table of the layer blob `layer`.
    ///
    /// # Errors
    /// When the blob is missing, or is no layer of ours, or its table is damaged or points outside of the blob.
    pub fn read(store: &Store, layer: Digest) -> Result<LayerTable> {
        let file = store.open_blob(layer)?;
        LayerTable::read_from(&file).map_err(|error| match error {
            ReadError::Io(source) => StoreError::Io { action: "read", path: store.blob_path(layer), source },
            ReadError::Damaged(reason) => StoreError::Layer { layer: layer.to_string(), reason: reason.into() },
        })
    }

    fn read_from(file: &File) -> Result<LayerTable, ReadError> {
        let size = file.metadata()?.len();
        let mut footer = [0; FOOTER];
        let at = size.checked_sub(FOOTER as u64).ok_or(ReadError::Damaged("it is too short"))?;
        file.read_exact_at(&mut footer, at)?;
        let footer = LayerTable::parse_footer(&footer, size)?;
        let length = usize::try_from(footer.packed).map_err(|_| ReadError::Damaged("its table is too long"))?;
        let mut packed = vec![0; length];
        file.read_exact_at(&mut packed, footer.offset)?;
        Ok(LayerTable::parse(&LayerTable::unpack(&packed, &footer)?, footer.offset)?)
    }

    /// Sizes must be ones that a file can have. Frames must lie before the table, be of a length that [`super::CHUNK`]
    /// bytes can have, and add up to the content's length.
    fn check(&self, end: u64) -> Result<(), &'static str> {
        let longest = zstd::zstd_safe::compress_bound(super::CHUNK) as u64;
        for TableEntry { entry, frames } in &self.entries {
            let right = |frame: &Frame| {
                frame.plain <= super::CHUNK as u64
                    && frame.length <= longest
                    && frame.offset.checked_add(frame.length).is_some_and(|it| it <= end)
            };
            if !frames.iter().all(right) {
                return Err("its table points outside of its frames");
            }
            let stored = match &entry.what {
                aule_tree::What::Node(Inode { kind: Kind::File(content), .. }) => {
                    if content.size > SIZE_MAX || content.sparse.as_ref().is_some_and(|map| map.end() != content.size) {
                        return Err("its table gives a file a size that it cannot have");
                    }
                    content.stored_length()
                }
                _ => 0,
            };
            if frames.iter().map(|frame| frame.plain).sum::<u64>() != stored {
                return Err("its table gives a file another length than its frames have");
            }
        }
        Ok(())
    }
}

/// Where the table of a blob lies.
struct Footer {
    offset: u64,
    /// Length of the table as it lies there.
    packed: u64,
    /// Unpacked length.
    plain: u64,
    /// Of the unpacked table.
    digest: Digest,
}

enum ReadError {
    Io(std::io::Error),
    Damaged(&'static str),
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        ReadError::Io(error)
    }
}

impl From<&'static str> for ReadError {
    fn from(reason: &'static str) -> Self {
        ReadError::Damaged(reason)
    }
}

/// Writes the table after an archive of `offset` bytes.
pub(super) fn write_table(out: &mut impl Write, table: &LayerTable, offset: u64) -> Result<()> {
    out.write_all(&table.encode(offset)?).map_err(StoreError::io("write", "a layer in the store"))
}
