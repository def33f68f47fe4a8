//! The contents that a stack of layers holds, to be read at random.

use super::table::{Frame, LayerTable};
use crate::{Result, Store, StoreError};
use aule_tree::{Content, Digest, Hasher, Tree, What};
use std::{collections::HashMap, fs::File, os::unix::fs::FileExt};

/// Why a content cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// No layer holds it.
    #[error("no layer holds the content {0}")]
    Missing(Digest),
    /// The range is not within the file.
    #[error("bytes {offset} to {end} are not within a file of {size} bytes")]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// Byte after the last.
        end: u64,
        /// Length of the file.
        size: u64,
    },
}

/// Where the contents of some layers lie. The layers' files stay open.
#[derive(Debug, Default)]
pub struct Contents {
    layers: Vec<(Digest, File)>,
    places: HashMap<Digest, (usize, Vec<Frame>)>,
}

/// The frames that hold the stored bytes of one content, in order.
#[derive(Debug, Clone, Copy)]
pub struct ContentFrames<'a> {
    layer: Digest,
    file: &'a File,
    frames: &'a [Frame],
}

impl ContentFrames<'_> {
    /// The layer that they lie in.
    pub fn layer(&self) -> Digest {
        self.layer
    }

    /// Where they lie in the layer.
    pub fn frames(&self) -> &[Frame] {
        self.frames
    }

    /// Reads and decompresses one of them. Whether its bytes are the right ones is for the caller to see.
    ///
    /// # Errors
    /// When it cannot be read, or cannot be decompressed to the length that the table gives.
    pub fn read(&self, frame: &Frame) -> Result<Vec<u8>> {
        Contents::read_frame(&self.layer, self.file, frame)
    }
}

impl Contents {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the contents of `layer`, whose table is given.
    pub fn add(&mut self, store: &Store, layer: Digest, table: &LayerTable) -> Result<()> {
        let number = self.layers.len();
        self.layers.push((layer, store.open_blob(layer)?));
        for it in &table.entries {
            if let What::Node(inode) = &it.entry.what
                && let Some(content) = inode.content()
            {
                self.places.entry(content.digest).or_insert_with(|| (number, it.frames.clone()));
            }
        }
        Ok(())
    }

    /// Reads the tables of `layers`, the lowest first, and gives the tree that they make up and their contents.
    pub fn open(store: &Store, layers: &[Digest]) -> Result<(Tree, Contents)> {
        let mut contents = Contents::new();
        let root = aule_tree::Metadata::root_owned(0o755, aule_tree::Timestamp::default());
        let mut tree = Tree::new(root);
        for &layer in layers {
            let table = LayerTable::read(store, layer)?;
            contents.add(store, layer, &table)?;
            tree.apply(&table.into_layer())
                .map_err(|error| StoreError::Layer { layer: layer.to_string(), reason: error.to_string() })?;
        }
        Ok((tree, contents))
    }

    /// Whether a layer holds it.
    pub fn has(&self, content: Digest) -> bool {
        self.places.contains_key(&content)
    }

    fn place(&self, content: &Content) -> Result<(&Digest, &File, &[Frame])> {
        let missing =
            || StoreError::Layer { layer: "stack".into(), reason: ContentError::Missing(content.digest).to_string() };
        if content.stored_length() == 0 {
            return self.layers.first().map(|(digest, file)| (digest, file, [].as_slice())).ok_or_else(missing);
        }
        let (number, frames) = self.places.get(&content.digest).ok_or_else(missing)?;
        let (digest, file) = self.layers.get(*number).ok_or_else(missing)?;
        Ok((digest, file, frames))
    }

    /// The frames of a content, to be read one by one.
    ///
    /// # Errors
    /// When no layer holds it.
    pub fn frames(&self, content: &Content) -> Result<ContentFrames<'_>> {
        let (layer, file, frames) = self.place(content)?;
        Ok(ContentFrames { layer: *layer, file, frames })
    }

    /// Gives the compressed frames of a content one after the other, each with the length that it has uncompressed.
    pub(super) fn compressed_frames(
        &self,
        content: &Content,
        buffer: &mut Vec<u8>,
        mut take: impl FnMut(&[u8], usize) -> Result<()>,
    ) -> Result<()> {
        if content.stored_length() == 0 {
            return Ok(());
        }
        let (layer, file, frames) = self.place(content)?;
        for frame in frames {
            buffer.resize(frame.length as usize, 0);
            file.read_exact_at(buffer, frame.offset).map_err(|source| StoreError::Io {
                action: "read layer",
                path: layer.to_string().into(),
                source,
            })?;
            take(buffer, frame.plain as usize)?;
        }
        Ok(())
    }

    /// Compares the stored bytes of a content with its digest.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlob`] when they are others, and when they cannot be read.
    pub fn check(&self, content: &Content) -> Result<()> {
        let mut hasher = Hasher::new();
        if content.stored_length() > 0 {
            let (layer, file, frames) = self.place(content)?;
            for frame in frames {
                hasher.update(&Self::read_frame(layer, file, frame)?);
            }
        }
        match hasher.finish() {
            found if found == content.digest => Ok(()),
            found => Err(StoreError::DamagedBlob { digest: content.digest, found }),
        }
    }

    /// Sees that the frames of these contents are what they should be, before they are copied to where nobody would notice.
    /// A layer that this process wrote or checked before is not read again; one of which a quarter is wanted is compared with
    /// its digest as a whole, which needs no decompression.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlob`] when something is damaged.
    pub fn check_all<'a>(&self, store: &Store, contents: impl Iterator<Item = &'a Content>) -> Result<()> {
        let mut wanted: Vec<(u64, Vec<&Content>)> = self.layers.iter().map(|_| (0, Vec::new())).collect();
        for content in contents.filter(|content| content.stored_length() > 0) {
            let missing = || StoreError::Layer {
                layer: "stack".into(),
                reason: ContentError::Missing(content.digest).to_string(),
            };
            let (number, frames) = self.places.get(&content.digest).ok_or_else(missing)?;
            if let Some((bytes, contents)) = wanted.get_mut(*number) {
                *bytes += frames.iter().map(|frame| frame.length).sum::<u64>();
                contents.push(content);
            }
        }
        for ((layer, file), (bytes, contents)) in self.layers.iter().zip(wanted) {
            let size = file.metadata().map_err(StoreError::io("read", store.blob_path(*layer)))?.len();
            if store.is_known_good(*layer) {
                continue;
            } else if bytes > size / 4 {
                store.verify_blob(*layer)?;
            } else {
                contents.into_iter().try_for_each(|content| self.check(content))?;
            }
        }
        Ok(())
    }

    fn read_frame(layer: &Digest, file: &File, frame: &Frame) -> Result<Vec<u8>> {
        let mut packed = vec![0; frame.length as usize];
        file.read_exact_at(&mut packed, frame.offset).map_err(|source| StoreError::Io {
            action: "read layer",
            path: layer.to_string().into(),
            source,
        })?;
        let damaged = || StoreError::Layer {
            layer: layer.to_string(),
            reason: format!("the frame at {} cannot be decompressed", frame.offset),
        };
        let plain = zstd::bulk::decompress(&packed, frame.plain as usize).map_err(|_| damaged())?;
        if plain.len() as u64 != frame.plain { Err(damaged()) } else { Ok(plain) }
    }

    /// Reads all of a file of at most `limit` bytes, holes included, and checks its digest.
    pub fn read(&self, content: &Content, limit: u64) -> Result<Vec<u8>> {
        if content.size > limit {
            let what = "a file to be read whole";
            return Err(StoreError::TooLarge { digest: content.digest, size: content.size, limit, what });
        }
        let mut stored = Vec::with_capacity(content.stored_length() as usize);
        if content.stored_length() > 0 {
            let (layer, file, frames) = self.place(content)?;
            for frame in frames {
                stored.extend_from_slice(&Self::read_frame(layer, file, frame)?);
            }
        }
        match Digest::of(&stored) {
            found if found != content.digest => {
                return Err(StoreError::DamagedBlob { digest: content.digest, found });
            }
            _ => {}
        }
        let Some(map) = &content.sparse else { return Ok(stored) };
        let mut bytes = vec![0; content.size as usize];
        let mut data = stored.get(map.to_pax().len()..).unwrap_or_default();
        for extent in map.extents() {
            let (now, later) = data.split_at_checked(extent.length as usize).unwrap_or((data, &[]));
            if let Some(place) = bytes.get_mut(extent.offset as usize..(extent.offset + extent.length) as usize) {
                place.copy_from_slice(now);
            }
            data = later;
        }
        Ok(bytes)
    }

    /// Reads `buffer.len()` bytes of a file from `offset`. Only the frames that hold them are decompressed.
    pub fn read_at(&self, content: &Content, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > content.size {
            let error = ContentError::OutOfRange { offset, end, size: content.size };
            return Err(StoreError::Layer { layer: "stack".into(), reason: error.to_string() });
        }
        match &content.sparse {
            None => self.read_stored(content, offset, buffer),
            Some(map) => {
                buffer.fill(0);
                let mut stored = map.to_pax().len() as u64;
                for extent in map.extents() {
                    let from = extent.offset.max(offset);
                    let to = (extent.offset + extent.length).min(end);
                    if from < to {
                        let place = buffer.get_mut((from - offset) as usize..(to - offset) as usize);
                        self.read_stored(content, stored + (from - extent.offset), place.unwrap_or_default())?;
                    }
                    stored += extent.length;
                }
                Ok(())
            }
        }
    }

    fn read_stored(&self, content: &Content, offset: u64, mut buffer: &mut [u8]) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let (layer, file, frames) = self.place(content)?;
        let mut at = offset;
        let mut start = 0;
        for frame in frames {
            let next = start + frame.plain;
            if at < next && !buffer.is_empty() {
                let plain = Self::read_frame(layer, file, frame)?;
                let from = plain.get((at - start) as usize..).unwrap_or_default();
                let count = from.len().min(buffer.len());
                let (now, later) = buffer.split_at_mut(count);
                now.copy_from_slice(from.get(..count).unwrap_or_default());
                buffer = later;
                at += count as u64;
            }
            start = next;
        }
        Ok(())
    }
}
