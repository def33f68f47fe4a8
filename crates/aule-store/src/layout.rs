//! The store on disk: an OCI image layout with a step cache and a place for half-written files beside it.
//!
//! ```text
//! oci-layout  index.json  blobs/sha256/<hex>      the layout that every OCI tool reads
//! cache/steps/<hex>.json                          what a step with this key gave
//! cache/derived/<hex>.json                        what was made of a download, for the next time
//! cache/downloads/                                upstream images on their way
//! tmp/                                            files that are being written; never looked at by a reader
//! lock                                            held shared while a process uses the store, exclusively by gc
//! leases/<name>                                   digests that a server's nodes use, a line each; gc keeps what they lead to
//! index.lock                                      held exclusively while index.json changes
//! ```
//!
//! Every file appears whole or not at all: it is written in `tmp/`, synced, and renamed. A crash leaves files in `tmp/`
//! only; the next process that finds itself alone removes them.

use crate::{
    Result, StoreError,
    steps::{DERIVED, STEPS},
};
use aule_tree::Digest;
use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

const LAYOUT_FILE: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";
const EMPTY_INDEX: &[u8] =
    b"{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[]}";

/// A store that is open: this process may read and add, and no `gc` runs meanwhile.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Held for as long as the store is open; the kernel lets go of it when the process dies.
    pub(crate) lock: File,
    /// Blobs that this process wrote, or compared with their digests.
    known_good: Mutex<HashSet<Digest>>,
    /// Where a store that is only looked at keeps what must lie somewhere for a moment.
    scratch: Option<tempfile::TempDir>,
}

impl Store {
    /// Opens the store at `root`, making it when there is nothing.
    ///
    /// Waits while another process runs `gc`.
    ///
    /// # Errors
    /// When `root` cannot be written or holds something else.
    pub fn open(root: impl Into<PathBuf>) -> Result<Store> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(StoreError::io("create", &root))?;
        refuse_other_directories(&root)?;
        for directory in ["blobs/sha256", STEPS, DERIVED, "cache/downloads", "leases", "tmp"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(StoreError::io("create", path))?;
        }
        let lock = open_lock(&root.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {
                // Alone: nobody writes in tmp/, so what lies there was left by a crash.
                remove_contents(&root.join("tmp"))?;
                lock.unlock().map_err(StoreError::io("unlock", root.join("lock")))?;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => {
                return Err(StoreError::Io { action: "lock", path: root.join("lock"), source });
            }
        }
        lock.lock_shared().map_err(StoreError::io("lock", root.join("lock")))?;
        let store = Store { root, lock, known_good: Mutex::default(), scratch: None };
        let _changing = store.lock_index()?;
        // Made in this order below, so the second without the first was not left by a crash. An empty index would tell
        // the next gc that nothing is needed.
        if store.root.join("oci-layout").exists() && !store.root.join("index.json").exists() {
            let reason = "its index.json is gone; restore it, or move the directory away".into();
            return Err(StoreError::NotAStore { path: store.root.clone(), reason });
        }
        for (name, content) in [("index.json", EMPTY_INDEX), ("oci-layout", LAYOUT_FILE)] {
            if !store.root.join(name).exists() {
                store.write_whole(Path::new(name), content)?;
            }
        }
        Ok(store)
    }

    /// Opens a store that is there to read from it; nothing is written, so the right to read is enough.
    ///
    /// Waits while another process runs `gc`.
    ///
    /// # Errors
    /// When there is no store.
    pub fn open_to_read(root: impl Into<PathBuf>) -> Result<Store> {
        let root = root.into();
        if !root.join("oci-layout").exists() || !root.join("index.json").exists() {
            return Err(StoreError::NotAStore {
                path: root,
                reason: "it holds no `oci-layout` and `index.json`".into(),
            });
        }
        let path = root.join("lock");
        let lock = File::open(&path).map_err(StoreError::io("open", &path))?;
        lock.lock_shared().map_err(StoreError::io("lock", path))?;
        Ok(Store { root, lock, known_good: Mutex::default(), scratch: None })
    }

    /// Opens the store at `root` to look at it and leave it exactly as it is; one that is not there yet counts as empty,
    /// and is not made. What is fetched meanwhile lies in a temporary directory that goes when the store is dropped;
    /// whatever would change the store is refused ([`StoreError::OnlyLookedAt`]).
    ///
    /// Waits while another process runs `gc`.
    ///
    /// # Errors
    /// When `root` holds something else than a store, or there is no temporary directory.
    pub fn open_to_look(root: impl Into<PathBuf>) -> Result<Store> {
        let root = root.into();
        let made = || {
            let scratch = tempfile::Builder::new().prefix("aule-").tempdir()?;
            fs::create_dir(scratch.path().join("downloads"))?;
            Ok(scratch)
        };
        let scratch = made().map_err(StoreError::io("create a directory in", std::env::temp_dir()))?;
        let is_there = match fs::read_dir(&root) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(source) => return Err(StoreError::Io { action: "read", path: root, source }),
        };
        let store = match is_there {
            true => Store::open_to_read(root)?,
            false => Store::open(scratch.path().join("store"))?,
        };
        Ok(Store { scratch: Some(scratch), ..store })
    }

    /// Whether it is only looked at ([`Store::open_to_look`]).
    pub fn is_only_looked_at(&self) -> bool {
        self.scratch.is_some()
    }

    /// Refuses to change a store that is only looked at.
    pub(crate) fn refuse_change(&self) -> Result<()> {
        match self.scratch {
            Some(_) => Err(StoreError::OnlyLookedAt(self.root.clone())),
            None => Ok(()),
        }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether this process wrote the blob, or compared it with its digest.
    pub(crate) fn is_known_good(&self, digest: Digest) -> bool {
        self.known_good.lock().unwrap_or_else(PoisonError::into_inner).contains(&digest)
    }

    /// Remembers that the blob is what its name says.
    pub(crate) fn now_known_good(&self, digest: Digest) {
        self.known_good.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
    }

    /// Where downloads are kept on their way.
    pub fn downloads(&self) -> PathBuf {
        match &self.scratch {
            Some(scratch) => scratch.path().join("downloads"),
            None => self.root.join("cache/downloads"),
        }
    }

    /// How many bytes of `url` earlier runs have received and kept for the next one.
    pub fn received(&self, url: &str) -> u64 {
        crate::download::at_hand(url, &self.root.join("cache/downloads"))
    }

    /// Turns the shared lock into an exclusive one for as long as the store is open.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has the store open.
    pub(crate) fn lock_exclusively(&self) -> Result<()> {
        self.refuse_change()?;
        match self.lock.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(self.root.clone())),
            Err(TryLockError::Error(source)) => {
                Err(StoreError::Io { action: "lock", path: self.root.join("lock"), source })
            }
        }
    }

    /// Waits for the right to change `index.json`; dropping the file gives it back.
    pub(crate) fn lock_index(&self) -> Result<File> {
        self.refuse_change()?;
        let path = self.root.join("index.lock");
        let lock = open_lock(&path)?;
        lock.lock().map_err(StoreError::io("lock", path))?;
        Ok(lock)
    }

    /// A new file in `tmp/` that goes away when it is dropped. It is written as sparse as its writer likes, and is
    /// never seen by a reader of the store.
    pub fn temporary_file(&self) -> Result<tempfile::NamedTempFile> {
        let directory = self.scratch.as_ref().map_or_else(|| self.root.join("tmp"), |it| it.path().to_owned());
        tempfile::Builder::new()
            .prefix("")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(&directory)
            .map_err(StoreError::io("create a file in", directory))
    }

    /// Writes a small file so that a reader sees the old content or the new one, and a crash loses neither.
    pub(crate) fn write_whole(&self, name: &Path, content: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        let mut file = self.temporary_file()?;
        file.write_all(content).map_err(StoreError::io("write", &path))?;
        self.persist(file, &path)
    }

    /// Syncs a finished temporary file and gives it its name.
    pub(crate) fn persist(&self, file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
        self.refuse_change()?;
        file.as_file().sync_all().map_err(StoreError::io("sync", path))?;
        file.persist(path).map_err(|error| StoreError::Io {
            action: "rename a file to",
            path: path.into(),
            source: error.error,
        })?;
        if let Some(directory) = path.parent() {
            File::open(directory).and_then(|it| it.sync_all()).map_err(StoreError::io("sync", directory))?;
        }
        Ok(())
    }
}

fn open_lock(path: &Path) -> Result<File> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(StoreError::io("open", path))
}

/// A directory is a store when it is empty or holds `oci-layout`; anything else is somebody's files.
fn refuse_other_directories(root: &Path) -> Result<()> {
    let layout = root.join("oci-layout");
    if layout.exists() {
        return Ok(());
    }
    // A store whose making was cut short holds only names of ours; `oci-layout` may have come from another process since.
    let ours = ["blobs", "cache", "leases", "tmp", "lock", "index.lock", "index.json", "oci-layout"];
    for entry in fs::read_dir(root).map_err(StoreError::io("read", root))? {
        let entry = entry.map_err(StoreError::io("read", root))?;
        if !ours.iter().any(|name| entry.file_name() == *name) {
            let reason = format!("it holds `{}` and no `oci-layout`", entry.file_name().to_string_lossy());
            return Err(StoreError::NotAStore { path: root.into(), reason });
        }
    }
    Ok(())
}

fn remove_contents(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(StoreError::io("read", directory))? {
        let path = entry.map_err(StoreError::io("read", directory))?.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(StoreError::io("remove", path))?;
    }
    Ok(())
}
