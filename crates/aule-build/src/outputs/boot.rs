//! The `boot` output: a FAT32 image that Pi firmware reads, and the same files as an archive for TFTP.

use crate::{
    BuildError, Result,
    import::BaseInfo,
    outputs::{
        artifact::{self, types},
        image::template_annotation,
    },
    stage::flatten,
};
use aule_image::{FatContent, FatEntry, FatOptions, write_fat};
use aule_store::{
    Store,
    layer::{ArchiveOptions, CHUNK, Contents},
    oci::Descriptor,
};
use aule_tree::{Hasher, Inode, Kind, Tree};
use std::io::{self, Read};

/// Everything that decides the bytes of the output, beside the tree.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct BootOptions {
    /// Exact size of the image in bytes; without it, as small as the files allow.
    pub(crate) size: Option<u64>,
    /// The size of the base's boot partition, which the image must not pass.
    pub(crate) max_size: Option<u64>,
    pub(crate) label: String,
    pub(crate) templates: Vec<String>,
}

impl BootOptions {
    pub(crate) fn new(size: Option<u64>, info: &BaseInfo, templates: Vec<String>) -> Self {
        BootOptions {
            size,
            max_size: if size.is_some() { None } else { info.boot_size },
            label: info.boot_label.clone().unwrap_or_else(|| "system-boot".into()),
            templates,
        }
    }
}

/// Makes the output of `tree`, whose root is the root of the boot partition.
pub(crate) fn make(
    store: &Store,
    tree: &Tree,
    contents: &Contents,
    options: &BootOptions,
    jobs: usize,
) -> Result<Descriptor> {
    let mut hasher = Hasher::new();
    hasher.field(b"boot volume id");
    hasher.field(tree.digest().as_bytes());
    let id = hasher.finish();
    let id = id.as_bytes().first_chunk::<4>().copied().unwrap_or_default();

    contents.check_all(store, tree.contents().into_iter())?;
    let mut files = Vec::new();
    for (path, _, inode) in tree.iter().filter(|(path, ..)| !path.is_root()) {
        let what = match &inode.kind {
            Kind::Directory => FatContent::Directory,
            Kind::File(content) => FatContent::File {
                size: content.size,
                open: Box::new(move || {
                    // A buffer of one frame: smaller reads would decompress each frame several times.
                    let reader = ContentReader { contents, inode, at: 0 };
                    Ok(Box::new(io::BufReader::with_capacity(CHUNK, reader)) as Box<dyn Read>)
                }),
            },
            other => {
                let what = other.word();
                return Err(BuildError::Boot(format!(
                    "{path} is a {what}, and a FAT filesystem holds only files and directories"
                )));
            }
        };
        files.push(FatEntry { path: path.clone(), mtime: inode.metadata.mtime, what });
    }
    let mut image = store.temporary_file()?;
    let fat = FatOptions {
        size: options.size,
        max_size: options.max_size,
        label: options.label.clone(),
        volume_id: u32::from_be_bytes(id),
    };
    let summary = write_fat(image.as_file_mut(), files, &fat).map_err(|error| BuildError::Boot(error.to_string()))?;
    let mut hasher = Hasher::new();
    io::Seek::rewind(image.as_file_mut())
        .and_then(|()| io::copy(image.as_file_mut(), &mut hasher))
        .map_err(|error| BuildError::Boot(error.to_string()))?;
    let digest = hasher.finish();
    store.keep(image, digest, summary.size)?;

    let archive = flatten(store, tree, contents, ArchiveOptions { jobs, table: true, diff_id: false })?;
    let blobs = vec![
        artifact::file(types::FAT_IMAGE, "boot.img", digest, summary.size),
        artifact::file(types::BOOT_ARCHIVE, "boot.tar.zst", archive.digest, archive.size),
    ];
    artifact::put(store, "boot", types::BOOT, blobs, template_annotation(&options.templates), None)
}

/// Reads a file of the tree from its first byte to its last.
struct ContentReader<'a> {
    contents: &'a Contents,
    inode: &'a Inode,
    at: u64,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(content) = self.inode.content() else { return Ok(0) };
        let length = (content.size - self.at).min(buffer.len() as u64) as usize;
        let Some(part) = buffer.get_mut(..length).filter(|part| !part.is_empty()) else { return Ok(0) };
        self.contents.read_at(content, self.at, part).map_err(io::Error::other)?;
        self.at += length as u64;
        Ok(length)
    }
}
