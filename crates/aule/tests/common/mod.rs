//! A small store with two builds made by hand, and the `aule` program run on it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test panics when its own set-up is wrong")]
#![allow(dead_code, reason = "each test program uses its part")]

use aule_build::{Origin, Provenance, ProvenanceStep, TEMPLATES, types};
use aule_store::{
    ARTIFACT_NAME, FORMAT, Store, StoreError,
    layer::{Archive, ArchiveOptions, ArchiveWriter},
    oci::{
        Annotations, Descriptor, History, ImageConfig, Index, Manifest, Platform, RootFs, RunConfig, TITLE, media_type,
    },
};
use aule_tree::{Digest, Inode, Kind, LayerEntry, Metadata, Timestamp, TreePath, What};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// 2023-11-14T22:13:20Z, the time of most files.
pub(crate) const TIME: i64 = 1_700_000_000;

pub(crate) fn path(bytes: impl AsRef<[u8]>) -> TreePath {
    TreePath::new(bytes).unwrap()
}

pub(crate) fn metadata(mode: u16) -> Metadata {
    Metadata::root_owned(mode, Timestamp::from_seconds(TIME))
}

/// What a layer of a test says of a path.
pub(crate) enum Item {
    Entry(LayerEntry),
    File(TreePath, Metadata, Vec<u8>),
}

pub(crate) fn directory(name: &str) -> Item {
    Item::Entry(LayerEntry {
        path: path(name),
        what: What::Node(Inode { metadata: metadata(0o755), kind: Kind::Directory }),
    })
}

pub(crate) fn node(name: impl AsRef<[u8]>, mode: u16, kind: Kind) -> Item {
    Item::Entry(LayerEntry { path: path(name), what: What::Node(Inode { metadata: metadata(mode), kind }) })
}

pub(crate) fn file(name: impl AsRef<[u8]>, mode: u16, content: impl AsRef<[u8]>) -> Item {
    Item::File(path(name), metadata(mode), content.as_ref().to_vec())
}

pub(crate) fn says(name: &str, what: What) -> Item {
    Item::Entry(LayerEntry { path: path(name), what })
}

/// Writes an archive; its items must come in canonical order.
pub(crate) fn archive(store: &Store, items: Vec<Item>, table: bool) -> Archive {
    ArchiveWriter::write(store, ArchiveOptions { jobs: 1, table, diff_id: true }, |writer| {
        items.into_iter().try_for_each(|item| match item {
            Item::Entry(entry) => writer.entry(entry),
            Item::File(path, metadata, bytes) => {
                writer.file(path, metadata, bytes.len() as u64, None, &mut bytes.as_slice())
            }
        })?;
        Ok::<_, StoreError>(())
    })
    .unwrap()
}

fn titled(media_type: &str, name: &str, digest: Digest, size: u64) -> Descriptor {
    let mut descriptor = Descriptor::new(media_type, digest, size);
    descriptor.annotations.insert(TITLE.into(), name.into());
    descriptor
}

fn artifact(store: &Store, name: &str, artifact_type: &str, files: Vec<Descriptor>, notes: Annotations) -> Descriptor {
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.into(),
        artifact_type: Some(artifact_type.into()),
        config: Descriptor::new(media_type::EMPTY, store.put(b"{}").unwrap(), 2),
        layers: files,
        subject: None,
        annotations: notes,
    };
    let mut descriptor = store.put_document(media_type::MANIFEST, &manifest).unwrap();
    descriptor.artifact_type = Some(artifact_type.into());
    descriptor.platform = Some(Platform { architecture: "unknown".into(), os: "unknown".into() });
    descriptor.annotations.insert(ARTIFACT_NAME.into(), name.into());
    descriptor
}

/// Puts an image of these layers in the store. `diff_ids` may lie.
pub(crate) fn image(store: &Store, layers: &[(&str, Descriptor, Digest)]) -> Descriptor {
    let config = ImageConfig {
        created: Some("2023-11-14T22:13:20Z".into()),
        architecture: "arm64".into(),
        os: "linux".into(),
        config: RunConfig::default(),
        rootfs: RootFs { kind: "layers".into(), diff_ids: layers.iter().map(|(_, _, diff_id)| *diff_id).collect() },
        history: layers
            .iter()
            .map(|(step, ..)| History { created: None, created_by: format!("aule: {step}") })
            .collect(),
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.into(),
        artifact_type: None,
        config: store.put_document(media_type::CONFIG, &config).unwrap(),
        layers: layers.iter().map(|(_, descriptor, _)| descriptor.clone()).collect(),
        subject: None,
        annotations: Annotations::new(),
    };
    let mut descriptor = store.put_document(media_type::MANIFEST, &manifest).unwrap();
    descriptor.annotations.insert(ARTIFACT_NAME.into(), "oci".into());
    descriptor
}

pub(crate) fn index(store: &Store, manifests: Vec<Descriptor>) -> Descriptor {
    let version = aule_build::FORMAT_VERSION.to_string();
    let annotations = [(FORMAT, version.as_str()), ("dev.aule.recipe", "lab"), ("dev.aule.variant", "netboot")];
    let index = Index {
        schema_version: 2,
        media_type: media_type::INDEX.into(),
        artifact_type: None,
        manifests,
        annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    };
    store.put_document(media_type::INDEX, &index).unwrap()
}

pub(crate) fn layer(store: &Store, items: Vec<Item>) -> (Descriptor, Digest) {
    let archive = archive(store, items, true);
    (Descriptor::new(media_type::LAYER, archive.digest, archive.size), archive.diff_id.unwrap())
}

/// A file of two and a half MiB.
pub(crate) fn big() -> Vec<u8> {
    (0..2_621_440_u32).flat_map(|n| [(n / 5) as u8]).collect()
}

fn base(store: &Store) -> (Descriptor, Digest) {
    layer(
        store,
        vec![
            directory(""),
            directory("bin"),
            file("bin/ping", 0o4755, "ping program"),
            says("bin/ping6", What::Link(path("bin/ping"))),
            directory("dev"),
            node("dev/null", 0o666, Kind::CharDevice { major: 1, minor: 3 }),
            directory("etc"),
            file("etc/hostname", 0o644, "ubuntu\n"),
            node("etc/localtime", 0o777, Kind::Symlink(b"/usr/share/zoneinfo/UTC".to_vec())),
            file("etc/motd", 0o644, "one\ntwo\nthree\n"),
            directory("etc/update-motd.d"),
            file("etc/update-motd.d/10-help", 0o755, "#!/bin/sh\n"),
            node("lib", 0o777, Kind::Symlink(b"usr/lib".to_vec())),
            directory("usr"),
            directory("usr/lib"),
            file("usr/lib/big", 0o644, big()),
            file(b"usr/lib/n\xf6n", 0o644, "odd"),
            directory("usr/share"),
            directory("usr/share/zoneinfo"),
            file("usr/share/zoneinfo/UTC", 0o644, b"TZif\0\xff"),
        ],
    )
}

fn origin(key: &str, line: u32) -> Origin {
    Origin { key: key.into(), file: Some("recipes/lab.yaml".into()), line: Some(line), column: Some(3) }
}

/// Puts the build `lab:netboot` in the store. Only its second layer differs between versions.
pub(crate) fn build(store: &Store, version: u32) -> Descriptor {
    let (base, base_id) = base(store);
    let hostname = format!("valar{version}\n");
    let mut items = vec![
        directory("etc"),
        file("etc/hostname", 0o644, hostname),
        says("etc/update-motd.d", What::Whiteout),
        directory("opt"),
        directory("opt/k3s"),
        file("opt/k3s/config", 0o600, "token\n"),
    ];
    if version > 1 {
        items.insert(2, file("etc/motd", 0o755, "one\n2\nthree\n"));
        items.push(file("opt/new", 0o644, "new"));
        items.push(file("usr/share/zoneinfo/UTC", 0o644, b"TZif\0\xfe\xfe"));
    } else {
        items.push(file("opt/old", 0o644, "old"));
    }
    let (files, files_id) = layer(store, items);
    let image = image(store, &[("base", base.clone(), base_id), ("files", files.clone(), files_id)]);

    let boot_image = vec![version as u8; 100_000];
    let cmdline = "root=/dev/nfs nfsroot={{ server }}:{{ export }},vers=3 ds=nocloud;s={{ seed }}\n";
    let boot_files = vec![
        directory(""),
        file("cmdline.txt", 0o755, cmdline),
        directory("overlays"),
        file("overlays/a.dtbo", 0o755, "dtb"),
    ];
    let boot_archive = archive(store, boot_files, true);
    let boot = artifact(
        store,
        "boot",
        types::BOOT,
        vec![
            titled(types::FAT_IMAGE, "boot.img", store.put(&boot_image).unwrap(), boot_image.len() as u64),
            titled(types::BOOT_ARCHIVE, "boot.tar.zst", boot_archive.digest, boot_archive.size),
        ],
        Annotations::from([(TEMPLATES.to_owned(), "boot/firmware/cmdline.txt".to_owned())]),
    );
    let root = archive(store, vec![directory(""), file("a", 0o644, "flat")], false);
    let root_file = titled(types::ROOT_ARCHIVE, "root.tar.zst", root.digest, root.size);
    let root = artifact(store, "nfs-root", types::NFS_ROOT, vec![root_file], Annotations::new());
    let documents = [("meta-data", "instance-id: x\n"), ("user-data", "#cloud-config\n{}\n"), ("vendor-data", "")];
    let documents = documents
        .map(|(name, text)| titled(types::SEED_DOCUMENT, name, store.put(text.as_bytes()).unwrap(), text.len() as u64));
    let seed = artifact(store, "seed", types::SEED, documents.to_vec(), Annotations::new());
    // As the pipeline does: the root once more, for tools that look for an entry without a platform.
    let again = Descriptor { platform: None, annotations: Annotations::new(), ..image.clone() };
    let index = index(store, vec![image, boot, root, seed, again]);

    let provenance = Provenance {
        image: "ubuntu.img.xz".into(),
        image_replaced: false,
        image_digest: Digest::of(b"image"),
        verified: "sha256 in the recipe".into(),
        steps: vec![
            ProvenanceStep {
                name: "base".into(),
                key: Digest::of(b"base key"),
                layer: Some(base.digest),
                paths: BTreeMap::new(),
            },
            ProvenanceStep {
                name: "files".into(),
                key: Digest::of(b"files key"),
                layer: Some(files.digest),
                paths: BTreeMap::from([
                    ("dev/null".to_owned(), origin("files./dev/null", 7)),
                    ("etc/hostname".to_owned(), origin("files./etc/hostname", 12)),
                    ("etc/update-motd.d".to_owned(), origin("files./etc/update-motd.d", 14)),
                    ("opt/k3s/config".to_owned(), origin("overlays[0]", 9)),
                ]),
            },
        ],
    };
    let document = store.put_document(types::PROVENANCE_DOCUMENT, &provenance).unwrap();
    let referrer = artifact(store, "provenance", types::PROVENANCE, vec![document], Annotations::new());
    store.set_referrer(index.digest, &referrer).unwrap();
    store.set_ref("lab:netboot", &index).unwrap();
    index
}

/// A store of its own for one test.
pub(crate) struct Lab {
    directory: tempfile::TempDir,
    /// The digests of the two generations of `lab:netboot`, the older one first.
    pub(crate) digests: [Digest; 2],
}

impl Lab {
    pub(crate) fn new() -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        let digests = [1, 2].map(|version| build(&store, version).digest);
        Lab { directory, digests }
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.directory.path().join("store")).unwrap()
    }

    /// A place beside the store.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The older generation as a reference.
    pub(crate) fn old(&self) -> String {
        format!("lab:netboot@{}", self.digests[0])
    }

    pub(crate) fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Output {
        run(&self.beside("store"), arguments)
    }

    /// What a command that must work writes to stdout.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The object on the last line of stdout; other lines there must not be.
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.text(&[arguments, &["--format", "json"]].concat());
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until nobody else has the store open. A child that another test's thread is starting holds copies of this
    /// process's files from its fork to its exec, the lock of a store among them, also after it was closed here.
    pub(crate) fn wait_until_alone(&self) {
        for _ in 0..600 {
            if self.run(&["gc", "--dry-run"]).status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the store stays in use");
    }

    /// Exit code and stderr of a command that must fail.
    pub(crate) fn failure(&self, arguments: &[impl AsRef<OsStr>]) -> (i32, String) {
        let output = self.run(arguments);
        assert!(!output.status.success());
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

/// Runs `aule` on a store, with nothing of this process's environment.
pub(crate) fn run(store: &Path, arguments: &[impl AsRef<OsStr>]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aule")).env_clear().arg("--store").arg(store).args(arguments).output().unwrap()
}
