//! Leases: what servers say their nodes use, so that a collection keeps it, whatever names stand for by then.
//!
//! A lease is a file in `leases/` with a digest of a build in each line. It outlives the server that wrote it: nodes run on
//! while their server is restarted. Who takes a server out of service removes its file.

use crate::{Result, Store, StoreError};
use aule_tree::Digest;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
};

/// More than any lease has: a digest and a line feed for each of some thousand builds.
const LEASE_MAX: u64 = 1 << 20;
/// How the names of leases begin that are being written.
const UNFINISHED: &str = ".";

impl Store {
    /// Writes the lease of this name in place of the one before. Until then, what the digests lead to is safe only from
    /// this process's own lock; see [`Store::unlock`].
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn set_lease(&self, name: &str, builds: &BTreeSet<Digest>) -> Result<()> {
        self.refuse_change()?;
        let text: String = builds.iter().map(|digest| format!("{digest}\n")).collect();
        let directory = self.root().join("leases");
        fs::create_dir_all(&directory).map_err(StoreError::io("create", &directory))?;
        // Not in `tmp/`: who may write leases alone needs no right to anything else.
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(PermissionsExt::from_mode(0o644))
            .tempfile_in(&directory)
            // Without the file's name, which is another one each time: the same failure is told once.
            .map_err(|error| std::io::Error::from(error.kind()))
            .map_err(StoreError::io("create a file in", &directory))?;
        let path = directory.join(name);
        file.write_all(text.as_bytes()).map_err(StoreError::io("write", &path))?;
        self.persist(file, &path)
    }

    /// Lets go of the lock that keeps collections away; leases keep what is used.
    ///
    /// # Errors
    /// When the operating system refuses it.
    pub fn unlock(&self) -> Result<()> {
        self.lock.unlock().map_err(StoreError::io("unlock", self.root().join("lock")))
    }

    /// Takes the lock again; waits while a collection runs.
    ///
    /// # Errors
    /// When the operating system refuses it.
    pub fn lock_again(&self) -> Result<()> {
        self.lock.lock_shared().map_err(StoreError::io("lock", self.root().join("lock")))
    }

    /// What the lease of this name says; nothing where there is none.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn lease(&self, name: &str) -> Result<BTreeSet<Digest>> {
        let path = self.root().join("leases").join(name);
        // What cannot be understood may be needed: nothing is removed while it is there.
        let wrong = |reason: &str| StoreError::NotAStore { path: path.clone(), reason: reason.into() };
        let mut text = String::new();
        match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            opened => {
                let file = opened.map_err(StoreError::io("read", &path))?;
                file.take(LEASE_MAX + 1).read_to_string(&mut text).map_err(StoreError::io("read", &path))?;
            }
        }
        if text.len() as u64 > LEASE_MAX {
            return Err(wrong("the lease is too long"));
        }
        text.lines().map(|line| line.parse().map_err(|_| wrong("a line of the lease is no digest"))).collect()
    }

    /// Every digest that some lease names.
    ///
    /// # Errors
    /// When a lease cannot be read or understood.
    pub fn leased(&self) -> Result<BTreeSet<Digest>> {
        let (leased, mut wrong) = self.readable_leases()?;
        wrong.pop().map_or(Ok(leased), Err)
    }

    /// Every digest that some lease names, and what is wrong with those that cannot be read or understood.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn readable_leases(&self) -> Result<(BTreeSet<Digest>, Vec<StoreError>)> {
        let directory = self.root().join("leases");
        let (mut leased, mut wrong) = (BTreeSet::new(), Vec::new());
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((leased, wrong)),
            read => read.map_err(StoreError::io("read", &directory))?,
        };
        for entry in entries {
            let name = entry.map_err(StoreError::io("read", &directory))?.file_name();
            let name = name.to_string_lossy();
            // What a crash left; the lease that it should have become is there as it was.
            if !name.starts_with(UNFINISHED) {
                match self.lease(&name) {
                    Ok(digests) => leased.extend(digests),
                    Err(error) => wrong.push(error),
                }
            }
        }
        Ok((leased, wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, media_type};

    #[test]
    fn a_collection_keeps_what_a_lease_names() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let inner = store.put(b"a layer").unwrap();
        let index = serde_json::json!({ "manifests": [Descriptor::new("application/octet-stream", inner, 7)] });
        let build = store.put_document(media_type::INDEX, &index).unwrap().digest;
        let lost = store.put(b"nothing names this").unwrap();
        let gone = Digest::of(b"was never here");
        store.set_lease("site", &BTreeSet::from([build, gone])).unwrap();
        store.collect_garbage(false).unwrap();
        assert!(store.has_blob(build) && store.has_blob(inner) && !store.has_blob(lost));
        store.unlock().unwrap();
        store.lock_again().unwrap();
        fs::write(directory.path().join("leases/.half"), "sha256:12").unwrap();
        store.collect_garbage(true).unwrap();
        fs::write(directory.path().join("leases/other"), "no digest").unwrap();
        assert!(store.collect_garbage(false).is_err(), "nothing is removed while a lease cannot be understood");
        let (leased, wrong) = store.readable_leases().unwrap();
        assert_eq!((leased, wrong.len()), (BTreeSet::from([build, gone]), 1), "who only wants to serve goes on");
        fs::remove_dir_all(directory.path().join("leases")).unwrap();
        assert_eq!(store.collect_garbage(false).unwrap().blobs, 2);
    }

    #[test]
    fn reading_alone_needs_no_right_to_write_and_makes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Store::open_to_read(directory.path()).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let digest = Store::open(directory.path()).unwrap().put(b"bytes").unwrap();
        fs::remove_dir_all(directory.path().join("tmp")).unwrap();
        let store = Store::open_to_read(directory.path()).unwrap();
        assert_eq!(store.read_blob(digest, 10, "a blob").unwrap(), b"bytes");
        assert!(!directory.path().join("tmp").exists());
    }
}
