//! Files of the store that are compared with their digests before the first byte goes out, and with a checksum of each piece
//! whenever that is read again: what the disk gives later must still be what was compared.

use crate::{limits::Places, server::Server};
use aule_store::StoreError;
use aule_tree::{Digest, Hasher};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How many bytes are read at once, and have a checksum.
pub(super) const PIECE: usize = 512 << 10;
/// How many files are on their way at once, in all and to one address; more wait, or are told to come later.
const TRANSFERS: (usize, usize) = (256, 16);
/// A damaged file is not looked at again for so long.
const DAMAGED: Duration = Duration::from_secs(30);

/// How a file is told from another that took its place: device, inode, size, modification time.
type Stamp = (u64, u64, u64, i64, i64);

/// The files that were compared with their digests.
pub(super) struct Files {
    good: Mutex<HashMap<Digest, (Stamp, Checksums)>>,
    /// Held while one is compared, so that a hundred clients have it done once; by digest, so that few are compared at once
    /// and a large one does not keep all others waiting.
    comparing: [tokio::sync::Mutex<()>; 4],
    /// Those that are damaged, and when that was seen.
    bad: Mutex<HashMap<Digest, Instant>>,
    pub(super) transfers: Places,
}

/// CRC-32 of each piece of a file: against a disk that forgets, not against a person, who could not change a file of the store
/// without its time of change.
type Checksums = Arc<[u32]>;

/// Why a file cannot be had.
#[derive(Debug)]
pub(super) enum Unread {
    /// It was seen to be damaged a moment ago, and told.
    Damaged,
    /// It cannot be read, or is seen to be damaged now.
    Store(StoreError),
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        Unread::Store(error)
    }
}

impl Default for Files {
    fn default() -> Self {
        Files {
            good: Mutex::default(),
            comparing: Default::default(),
            bad: Mutex::default(),
            transfers: Places::new(TRANSFERS.0, TRANSFERS.1),
        }
    }
}

impl Files {
    /// Opens a blob; its bytes are what its name says.
    pub(super) async fn open(&self, server: &Arc<Server>, digest: Digest) -> Result<Opened, Unread> {
        let store = server.images.store();
        let at = |source| StoreError::Io { action: "read", path: store.blob_path(digest), source };
        let file = store.open_blob(digest)?;
        let metadata = file.metadata().map_err(at)?;
        let stamp = (metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
        let known = || {
            let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
            good.get(&digest).filter(|(known, _)| *known == stamp).map(|(_, checksums)| Arc::clone(checksums))
        };
        let opened = |file, checksums| Opened { file, digest, size: metadata.size(), checksums };
        if let Some(checksums) = known() {
            return Ok(opened(file, checksums));
        }
        let [byte, ..] = digest.as_bytes();
        let _comparing = match self.comparing.get(usize::from(*byte) % self.comparing.len()) {
            Some(comparing) => Some(comparing.lock().await),
            None => None,
        };
        if let Some(checksums) = known() {
            return Ok(opened(file, checksums));
        }
        if self.is_bad(digest) {
            return Err(Unread::Damaged);
        }
        let compared = tokio::task::spawn_blocking(move || compare(&file).map(|(found, sums)| (file, found, sums)));
        let (file, found, checksums) =
            compared.await.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(at)?;
        if found != digest {
            self.damaged(digest);
            return Err(StoreError::DamagedBlob { digest, found }.into());
        }
        self.good.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, (stamp, Arc::clone(&checksums)));
        Ok(opened(file, checksums))
    }

    fn is_bad(&self, digest: Digest) -> bool {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        bad.retain(|_, since| since.elapsed() < DAMAGED);
        bad.contains_key(&digest)
    }

    /// Remembers that a file is damaged: it is compared whole before anything of it goes out again.
    pub(super) fn damaged(&self, digest: Digest) {
        self.good.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        self.bad.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, Instant::now());
    }
}

/// Digest of a file, and the checksums of its pieces.
fn compare(mut file: &File) -> io::Result<(Digest, Checksums)> {
    let (mut hasher, mut checksums) = (Hasher::new(), Vec::new());
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        piece.clear();
        (&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Ok((hasher.finish(), checksums.into()));
        }
        hasher.update(&piece);
        checksums.push(crc32fast::hash(&piece));
    }
}

/// A file that was compared with its digest.
pub(super) struct Opened {
    file: File,
    pub(super) digest: Digest,
    size: u64,
    checksums: Checksums,
}

impl Opened {
    /// Reads the piece that holds the byte `at` into `piece`; gives where in the file it begins.
    ///
    /// # Errors
    /// When it cannot be read, and [`io::ErrorKind::InvalidData`] when it is not what was compared.
    pub(super) fn read(&self, at: u64, piece: &mut Vec<u8>) -> io::Result<u64> {
        let number = at / PIECE as u64;
        let start = number * PIECE as u64;
        piece.resize(PIECE.min(self.size.saturating_sub(start) as usize), 0);
        self.file.read_exact_at(piece, start)?;
        let wanted = usize::try_from(number).ok().and_then(|number| self.checksums.get(number));
        if wanted == Some(&crc32fast::hash(piece)) { Ok(start) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}
