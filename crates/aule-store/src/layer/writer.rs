//! Writes a layer blob, or a plain tar.zst, entry by entry.

use super::{
    CHUNK, Contents,
    compress::Compressor,
    table::{Frame, LayerTable, TableEntry, write_table},
    tar_header,
};
use crate::{Result, Store, StoreError};
use aule_tree::{Content, Digest, Hasher, Inode, Kind, LayerEntry, Metadata, SparseMap, TreePath, What};
use std::{collections::HashMap, io::Read};

/// How an archive is written.
#[derive(Debug, Clone, Copy)]
pub struct ArchiveOptions {
    /// How many threads compress. Does not show in the bytes.
    pub jobs: usize,
    /// Whether the table and its footer are written: yes for a layer.
    pub table: bool,
    /// Whether the digest of the uncompressed archive is wanted: yes for a layer.
    pub diff_id: bool,
}

/// The compression level of every archive. Part of the format: another level gives other bytes.
const LEVEL: i32 = 3;

/// A finished archive.
#[derive(Debug)]
pub struct Archive {
    /// Of the blob.
    pub digest: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
    /// Of the uncompressed tar, where it was wanted.
    pub diff_id: Option<Digest>,
    /// The table, also where it was not written.
    pub table: LayerTable,
}

/// Which frames hold an entry's content, and how its digest is known.
enum Stored {
    Nothing,
    Known {
        first: usize,
        count: usize,
    },
    /// One frame, whose digest a worker makes.
    OneFrame {
        frame: usize,
    },
}

/// Writes an archive. Entries go in as given: their canonical order is the caller's business.
pub struct ArchiveWriter {
    compressor: Compressor,
    options: ArchiveOptions,
    /// Headers and padding that come before the next content.
    headers: Vec<u8>,
    entries: Vec<(LayerEntry, Stored)>,
    /// Where what a hardlink can name stands in the entries.
    linkable: HashMap<TreePath, usize>,
    buffer: Vec<u8>,
}

impl ArchiveWriter {
    /// Writes an archive into `store`: `fill` adds the entries.
    ///
    /// # Errors
    /// Those of `fill`, and those of writing; where writing failed (a full disk), that is the error, not what `fill`
    /// made of it. Nothing is in the store then.
    pub fn write<E: From<StoreError>>(
        store: &Store,
        options: ArchiveOptions,
        fill: impl FnOnce(&mut ArchiveWriter) -> Result<(), E>,
    ) -> Result<Archive, E> {
        let mut writer = ArchiveWriter::new(store, options)?;
        match fill(&mut writer) {
            Ok(()) => Ok(writer.finish(store)?),
            Err(error) => {
                writer.compressor.finish()?;
                Err(error)
            }
        }
    }

    fn new(store: &Store, options: ArchiveOptions) -> Result<Self> {
        let compressor = Compressor::start(store.blob_writer()?, LEVEL, options.jobs, options.diff_id)?;
        Ok(ArchiveWriter {
            compressor,
            options,
            headers: Vec::new(),
            entries: Vec::new(),
            linkable: HashMap::new(),
            buffer: Vec::new(),
        })
    }

    /// Adds something that has no content: anything but a file. Sockets are left out.
    pub fn entry(&mut self, entry: LayerEntry) -> Result<()> {
        if let What::Node(Inode { kind: Kind::Socket, .. }) = entry.what {
            return Ok(());
        }
        self.header(&entry)?;
        self.flush_headers(CHUNK)?;
        self.entries.push((entry, Stored::Nothing));
        Ok(())
    }

    /// Writes the header of an entry that comes next.
    fn header(&mut self, entry: &LayerEntry) -> Result<()> {
        let refused = |reason: String| StoreError::Unwritable { path: entry.path.to_string(), reason };
        let linked = match &entry.what {
            What::Whiteout | What::Opaque => None,
            What::Node(_) | What::Link(_) if entry.path.name().starts_with(b".wh.") => {
                return Err(refused("in OCI layers a name that begins with `.wh.` says that something is gone".into()));
            }
            What::Node(Inode { kind: Kind::Directory, .. }) => None,
            What::Node(_) => {
                self.linkable.insert(entry.path.clone(), self.entries.len());
                None
            }
            What::Link(target) => {
                let at = self.linkable.get(target).and_then(|at| self.entries.get(*at));
                match at.map(|(entry, _)| &entry.what) {
                    Some(What::Node(inode)) => Some(&inode.metadata),
                    _ => return Err(refused(format!("it is a hardlink to {target}, which did not come before it"))),
                }
            }
        };
        self.headers.extend_from_slice(&tar_header::header(entry, linked));
        Ok(())
    }

    /// Adds a file whose content is read from `data`: all its bytes, or those of the sparse map's extents in order.
    ///
    /// # Errors
    /// When `data` fails or ends early.
    pub fn file(
        &mut self,
        path: TreePath,
        metadata: Metadata,
        size: u64,
        sparse: Option<SparseMap>,
        data: &mut dyn Read,
    ) -> Result<()> {
        let map = sparse.as_ref().map(SparseMap::to_pax).unwrap_or_default();
        // The digest stands in the table only, so the header can be written before it is known.
        let unknown = Digest::from_bytes([0; 32]);
        let mut content = Content { digest: unknown, size, sparse };
        let stored = content.stored_length();
        let inode = Inode { metadata, kind: Kind::File(content.clone()) };
        let entry = LayerEntry { path, what: What::Node(inode) };
        self.header(&entry)?;
        self.flush_headers(0)?;

        let mut reader = map.as_slice().chain(data.take(stored - map.len() as u64));
        let mut buffer = std::mem::take(&mut self.buffer);
        let frames = if stored <= CHUNK as u64 {
            read_exactly(&mut reader, &mut buffer, stored, &entry.path)?;
            match stored {
                0 => {
                    content.digest = Digest::of(b"");
                    Stored::Nothing
                }
                _ => Stored::OneFrame { frame: self.compressor.plain(&buffer, true)? },
            }
        } else {
            let mut hasher = Hasher::new();
            let (mut left, mut first, mut count) = (stored, None, 0);
            while left > 0 {
                let length = left.min(CHUNK as u64);
                read_exactly(&mut reader, &mut buffer, length, &entry.path)?;
                hasher.update(&buffer);
                let frame = self.compressor.plain(&buffer, false)?;
                first.get_or_insert(frame);
                count += 1;
                left -= length;
            }
            content.digest = hasher.finish();
            Stored::Known { first: first.unwrap_or(0), count }
        };
        self.buffer = buffer;
        self.pad(stored);
        let entry = with_content(entry, content);
        self.entries.push((entry, frames));
        Ok(())
    }

    /// Adds a file whose content is in a layer already: its frames are copied, not compressed again.
    ///
    /// # Errors
    /// When `contents` does not have it or cannot be read.
    pub fn copy_file(
        &mut self,
        path: TreePath,
        metadata: Metadata,
        content: &Content,
        contents: &Contents,
    ) -> Result<()> {
        let entry = LayerEntry { path, what: What::Node(Inode { metadata, kind: Kind::File(content.clone()) }) };
        self.header(&entry)?;
        self.flush_headers(0)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        // One by one: a file may have more than memory holds.
        let (mut first, mut count) = (None, 0);
        contents.compressed_frames(content, &mut buffer, |bytes, plain| {
            let frame = self.compressor.frame(bytes, plain)?;
            first.get_or_insert(frame);
            count += 1;
            Ok(())
        })?;
        let stored = first.map_or(Stored::Nothing, |first| Stored::Known { first, count });
        self.buffer = buffer;
        self.pad(content.stored_length());
        self.entries.push((entry, stored));
        Ok(())
    }

    /// The padding after a content, which goes into the frame of the next header.
    fn pad(&mut self, length: u64) {
        let padding = length.next_multiple_of(512) - length;
        self.headers.resize(self.headers.len() + usize::try_from(padding).unwrap_or(0), 0);
    }

    /// Writes the pending headers when there are more than `keep` bytes of them.
    fn flush_headers(&mut self, keep: usize) -> Result<()> {
        if self.headers.len() > keep {
            for chunk in self.headers.chunks(CHUNK) {
                self.compressor.plain(chunk, false)?;
            }
            self.headers.clear();
        }
        Ok(())
    }

    /// Ends the archive, puts it in the store and gives what is in it.
    fn finish(mut self, store: &Store) -> Result<Archive> {
        self.headers.resize(self.headers.len() + 1024, 0);
        let flushed = self.flush_headers(0);
        let written = self.compressor.finish()?;
        flushed?;
        let frame_range = |first: usize, count: usize| -> Vec<Frame> {
            written.frames.get(first..first + count).map(<[Frame]>::to_vec).unwrap_or_default()
        };
        let mut digests = written.digests.iter().peekable();
        let mut table = LayerTable { entries: Vec::with_capacity(self.entries.len()) };
        for (entry, stored) in self.entries {
            let it = match stored {
                Stored::Nothing => TableEntry { entry, frames: Vec::new() },
                Stored::Known { first, count } => TableEntry { entry, frames: frame_range(first, count) },
                Stored::OneFrame { frame } => {
                    let Some((_, digest)) = digests.next_if(|(number, _)| *number == frame) else {
                        let reason = format!("the digest of {} was not made", entry.path);
                        return Err(StoreError::Layer { layer: "that is being written".into(), reason });
                    };
                    TableEntry { entry: with_digest(entry, *digest), frames: frame_range(frame, 1) }
                }
            };
            table.entries.push(it);
        }
        let mut blob = written.blob;
        if self.options.table {
            write_table(&mut blob, &table, written.length)?;
        }
        let (digest, size) = blob.commit(store)?;
        Ok(Archive { digest, size, diff_id: written.diff_id, table })
    }
}

fn with_content(mut entry: LayerEntry, content: Content) -> LayerEntry {
    if let What::Node(inode) = &mut entry.what {
        inode.kind = Kind::File(content);
    }
    entry
}

fn with_digest(mut entry: LayerEntry, digest: Digest) -> LayerEntry {
    if let What::Node(Inode { kind: Kind::File(content), .. }) = &mut entry.what {
        content.digest = digest;
    }
    entry
}

fn read_exactly(reader: &mut impl Read, buffer: &mut Vec<u8>, length: u64, path: &TreePath) -> Result<()> {
    buffer.clear();
    let read = reader
        .take(length)
        .read_to_end(buffer)
        .map_err(|source| StoreError::Content { path: path.to_string(), source })?;
    if read as u64 != length {
        return Err(StoreError::ContentChanged {
            path: path.to_string(),
            expected: format!("{length} more bytes"),
            found: format!("{read}"),
        });
    }
    Ok(())
}
