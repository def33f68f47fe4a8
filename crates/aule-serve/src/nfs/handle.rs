//! File handles: they name an inode of a tree by digests alone, so that they hold over restarts, on every replica and on
//! every host, and they carry a code that only a server with the same key can make.
//!
//! ```text
//! version u16   zero [6]   digest of the build, first 16 bytes   inode u64   HMAC-SHA-256, first 16 bytes
//! ```

use aule_tree::Digest;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a handle.
pub(crate) const HANDLE: usize = 48;
const VERSION: [u8; 2] = [0, 1];
/// Version, zeros, digest prefix, inode.
const NAMED: usize = 32;

/// The first half of a build's digest, which names it within handles.
pub(crate) type Prefix = [u8; 16];

/// The prefix of a digest.
pub(crate) fn prefix(digest: Digest) -> Prefix {
    digest.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// The key of the codes: the same on all replicas.
#[derive(Clone)]
pub struct HandleKey(Hmac<Sha256>);

impl std::fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HandleKey(…)")
    }
}

impl HandleKey {
    /// A key from any bytes; there should be at least 32, from a good source of random ones.
    pub fn new(bytes: &[u8]) -> Self {
        // Hashed and filled up to HMAC's block (RFC 2104, 2), which takes keys of every length without an error.
        let mut block = [0; 64];
        block[..32].copy_from_slice(Digest::of(bytes).as_bytes());
        HandleKey(Hmac::new(&block.into()))
    }

    /// Another secret that only who has this key can make, for the same `purpose` and `of` always the same.
    pub(crate) fn derive(&self, purpose: &str, of: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        // No handle begins so: its first byte is a zero.
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(of);
        mac.finalize().into_bytes().into()
    }

    fn code(&self, named: &[u8]) -> [u8; 16] {
        let mut mac = self.0.clone();
        mac.update(named);
        mac.finalize().into_bytes().first_chunk().copied().unwrap_or_default()
    }

    /// The handle of an inode.
    pub(crate) fn make(&self, build: Prefix, inode: u64) -> [u8; HANDLE] {
        let mut handle = [0; HANDLE];
        handle[..2].copy_from_slice(&VERSION);
        handle[8..24].copy_from_slice(&build);
        handle[24..NAMED].copy_from_slice(&inode.to_be_bytes());
        let code = self.code(&handle[..NAMED]);
        handle[NAMED..].copy_from_slice(&code);
        handle
    }

    /// What a handle names; `None` when it was not made with this key.
    pub(crate) fn open(&self, handle: &[u8]) -> Option<(Prefix, u64)> {
        let handle: &[u8; HANDLE] = handle.try_into().ok()?;
        let (named, code) = handle.split_at(NAMED);
        let mut mac = self.0.clone();
        mac.update(named);
        mac.verify_truncated_left(code).ok()?;
        if named[..2] != VERSION || named[2..8] != [0; 6] {
            return None;
        }
        Some((named[8..24].try_into().ok()?, u64::from_be_bytes(named[24..].try_into().ok()?)))
    }
}
