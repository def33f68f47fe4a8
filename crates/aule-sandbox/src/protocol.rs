//! What the two sides say to each other over the helper's standard input and output: frames of a length (`u32`, little
//! endian) and JSON. The bytes of a file follow its [`Entry`] as they are.

use aule_tree::{Metadata, TreePath};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};

/// The largest frame: an entry with all attributes that a file can have, written as JSON.
const FRAME_MAX: usize = 16 << 20;

/// What stands at one path of a tree, or happened to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where.
    pub path: TreePath,
    /// What.
    pub what: What,
}

/// See [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A directory. In a capture one that is there, and whether all that it held below is hidden.
    Directory {
        /// Its metadata.
        #[serde(with = "pairs")]
        metadata: Metadata,
        /// Whether it hides what the tree held there.
        opaque: bool,
    },
    /// A file, whose bytes follow.
    File {
        /// Its metadata.
        #[serde(with = "pairs")]
        metadata: Metadata,
        /// How many bytes follow.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Its metadata.
        #[serde(with = "pairs")]
        metadata: Metadata,
        /// Where it leads.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo {
        /// Its metadata.
        #[serde(with = "pairs")]
        metadata: Metadata,
    },
    /// One more name of the file at this path.
    Link(TreePath),
    /// Nothing any more.
    Gone,
}

/// Metadata with its attributes as pairs: the names in JSON's maps can be text only.
mod pairs {
    use super::{Deserialize, Metadata, Serialize};
    use aule_tree::Timestamp;
    use serde::{Deserializer, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Pairs {
        mode: u16,
        uid: u32,
        gid: u32,
        mtime: Timestamp,
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    }

    pub(super) fn serialize<S: Serializer>(metadata: &Metadata, serializer: S) -> Result<S::Ok, S::Error> {
        let Metadata { mode, uid, gid, mtime, xattrs } = metadata.clone();
        Pairs { mode, uid, gid, mtime, xattrs: xattrs.into_iter().collect() }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Metadata, D::Error> {
        let Pairs { mode, uid, gid, mtime, xattrs } = Pairs::deserialize(deserializer)?;
        Ok(Metadata { mode, uid, gid, mtime, xattrs: xattrs.into_iter().collect() })
    }
}

/// A program to run in the tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    /// The program, as a path of the tree, and its arguments.
    pub arguments: Vec<String>,
    /// All of its environment.
    pub environment: BTreeMap<String, String>,
    /// How many seconds it may take.
    pub limit: u64,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What it returned; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it was killed because its time was over.
    pub timed_out: bool,
    /// Names of the processes that it left running; they were killed.
    pub left: Vec<String>,
}

impl Exit {
    /// Whether it ended by itself, and well.
    pub fn success(&self) -> bool {
        self.code == Some(0) && !self.timed_out
    }
}

/// What the host asks for. Names are of directories below the one that the helper was started in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The identifiers are mapped.
    Mapped,
    /// Make a tree in a directory: entries follow, then `End`. It appears whole or not at all.
    Unpack { name: String },
    /// Part of `Unpack`.
    Entry(Entry),
    /// Part of `Unpack`.
    End,
    /// Whether there is such a directory.
    Has { name: String },
    /// Lay the trees over each other, the first one highest, with all changes going to `changes`.
    Open {
        trees: Vec<String>,
        changes: String,
        shown: Option<String>,
        native: Option<String>,
        emulator: Option<Emulator>,
    },
    /// Run a program in it.
    Run(Program),
    /// Give back what changed.
    Capture,
    /// End it.
    Close,
    /// Remove a directory.
    Remove { name: String },
}

/// How programs of another architecture are run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Emulator {
    /// What its programs look like, as /proc/sys/fs/binfmt_misc/register takes it: name, type, offset, magic, mask.
    pub(crate) format: String,
    /// Its path on the host.
    pub(crate) program: String,
    /// The loader of this machine's programs in the tree; with it the handler is asked first.
    pub(crate) loader: Option<String>,
}

/// What the helper says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// It is in its own user namespace, and waits for `Mapped`.
    Namespace,
    /// It is done.
    Done,
    /// Yes or no.
    Is(bool),
    /// It failed.
    Failed { what: String, errno: Option<i32> },
    /// What the program printed.
    Output(Vec<u8>),
    /// The program ended.
    Exited(Exit),
    /// Part of a capture.
    Entry(Entry),
    /// The end of a capture.
    End,
}

pub(crate) fn send(writer: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let length = u32::try_from(bytes.len()).ok().filter(|it| *it as usize <= FRAME_MAX);
    let length = length.ok_or_else(|| io::Error::other("a message is too long"))?;
    writer.write_all(&length.to_le_bytes())?;
    writer.write_all(&bytes)
}

pub(crate) fn receive<T: DeserializeOwned>(reader: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    reader.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_MAX {
        return Err(io::Error::other("a message is too long"));
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Copies exactly `size` bytes.
pub(crate) fn copy_exactly(reader: &mut impl Read, writer: &mut impl Write, size: u64) -> io::Result<()> {
    let copied = io::copy(&mut reader.take(size), writer)?;
    if copied == size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
