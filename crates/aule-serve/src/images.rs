//! The images of a site: names that nodes boot, each resolved to one digest, and every digest that nodes still run from.

use crate::{
    nfs::{Prefix, prefix},
    published::{Blob, Published},
    server::now,
    site::Site,
};
use aule_store::{Reference, Result, Store, StoreError};
use aule_tree::Digest;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What names stand for at one moment. A switch replaces it whole.
#[derive(Debug, Default)]
pub(crate) struct Names {
    current: BTreeMap<String, Arc<Published>>,
    /// Digests that the site's images stood for, as far as the store remembers: nodes may run from them.
    known: HashSet<Digest>,
}

/// All images.
#[derive(Debug)]
pub struct Images {
    store: Arc<Store>,
    /// Under which name the store keeps what nodes use.
    lease: String,
    names: RwLock<Arc<Names>>,
    /// Everything that is open, by the prefix of its digest.
    open: RwLock<HashMap<Prefix, Opened>>,
    /// Held while something is opened, so that a thousand nodes open an older build once.
    opening: Mutex<()>,
    /// When each build was used last, in seconds since 1970.
    used: Mutex<HashMap<Digest, u64>>,
    /// What could not be opened, when, and which blob of it was not there, if that was why: thousand nodes that ask for it
    /// must not try it thousand times.
    failed: Mutex<HashMap<Digest, (Instant, Option<Digest>)>>,
    /// What the lease says now.
    leased: Mutex<Option<BTreeSet<Digest>>>,
}

#[derive(Debug)]
struct Opened {
    published: Arc<Published>,
    used: AtomicU64,
}

/// For so long after its last use, in seconds, a build is kept in the store for nodes that run from it and are silent.
const LEASE: u64 = 7 * 24 * 3600;
/// For so long what could not be opened is not tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// For so long a build that no name stands for stays open.
const OPEN: u64 = 3600;

/// A name that stands for another digest now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switched {
    /// The image.
    pub name: String,
    /// What it stood for.
    pub from: Option<Digest>,
    /// What it stands for now.
    pub to: Digest,
}

/// What came of looking at what names stand for.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// What they stand for now.
    pub(crate) names: Names,
    /// Those that could not be opened, and why: they stand for what they stood for before.
    pub(crate) failed: Vec<(String, StoreError)>,
    /// What servers say their nodes use, where it cannot be understood.
    pub(crate) leases: Vec<StoreError>,
}

/// What came of looking, and of switching to it.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// The names that stand for something else now.
    pub switched: Vec<Switched>,
    /// Those that could not be opened, and why: they stand for what they stood for before.
    pub failed: Vec<(String, StoreError)>,
    /// What servers say their nodes use, where it cannot be understood.
    pub leases: Vec<StoreError>,
}

impl Images {
    /// No image yet. `lease` is a file name: under it the store keeps what nodes use.
    pub fn new(store: Arc<Store>, lease: impl Into<String>) -> Self {
        Images {
            store,
            lease: lease.into(),
            names: RwLock::default(),
            open: RwLock::default(),
            opening: Mutex::default(),
            used: Mutex::default(),
            failed: Mutex::default(),
            leased: Mutex::default(),
        }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Resolves the names of a site anew and switches to what they stand for, all at once; each that cannot be opened
    /// keeps what it stood for.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn refresh(&self, site: &Site, now: u64) -> Result<Refreshed> {
        let Looked { names, failed, leases } = self.look(site, now)?;
        Ok(Refreshed { switched: self.switch(names), failed, leases })
    }

    /// Resolves the names of a site anew and opens what they stand for; each that cannot be opened keeps what it stood for.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn look(&self, site: &Site, now: u64) -> Result<Looked> {
        let mut next = Names::default();
        let mut failed = Vec::new();
        let before = self.names();
        let generations = self.store.generations()?;
        if self.used().is_empty() {
            // What a server before this one kept: nodes may run from it still. (One that cannot be read is told below.)
            let kept = self.store.lease(&self.lease).unwrap_or_default();
            self.used().extend(kept.into_iter().map(|digest| (digest, now)));
        }
        for (name, image) in &site.images {
            let opened = image.reference.value.parse::<Reference>().and_then(|reference| {
                let digest = self.store.resolve(&reference)?.digest;
                Ok((reference, self.open(digest)?))
            });
            match opened {
                Ok((reference, published)) => {
                    let older = generations.iter().filter(|it| Some(&it.name) == reference.name.as_ref());
                    next.known.extend(older.map(|it| it.descriptor.digest));
                    next.current.insert(name.clone(), published);
                }
                Err(error) => {
                    failed.push((name.clone(), error));
                    next.current.extend(before.current.get(name).map(|it| (name.clone(), Arc::clone(it))));
                }
            }
        }
        next.known.extend(next.current.values().map(|it| it.digest));
        next.known.extend(self.used().keys().copied());
        // Nodes may come over from another server of this store, and with them what only its lease keeps.
        let (leased, leases) = self.store.readable_leases()?;
        next.known.extend(leased);
        Ok(Looked { names: next, failed, leases })
    }

    /// Switches to what names were seen to stand for; gives those that stood for something else.
    pub(crate) fn switch(&self, next: Names) -> Vec<Switched> {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let switched = next
            .current
            .iter()
            .filter_map(|(name, now)| {
                let from = names.current.get(name).map(|it| it.digest);
                (from != Some(now.digest)).then(|| Switched { name: name.clone(), from, to: now.digest })
            })
            .collect();
        *names = Arc::new(next);
        switched
    }

    /// Lets a name stand for a build that is in no store.
    #[cfg(test)]
    pub(crate) fn set(&self, name: &str, build: &Arc<Published>) {
        let current = BTreeMap::from([(name.to_owned(), Arc::clone(build))]);
        self.switch(Names { current, known: HashSet::from([build.digest]) });
    }

    /// Writes down in the store what is used, those in `nodes` among it, and closes what is not. Whether the store keeps
    /// it from now on: a store that cannot be written keeps nothing, and its lock must be held.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep(&self, nodes: &BTreeSet<Digest>, now: u64) -> Result<()> {
        let names = self.names();
        let current: BTreeSet<Digest> = names.current.values().map(|it| it.digest).collect();
        let mut used = self.used();
        {
            let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
            for it in open.values() {
                let last = used.entry(it.published.digest).or_default();
                *last = it.used.load(Ordering::Relaxed).max(*last);
            }
            used.extend(current.iter().chain(nodes).map(|digest| (*digest, now)));
            // (A clock that jumps ahead by a week gives up what nobody uses at that moment; one that jumps back, nothing.)
            used.retain(|_, last| now.saturating_sub(*last) <= LEASE);
            open.retain(|_, it| {
                let digest = it.published.digest;
                let recent = used.get(&digest).is_some_and(|last| now.saturating_sub(*last) <= OPEN);
                recent || current.contains(&digest)
            });
        }
        let wanted: BTreeSet<Digest> = used.keys().copied().collect();
        drop(used);
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        if leased.as_ref() != Some(&wanted) {
            self.store.set_lease(&self.lease, &wanted)?;
            *leased = Some(wanted);
        }
        Ok(())
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<Digest, (Instant, Option<Digest>)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> MutexGuard<'_, HashMap<Digest, u64>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What an image stands for now.
    pub fn current(&self, name: &str) -> Option<Arc<Published>> {
        self.names().current.get(name).cloned()
    }

    /// All names with what they stand for.
    pub fn all(&self) -> Vec<(String, Arc<Published>)> {
        self.names().current.iter().map(|(name, it)| (name.clone(), Arc::clone(it))).collect()
    }

    /// A build that an image of this site stands for, or stood for.
    pub fn by_digest(&self, digest: Digest) -> Option<Arc<Published>> {
        if !self.names().known.contains(&digest) {
            return None;
        }
        self.open(digest).ok()
    }

    /// The same by the prefix of its digest, as handles and the addresses of seeds have it. `now` counts as its last use.
    pub(crate) fn by_prefix(&self, wanted: Prefix, now: u64) -> Found {
        if let Some(found) = self.open.read().unwrap_or_else(PoisonError::into_inner).get(&wanted) {
            found.used.store(now, Ordering::Relaxed);
            return Found::Open(Arc::clone(&found.published));
        }
        let Some(digest) = self.names().known.iter().copied().find(|digest| prefix(*digest) == wanted) else {
            return Found::Unknown;
        };
        match self.open(digest) {
            Ok(published) => Found::Open(published),
            // It was removed: what a node still holds of it will not come back.
            Err(StoreError::MissingBlob(_)) => Found::Unknown,
            Err(error) => Found::Fails(error),
        }
    }

    /// A blob of some build that is open, or the index of one that can be opened: then what it names is found, too.
    pub fn blob(&self, digest: Digest) -> Option<Blob> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let found = open.values().find_map(|it| it.published.blobs.get(&digest).cloned());
        drop(open);
        found.or_else(|| self.by_digest(digest)?.blobs.get(&digest).cloned())
    }

    fn open(&self, digest: Digest) -> Result<Arc<Published>> {
        let key = prefix(digest);
        let find = || {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            open.get(&key).map(|it| &it.published).filter(|it| it.digest == digest).cloned()
        };
        if let Some(found) = find() {
            return Ok(found);
        }
        waiting(|| self.open_anew(digest, key, find))
    }

    fn open_anew(
        &self,
        digest: Digest,
        key: Prefix,
        find: impl Fn() -> Option<Arc<Published>>,
    ) -> Result<Arc<Published>> {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = find() {
            return Ok(found);
        }
        match self.failed().get(&digest) {
            Some((since, missing)) if since.elapsed() < AGAIN => {
                let reason = || format!("it could not be opened {} s ago", since.elapsed().as_secs());
                return Err(
                    missing.map_or_else(|| StoreError::NotABuild { digest, reason: reason() }, StoreError::MissingBlob)
                );
            }
            _ => {}
        }
        let opened = Published::open(&self.store, &Reference { name: None, digest: Some(digest) });
        match &opened {
            Ok(_) => self.failed().remove(&digest),
            Err(StoreError::MissingBlob(missing)) => self.failed().insert(digest, (Instant::now(), Some(*missing))),
            Err(_) => self.failed().insert(digest, (Instant::now(), None)),
        };
        let published = Arc::new(opened?);
        let opened = Opened { published: Arc::clone(&published), used: AtomicU64::new(now()) };
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(key, opened);
        Ok(published)
    }
}

/// Runs what reads from the disk, where it may be, so that other tasks of this thread need not wait for it.
fn waiting<T>(run: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|it| it.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(run),
        _ => run(),
    }
}

/// What came of looking for a build.
#[derive(Debug)]
pub(crate) enum Found {
    /// Here it is.
    Open(Arc<Published>),
    /// The site serves none that is called so, or no more.
    Unknown,
    /// It is one of the site's, and cannot be opened now.
    Fails(StoreError),
}
