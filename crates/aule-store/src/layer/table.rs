//! The table at the end of a layer blob: what each entry is, and where the frames of its content lie.

use crate::{Result, Store, StoreError};
use aule_tree::{Digest, Layer, LayerEntry};
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

    /// Parses the footer: the last 64 bytes of a blob of `size` bytes. Gives offset, length and unpacked length of the
    /// table and its digest.
    fn parse_footer(footer: &[u8; FOOTER], size: u64) -> Result<(u64, u64, u64, Digest), &'static str> {
        let number = |at: usize| {
            let bytes = footer.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
            u64::from_le_bytes(bytes)
        };
        if footer.get(..8) != Some(MAGIC.as_slice()) {
            return Err("it has no table at its end");
        }
        let (offset, length, plain) = (number(8), number(16), number(24));
        let digest = footer.get(32..).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        if offset.checked_add(length).is_none_or(|end| end > size) || plain > TABLE_MAX || length > TABLE_MAX {
            return Err("its footer points outside of it");
        }
        Ok((offset, length, plain, Digest::from_bytes(digest)))
    }

    /// Decodes a packed table. `limit` bounds the unpacked size.
    pub fn decode(packed: &[u8], limit: u64, digest: Digest) -> Result<LayerTable, &'static str> {
        let mut table = Vec::new();
        zstd::stream::read::Decoder::with_buffer(packed)
            .and_then(|decoder| decoder.take(limit.min(TABLE_MAX)).read_to_end(&mut table))
            .map_err(|_| "its table cannot be decompressed")?;
        if Digest::of(&table) != digest {
            return Err("its table has another digest than its footer says");
        }
        postcard::from_bytes(&table).map_err(|_| "its table cannot be understood")
    }

    /// Reads the table of the layer blob `layer`.
    ///
    /// # Errors
    /// When the blob is missing, or is no layer of ours, or its table is damaged or points outside of the blob.
    pub fn read(store: &Store, layer: Digest) -> Result<LayerTable> {
        let file = store.open_blob(layer)?;
        LayerTable::read_from(&file, layer).map_err(|error| match error {
            ReadError::Io(source) => StoreError::Io { action: "read", path: store.blob_path(layer), source },
            ReadError::Damaged(reason) => StoreError::Layer { layer: layer.to_string(), reason: reason.into() },
        })
    }

    fn read_from(file: &File, _layer: Digest) -> Result<LayerTable, ReadError> {
        let size = file.metadata()?.len();
        let mut footer = [0; FOOTER];
        let at = size.checked_sub(FOOTER as u64).ok_or(ReadError::Damaged("it is too short"))?;
        file.read_exact_at(&mut footer, at)?;
        let (offset, length, plain, digest) = LayerTable::parse_footer(&footer, size)?;
        let mut packed = vec![0; usize::try_from(length).map_err(|_| ReadError::Damaged("its table is too long"))?];
        file.read_exact_at(&mut packed, offset)?;
        let table = LayerTable::decode(&packed, plain, digest)?;
        table.check(offset)?;
        Ok(table)
    }

    /// Frames must lie before the table, have at most [`super::CHUNK`] bytes, and add up to the content's length.
    fn check(&self, end: u64) -> Result<(), &'static str> {
        for TableEntry { entry, frames } in &self.entries {
            let inside = |frame: &Frame| frame.offset.checked_add(frame.length).is_some_and(|it| it <= end);
            if !frames.iter().all(|frame| inside(frame) && frame.plain <= super::CHUNK as u64) {
                return Err("its table points outside of its frames");
            }
            let stored = match &entry.what {
                aule_tree::What::Node(inode) => inode.content().map_or(0, aule_tree::Content::stored_length),
                _ => 0,
            };
            if frames.iter().map(|frame| frame.plain).sum::<u64>() != stored {
                return Err("its table gives a file another length than its frames have");
            }
        }
        Ok(())
    }
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
