//! What reads bytes of the network, without sockets: for fuzzing, and for tests that want to see every reply.

use crate::{
    dhcp,
    export::Export,
    frames::{FrameCache, ReadError},
    nfs::{self, HandleKey, Located, Prefix, Service},
    site::Site,
    tftp,
};
use aule_store::layer::Contents;
use aule_tree::{Digest, Tree};
use std::{net::IpAddr, path::Path, sync::Arc};

/// Reads a TFTP packet and what its name means, and plays a transfer to acknowledgements that come from the same bytes.
pub fn tftp_packet(bytes: &[u8]) {
    tftp::play(bytes);
}

/// Reads a DHCP packet and writes an answer to it.
pub fn dhcp_packet(bytes: &[u8]) -> Option<Vec<u8>> {
    dhcp::reply(bytes)
}

/// Reads a site file.
pub fn site_file(bytes: &[u8]) {
    if let Ok(site) = Site::parse(Path::new("site.yaml"), bytes) {
        let _ = site.allows(IpAddr::from([192, 168, 1, 1]));
    }
}

/// A tree that is served over NFS, MOUNT and portmap to one client without a network. It is mounted as `/stable`.
pub struct Alone(Arc<Service<One>>);

struct One {
    export: Arc<Export>,
    key: HandleKey,
    cache: FrameCache,
}

impl Alone {
    /// Serves a tree.
    pub fn new(digest: Digest, tree: &Tree, contents: Contents) -> Self {
        let export = Arc::new(Export::new(digest, tree, contents));
        let one = One { export, key: HandleKey::new(b"a key for tests"), cache: FrameCache::new(8 << 20) };
        Alone(Arc::new(Service::new(Arc::new(one), nfs::NfsOptions::default())))
    }

    /// The handle of an inode.
    pub fn handle(&self, inode: u64) -> Vec<u8> {
        let one = self.0.site();
        one.key.make(nfs::prefix(one.export.digest()), inode).to_vec()
    }

    /// Answers all calls in what a client sent; `None` when the connection would be ended.
    pub fn answer(&self, sent: &[u8]) -> Option<Vec<u8>> {
        nfs::answer_all(&self.0, sent)
    }
}

impl nfs::Builds for One {
    fn by_prefix(&self, prefix: Prefix) -> Located {
        match prefix == nfs::prefix(self.export.digest()) {
            true => Located::Here(Arc::clone(&self.export)),
            false => Located::Gone,
        }
    }

    fn damaged(&self, _: &Export, _: &ReadError) {}
}

impl nfs::Names for One {
    fn mount(&self, path: &[u8], _: IpAddr) -> Option<[u8; nfs::HANDLE]> {
        (path == b"/stable").then(|| self.key.make(nfs::prefix(self.export.digest()), 0))
    }

    fn paths(&self) -> Vec<String> {
        vec!["/stable".into()]
    }
}

impl nfs::Site for One {
    fn allows(&self, _: IpAddr) -> bool {
        true
    }

    fn key(&self) -> &HandleKey {
        &self.key
    }

    fn cache(&self) -> &FrameCache {
        &self.cache
    }

    fn reads(&self, _: IpAddr) {}

    fn lives(&self, _: IpAddr, _: u64) {}
}
