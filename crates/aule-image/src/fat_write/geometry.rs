//! Sizes and places: clusters, tables, boot sector and FSInfo, as mkfs.vfat chooses them.

use super::FatWriteError;

pub(super) const SECTOR: u64 = 512;
pub(super) const RESERVED_SECTORS: u64 = 32;
pub(super) const FAT_COPIES: u64 = 2;
pub(super) const ROOT_CLUSTER: u32 = 2;
/// With fewer clusters the volume would be taken for FAT16 (specification, section "FAT Type Determination").
const MIN_CLUSTERS: u64 = 65525;
/// Drivers differ by a few around the limit, so the specification asks for some distance.
const MARGIN: u64 = 16;
const MAX_CLUSTERS: u64 = 0x0fff_fff5;
const MIB: u64 = 1 << 20;
/// Free space for the node's own small changes when the size is ours to choose.
const SLACK: u64 = MIB;
const FSINFO_SECTOR: u64 = 1;
const BACKUP_SECTOR: u64 = 6;

/// How large everything is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    /// Of the whole filesystem in bytes.
    pub(super) size: u64,
    /// In bytes.
    pub(super) cluster_size: u64,
    pub(super) clusters: u32,
    /// Of one copy of the table.
    pub(super) table_sectors: u64,
}

impl Geometry {
    /// Sizes for files and directories with `contents` bytes each.
    pub(super) fn choose(contents: &[u64], size: Option<u64>, max_size: Option<u64>) -> Result<Self, FatWriteError> {
        let needed = |cluster_size: u64| contents.iter().map(|bytes| bytes.div_ceil(cluster_size)).sum::<u64>();
        match size {
            Some(size) => {
                let geometry = Self::of_size(size, cluster_size_for(size))?;
                let clusters = needed(geometry.cluster_size);
                if clusters > geometry.clusters.into() {
                    let needed = Self::for_clusters(clusters, geometry.cluster_size);
                    return Err(FatWriteError::DoesNotFit { needed, available: size });
                }
                Ok(geometry)
            }
            None => {
                // Larger clusters make a larger smallest volume, so they are taken only where the content asks for it.
                let sizes = [32768, 16384, 8192, 4096, 2048, 1024, 512].map(|cluster_size| {
                    let clusters = needed(cluster_size) + SLACK.div_ceil(cluster_size);
                    let size = Self::for_clusters(clusters.max(MIN_CLUSTERS + MARGIN), cluster_size);
                    (cluster_size, size.next_multiple_of(MIB), clusters)
                });
                let fits = |(cluster_size, size, clusters): &&(u64, u64, u64)| {
                    *clusters >= MIN_CLUSTERS + MARGIN && *cluster_size <= cluster_size_for(*size).max(4096)
                };
                let [.., smallest] = sizes;
                let (cluster_size, size, _) = *sizes.iter().find(fits).unwrap_or(&smallest);
                if let Some(available) = max_size.filter(|&max| size > max) {
                    return Err(FatWriteError::DoesNotFit { needed: size, available });
                }
                Self::of_size(size, cluster_size)
            }
        }
    }

    fn of_size(size: u64, cluster_size: u64) -> Result<Self, FatWriteError> {
        let wrong = |reason: String| Err(FatWriteError::Size { size, reason });
        let smallest = Self::for_clusters(MIN_CLUSTERS + MARGIN, 512);
        if !size.is_multiple_of(SECTOR) {
            return wrong("it is not a multiple of 512".into());
        }
        if size < smallest {
            return wrong(format!("the smallest has {smallest}"));
        }
        if size / SECTOR > u32::MAX.into() {
            return wrong("the largest has 2 TiB".into());
        }
        let table_sectors = table_sectors(size / SECTOR, cluster_size);
        let clusters = (size / SECTOR - RESERVED_SECTORS - FAT_COPIES * table_sectors) / (cluster_size / SECTOR);
        if !(MIN_CLUSTERS..=MAX_CLUSTERS).contains(&clusters) {
            return wrong(format!("{clusters} clusters of {cluster_size} bytes are not what FAT32 has"));
        }
        Ok(Geometry { size, cluster_size, clusters: clusters as u32, table_sectors })
    }

    /// The size in bytes of a volume with at least so many clusters.
    fn for_clusters(clusters: u64, cluster_size: u64) -> u64 {
        // A table entry has 4 bytes; two for the numbers that name no cluster, and what aligning the table may add.
        let per_cluster = cluster_size / SECTOR;
        let table_sectors = ((clusters + 2) * 4).div_ceil(SECTOR).next_multiple_of(per_cluster) + per_cluster;
        (RESERVED_SECTORS + FAT_COPIES * table_sectors + clusters * per_cluster) * SECTOR
    }

    /// Offset of a cluster in bytes.
    pub(super) fn cluster_position(&self, cluster: u32) -> u64 {
        let data = (RESERVED_SECTORS + FAT_COPIES * self.table_sectors) * SECTOR;
        data + u64::from(cluster.saturating_sub(ROOT_CLUSTER)) * self.cluster_size
    }

    /// Everything before the tables that is not zero: boot sector and FSInfo, each with its copy.
    pub(super) fn boot_area(&self, label: &[u8; 11], volume_id: u32, used: u32) -> Vec<u8> {
        let boot = self.boot_sector(label, volume_id);
        let info = self.fsinfo(used);
        let mut area = vec![0; ((BACKUP_SECTOR + FSINFO_SECTOR + 1) * SECTOR) as usize];
        for (sector, bytes) in
            [(0, &boot), (FSINFO_SECTOR, &info), (BACKUP_SECTOR, &boot), (BACKUP_SECTOR + FSINFO_SECTOR, &info)]
        {
            put(&mut area, (sector * SECTOR) as usize, bytes);
        }
        area
    }

    fn boot_sector(&self, label: &[u8; 11], volume_id: u32) -> Vec<u8> {
        let mut sector = vec![0; SECTOR as usize];
        // A jump over the parameters, to code that stops the processor: this volume boots no PC.
        put(&mut sector, 0, &[0xeb, 0x58, 0x90]);
        put(&mut sector, 90, &[0xf4, 0xeb, 0xfd]);
        // The name that the specification recommends (`BS_OEMName`), as some drivers look at it.
        put(&mut sector, 3, b"MSWIN4.1");
        put(&mut sector, 11, &(SECTOR as u16).to_le_bytes());
        put(&mut sector, 13, &[(self.cluster_size / SECTOR) as u8]);
        put(&mut sector, 14, &(RESERVED_SECTORS as u16).to_le_bytes());
        put(&mut sector, 16, &[FAT_COPIES as u8]);
        // A fixed disk.
        put(&mut sector, 21, &[0xf8]);
        // Sectors a track and heads, which only very old programs ask for; the values of mkfs.vfat.
        put(&mut sector, 24, &63u16.to_le_bytes());
        put(&mut sector, 26, &255u16.to_le_bytes());
        put(&mut sector, 32, &((self.size / SECTOR) as u32).to_le_bytes());
        put(&mut sector, 36, &(self.table_sectors as u32).to_le_bytes());
        put(&mut sector, 44, &ROOT_CLUSTER.to_le_bytes());
        put(&mut sector, 48, &(FSINFO_SECTOR as u16).to_le_bytes());
        put(&mut sector, 50, &(BACKUP_SECTOR as u16).to_le_bytes());
        // Drive number, and the signature that the next three fields exist.
        put(&mut sector, 64, &[0x80, 0, 0x29]);
        put(&mut sector, 67, &volume_id.to_le_bytes());
        put(&mut sector, 71, label);
        put(&mut sector, 82, b"FAT32   ");
        put(&mut sector, 510, &[0x55, 0xaa]);
        sector
    }

    fn fsinfo(&self, used: u32) -> Vec<u8> {
        let mut sector = vec![0; SECTOR as usize];
        put(&mut sector, 0, b"RRaA");
        put(&mut sector, 484, b"rrAa");
        put(&mut sector, 488, &(self.clusters - used).to_le_bytes());
        // Where to look for free clusters: the last one in use.
        put(&mut sector, 492, &(ROOT_CLUSTER + used - 1).to_le_bytes());
        put(&mut sector, 510, &[0x55, 0xaa]);
        sector
    }
}

/// The cluster size that mkfs.vfat takes for a FAT32 of `size` bytes.
fn cluster_size_for(size: u64) -> u64 {
    let limits = [(260 * MIB, 512), (8 << 30, 4096), (16 << 30, 8192), (32 << 30, 16384)];
    limits.iter().find(|(limit, _)| size <= *limit).map_or(32768, |(_, cluster_size)| *cluster_size)
}

/// Sectors of one table of a volume of `sectors`, so that all its clusters have entries and data starts at a multiple of
/// the cluster size.
fn table_sectors(sectors: u64, cluster_size: u64) -> u64 {
    let per_cluster = cluster_size / SECTOR;
    // clusters * per_cluster + copies * clusters * 4 / 512 fits what is left; rounded up.
    let bytes = (sectors - RESERVED_SECTORS) * SECTOR;
    let clusters = bytes.div_ceil(cluster_size + FAT_COPIES * 4) + 2;
    (clusters * 4).div_ceil(SECTOR).next_multiple_of(per_cluster)
}

fn put(bytes: &mut [u8], offset: usize, field: &[u8]) {
    // All offsets are constants within the sector.
    if let Some(target) = bytes.get_mut(offset..offset + field.len()) {
        target.copy_from_slice(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_cover_all_clusters_and_the_size_is_kept() {
        for size in [34u64 << 20, 64 << 20, 260 << 20, (260 << 20) + 512, 512 << 20, 2 << 30, 9 << 30, 33 << 30] {
            let geometry = Geometry::of_size(size, cluster_size_for(size)).unwrap();
            let entries = geometry.table_sectors * SECTOR / 4;
            assert!(entries >= u64::from(geometry.clusters) + 2, "{size}: {geometry:?}");
            assert!(geometry.cluster_position(geometry.clusters + 2) <= size, "{size}: {geometry:?}");
            assert!(geometry.cluster_position(geometry.clusters + 3) > size, "{size}: {geometry:?}");
            assert_eq!(
                geometry.cluster_position(2) % geometry.cluster_size.min(RESERVED_SECTORS * SECTOR),
                0,
                "{size}: {geometry:?}"
            );
        }
    }

    #[test]
    fn the_smallest_size_that_fits_is_taken() {
        for (content, cluster_size, mib) in
            [(0u64, 512, 33), (20 << 20, 512, 33), (60 << 20, 512, 62), (70 << 20, 1024, 72), (300 << 20, 4096, 302)]
        {
            let geometry = Geometry::choose(&[content], None, None).unwrap();
            assert_eq!((geometry.cluster_size, geometry.size >> 20), (cluster_size, mib), "{content}");
            assert!(u64::from(geometry.clusters) * cluster_size >= content + SLACK);
            assert!(u64::from(geometry.clusters) >= MIN_CLUSTERS);
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let error = Geometry::choose(&[100 << 20], Some(64 << 20), None).unwrap_err();
        assert!(matches!(error, FatWriteError::DoesNotFit { needed, .. } if needed > 100 << 20), "{error}");
        let error = Geometry::choose(&[100 << 20], None, Some(64 << 20)).unwrap_err();
        assert!(matches!(error, FatWriteError::DoesNotFit { .. }), "{error}");
        for size in [0, 32 << 20, (64 << 20) + 1, 3 << 40] {
            assert!(matches!(Geometry::choose(&[], Some(size), None), Err(FatWriteError::Size { .. })), "{size}");
        }
    }
}
