//! The words of a build's artifacts, which those who make them and those who serve them share.

/// The annotation with the paths that are rendered for each node when they are served, separated by line feeds;
/// relative to the root of the tree. The `boot` artifact has those of the boot partition, the image and the `nfs-root`
/// artifact have all others. Absent when there are none.
pub const TEMPLATES: &str = "dev.aule.templates";

/// What artifacts and their files are, as OCI types.
pub mod types {
    /// FAT image and archive of the boot files.
    pub const BOOT: &str = "application/vnd.aule.boot.v1";
    /// A FAT32 image.
    pub const FAT_IMAGE: &str = "application/vnd.aule.boot.fat.v1";
    /// The boot files as an archive; also readable at random, like a layer.
    pub const BOOT_ARCHIVE: &str = "application/vnd.aule.boot.tar.v1+zstd";
    /// The flattened root.
    pub const NFS_ROOT: &str = "application/vnd.aule.nfs-root.v1";
    /// A tar archive, compressed.
    pub const ROOT_ARCHIVE: &str = "application/vnd.aule.nfs-root.tar.v1+zstd";
    /// A NoCloud seed.
    pub const SEED: &str = "application/vnd.aule.seed.v1";
    /// One document of a seed.
    pub const SEED_DOCUMENT: &str = "application/vnd.aule.seed.document.v1";
    /// Everything that a build needs to be made again.
    pub const SOURCE: &str = "application/vnd.aule.source.v1";
    /// An archive of it; also readable at random, like a layer.
    pub const SOURCE_ARCHIVE: &str = "application/vnd.aule.source.tar.v1+zstd";
    /// A package as its archive has it.
    pub const DEBIAN_PACKAGE: &str = "application/vnd.debian.binary-package";
    /// Bills of materials, as a build keeps them until they hang on it.
    pub const SBOM: &str = "application/vnd.aule.sbom.v1";
    /// A bill of materials in SPDX; a referrer, and its document.
    pub const SPDX: &str = "application/spdx+json";
    /// A bill of materials in CycloneDX; a referrer, and its document.
    pub const CYCLONEDX: &str = "application/vnd.cyclonedx+json";
    /// Where a build came from; a referrer.
    pub const PROVENANCE: &str = "application/vnd.aule.provenance.v1";
    /// The document of it.
    pub const PROVENANCE_DOCUMENT: &str = "application/vnd.aule.provenance.v1+json";
}
