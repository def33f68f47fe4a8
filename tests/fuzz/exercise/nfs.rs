//! What the fuzz target `nfs` does with its input.
//!
//! The first byte says what the rest is: 0 what a client sends, records and all; anything else calls without their heads:
//! program, procedure, inode (each a byte) and the length of the arguments behind the handle (a byte), which get a head and a
//! handle that are right: no fuzzer would hit the code in a handle.

use aule_serve::hostile::Alone;
use aule_store::{
    Store,
    layer::{ArchiveOptions, ArchiveWriter, Contents},
};
use aule_tree::{Digest, Inode, Kind, LayerEntry, Metadata, Timestamp, TreePath, What};

/// A small tree that is served.
pub struct Exercise {
    _directory: tempfile::TempDir,
    alone: Alone,
}

impl Exercise {
    /// The tree in a store in a directory for temporary files.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory for the store");
        let store = Store::open(directory.path().join("store")).expect("a store");
        let options = ArchiveOptions { jobs: 1, table: true, diff_id: true };
        let meta = |mode| Metadata::root_owned(mode, Timestamp::default());
        let path = |name: &str| TreePath::new(name).expect("a path");
        let archive = ArchiveWriter::write(&store, options, |writer| {
            for (name, kind) in [("", Kind::Directory), ("d", Kind::Directory), ("link", Kind::Symlink(b"t".to_vec()))] {
                let inode = Inode { metadata: meta(0o755), kind };
                writer.entry(LayerEntry { path: path(name), what: What::Node(inode) })?;
            }
            for number in 0..50 {
                let name = format!("m/{number:02}");
                writer.file(path(&name), meta(0o640), 3, None, &mut &b"abc"[..])?;
            }
            let large = vec![7; 3 << 20];
            writer.file(path("x"), meta(0o644), large.len() as u64, None, &mut &large[..])?;
            Ok::<_, aule_store::StoreError>(())
        });
        let layer = archive.expect("a layer").digest;
        let (tree, contents) = Contents::open(&store, &[layer]).expect("a tree");
        Exercise { alone: Alone::new(Digest::of(b"a build"), &tree, contents), _directory: directory }
    }

    /// Sends the calls.
    pub fn nfs(&self, input: &[u8]) {
        let sent = match input {
            [0, sent @ ..] => sent.to_vec(),
            [_, calls @ ..] => self.calls(calls),
            [] => return,
        };
        if let Some(replies) = self.alone.answer(&sent) {
            let most = 64 + sent.len().div_ceil(28) * (2 << 20);
            assert!(replies.len() <= most, "{} bytes for {}", replies.len(), sent.len());
            let mut rest = replies.as_slice();
            while let [a, b, c, d, more @ ..] = rest {
                let head = u32::from_be_bytes([*a, *b, *c, *d]);
                assert!(head >> 31 == 1, "every reply is one record");
                rest = &more[(head & 0x7fff_ffff) as usize..];
            }
            assert!(rest.is_empty(), "replies are whole");
        }
    }

    fn calls(&self, mut input: &[u8]) -> Vec<u8> {
        let mut sent = Vec::new();
        while let [program, procedure, inode, length, rest @ ..] = input {
            let (arguments, rest) = rest.split_at(rest.len().min(usize::from(*length)));
            input = rest;
            let (program, version) = [(100_003_u32, 3_u32), (100_005, 3), (100_000, 2)][usize::from(program % 3)];
            let mut call = Vec::new();
            for word in [1, 0, 2, program, version, u32::from(*procedure) % 24, 0, 0, 0, 0] {
                call.extend(word.to_be_bytes());
            }
            if program == 100_003 {
                call.extend(48_u32.to_be_bytes());
                call.extend(self.alone.handle(u64::from(*inode)));
            }
            call.extend(arguments);
            sent.extend((0x8000_0000 | call.len() as u32).to_be_bytes());
            sent.extend(call);
        }
        sent
    }
}
