//! The recipe as the build sees it: merged, checked, with every path resolved. No field holds anything that is open to
//! interpretation; what a recipe may say in several ways is one type here.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::path::{ImagePath, LocalPath};
use crate::value::{Mode, Principal, Sha256, Timestamp, Url};

/// A merged recipe, or one variant of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The name under which builds are stored: lower-case letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The upstream image.
    pub base: Base,
    /// The newest timestamp that the tree may hold; the newest one in the base where absent.
    pub date: Option<Timestamp>,
    /// Debian packages.
    pub packages: Packages,
    /// Directories laid over the tree, in order; the last one wins.
    pub overlays: Vec<LocalPath>,
    /// Single files, by path in the image.
    pub files: BTreeMap<ImagePath, FileEntry>,
    /// systemd units.
    pub services: Services,
    /// The boot partition.
    pub boot: Boot,
    /// cloud-init's documents.
    pub cloud_init: CloudInit,
    /// Where the root file system comes from when the machine boots; as the base has it where absent.
    pub root: Option<Root>,
    /// What the build makes, without repeats; `[oci]` where the recipe says nothing.
    pub outputs: Vec<Output>,
}

/// What a build begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Base {
    /// An upstream image.
    Image(BaseImage),
    /// A root made of packages alone.
    Packages {
        /// Of which.
        packages: BasePackages,
    },
}

impl Base {
    /// The upstream image, if it is one.
    pub fn image(&self) -> Option<&BaseImage> {
        match self {
            Self::Image(image) => Some(image),
            Self::Packages { .. } => None,
        }
    }
}

/// A root made of Debian packages: all essential ones of a suite, `include`, and what they need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasePackages {
    /// Where the archive is; without it whoever builds says it.
    pub uri: Option<Url>,
    /// The suite, such as `trixie`.
    pub suite: String,
    /// Such as `main`.
    pub components: Vec<String>,
    /// OpenPGP public keys that may sign the suite.
    pub key: LocalPath,
    /// Debian's name of the architecture.
    pub architecture: String,
    /// Names, each with an optional `=version`; a set.
    pub include: Vec<String>,
}

impl BasePackages {
    /// What a lock says of it: the suite, its components, the architecture.
    pub fn suite_line(&self) -> String {
        format!("{} {} [{}]", self.suite, self.components.join(" "), self.architecture)
    }
}

/// The upstream image and how it is verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseImage {
    /// The image, raw or compressed.
    pub image: Input,
    /// The image's digest; not together with `checksums`.
    pub sha256: Option<Sha256>,
    /// A file in the form of `sha256sum` that lists the image by its file name; clear-signed where `keyring` is given
    /// and `signature` is not.
    pub checksums: Option<Input>,
    /// Detached OpenPGP signature of `checksums`.
    pub signature: Option<Input>,
    /// OpenPGP public keys, binary or armored, that may sign.
    pub keyring: Option<LocalPath>,
}

/// A file that is either fetched or read from this machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Fetched.
    Url(Url),
    /// Read.
    Local(LocalPath),
}

impl Input {
    /// The URL, or the local path's name: what a lock calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Url(url) => url.as_str(),
            Self::Local(local) => local.name(),
        }
    }

    /// The local path, if it is one.
    pub fn as_local(&self) -> Option<&LocalPath> {
        match self {
            Self::Local(local) => Some(local),
            Self::Url(_) => None,
        }
    }
}

/// Debian packages to install and remove; each list is a set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// Names, each with an optional `:architecture` and `=version`.
    pub install: Vec<String>,
    /// Names, each with an optional `:architecture`.
    pub remove: Vec<String>,
    /// Where packages come from beside the sources that the image has itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Repository>,
    /// All archives as they were at this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Timestamp>,
    /// Where the archive of a URI can be had as it was: a URL with `@SNAPSHOTID@` in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub snapshots: BTreeMap<String, String>,
    /// Whether an archive counts after its own `Valid-Until`, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_expired: bool,
}

/// An archive of Debian packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// Where it is: `dists` lies below it.
    pub uri: Url,
    /// The suite, such as `trixie`.
    pub suite: String,
    /// Such as `main`.
    pub components: Vec<String>,
    /// OpenPGP public keys that may sign it.
    pub key: LocalPath,
}

impl Packages {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.install.is_empty() && self.remove.is_empty()
    }
}

/// One entry of `files:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// What stands at the path.
    pub kind: FileKind,
    /// Mode bits; absent: what the build's rules say for the kind.
    pub mode: Option<Mode>,
    /// Owner; absent: what stands there keeps its own, a new one belongs to root.
    pub owner: Option<Principal>,
    /// Group; as for the owner.
    pub group: Option<Principal>,
    /// Rendered for each node when it is served; only content and source.
    pub template: bool,
}

/// What a `files:` entry puts at its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file with this text.
    Content(String),
    /// A regular file with the bytes of a local file.
    Source(LocalPath),
    /// A regular file with the bytes of a URL; the lock pins its digest.
    Url {
        /// Where it is fetched.
        url: Url,
        /// The digest that the recipe itself demands.
        sha256: Option<Sha256>,
    },
    /// A symbolic link with this target.
    Symlink(String),
    /// Nothing: whatever the tree has there goes, with all that is below it.
    Remove,
    /// A directory; what it holds stays.
    Directory,
}

/// systemd units, by their full names; each list is a set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Services {
    /// Units to enable as their `[Install]` sections say.
    pub enable: Vec<String>,
    /// Units to disable.
    pub disable: Vec<String>,
    /// Units to mask (a link to /dev/null).
    pub mask: Vec<String>,
}

/// The Pi's boot partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Changes to cmdline.txt.
    pub cmdline: Cmdline,
    /// Lines for config.txt by filter (`all`, `pi5`, …), both in the order in which they were written: order and
    /// repeats matter to the firmware.
    #[serde(with = "indexmap::map::serde_seq")]
    pub config: IndexMap<String, Vec<String>>,
    /// Size of the boot file system in bytes; the base's where absent.
    pub size: Option<u64>,
}

/// Changes to the kernel command line: first `remove`, then `set`, then `add`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cmdline {
    /// `key=value` arguments, each in place of every argument with this key that the command line has.
    #[serde(with = "indexmap::map::serde_seq")]
    pub set: IndexMap<String, String>,
    /// Arguments put at the end as they are.
    pub add: Vec<String>,
    /// Keys (`splash`, `console`) or whole arguments (`console=tty1`) to drop; a set.
    pub remove: Vec<String>,
}

/// cloud-init's documents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudInit {
    /// Merged in order by [`merge_user_data`](crate::merge_user_data).
    pub user_data: Vec<Document>,
    /// NoCloud's meta-data.
    pub meta_data: Option<Document>,
    /// Merged like user-data.
    pub vendor_data: Vec<Document>,
    /// NoCloud's network-config.
    pub network_config: Option<Document>,
}

impl CloudInit {
    /// All documents.
    pub fn documents(&self) -> impl Iterator<Item = &Document> {
        self.user_data.iter().chain(&self.meta_data).chain(&self.vendor_data).chain(&self.network_config)
    }
}

/// A document for cloud-init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Document {
    /// In a file of its own.
    File(LocalPath),
    /// Written in the recipe; here as the text of a file, with the `#cloud-config` header where one belongs.
    Inline(String),
}

impl Document {
    /// The local path, if it is a file.
    pub fn as_local(&self) -> Option<&LocalPath> {
        match self {
            Self::File(local) => Some(local),
            Self::Inline(_) => None,
        }
    }
}

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// The transport.
    pub over: RootOver,
    /// Where writes go; always given with [`RootOver::Nfs`], never with [`RootOver::Disk`].
    pub writes: Option<Writes>,
    /// NFS server to bake in; rendered when served where absent. An address: klibc's `nfsmount` resolves no names.
    pub server: Option<std::net::Ipv4Addr>,
    /// Directory that the server exports; given exactly where `server` is.
    pub path: Option<String>,
    /// NoCloud seed URL to bake in, with its last `/`.
    pub seed: Option<Url>,
}

/// The transport of the root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RootOver {
    /// NFSv3 over TCP, read-only.
    Nfs,
    /// The disk or card that carries the boot partition.
    Disk,
}

/// Where writes to a read-only root go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Writes {
    /// An overlay in memory; gone after a reboot.
    Tmpfs,
}

/// What a build can make. The artifacts `seed` and `source` come with every build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// FAT image and tar of the boot files.
    Boot,
    /// Flattened tar.zst of the root.
    NfsRoot,
    /// Runnable image of the root.
    Oci,
    /// Image for an SD card.
    Disk,
}

impl Output {
    /// The name in a recipe, and of the artifact.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::NfsRoot => "nfs-root",
            Self::Oci => "oci",
            Self::Disk => "disk",
        }
    }
}

impl Recipe {
    /// Every file and directory of this machine that the recipe reads, the base's included, in the recipe's order;
    /// a path that is named twice comes twice.
    pub fn local_inputs(&self) -> Vec<&LocalPath> {
        let base: Vec<&LocalPath> = match &self.base {
            Base::Image(base) => {
                let more = [&base.checksums, &base.signature].into_iter().flatten();
                std::iter::once(&base.image).chain(more).filter_map(Input::as_local).chain(&base.keyring).collect()
            }
            Base::Packages { packages } => vec![&packages.key],
        };
        let files = self.files.values().filter_map(|entry| match &entry.kind {
            FileKind::Source(local) => Some(local),
            _ => None,
        });
        let documents = self.cloud_init.documents().filter_map(Document::as_local);
        let keys = self.packages.repositories.iter().map(|it| &it.key);
        base.into_iter().chain(keys).chain(&self.overlays).chain(files).chain(documents).collect()
    }

    /// Every URL that a `files:` entry fetches, with the digest that the recipe demands, in the order of their paths.
    pub fn fetched_files(&self) -> impl Iterator<Item = (&ImagePath, &Url, Option<&Sha256>)> {
        self.files.iter().filter_map(|(path, entry)| match &entry.kind {
            FileKind::Url { url, sha256 } => Some((path, url, sha256.as_ref())),
            _ => None,
        })
    }
}
