//! The images of a site: names that nodes boot, each resolved to one digest, and every digest that nodes still run from.

use crate::{
    nfs::{Prefix, prefix},
    published::Published,
    site::Site,
};
use aule_store::{Reference, Result, Store};
use aule_tree::Digest;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

/// What names stand for at one moment. A switch replaces it whole.
#[derive(Debug, Default)]
struct Names {
    current: BTreeMap<String, Arc<Published>>,
    /// Digests that the site's images stood for, as far as the store remembers: nodes may run from them.
    known: HashSet<Digest>,
}

/// All images.
#[derive(Debug)]
pub struct Images {
    store: Arc<Store>,
    names: RwLock<Arc<Names>>,
    /// Everything that was opened, by the prefix of its digest.
    open: RwLock<HashMap<Prefix, Arc<Published>>>,
    /// Held while something is opened, so that a thousand nodes open an older build once.
    opening: Mutex<()>,
}

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

impl Images {
    /// No image yet.
    pub fn new(store: Arc<Store>) -> Self {
        Images { store, names: RwLock::default(), open: RwLock::default(), opening: Mutex::default() }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Resolves the names of a site anew and switches to what they stand for, all at once.
    ///
    /// # Errors
    /// When one of them cannot be opened: nothing is switched then.
    pub fn refresh(&self, site: &Site) -> Result<Vec<Switched>> {
        let mut next = Names::default();
        let generations = self.store.generations()?;
        for (name, image) in &site.images {
            let reference: Reference = image.reference.value.parse()?;
            let digest = self.store.resolve(&reference)?.digest;
            next.current.insert(name.clone(), self.open(digest)?);
            next.known.insert(digest);
            let older = generations.iter().filter(|it| Some(&it.name) == reference.name.as_ref());
            next.known.extend(older.map(|it| it.descriptor.digest));
        }
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *names, Arc::new(next));
        let switched = names.current.iter().filter_map(|(name, now)| {
            let from = before.current.get(name).map(|it| it.digest);
            (from != Some(now.digest)).then(|| Switched { name: name.clone(), from, to: now.digest })
        });
        Ok(switched.collect())
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

    /// The same by the prefix of its digest, as handles have it.
    pub(crate) fn by_prefix(&self, wanted: Prefix) -> Option<Arc<Published>> {
        if let Some(found) = self.open.read().unwrap_or_else(PoisonError::into_inner).get(&wanted) {
            return Some(Arc::clone(found));
        }
        let digest = self.names().known.iter().copied().find(|digest| prefix(*digest) == wanted)?;
        self.open(digest).ok()
    }

    fn open(&self, digest: Digest) -> Result<Arc<Published>> {
        let key = prefix(digest);
        let find = || {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            open.get(&key).filter(|it| it.digest == digest).cloned()
        };
        if let Some(found) = find() {
            return Ok(found);
        }
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = find() {
            return Ok(found);
        }
        let published = Arc::new(Published::open(&self.store, &Reference { name: None, digest: Some(digest) })?);
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&published));
        Ok(published)
    }
}
