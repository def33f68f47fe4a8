//! Blobs: named by their digest, written once, never changed.

use crate::{Result, Store, StoreError, oci::Descriptor};
use aule_tree::{Digest, Hasher};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::PathBuf,
};

/// The largest JSON document (index, manifest, config) that is taken. (4 MiB is what registries take.)
pub const DOCUMENT_MAX: u64 = 4 << 20;

/// A blob of at most this many bytes is compared with what is there before it is written.
const SMALL: u64 = 1 << 20;

/// A blob that is being written. Dropped without [`BlobWriter::commit`], it leaves nothing.
pub struct BlobWriter {
    file: tempfile::NamedTempFile,
    hasher: Hasher,
    size: u64,
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or(bytes));
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobWriter {
    /// Puts the blob in the store and gives its digest and size.
    pub fn commit(self, store: &Store) -> Result<(Digest, u64)> {
        let digest = self.hasher.finish();
        store.keep(self.file, digest, self.size)?;
        Ok((digest, self.size))
    }
}

impl Store {
    /// Where the blob lies, whether it is there or not.
    pub fn blob_path(&self, digest: Digest) -> PathBuf {
        self.root().join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is there.
    pub fn has_blob(&self, digest: Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Whether the blob is there and its bytes are what its name says; each process reads them once.
    pub fn has_intact_blob(&self, digest: Digest) -> bool {
        self.has_blob(digest) && (self.is_known_good(digest) || self.verify_blob(digest).is_ok())
    }

    /// Starts a blob.
    pub fn blob_writer(&self) -> Result<BlobWriter> {
        Ok(BlobWriter { file: self.temporary_file()?, hasher: Hasher::new(), size: 0 })
    }

    /// Makes a blob of a temporary file of [`Store::temporary_file`] whose digest the caller knows.
    pub fn keep(&self, file: tempfile::NamedTempFile, digest: Digest, size: u64) -> Result<()> {
        let path = self.blob_path(digest);
        // The same bytes again: nothing to write. A large blob is written anew without comparing, which would take as
        // long; either way a damaged one is replaced.
        let there = size <= SMALL && fs::metadata(&path).is_ok_and(|there| there.len() == size);
        if !(there && self.verify_blob(digest).is_ok()) {
            self.persist(file, &path)?;
            self.now_known_good(digest);
        }
        Ok(())
    }

    /// Whether the blob is there with these bytes.
    fn holds(&self, digest: Digest, bytes: &[u8]) -> bool {
        let path = self.blob_path(digest);
        let same_length = fs::metadata(&path).is_ok_and(|there| there.len() == bytes.len() as u64);
        same_length && fs::read(path).is_ok_and(|there| there == bytes)
    }

    /// Puts `bytes` in the store.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.holds(digest, bytes) {
            let mut writer = self.blob_writer()?;
            writer.write_all(bytes).map_err(StoreError::io("write", self.blob_path(digest)))?;
            writer.commit(self)?;
        }
        Ok(digest)
    }

    /// Puts a document in the store as JSON and gives its descriptor.
    pub fn put_document(&self, media_type: &str, document: &impl serde::Serialize) -> Result<Descriptor> {
        let bytes = serde_json::to_vec(document)
            .map_err(|source| StoreError::Json { what: format!("a document of type {media_type}"), source })?;
        Ok(Descriptor::new(media_type, self.put(&bytes)?, bytes.len() as u64))
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// [`StoreError::MissingBlob`] when it is not there.
    pub fn open_blob(&self, digest: Digest) -> Result<File> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::MissingBlob(digest),
            _ => StoreError::Io { action: "open", path, source },
        })
    }

    /// Reads a whole blob of at most `limit` bytes and checks its digest. `what` says what it should be, for the error.
    pub fn read_blob(&self, digest: Digest, limit: u64, what: &'static str) -> Result<Vec<u8>> {
        let file = self.open_blob(digest)?;
        let path = self.blob_path(digest);
        let size = file.metadata().map_err(StoreError::io("read", &path))?.len();
        if size > limit {
            return Err(StoreError::TooLarge { digest, size, limit, what });
        }
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
        match Digest::of(&bytes) {
            found if found == digest => Ok(bytes),
            found => Err(StoreError::DamagedBlob { digest, found }),
        }
    }

    /// Reads a JSON document and checks its digest.
    pub fn read_document<T: serde::de::DeserializeOwned>(&self, digest: Digest) -> Result<T> {
        let bytes = self.read_blob(digest, DOCUMENT_MAX, "a document")?;
        serde_json::from_slice(&bytes).map_err(|source| StoreError::Json { what: format!("blob {digest}"), source })
    }

    /// Removes a blob whose bytes are not what its name says; says whether it was one. Results of steps that need it do not
    /// count any more then, and the next build makes it anew.
    pub fn remove_damaged(&self, digest: Digest) -> Result<bool> {
        self.refuse_change()?;
        match self.verify_blob(digest) {
            Err(StoreError::DamagedBlob { .. }) => {
                let path = self.blob_path(digest);
                fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Reads every byte of a blob and checks its digest; gives its size.
    pub fn verify_blob(&self, digest: Digest) -> Result<u64> {
        let mut file = self.open_blob(digest)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        let mut size = 0;
        loop {
            let read = file.read(&mut buffer).map_err(StoreError::io("read", self.blob_path(digest)))?;
            if read == 0 {
                break;
            }
            hasher.update(buffer.get(..read).unwrap_or(&buffer));
            size += read as u64;
        }
        match hasher.finish() {
            found if found == digest => {
                self.now_known_good(digest);
                Ok(size)
            }
            found => Err(StoreError::DamagedBlob { digest, found }),
        }
    }
}
