//! A layer with one of each kind, for tests and as a seed for fuzzing.

use aule_store::{
    Store,
    layer::{Archive, ArchiveOptions, ArchiveWriter},
};
use aule_tree::{Extent, Inode, Kind, LayerEntry, Metadata, SparseMap, Timestamp, TreePath, What};
use std::collections::BTreeMap;

pub(crate) fn path(bytes: impl AsRef<[u8]>) -> TreePath {
    TreePath::new(bytes).unwrap()
}

pub(crate) fn metadata(mode: u16) -> Metadata {
    Metadata::root_owned(mode, Timestamp::from_seconds(1_700_000_000))
}

pub(crate) fn node(name: impl AsRef<[u8]>, metadata: Metadata, kind: Kind) -> LayerEntry {
    LayerEntry { path: path(name), what: What::Node(Inode { metadata, kind }) }
}

pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8 & 0x3f
        })
        .collect()
}

/// One of each kind, with everything that needs an extended header; the large file has `large` bytes.
pub(crate) fn write(store: &Store, jobs: usize, large: usize) -> Archive {
    let options = ArchiveOptions { jobs, table: true, diff_id: true };
    ArchiveWriter::write(store, options, |writer| {
        writer.entry(node("", metadata(0o755), Kind::Directory))?;
        let attributes = BTreeMap::from([
            (b"security.capability".to_vec(), vec![1, 0, 0, 2, 0, 0x20, 0, 0]),
            (b"user.\xffodd".to_vec(), b"a\nb=c\0d".to_vec()),
        ]);
        let big_owner = Metadata { uid: 4_000_000_000, gid: 3_000_000, xattrs: attributes, ..metadata(0o4755) };
        writer.file(path("bin/ping"), big_owner, 5, None, &mut &b"hello"[..])?;
        writer.entry(LayerEntry { path: path("bin/ping6"), what: What::Link(path("bin/ping")) })?;
        writer.file(path("big"), metadata(0o644), large as u64, None, &mut &noise(large, 1)[..])?;
        writer.entry(node("dev/null", metadata(0o666), Kind::CharDevice { major: 1, minor: 3 }))?;
        writer.entry(node("dev/odd", metadata(0o660), Kind::BlockDevice { major: 259, minor: 1_048_575 }))?;
        writer.entry(node("dev/pipe", metadata(0o600), Kind::Fifo))?;
        writer.file(path("empty"), metadata(0o644), 0, None, &mut &b""[..])?;
        writer.entry(node("link", metadata(0o777), Kind::Symlink(vec![b't'; 300])))?;
        let long = format!("{}/{}", "d".repeat(200), "n".repeat(200));
        writer.file(path(&long), metadata(0o644), 1, None, &mut &b"x"[..])?;
        let old = Metadata { mtime: Timestamp { seconds: -2, nanoseconds: 500_000_000 }, ..metadata(0o644) };
        writer.file(path(b"n\xf6n-utf8"), old, 1, None, &mut &b"y"[..])?;
        let map = SparseMap::new(1 << 40, [Extent { offset: 4096, length: 10 }, Extent { offset: 1 << 39, length: 3 }]);
        writer.file(path("sparse"), metadata(0o644), 1 << 40, Some(map.unwrap()), &mut &b"0123456789abc"[..])?;
        let precise = Metadata { mtime: Timestamp { seconds: 1, nanoseconds: 1 }, ..metadata(0o644) };
        writer.file(path("time"), precise, 0, None, &mut &b""[..])?;
        Ok::<_, aule_store::StoreError>(())
    })
    .unwrap()
}
