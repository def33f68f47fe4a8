//! Checks a layer blob against its own table: whoever unpacks the archive must see what the table says.
//!
//! The archive is decompressed as a stream, in order, and compared with what a layer with this table holds: for each
//! entry the very header that the table's words give, the content by its digest, the padding, and the two empty blocks
//! at the end. An archive that differs in a name, kind, size, owner, time or attribute differs in a header, so nothing
//! in it has to be parsed, and nothing in it can make this take memory. The frames that the table gives for random
//! reads must be those that the contents lie in.

use super::{
    CHUNK,
    table::{Frame, LayerTable},
    tar_header,
};
use crate::{Result, Store};
use aule_tree::{Content, Digest, Hasher, Metadata, TreePath, What};
use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read},
};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

/// The two empty blocks that end a tar archive.
const END: u64 = 1024;
const BLOCK: u64 = 512;

/// How an archive differs from its table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayerProblem {
    /// The archive has another entry where the table has this one.
    #[error("the archive has {found} where the table has {path}")]
    Entry {
        /// In the table.
        path: TreePath,
        /// The name in the archive, or that only its metadata differ.
        found: String,
    },
    /// A file has other bytes than the table says.
    #[error("the content of {path} is {found}, the table says {expected}")]
    Content {
        /// The file.
        path: TreePath,
        /// In the table.
        expected: Digest,
        /// In the archive.
        found: Digest,
    },
    /// Bytes that must be zero are not.
    #[error("the archive has data after {0} where it must be empty")]
    Padding(TreePath),
    /// A random read of the file would not give the bytes that stand in the archive.
    #[error("the frames that the table gives for {0} are not those that hold it")]
    Frames(TreePath),
    /// The archive goes on after its last entry.
    #[error("the archive holds more than the table says")]
    TooLong,
    /// The archive ends early or cannot be decompressed.
    #[error("the archive cannot be read at byte {at} of the blob: {reason}")]
    Unreadable {
        /// Where in the compressed blob.
        at: u64,
        /// Why.
        reason: String,
    },
}

/// What a check of a layer found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerCheck {
    /// How many entries the table has.
    pub entries: usize,
    /// The digest of the uncompressed archive; `None` when it was not read to its end.
    pub diff_id: Option<Digest>,
    /// What is wrong, in the order of the archive; after [`LayerProblem::Entry`] nothing more can be said.
    pub problems: Vec<LayerProblem>,
}

impl LayerCheck {
    /// Checks the layer blob `layer`: its archive against its table.
    ///
    /// # Errors
    /// When there is no such blob, or it has no table that could be read.
    pub fn run(store: &Store, layer: Digest) -> Result<LayerCheck> {
        let table = LayerTable::read(store, layer)?;
        let blob = store.open_blob(layer)?;
        Ok(check(BufReader::with_capacity(1 << 17, blob), &table))
    }
}

fn check(blob: impl BufRead, table: &LayerTable) -> LayerCheck {
    let mut problems = Vec::new();
    let mut diff_id = None;
    match Frames::new(blob, table) {
        Ok(mut archive) => match compare(&mut archive, table, &mut problems) {
            Ok(true) => diff_id = Some(archive.hasher.finish()),
            Ok(false) => {}
            Err(error) => problems.push(LayerProblem::Unreadable { at: archive.offset, reason: error.to_string() }),
        },
        Err(error) => problems.push(LayerProblem::Unreadable { at: 0, reason: error.to_string() }),
    }
    LayerCheck { entries: table.entries.len(), diff_id, problems }
}

/// Says whether the archive was read to its end.
fn compare(
    archive: &mut Frames<impl BufRead>,
    table: &LayerTable,
    problems: &mut Vec<LayerProblem>,
) -> io::Result<bool> {
    let mut buffer = vec![0; CHUNK.min(1 << 17)];
    let mut starts = Vec::new();
    let mut linkable: HashMap<&TreePath, &Metadata> = HashMap::new();
    for it in &table.entries {
        let path = &it.entry.path;
        let linked = match &it.entry.what {
            What::Link(target) => linkable.get(target).copied(),
            _ => None,
        };
        if let What::Node(inode) = &it.entry.what {
            linkable.insert(path, &inode.metadata);
        }
        let expected = tar_header::header(&it.entry, linked);
        if let Some(found) = other_header(archive, &expected)? {
            problems.push(LayerProblem::Entry { path: path.clone(), found });
            return Ok(false);
        }
        let content = match &it.entry.what {
            What::Node(inode) => inode.content(),
            _ => None,
        };
        let Some(content) = content else { continue };
        starts.push((archive.plain, it));
        let found = digest_of(archive, content, &mut buffer)?;
        if found != content.digest {
            problems.push(LayerProblem::Content { path: path.clone(), expected: content.digest, found });
        }
        let length = content.stored_length();
        if !zeros(archive, length.next_multiple_of(BLOCK) - length, &mut buffer)? {
            problems.push(LayerProblem::Padding(path.clone()));
        }
    }
    if !zeros(archive, END, &mut buffer)? || archive.read(&mut [0])? > 0 {
        problems.push(LayerProblem::TooLong);
        return Ok(false);
    }
    for (start, it) in starts {
        let mut at = start;
        let right = it.frames.iter().all(|frame| {
            let there = archive.seen.get(frame) == Some(&at);
            at += frame.plain;
            there
        });
        if !right {
            problems.push(LayerProblem::Frames(it.entry.path.clone()));
        }
    }
    Ok(true)
}

/// Reads as many bytes as `expected` has; when they are others, says what is there.
fn other_header(archive: &mut impl Read, expected: &[u8]) -> io::Result<Option<String>> {
    let mut block = [0; BLOCK as usize];
    for wanted in expected.chunks(block.len()) {
        archive.read_exact(&mut block)?;
        if block == *wanted {
            continue;
        }
        // ustar: the name is the first field; an empty block ends the archive. (POSIX, `pax`)
        let name = block.get(..100).unwrap_or_default().split(|&b| b == 0).next().unwrap_or_default();
        return Ok(Some(match wanted.get(..100).is_some_and(|wanted| wanted.starts_with(name)) && !name.is_empty() {
            true => "other metadata, or a longer name,".into(),
            false if name.is_empty() => "nothing more".into(),
            false => format!("`{}`", name.escape_ascii()),
        }));
    }
    Ok(None)
}

fn digest_of(archive: &mut impl Read, content: &Content, buffer: &mut [u8]) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut left = content.stored_length();
    while left > 0 {
        let part = part(buffer, left);
        archive.read_exact(part)?;
        hasher.update(part);
        left -= part.len() as u64;
    }
    Ok(hasher.finish())
}

fn zeros(archive: &mut impl Read, mut length: u64, buffer: &mut [u8]) -> io::Result<bool> {
    let mut all = true;
    while length > 0 {
        let part = part(buffer, length);
        archive.read_exact(part)?;
        all &= part.iter().all(|&b| b == 0);
        length -= part.len() as u64;
    }
    Ok(all)
}

fn part(buffer: &mut [u8], length: u64) -> &mut [u8] {
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
    buffer.get_mut(..length).unwrap_or_default()
}

/// Decompresses a blob frame by frame and notes where the frames of the table begin in the archive.
struct Frames<R> {
    blob: R,
    decoder: Decoder<'static>,
    hasher: Hasher,
    /// How much of the blob was taken in.
    offset: u64,
    /// How much of the archive was given out.
    plain: u64,
    /// Where the current frame began, in the blob and in the archive; `None` between frames.
    current: Option<(u64, u64)>,
    /// Lengths of the frames that are looked for, by their place in the blob.
    wanted: HashMap<u64, Frame>,
    /// Where the frames that were looked for and found begin in the archive.
    seen: HashMap<Frame, u64>,
}

impl<R: BufRead> Frames<R> {
    fn new(blob: R, table: &LayerTable) -> io::Result<Self> {
        let wanted = table.entries.iter().flat_map(|it| &it.frames).map(|frame| (frame.offset, *frame)).collect();
        Ok(Frames {
            blob,
            decoder: Decoder::new()?,
            hasher: Hasher::new(),
            offset: 0,
            plain: 0,
            current: None,
            wanted,
            seen: HashMap::new(),
        })
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let input = self.blob.fill_buf()?;
            if input.is_empty() && self.current.is_none() {
                return Ok(0);
            }
            let (offset, plain) = *self.current.get_or_insert((self.offset, self.plain));
            let at_end = input.is_empty();
            let mut taken = InBuffer::around(input);
            let mut given = OutBuffer::around(&mut *buffer);
            let hint = self.decoder.run(&mut taken, &mut given)?;
            let (taken, given) = (taken.pos(), given.pos());
            self.blob.consume(taken);
            self.offset += taken as u64;
            self.plain += given as u64;
            if hint == 0 {
                let frame = Frame { offset, length: self.offset - offset, plain: self.plain - plain };
                if self.wanted.get(&offset) == Some(&frame) {
                    self.seen.insert(frame, plain);
                }
                self.current = None;
                self.decoder.reinit()?;
            } else if at_end && given == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle of a frame"));
            }
            if given > 0 {
                self.hasher.update(buffer.get(..given).unwrap_or_default());
                return Ok(given);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        StoreError,
        layer::{Archive, ArchiveOptions, ArchiveWriter, TableEntry},
    };
    use aule_tree::{Extent, Inode, Kind, LayerEntry, Metadata, SparseMap, Timestamp};

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn metadata(mode: u16) -> Metadata {
        let mut metadata = Metadata::root_owned(mode, Timestamp { seconds: 1_700_000_000, nanoseconds: 5 });
        metadata.xattrs.insert(b"user.note".to_vec(), b"two\nlines".to_vec());
        metadata
    }

    fn node(name: &str, kind: Kind) -> LayerEntry {
        LayerEntry { path: path(name), what: What::Node(Inode { metadata: metadata(0o755), kind }) }
    }

    fn write(store: &Store) -> Archive {
        let options = ArchiveOptions { jobs: 2, table: true, diff_id: true };
        ArchiveWriter::write(store, options, |writer| {
            writer.entry(node("", Kind::Directory))?;
            let big: Vec<u8> = (0..2 * CHUNK + 5).map(|n| (n / 7) as u8).collect();
            writer.file(path("big"), metadata(0o644), big.len() as u64, None, &mut big.as_slice())?;
            writer.entry(LayerEntry { path: path("etc/gone"), what: What::Whiteout })?;
            writer.file(path("etc/hostname"), metadata(0o644), 6, None, &mut &b"valar\n"[..])?;
            writer.entry(LayerEntry { path: path("etc/link"), what: What::Link(path("etc/hostname")) })?;
            writer.file(path("etc/other"), metadata(0o644), 6, None, &mut &b"maiar\n"[..])?;
            let map = SparseMap::new(1 << 30, [Extent { offset: 4096, length: 3 }]).unwrap();
            writer.file(path("sparse"), metadata(0o644), 1 << 30, Some(map), &mut &b"abc"[..])?;
            Ok::<_, StoreError>(())
        })
        .unwrap()
    }

    /// The archive of a blob without its table, which a footer of 64 bytes points at.
    fn archive_of(blob: &[u8]) -> &[u8] {
        let at = blob.len() - 64 + 8;
        let table = u64::from_le_bytes(blob[at..at + 8].try_into().unwrap());
        &blob[..table as usize - 8]
    }

    /// Checks a blob of this archive and this table.
    fn check_blob(store: &Store, archive: &[u8], table: &LayerTable) -> LayerCheck {
        let table = table.encode(archive.len() as u64).unwrap();
        let digest = store.put(&[archive, &table].concat()).unwrap();
        LayerCheck::run(store, digest).unwrap()
    }

    fn at<'a>(table: &'a mut LayerTable, name: &str) -> &'a mut TableEntry {
        table.entries.iter_mut().find(|it| it.entry.path == path(name)).unwrap()
    }

    fn inode<'a>(table: &'a mut LayerTable, name: &str) -> &'a mut Inode {
        match &mut at(table, name).entry.what {
            What::Node(inode) => inode,
            _ => panic!("{name} is no node"),
        }
    }

    #[test]
    fn a_layer_is_what_its_table_says() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let archive = write(&store);
        let found = LayerCheck::run(&store, archive.digest).unwrap();
        assert_eq!(found, LayerCheck { entries: 7, diff_id: archive.diff_id, problems: vec![] });
    }

    #[test]
    fn every_lie_of_a_table_is_found() {
        type Lie = fn(&mut LayerTable);
        let lies: [(&str, Lie); 11] = [
            ("a name", |t| at(t, "etc/hostname").entry.path = path("etc/hostnamf")),
            ("a kind", |t| inode(t, "").kind = Kind::Fifo),
            ("a mode", |t| inode(t, "etc/hostname").metadata.mode = 0o4755),
            ("an owner", |t| inode(t, "etc/hostname").metadata.uid = 1),
            ("a large owner", |t| inode(t, "etc/hostname").metadata.uid = u32::MAX),
            ("a time", |t| inode(t, "big").metadata.mtime.nanoseconds = 6),
            ("an attribute", |t| {
                inode(t, "big").metadata.xattrs.insert(b"user.note".to_vec(), b"two\nlinez".to_vec());
            }),
            ("a link", |t| at(t, "etc/link").entry.what = What::Link(path("etc/other"))),
            ("a whiteout", |t| at(t, "etc/gone").entry.what = What::Opaque),
            ("an entry more", |t| {
                let last = t.entries.last().cloned().unwrap();
                t.entries.push(last);
            }),
            ("an order", |t| t.entries.swap(3, 5)),
        ];
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let written = write(&store);
        let blob = std::fs::read(store.blob_path(written.digest)).unwrap();
        for (what, lie) in lies {
            let mut table = written.table.clone();
            lie(&mut table);
            let found = check_blob(&store, archive_of(&blob), &table);
            assert!(matches!(found.problems.as_slice(), [LayerProblem::Entry { .. }]), "{what}: {found:?}");
            assert_eq!(found.diff_id, None, "{what}");
        }
    }

    #[test]
    fn contents_frames_and_ends_are_compared() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let written = write(&store);
        let blob = std::fs::read(store.blob_path(written.digest)).unwrap();
        let archive = archive_of(&blob);

        let mut table = written.table.clone();
        inode(&mut table, "etc/hostname").kind = Kind::File(Content::of(b"VALAR\n"));
        let wrong = LayerProblem::Content {
            path: path("etc/hostname"),
            expected: Digest::of(b"VALAR\n"),
            found: Digest::of(b"valar\n"),
        };
        assert_eq!(check_blob(&store, archive, &table).problems, [wrong]);

        // Random reads of one file would give the other's bytes, which a stream does not show.
        let mut table = written.table.clone();
        at(&mut table, "etc/hostname").frames = at(&mut table, "etc/other").frames.clone();
        let found = check_blob(&store, archive, &table);
        assert_eq!(found.problems, [LayerProblem::Frames(path("etc/hostname"))]);
        assert_eq!(found.diff_id, written.diff_id);

        let mut table = written.table.clone();
        table.entries.pop();
        assert!(!check_blob(&store, archive, &table).problems.is_empty());

        let more = [archive, &zstd::bulk::compress(b"more", 3).unwrap()].concat();
        assert_eq!(check_blob(&store, &more, &written.table).problems, [LayerProblem::TooLong]);

        let mut broken = archive.to_vec();
        let frame = *at(&mut written.table.clone(), "etc/other").frames.first().unwrap();
        broken[frame.offset as usize] ^= 0x55;
        let found = check_blob(&store, &broken, &written.table);
        assert!(matches!(found.problems.last(), Some(LayerProblem::Unreadable { .. })), "{found:?}");

        let mut short = written.table.clone();
        for it in &mut short.entries {
            it.frames.clear();
        }
        let found = check(archive.get(..archive.len() / 2).unwrap(), &short);
        assert!(matches!(found.problems.last(), Some(LayerProblem::Unreadable { .. })), "{found:?}");
    }
}
