//! Reading a file of a tree from its first byte to its last, with little memory, and checking what was read.

use crate::failure::Failure;
use aule_store::{StoreError, layer::Contents};
use aule_tree::{Content, Extent, Hasher};

/// How many bytes are read at once: as many as a frame of a layer holds.
const PIECE: u64 = 1 << 20;

/// Gives all bytes of a file to `sink`, piece by piece, holes as zeros.
///
/// # Errors
/// Those of `sink`, and when the content cannot be read or its bytes do not have its digest; `sink` may have got bytes
/// by then.
pub(super) fn copy(
    contents: &Contents,
    content: &Content,
    mut sink: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut hasher = Hasher::new();
    if let Some(map) = &content.sparse {
        hasher.update(&map.to_pax());
    }
    let mut buffer = vec![0; usize::try_from(content.size.min(PIECE)).unwrap_or_default()];
    let mut at = 0;
    while at < content.size {
        let length = usize::try_from((content.size - at).min(PIECE)).unwrap_or_default();
        let part = buffer.get_mut(..length).unwrap_or_default();
        contents.read_at(content, at, part)?;
        match &content.sparse {
            None => hasher.update(part),
            Some(map) => map.extents().iter().for_each(|extent| hasher.update(within(part, at, extent))),
        }
        sink(part)?;
        at += length as u64;
    }
    match hasher.finish() {
        found if found == content.digest => Ok(()),
        found => Err(StoreError::DamagedBlob { digest: content.digest, found }.into()),
    }
}

/// The bytes of `part`, which starts at `at`, that lie within `extent`.
fn within<'a>(part: &'a [u8], at: u64, extent: &Extent) -> &'a [u8] {
    let from = extent.offset.max(at) - at;
    let to = (extent.offset + extent.length).saturating_sub(at).min(part.len() as u64);
    let (from, to) = (usize::try_from(from).unwrap_or(usize::MAX), usize::try_from(to).unwrap_or_default());
    part.get(from..to).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aule_store::{
        Store,
        layer::{ArchiveOptions, ArchiveWriter},
    };
    use aule_tree::{Metadata, SparseMap, Timestamp, TreePath};

    #[test]
    fn all_bytes_come_and_are_checked() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let metadata = || Metadata::root_owned(0o644, Timestamp::default());
        let plain: Vec<u8> = (0..PIECE * 2 + 9).map(|n| (n / 3) as u8).collect();
        let extents = [Extent { offset: 10, length: 20 }, Extent { offset: PIECE - 5, length: 10 }];
        let size = 3 * PIECE;
        let map = SparseMap::new(size, extents).unwrap();
        let data = [7; 30];
        let archive = ArchiveWriter::write(&store, ArchiveOptions { jobs: 1, table: true, diff_id: false }, |writer| {
            writer.file(TreePath::new("empty")?, metadata(), 0, None, &mut &b""[..])?;
            writer.file(TreePath::new("plain")?, metadata(), plain.len() as u64, None, &mut plain.as_slice())?;
            writer.file(TreePath::new("sparse")?, metadata(), size, Some(map.clone()), &mut &data[..])?;
            Ok::<_, Box<dyn std::error::Error>>(())
        })
        .unwrap();
        let (tree, contents) = Contents::open(&store, &[archive.digest]).unwrap();
        let mut expected = vec![0; size as usize];
        for extent in extents {
            expected[extent.offset as usize..(extent.offset + extent.length) as usize].fill(7);
        }
        for (name, expected) in [("empty", vec![]), ("plain", plain), ("sparse", expected)] {
            let content = tree.get(&TreePath::new(name).unwrap()).unwrap().content().unwrap();
            let mut got = Vec::new();
            copy(&contents, content, |part| {
                got.extend_from_slice(part);
                Ok(())
            })
            .unwrap();
            assert_eq!(got, expected, "{name}");
        }
    }
}
