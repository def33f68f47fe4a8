//! What the fuzz target `layer_table` does with its input; a test runs the same over seeds and regressions.
//!
//! The first byte says what the rest is: 0 a whole layer blob; anything else the length of an archive (32 bits), the
//! archive, and an unpacked table, which get packing, digest and footer that are right: no fuzzer would hit a digest.

use aule_store::{
    Store,
    layer::{Contents, LayerCheck},
};
use aule_tree::{Digest, Metadata, Timestamp, Tree, diff};
use std::fs;

/// The largest file that is read whole.
const READ_MAX: u64 = 4 << 20;

/// The store that blobs are put in, one after the other.
pub struct Exercise {
    _directory: tempfile::TempDir,
    store: Store,
}

impl Exercise {
    /// A store in a directory for temporary files.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory for the store");
        let store = Store::open(directory.path().join("store")).expect("a store");
        Exercise { _directory: directory, store }
    }

    /// Opens the blob as a layer, reads all that it says it has, and checks it.
    pub fn layer_table(&self, input: &[u8]) {
        let blob = match input {
            [0, blob @ ..] => blob.to_vec(),
            [_, a, b, c, d, rest @ ..] => {
                let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
                let (archive, table) = rest.split_at(length.min(rest.len()));
                with_table(archive, table)
            }
            _ => return,
        };
        // Put there by hand, as syncing every blob would take most of the time.
        let digest = Digest::of(&blob);
        let path = self.store.blob_path(digest);
        fs::write(&path, &blob).expect("the blob can be written");
        if let Ok((tree, contents)) = Contents::open(&self.store, &[digest]) {
            for content in tree.contents() {
                let whole = contents.read(content, READ_MAX);
                let mut part = vec![0; content.size.min(5000) as usize];
                for offset in [0, content.size / 2, content.size - part.len() as u64] {
                    let read = contents.read_at(content, offset, &mut part);
                    let end = offset + part.len() as u64;
                    if let (Ok(whole), Ok(()), true) = (&whole, read, end <= content.size) {
                        assert_eq!(whole[offset as usize..end as usize], part, "a part differs from the whole");
                    }
                }
            }
            // The tree that came of it obeys the laws of trees.
            let mut again = Tree::new(Metadata::root_owned(0o755, Timestamp::default()));
            again.apply(&diff(&again, &tree)).expect("the difference of two trees applies");
            assert_eq!(again.digest(), tree.digest());
        }
        let _ = LayerCheck::run(&self.store, digest);
        fs::remove_file(path).expect("the blob can be removed");
    }
}

/// The blob of an archive with a table, as docs/layers.md describes it.
pub fn with_table(archive: &[u8], table: &[u8]) -> Vec<u8> {
    const SKIPPABLE: [u8; 4] = 0x184D_2A5A_u32.to_le_bytes();
    let packed = zstd::bulk::compress(table, 1).expect("bytes can be compressed");
    let mut blob = archive.to_vec();
    blob.extend(SKIPPABLE);
    blob.extend((packed.len() as u32).to_le_bytes());
    blob.extend(&packed);
    blob.extend(SKIPPABLE);
    blob.extend(64_u32.to_le_bytes());
    blob.extend(b"AULETBL1");
    for number in [archive.len() + 8, packed.len(), table.len()] {
        blob.extend((number as u64).to_le_bytes());
    }
    blob.extend(Digest::of(table).as_bytes());
    blob
}

/// The input for the blob of a layer, taken apart; the reverse of what the target does.
#[allow(dead_code, reason = "only those who make seeds need it")]
pub fn take_apart(blob: &[u8]) -> Vec<u8> {
    let number = |at: usize| u64::from_le_bytes(blob[at..at + 8].try_into().expect("eight bytes")) as usize;
    let footer = blob.len() - 64;
    let (offset, packed, plain) = (number(footer + 8), number(footer + 16), number(footer + 24));
    let table = zstd::bulk::decompress(&blob[offset..offset + packed], plain).expect("a table");
    let archive = &blob[..offset - 8];
    let mut input = vec![1];
    input.extend((archive.len() as u32).to_le_bytes());
    input.extend(archive);
    input.extend(table);
    input
}
