//! The import of an upstream image: its filesystems become one layer, in one pass, without a mount.

use crate::{BuildError, Result};
use aule_image::{
    DecodedImage, Entry, EntryKind, FileHandle, Filesystem, FilesystemError, PartitionTable, ReadAt, Window, open,
    read_partitions,
};
use aule_store::{
    Store,
    layer::{Archive, ArchiveOptions, ArchiveWriter},
};
use aule_tree::{Digest, Extent, Inode, Kind, LayerEntry, Metadata, SparseMap, Timestamp, TreePath, What};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Read},
    sync::Arc,
};

/// What later steps need to know of the image beside its tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseInfo {
    /// SHA-256 of the image file as it was given, compressed or not.
    pub image: Digest,
    /// Where the boot partition is mounted, without a leading slash; `None` when the image has none.
    pub boot_mount: Option<String>,
    /// Size of the boot partition in bytes.
    pub boot_size: Option<u64>,
    /// Label of the boot partition's filesystem.
    pub boot_label: Option<String>,
    /// Label of the root filesystem.
    pub root_label: String,
    /// The newest modification time in the image.
    pub newest: Timestamp,
}

struct Mounted {
    filesystem: Box<dyn Filesystem>,
    partition_uuid: String,
    size: u64,
}

/// Imports the raw image behind `image`. `check` is called with the digest of the image file when all of it was read,
/// before anything is kept. `progress` is called now and then.
pub(crate) fn import(
    store: &Store,
    name: &str,
    image: &Arc<DecodedImage>,
    jobs: usize,
    check: impl FnOnce(Digest) -> Result<()>,
    progress: &dyn Fn(),
) -> Result<(Archive, BaseInfo)> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| BuildError::Image { image: name.into(), source };
    let unusable = |reason: &str| BuildError::UnusableImage { image: name.into(), reason: reason.into() };

    let (root, boot, table) = mount(name, image)?;
    let mut entries = root.filesystem.entries().map_err(|error| failed(error.into()))?;
    let fstab = find(&entries, "etc/fstab")
        .and_then(|handle| read_small(&*root.filesystem, handle).transpose())
        .transpose()
        .map_err(|error| failed(error.into()))?
        .unwrap_or_default();
    let mut boot_mount = None;
    let mut origins: HashMap<TreePath, bool> = HashMap::new();
    if let Some(boot) = &boot {
        let mount = mount_point(&String::from_utf8_lossy(&fstab), boot, &entries);
        let mount = TreePath::new(mount)?;
        let inner = boot.filesystem.entries().map_err(|error| failed(error.into()))?;
        // What the root filesystem has below the mount point is hidden by the mount.
        entries.retain(|entry| !entry.path.starts_with(&mount));
        for mut entry in inner {
            entry.path = mount.join(entry.path.as_bytes())?;
            origins.insert(entry.path.clone(), true);
            entries.push(entry);
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        boot_mount = Some(mount);
    }
    let newest = entries.iter().map(|entry| entry.metadata.mtime).max().ok_or_else(|| unusable("it holds no files"))?;

    let mut digest = None;
    let options = ArchiveOptions { jobs, table: true, diff_id: true };
    let archive = ArchiveWriter::write(store, options, |writer| {
        let mut links: BTreeMap<(bool, u64), TreePath> = BTreeMap::new();
        for Entry { path, metadata, what, link } in entries {
            progress();
            // Tar has no form for sockets, and so none for a second name of one.
            if matches!(what, EntryKind::Socket) {
                continue;
            }
            let in_boot = origins.contains_key(&path);
            if let Some(number) = link {
                if let Some(first) = links.get(&(in_boot, number)) {
                    writer.entry(LayerEntry { path, what: What::Link(first.clone()) })?;
                    continue;
                }
                links.insert((in_boot, number), path.clone());
            }
            let filesystem = match &boot {
                Some(boot) if in_boot => &boot.filesystem,
                _ => &root.filesystem,
            };
            write(writer, &**filesystem, path, metadata, what)?;
        }
        let summary = image.join().map_err(|error| failed(error.into()))?;
        // Only now is it known how long the image really is.
        table.iter().try_for_each(|it| it.check_size(summary.raw_size)).map_err(|error| failed(error.into()))?;
        digest = Some(summary.input_digest);
        check(summary.input_digest)
    })?;
    let info = BaseInfo {
        image: digest.ok_or(BuildError::Internal("an image was imported without its digest"))?,
        boot_mount: boot_mount.map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned()),
        boot_size: boot.as_ref().map(|boot| boot.size),
        boot_label: boot.as_ref().map(|boot| String::from_utf8_lossy(boot.filesystem.label()).into_owned()),
        root_label: String::from_utf8_lossy(root.filesystem.label()).into_owned(),
        newest,
    };
    Ok((archive, info))
}

/// Finds the root filesystem and the boot partition: the last filesystem of Linux, and the first FAT.
fn mount(name: &str, image: &Arc<DecodedImage>) -> Result<(Mounted, Option<Mounted>, Option<PartitionTable>)> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| BuildError::Image { image: name.into(), source };
    let bytes: Arc<dyn ReadAt> = image.clone();
    let table = match read_partitions(&*bytes) {
        Ok(table) => table,
        // No partition table: perhaps the filesystem is all there is.
        Err(error) => {
            return match open(bytes) {
                Ok(filesystem) => Ok((Mounted { filesystem, partition_uuid: String::new(), size: 0 }, None, None)),
                // Neither a table nor a filesystem: the table is what is missed. A filesystem that is damaged is told itself.
                Err(FilesystemError::Unknown(_)) => Err(failed(error.into())),
                Err(error) => Err(failed(error.into())),
            };
        }
    };
    let (mut root, mut boot, mut reason) = (None, None, None);
    // A filesystem that cannot be read here, after the last root that can: it may be the true one.
    let mut unsupported = None;
    for partition in &table.partitions {
        let window = Arc::new(Window::new(bytes.clone(), partition.start, partition.length));
        let filesystem = match open(window) {
            Ok(filesystem) => filesystem,
            // A partition of another kind (swap, a bootloader's) is no obstacle as long as a root is found; one that is
            // damaged is, or another would silently take its place.
            Err(error @ FilesystemError::Unknown(_)) => {
                reason = Some((partition.number, error));
                continue;
            }
            Err(error @ FilesystemError::Unsupported { .. }) => {
                unsupported = Some(format!("partition {}: {error}", partition.number));
                continue;
            }
            Err(error) => {
                let reason = format!("partition {}: {error}", partition.number);
                return Err(BuildError::UnusableImage { image: name.into(), reason });
            }
        };
        let mounted = Mounted { partition_uuid: partition.uuid.clone(), size: partition.length, filesystem };
        if mounted.filesystem.kind() == "vfat" {
            boot.get_or_insert(mounted);
        } else {
            root = Some(mounted);
            unsupported = None;
        }
    }
    if let Some(reason) = unsupported {
        return Err(BuildError::UnusableImage { image: name.into(), reason });
    }
    match (root, reason) {
        (Some(root), _) => Ok((root, boot, Some(table))),
        (None, Some((number, error))) => {
            let reason = format!("no root filesystem was found; partition {number}: {error}");
            Err(BuildError::UnusableImage { image: name.into(), reason })
        }
        (None, None) => {
            let reason = "none of its partitions holds an ext4 filesystem".into();
            Err(BuildError::UnusableImage { image: name.into(), reason })
        }
    }
}

/// Where fstab mounts the boot partition (fstab(5)); else /boot/firmware where the root has it, else /boot.
fn mount_point(fstab: &str, boot: &Mounted, entries: &[Entry]) -> String {
    let label = String::from_utf8_lossy(boot.filesystem.label()).into_owned();
    let uuid = boot.filesystem.uuid();
    for line in fstab.lines() {
        let mut fields = line.split_whitespace();
        let (Some(device), Some(mount)) = (fields.next(), fields.next()) else { continue };
        let ours = match device.split_once('=') {
            Some(("LABEL", value)) => value.trim_matches('"') == label,
            Some(("UUID", value)) => value.trim_matches('"').eq_ignore_ascii_case(&uuid),
            Some(("PARTUUID", value)) => value.trim_matches('"').eq_ignore_ascii_case(&boot.partition_uuid),
            _ => false,
        };
        if ours && mount.starts_with('/') && mount.len() > 1 {
            return mount.to_owned();
        }
    }
    let firmware = entries.iter().any(|entry| entry.path.as_bytes() == b"boot/firmware");
    if firmware { "/boot/firmware".into() } else { "/boot".into() }
}

fn find<'a>(entries: &'a [Entry], path: &str) -> Option<(&'a FileHandle, u64)> {
    match &entries.iter().find(|entry| entry.path.as_bytes() == path.as_bytes())?.what {
        EntryKind::File { handle, size, .. } => Some((handle, *size)),
        _ => None,
    }
}

fn read_small(
    filesystem: &dyn Filesystem,
    (handle, size): (&FileHandle, u64),
) -> Result<Option<Vec<u8>>, aule_image::FilesystemError> {
    if size > 1 << 20 {
        return Ok(None);
    }
    let mut bytes = vec![0; size as usize];
    filesystem.read(handle, 0, &mut bytes)?;
    Ok(Some(bytes))
}

fn write(
    writer: &mut ArchiveWriter,
    filesystem: &dyn Filesystem,
    path: TreePath,
    metadata: Metadata,
    what: EntryKind,
) -> Result<()> {
    let kind = match what {
        EntryKind::File { handle, size, holes } => {
            let whole = [Extent { offset: 0, length: size }];
            let extents = holes.as_ref().map_or(whole.as_slice(), SparseMap::extents);
            let mut data = FileReader { filesystem, handle: &handle, extents: extents.iter(), at: 0, end: 0 };
            return Ok(writer.file(path, metadata, size, holes.clone(), &mut data)?);
        }
        EntryKind::Directory => Kind::Directory,
        EntryKind::Symlink(target) => Kind::Symlink(target),
        EntryKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
        EntryKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
        EntryKind::Fifo => Kind::Fifo,
        EntryKind::Socket => Kind::Socket,
    };
    Ok(writer.entry(LayerEntry { path, what: What::Node(Inode { metadata, kind }) })?)
}

/// Reads the data of a file, extent after extent.
struct FileReader<'a> {
    filesystem: &'a dyn Filesystem,
    handle: &'a FileHandle,
    extents: std::slice::Iter<'a, Extent>,
    at: u64,
    end: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.end {
            let Some(extent) = self.extents.next() else { return Ok(0) };
            (self.at, self.end) = (extent.offset, extent.offset + extent.length);
        }
        let length = (self.end - self.at).min(buffer.len() as u64) as usize;
        let Some(part) = buffer.get_mut(..length) else { return Ok(0) };
        self.filesystem.read(self.handle, self.at, part).map_err(io::Error::other)?;
        self.at += length as u64;
        Ok(length)
    }
}
