//! The running server: the site as it is now, its images and nodes, and what all protocols ask of them.

use crate::{
    export::Export,
    frames::{FrameCache, ReadError},
    images::Images,
    nfs::{self, HandleKey, Prefix},
    nodes::{Identity, Known, Nodes, Seen, Stage, Unserved},
    render::Place,
    site::Site,
};
use aule_tree::{Digest, TreePath};
use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{SystemTime, UNIX_EPOCH},
};

/// Told what happens, for logs. Called from many threads.
pub trait Observer: Send + Sync {
    /// Something that an operator wants to read once.
    fn note(&self, message: &str);
    /// Something that is wrong.
    fn warn(&self, message: &str);
}

/// How many different warnings are told before they are only counted.
const WARNINGS_MAX: usize = 1024;

/// What every part of the server shares.
pub struct Server {
    site: RwLock<Arc<Site>>,
    /// The images.
    pub images: Images,
    /// The nodes.
    pub nodes: Nodes,
    /// Decompressed frames.
    pub cache: Arc<FrameCache>,
    key: HandleKey,
    observer: Arc<dyn Observer>,
    /// What was warned of: the same again is not told again.
    warned: Mutex<HashSet<String>>,
}

impl Server {
    /// A server of a site; its images are opened.
    ///
    /// # Errors
    /// When an image cannot be opened.
    pub fn new(site: Site, images: Images, key: HandleKey, observer: Arc<dyn Observer>) -> aule_store::Result<Server> {
        let cache = Arc::new(FrameCache::new(site.cache));
        let server = Server {
            images,
            nodes: Nodes::default(),
            cache,
            key,
            observer,
            warned: Mutex::default(),
            site: RwLock::new(Arc::new(site)),
        };
        server.refresh()?;
        Ok(server)
    }

    /// The site as it is now.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes another site file; its ports do not count before the next start.
    ///
    /// # Errors
    /// When an image of it cannot be opened: the old one stays.
    pub fn reload(&self, site: Site) -> aule_store::Result<()> {
        self.images.refresh(&site)?;
        *self.site.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(site);
        self.observer.note("the site file was read anew");
        Ok(())
    }

    /// Looks what the images' names stand for now.
    ///
    /// # Errors
    /// When one of them cannot be opened: nothing is switched then.
    pub fn refresh(&self) -> aule_store::Result<()> {
        for it in self.images.refresh(&self.site())? {
            let from = it.from.map(|from| format!(", was {from}")).unwrap_or_default();
            self.observer.note(&format!("image {} is {}{from}", it.name, it.to));
        }
        Ok(())
    }

    /// Tells something once.
    pub fn note(&self, message: &str) {
        self.observer.note(message);
    }

    /// Tells that something is wrong, the same thing only once.
    pub fn warn(&self, message: String) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() < WARNINGS_MAX && warned.insert(message.clone()) {
            self.observer.warn(&message);
        }
    }

    /// Notes what a node asks for and gives the node.
    ///
    /// # Errors
    /// When the site has nothing for it.
    pub fn see(&self, address: IpAddr, identity: Identity, stage: Stage, what: &str) -> Result<Known, Unserved> {
        let seen = Seen { address: address.to_canonical(), identity, stage, what: what.to_owned(), now: now() };
        self.nodes.see(&self.site(), &self.images, seen).inspect_err(|error| {
            self.warn(format!("{address} asked for {what}: {error}"));
        })
    }

    /// Where a node that reached the server at `reached` finds it.
    pub fn place(&self, reached: IpAddr) -> Place {
        let site = self.site();
        let address = site.address.map_or(reached.to_canonical(), IpAddr::V4);
        Place { address, http: site.listen.http.map_or(80, |it| it.port()) }
    }
}

/// Seconds since 1970. (A clock that jumps changes what a timeline shows, and nothing else.)
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The address of this machine from which `peer` is reached; asks the kernel's routes, sends nothing.
pub fn own_address(peer: IpAddr) -> IpAddr {
    let any: SocketAddr = match peer {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let found = std::net::UdpSocket::bind(any).and_then(|socket| {
        socket.connect((peer, 9))?;
        socket.local_addr()
    });
    found.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

impl nfs::Builds for Server {
    fn by_prefix(&self, prefix: Prefix) -> Option<Arc<Export>> {
        self.images.by_prefix(prefix).map(|published| Arc::clone(&published.root))
    }

    fn damaged(&self, export: &Export, error: &ReadError) {
        self.warn(format!("a file of {} cannot be read: {error}", export.digest()));
    }
}

impl nfs::Names for Server {
    fn mount(&self, path: &[u8], peer: IpAddr) -> Option<[u8; nfs::HANDLE]> {
        // The image's name or digest, and perhaps a directory below its root.
        let path = TreePath::new(path).ok()?;
        let name = std::str::from_utf8(path.components().next()?).ok()?;
        let published = match self.images.current(name) {
            Some(published) => published,
            None => self.images.by_digest(Digest::from_hex(name.strip_prefix("sha256:").unwrap_or(name)).ok()?)?,
        };
        let below = path.strip_prefix(&TreePath::new(name).ok()?)?;
        let number = published.root.find(&below)?;
        published.root.node(number).filter(|node| node.inode.is_directory())?;
        self.nodes.note(peer.to_canonical(), Stage::Mount, &path.to_string(), now());
        Some(self.key.make(nfs::prefix(published.digest), u64::from(number)))
    }

    fn paths(&self) -> Vec<String> {
        let images = self.images.all();
        let digests: std::collections::BTreeSet<_> = images.iter().map(|(_, it)| it.digest.hex()).collect();
        images.iter().map(|(name, _)| format!("/{name}")).chain(digests.iter().map(|hex| format!("/{hex}"))).collect()
    }
}

impl nfs::Site for Server {
    fn allows(&self, peer: SocketAddr) -> bool {
        self.site().allows(peer.ip())
    }

    fn key(&self) -> &HandleKey {
        &self.key
    }

    fn cache(&self) -> &FrameCache {
        &self.cache
    }
}
