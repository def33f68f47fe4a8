//! The running server: the site as it is now, its images and nodes, and what all protocols ask of them.

use crate::{
    export::Export,
    frames::{FrameCache, ReadError},
    host_key,
    images::{Found, Images},
    neighbours,
    nfs::{self, HandleKey, Located, Prefix},
    nodes::{Identity, Known, Nodes, Seen, Stage, Unserved},
    published::Published,
    render::{Place, SeedAddress},
    site::Site,
    state::State,
};
use aule_store::StoreError;
use aule_tree::{Digest, TreePath};
use std::{
    collections::{HashMap, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::MetadataExt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Told what happens, for logs. Called from many threads.
pub trait Observer: Send + Sync {
    /// Something that an operator wants to read once.
    fn note(&self, message: &str);
    /// Something that is wrong.
    fn warn(&self, message: &str);
}

/// How many different warnings are told before they are only counted, how long they are, and when they are told again.
/// The same for those that clients bring about, who may make up addresses, and for one address.
const WARNINGS_MAX: usize = 512;
const REFUSALS_MAX: usize = 512;
const REFUSALS_OF_ADDRESS_MAX: usize = 32;
const MESSAGE_MAX: usize = 400;
const FORGET: Duration = Duration::from_secs(600);

/// What was warned of since some moment: of this server and its store, and of clients, who can make up what they ask for and
/// must not silence the rest by it.
struct Warned {
    since: Instant,
    messages: HashSet<String>,
    of_clients: HashSet<String>,
    of_address: HashMap<IpAddr, usize>,
}

impl Default for Warned {
    fn default() -> Self {
        let (messages, of_clients, of_address) = Default::default();
        Warned { since: Instant::now(), messages, of_clients, of_address }
    }
}

/// How long after a failure images are looked at again.
const RETRY: Duration = Duration::from_secs(3);
/// How often, in seconds, the store is told what is used, even if nothing was switched.
const KEEP: u64 = 60;

/// What every part of the server shares.
pub struct Server {
    site: RwLock<Arc<Site>>,
    /// The images.
    pub images: Images,
    /// The nodes.
    pub nodes: Nodes,
    /// Decompressed frames.
    pub cache: Arc<FrameCache>,
    /// What was counted.
    pub counters: Counters,
    state: State,
    key: HandleKey,
    observer: Arc<dyn Observer>,
    /// What was warned of: the same again is not told again.
    warned: Mutex<Warned>,
    looking: Mutex<Looking>,
}

/// Numbers that only grow, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// NFS calls.
    pub nfs_calls: AtomicU64,
    /// Bytes of TFTP blocks.
    pub tftp_bytes: AtomicU64,
    /// HTTP requests.
    pub http_requests: AtomicU64,
    /// Requests that were refused or could not be served, as far as they were told in the log or would have been.
    pub warnings: AtomicU64,
}

/// What is known of the store from looking at it last.
#[derive(Debug, Default)]
struct Looking {
    /// Of its index: device, inode, modification time.
    index: Option<(u64, u64, i64, i64)>,
    kept: u64,
    /// When what could not be opened is tried again.
    again: Option<Instant>,
    /// Whether leases cannot be written, so that its lock is held instead.
    locked: bool,
}

impl Server {
    /// A server of a site; its images are opened, and the nodes that its state tells of are known again.
    ///
    /// # Errors
    /// When an image cannot be opened.
    pub fn new(
        site: Site,
        images: Images,
        key: HandleKey,
        state: State,
        observer: Arc<dyn Observer>,
    ) -> aule_store::Result<Server> {
        let cache = Arc::new(FrameCache::new(site.cache));
        let server = Server {
            images,
            nodes: Nodes::new(neighbours::ethernet_address),
            cache,
            counters: Counters::default(),
            state,
            key,
            observer,
            warned: Mutex::default(),
            looking: Mutex::default(),
            site: RwLock::new(Arc::new(site)),
        };
        let site = server.site();
        let looked = server.images.refresh(&site, now())?;
        // One that cannot be opened is no reason to leave the nodes of the others without a root.
        let nothing = looked.switched.is_empty();
        for (name, error) in looked.failed {
            let error = StoreError::Image { name, source: Box::new(error) };
            if nothing {
                return Err(error);
            }
            server.warn(error.to_string());
        }
        server.tell(&looked.switched);
        looked.leases.iter().for_each(|error| server.warn(lease(error)));
        let wrong = |path: &std::path::Path, reason| server.warn(format!("{} is left out: {reason}", path.display()));
        match server.state.load(&server.images, wrong) {
            Ok(nodes) => nodes.into_iter().for_each(|node| server.nodes.restore(node)),
            Err(error) => server.warn(format!("the nodes of before cannot be read: {error}")),
        }
        server.keep();
        Ok(server)
    }

    /// The site as it is now.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes another site file; its ports, store, state, keys and cache do not count before the next start.
    ///
    /// # Errors
    /// The image of it that cannot be opened, and why: the old site stays.
    pub fn reload(&self, site: Site) -> Result<(), (String, StoreError)> {
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let all = |error| (String::from("(all)"), error);
        let before = self.site();
        self.lock_store(&looking).map_err(all)?;
        let looked = self.images.look(&site, now()).map_err(all).and_then(|mut looked| match looked.failed.pop() {
            None => Ok(looked),
            Some(failed) => Err(failed),
        });
        let looked = match looked {
            Ok(looked) => looked,
            Err(failed) => {
                self.keep_now(&mut looking);
                return Err(failed);
            }
        };
        let moved = |what: bool, name| what.then_some(name);
        let names = [
            moved(site.listen != before.listen, "listen"),
            moved(site.store != before.store, "store"),
            moved(site.state != before.state, "state"),
            moved(site.handle_key != before.handle_key, "handle_key"),
            moved(site.cache != before.cache, "cache"),
        ];
        let names: Vec<_> = names.into_iter().flatten().collect();
        let switched = {
            // Who asks for the site in between waits for both.
            let mut place = self.site.write().unwrap_or_else(PoisonError::into_inner);
            *place = Arc::new(site);
            self.images.switch(looked.names)
        };
        self.tell(&switched);
        self.observer.note("the site file was read anew");
        if !names.is_empty() {
            self.observer.warn(&format!("what it says of {} counts from the next start on", names.join(", ")));
        }
        self.keep_now(&mut looking);
        Ok(())
    }

    fn tell(&self, switched: &[crate::images::Switched]) {
        for it in switched {
            let from = it.from.map(|from| format!(", was {from}")).unwrap_or_default();
            self.observer.note(&format!("image {} is {}{from}", it.name, it.to));
        }
    }

    fn lock_store(&self, looking: &Looking) -> aule_store::Result<()> {
        if looking.locked { Ok(()) } else { self.images.store().lock_again() }
    }

    /// Looks, some times a second, what the images' names stand for now, and writes down what changed.
    pub fn look(&self) {
        self.save(self.nodes.changed());
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.images.store().root().join("index.json");
        let index = fs::metadata(path).map(|it| (it.dev(), it.ino(), it.mtime(), it.mtime_nsec())).ok();
        let waits = looking.again.is_some_and(|again| Instant::now() < again);
        let changed = index.is_some() && index != looking.index && !waits;
        if !changed && now().abs_diff(looking.kept) < KEEP {
            return;
        }
        if let Err(error) = self.lock_store(&looking) {
            self.warn(format!("the store cannot be locked: {error}"));
            return;
        }
        if changed {
            match self.images.refresh(&self.site(), now()) {
                Ok(looked) => {
                    self.tell(&looked.switched);
                    looked.leases.iter().for_each(|error| self.warn(lease(error)));
                    let all_good = looked.failed.is_empty();
                    for (name, error) in looked.failed {
                        self.warn(format!("image {name} stays what it is: {error}"));
                    }
                    // What failed is tried again, as its blobs may still be on their way.
                    looking.index = index.filter(|_| all_good);
                    looking.again = (!all_good).then(|| Instant::now() + RETRY);
                }
                // A store that cannot be read for a moment is no reason to stop: what is served stays.
                Err(error) => self.warn(format!("the images cannot be looked at: {error}")),
            }
        }
        self.keep_now(&mut looking);
    }

    fn keep(&self) {
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        self.keep_now(&mut looking);
    }

    /// Writes the lease and lets go of the store, whose lock is held.
    fn keep_now(&self, looking: &mut Looking) {
        looking.kept = now();
        let kept = self.images.keep(&self.nodes.digests(), now()).and_then(|()| self.images.store().unlock());
        looking.locked = kept.is_err();
        if let Err(error) = kept {
            self.warn(format!(
                "what nodes use cannot be written down, so `aule gc` must wait for this server: {error}"
            ));
        }
    }

    /// Writes everything down before the end.
    pub fn close(&self) {
        self.save(self.nodes.all().into_iter().map(|node| node.address));
    }

    fn save(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            if let Err(error) = self.state.save(address, false, || self.nodes.at(address)) {
                self.warn(format!("the state cannot be written: {error}"));
                self.nodes.again(address);
            }
        }
    }

    /// What the address of a seed says, if this site's key signed it for a node of this name.
    pub(crate) fn seed_address(&self, text: &str, name: &str) -> Option<SeedAddress> {
        SeedAddress::read(text, &self.key, name)
    }

    /// The SSH host key of a node.
    pub(crate) fn host_key(&self, node: &Known) -> Result<host_key::HostKey, ssh_key::Error> {
        host_key::derive(&self.key, node)
    }

    /// Takes the right to give out a document with secrets to a node: once in a boot that this server saw begin. When
    /// this returns, it is on the disk that it was given.
    ///
    /// # Errors
    /// Why it may not be given.
    pub fn release(&self, node: &Known, document: &str) -> Result<(), String> {
        let refused = || match node.boot.began {
            true => "its secrets were given out in this boot already".to_owned(),
            false => "this server did not see the boot begin, so it gives no secrets".to_owned(),
        };
        if !self.nodes.release(node, document) {
            return Err(refused());
        }
        if let Some(other) = self.nodes.twin(node) {
            let message = format!("{} gets secrets as {}, and {other} is called so, too", node.address, node.name);
            self.refuse(node.address, message);
        }
        let saved = self.state.save(node.address, true, || self.nodes.at(node.address));
        saved.map_err(|error| {
            self.nodes.take_back(node, document);
            self.warn(format!("the state cannot be written: {error}"));
            "that they are given cannot be written down".to_owned()
        })
    }

    /// Tells something once.
    pub fn note(&self, message: &str) {
        self.observer.note(message);
    }

    /// Tells that something is wrong here, the same thing only once in ten minutes.
    pub fn warn(&self, message: String) {
        self.tell_once(None, &message);
    }

    /// Tells that a client does not get what it asks for, the same thing only once in ten minutes.
    pub fn refuse(&self, client: IpAddr, message: String) {
        self.tell_once(Some(client), &message);
    }

    fn tell_once(&self, client: Option<IpAddr>, message: &str) {
        self.counters.warnings.fetch_add(1, Ordering::Relaxed);
        // A part of it may come from a client: no line feed and no escape of a terminal gets into the log.
        let escape = |it: char| if it.is_control() { it.escape_default().collect() } else { it.to_string() };
        let message: String = message.chars().take(MESSAGE_MAX).map(escape).collect();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever fills a list silences nobody for long.
        if warned.since.elapsed() > FORGET {
            *warned = Warned::default();
        }
        let Warned { messages, of_clients, of_address, .. } = &mut *warned;
        let (told, most) = match client {
            None => (messages, WARNINGS_MAX),
            Some(_) => (of_clients, REFUSALS_MAX),
        };
        if told.len() >= most || told.contains(&message) {
            return;
        }
        // (Who has no address yet, or is asked with all others, has no limit of its own.)
        let is_nobody = |it: &IpAddr| it.is_unspecified() || *it == IpAddr::V4(Ipv4Addr::BROADCAST);
        if let Some(client) = client.filter(|it| !is_nobody(it)) {
            let of_address = of_address.entry(client).or_default();
            *of_address += 1;
            if *of_address == REFUSALS_OF_ADDRESS_MAX {
                self.observer.warn(&format!("{client} brings about many warnings; further ones are only counted"));
            }
            if *of_address >= REFUSALS_OF_ADDRESS_MAX {
                return;
            }
        }
        self.observer.warn(&message);
        told.insert(message);
        if told.len() == most {
            self.observer.warn("there are too many different warnings; further ones are only counted");
        }
    }

    /// Notes what a node asks for and gives the node.
    ///
    /// # Errors
    /// When the site has nothing for it.
    pub fn see(&self, address: IpAddr, identity: Identity, stage: Stage, what: &str) -> Result<Known, Unserved> {
        self.see_build(address, identity, None, stage, what)
    }

    /// The same of a node that tells by the prefix of a digest which build it runs from.
    ///
    /// # Errors
    /// When the site has nothing for it.
    pub(crate) fn see_build(
        &self,
        address: IpAddr,
        identity: Identity,
        build: Option<Prefix>,
        stage: Stage,
        what: &str,
    ) -> Result<Known, Unserved> {
        self.see_if(address, identity, build, stage, what, |known| Some(known.clone()))
    }

    /// The same, where `wanted` finds what the node asks for; nothing is noted of a request for what is not there.
    ///
    /// # Errors
    /// When the site has nothing for it.
    pub(crate) fn see_if<T>(
        &self,
        address: IpAddr,
        identity: Identity,
        build: Option<Prefix>,
        stage: Stage,
        what: &str,
        wanted: impl FnOnce(&Known) -> Option<T>,
    ) -> Result<T, Unserved> {
        let address = address.to_canonical();
        let build = build.and_then(|prefix| match self.images.by_prefix(prefix, now()) {
            Found::Open(published) => Some(published),
            Found::Unknown | Found::Fails(_) => None,
        });
        let seen = Seen { address, identity, build, stage, what: what.to_owned(), now: now() };
        self.nodes.see_if(&self.site(), &self.images, seen, wanted).inspect_err(|error| {
            // Not what it asks for, which is for anybody to choose; and firmware asks for much that is not there.
            if *error != Unserved::NoFile {
                self.refuse(address, format!("{address} gets nothing: {error}"));
            }
        })
    }

    /// Where a node that reached the server at `reached` finds it.
    pub fn place(&self, reached: IpAddr) -> Place {
        let site = self.site();
        let address = site.address.map_or(reached.to_canonical(), IpAddr::V4);
        Place { address, http: site.listen.http.map_or(80, |it| it.port()), key: self.key.clone() }
    }
}

/// What a lease means that cannot be understood.
fn lease(error: &StoreError) -> String {
    format!("what some server's nodes use is not known, and `aule gc` stops until the file is removed: {error}")
}

/// Seconds since 1970. (A clock that jumps changes what a timeline shows, and nothing else.)
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Server {
    /// The build of this digest, in hexadecimal: all of it, or the half that command lines have.
    fn build(&self, digest: &str) -> Option<Arc<Published>> {
        if let Ok(digest) = Digest::from_hex(digest) {
            return self.images.by_digest(digest);
        }
        match self.images.by_prefix(hex::decode(digest).ok()?.try_into().ok()?, now()) {
            Found::Open(published) => Some(published),
            Found::Unknown => None,
            Found::Fails(error) => {
                self.warn(format!("a build that nodes run from cannot be opened: {error}"));
                None
            }
        }
    }
}

impl nfs::Builds for Server {
    fn by_prefix(&self, prefix: Prefix) -> Located {
        match self.images.by_prefix(prefix, now()) {
            Found::Open(published) => Located::Here(Arc::clone(&published.root)),
            Found::Unknown => Located::Gone,
            Found::Fails(error) => {
                self.warn(format!("a build that nodes run from cannot be opened: {error}"));
                Located::Later
            }
        }
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
        let published =
            self.images.current(name).or_else(|| self.build(name.strip_prefix("sha256:").unwrap_or(name)))?;
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
    fn allows(&self, peer: IpAddr) -> bool {
        self.site().allows(peer)
    }

    fn key(&self) -> &HandleKey {
        &self.key
    }

    fn cache(&self) -> &FrameCache {
        &self.cache
    }

    fn reads(&self, peer: IpAddr) {
        self.nodes.note(peer.to_canonical(), Stage::Root, "first read", now());
    }

    fn lives(&self, peer: IpAddr, calls: u64) {
        self.counters.nfs_calls.fetch_add(calls, Ordering::Relaxed);
        self.nodes.reads(peer.to_canonical(), now());
    }
}
