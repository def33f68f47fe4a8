//! The nodes that this server has seen: who asks from which address, what each boots, and how far it came.
//!
//! A *boot* begins when a node asks for an address or for its first boot file. From then on it has everything from the digest
//! that its image stood for at that moment, whatever the name stands for later.

mod boot;
mod identity;
#[cfg(test)]
mod tests;

pub use boot::{Boot, Event, Stage};
pub use identity::{Identity, is_named, rule};

use crate::{
    images::Images,
    published::Published,
    render,
    site::{Mac, Site},
};
use aule_tree::Digest;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How many addresses are remembered; beyond it the one that was silent longest is forgotten.
const NODES_MAX: usize = 4096;
/// A node that was silent so long and then asks for a boot file begins a new boot. (By a clock that never jumps: in the
/// middle of a boot another build must not come in.)
pub(crate) const PAUSE: Duration = Duration::from_secs(60);
/// A node that asks for its first boot file again after so long a silence started again.
const LOOP: Duration = Duration::from_secs(5);
/// A node that read from its root so lately does not begin to boot, unless it asked for an address: somebody on it asks for a
/// boot file.
const ALIVE: Duration = Duration::from_secs(6);
/// How long a request for an address, in seconds, counts for the boot that follows it.
const PATIENCE: u64 = 600;

/// A node.
#[derive(Debug, Clone)]
pub struct Known {
    /// Where it asks from.
    pub address: IpAddr,
    /// Who it is.
    pub identity: Identity,
    /// Its name by the site's rules.
    pub name: String,
    /// The values of its rule.
    pub vars: std::collections::BTreeMap<String, serde_json::Value>,
    /// What it boots.
    pub boot: Boot,
    /// When it asked last, in seconds since 1970.
    pub last: u64,
    /// The same by a clock that never jumps; `None` when that is longer ago than a pause.
    pub heard: Option<Instant>,
    /// When it read from its root last.
    pub read: Option<Instant>,
    /// Whether its name alone says which machine it is: that is so where the rule is for one machine, or the name holds its
    /// serial number or Ethernet address.
    pub named: bool,
}

/// A node that asked for an address and for nothing else yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Who it is.
    pub identity: Identity,
    /// The address that it said it takes.
    pub address: Option<IpAddr>,
    /// What it did.
    pub events: Vec<Event>,
}

impl Waiting {
    fn last(&self) -> u64 {
        self.events.last().map_or(0, |it| it.at)
    }
}

/// Asks who has an address on the local network.
pub type Neighbours = fn(IpAddr) -> Option<Mac>;

/// All nodes.
#[derive(Debug)]
pub struct Nodes {
    all: Mutex<All>,
    neighbours: Neighbours,
}

#[derive(Debug, Default)]
struct All {
    known: HashMap<IpAddr, Known>,
    waiting: HashMap<Mac, Waiting>,
    /// Those that are to be written down.
    changed: HashSet<IpAddr>,
    /// Those of which nothing is to be kept.
    gone: HashSet<IpAddr>,
}

/// Why a node gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// No rule fits it.
    #[error("no rule of the site matches it")]
    NoRule,
    /// Its image is not there.
    #[error("the image `{0}` cannot be opened")]
    NoImage(String),
    /// Its name cannot be made.
    #[error("its name cannot be made: {0}")]
    Name(String),
    /// Something else has this address.
    #[error("it is another machine than the one that runs at this address")]
    Another,
    /// There is no such file for it.
    #[error("there is no such file")]
    NoFile,
}

/// What a request says of the node that sends it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Where it comes from.
    pub address: IpAddr,
    /// What it tells of the node.
    pub identity: Identity,
    /// The build that it tells; without it a boot has what its image stands for.
    pub build: Option<Arc<Published>>,
    /// How far the node is.
    pub stage: Stage,
    /// Which file or path.
    pub what: String,
    /// Seconds since 1970.
    pub now: u64,
}

impl Nodes {
    /// No nodes yet.
    pub fn new(neighbours: Neighbours) -> Self {
        Nodes { all: Mutex::default(), neighbours }
    }

    fn all_of_them(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a machine asked for an address, or takes one.
    pub fn ask(&self, identity: Identity, address: Option<IpAddr>, what: &str, now: u64) {
        let Some(mac) = identity.mac else { return };
        let mut all = self.all_of_them();
        let waiting = &mut all.waiting;
        waiting.retain(|_, it| now.saturating_sub(it.last()) <= PATIENCE);
        if !waiting.contains_key(&mac) && waiting.len() >= NODES_MAX {
            let oldest = waiting.iter().min_by_key(|(_, it)| it.last()).map(|(mac, _)| *mac);
            oldest.and_then(|mac| waiting.remove(&mac));
        }
        let empty = || Waiting { identity: Identity::default(), address: None, events: Vec::new() };
        let it = waiting.entry(mac).or_insert_with(empty);
        it.identity = identity.and(&it.identity);
        it.address = address.or(it.address);
        match it.events.iter_mut().find(|event| event.what == what) {
            Some(event) => event.at = now,
            None => it.events.push(Event { at: now, stage: Stage::Dhcp, what: what.to_owned() }),
        }
        it.events.sort_by_key(|event| event.at);
        it.events.truncate(8);
    }

    /// Notes a request and gives the node as it is then. Begins a boot where there is none, or where this request is the
    /// first of a new one.
    ///
    /// # Errors
    /// When the site has nothing for it.
    pub fn see(&self, site: &Site, images: &Images, seen: Seen) -> Result<Known, Unserved> {
        self.see_if(site, images, seen, |known| Some(known.clone()))
    }

    /// The same, where `wanted` finds what the node asks for. A request for what is not there begins nothing; it is only
    /// remembered as the last one of a boot. `wanted` runs while nothing else can be asked of the nodes.
    ///
    /// # Errors
    /// When the site has nothing for it.
    pub fn see_if<T>(
        &self,
        site: &Site,
        images: &Images,
        seen: Seen,
        wanted: impl FnOnce(&Known) -> Option<T>,
    ) -> Result<T, Unserved> {
        let mut all = self.all_of_them();
        let all = &mut *all;
        let begins = seen.stage <= Stage::BootFiles;
        if !begins {
            self.adopt(all, seen.address);
        }
        let here = all.known.get(&seen.address);
        let rests = here.is_some_and(|known| known.heard.is_none_or(|heard| heard.elapsed() > PAUSE));
        // What says whose request it is: itself, the local network, and what was asked for this address before.
        let mut told = seen.identity.clone();
        let unsure = begins && (told.serial.is_none() || rests || all.asked(&seen, &told, here).is_some());
        if told.mac.is_none() && (unsure || !here.is_some_and(|known| known.identity.agrees(&told))) {
            told.mac = (self.neighbours)(seen.address);
        }
        let asked = if begins { all.asked(&seen, &told, here).cloned() } else { None };
        if let Some(asked) = &asked {
            told.mac = told.mac.or(asked.identity.mac);
        }
        // Another serial or Ethernet address from here is another machine: nothing of the one before counts. After a pause
        // anybody may have the address, so it is the one from before only where something says so, or nothing says anything.
        let nameless = |it: &Identity| it.serial.is_none() && it.mac.is_none();
        let is_same = |known: &Identity| known.is_same(&told, false) || nameless(known) && nameless(&told);
        let before = here.filter(|known| {
            known.identity.agrees(&told)
                && asked.as_ref().is_none_or(|it| !it.identity.is_another(&known.identity))
                && (!(begins && rests) || is_same(&known.identity))
        });
        let alive = here.is_some_and(|known| known.read.is_some_and(|read| read.elapsed() < ALIVE));
        // (Who comes with a seed address that this site signed is whom it names.)
        if alive && begins && before.is_none() {
            return Err(Unserved::Another);
        }
        let mut identity = before.map_or(told.clone(), |known| told.and(&known.identity));
        if let Some(asked) = &asked {
            identity = identity.with_dhcp(&asked.identity);
        }
        // A node that does not come beyond its boot files starts over and over: from its first file on, after a moment.
        let again = |known: &Known| {
            let first = known.boot.events.iter().find(|it| it.stage == Stage::BootFiles);
            let starts = known.boot.stage <= Stage::BootFiles && first.is_some_and(|it| it.what == seen.what);
            starts && known.heard.is_none_or(|heard| heard.elapsed() > LOOP)
        };
        let fresh = before.is_none_or(|known| {
            let was_up = known.boot.stage > Stage::BootFiles && !alive;
            begins && (asked.is_some() || was_up || rests || again(known))
        });
        // The build that the node says it runs from counts, also where another server saw it begin since.
        let other = |known: &Known| seen.build.as_ref().is_some_and(|it| it.digest != known.boot.build.digest);
        let fresh = fresh || !begins && before.is_some_and(other);

        let settled = before.filter(|known| !fresh && known.identity == identity);
        let mut known = match settled {
            // A boot keeps what its rule said when it began, whatever the site says since.
            Some(known) => known.clone(),
            None => {
                let rule = rule(site, &identity).ok_or(Unserved::NoRule)?;
                let name = render::name(rule, &identity, seen.address);
                let name = name.map_err(|error| Unserved::Name(error.to_string()))?;
                // More is known of it than before, and the rule that fits now may be for another image.
                let going = before.filter(|known| !fresh && (!begins || known.boot.image == rule.image));
                let boot = match going {
                    Some(known) => known.boot.clone(),
                    None => Boot {
                        number: before.map_or(0, |it| it.boot.number).saturating_add(1),
                        image: rule.image.clone(),
                        build: match seen.build {
                            Some(build) if !begins => build,
                            _ => images.current(&rule.image).ok_or_else(|| Unserved::NoImage(rule.image.clone()))?,
                        },
                        events: Vec::new(),
                        stage: seen.stage,
                        since: seen.now,
                        began: begins,
                        released: BTreeSet::new(),
                        missing: None,
                    },
                };
                let named = is_named(rule, &identity, &name);
                let (vars, read) = (rule.vars.clone(), going.and_then(|it| it.read));
                let (address, last, heard) = (seen.address, 0, None);
                match going.filter(|_| !begins) {
                    // It runs under its name already.
                    Some(known) => Known { identity, ..known.clone() },
                    None => Known { address, identity, name, vars, boot, last, heard, read, named },
                }
            }
        };
        (known.last, known.heard) = (seen.now, Some(Instant::now()));
        known.boot.events.extend(asked.iter().flat_map(|it| it.events.clone()));
        known.boot.note(Event { at: seen.now, stage: seen.stage, what: seen.what.clone() });
        let Some(found) = wanted(&known) else {
            let same = |it: &&mut Known| !fresh && it.boot.number == known.boot.number;
            if let Some(known) = all.known.get_mut(&seen.address).filter(same) {
                known.boot.miss(&seen.what);
            }
            return Err(Unserved::NoFile);
        };
        if let Some(mac) = asked.and_then(|it| it.identity.mac) {
            all.waiting.remove(&mac);
        }
        all.insert(known);
        Ok(found)
    }

    /// Finds a node again that booted from one address and has another one now, as its firmware and its system may get
    /// different ones: by its Ethernet address.
    fn adopt(&self, all: &mut All, address: IpAddr) {
        let Some(mac) = (self.neighbours)(address) else { return };
        let here = all.known.get(&address).map(|it| it.identity.mac);
        if here == Some(Some(mac)) {
            return;
        }
        let others = all.known.values().filter(|it| it.identity.mac == Some(mac) && it.address != address);
        let before = others.max_by_key(|it| it.last).map(|it| it.address);
        if here.is_some_and(|it| it.is_some()) {
            // Another machine had the address before.
            all.known.remove(&address);
            all.gone.insert(address);
        }
        let Some(before) = before else { return };
        if let Some(mut known) = all.known.remove(&before) {
            all.gone.insert(before);
            known.address = address;
            all.insert(known);
        }
    }

    /// Notes what a node did that is known already; says nothing of one that is not.
    pub fn note(&self, address: IpAddr, stage: Stage, what: &str, now: u64) {
        let mut all = self.all_of_them();
        self.adopt(&mut all, address);
        let Some(known) = all.known.get_mut(&address) else { return };
        (known.last, known.heard) = (now, Some(Instant::now()));
        if known.boot.note(Event { at: now, stage, what: what.to_owned() }) {
            all.changed.insert(address);
        }
    }

    /// Notes that a node reads from its root.
    pub fn reads(&self, address: IpAddr, now: u64) {
        if let Some(known) = self.all_of_them().known.get_mut(&address) {
            let instant = Some(Instant::now());
            (known.last, known.heard, known.read) = (now, instant, instant);
        }
    }

    /// Notes that a node is there, without anything new.
    pub fn touch(&self, address: IpAddr, now: u64) {
        if let Some(known) = self.all_of_them().known.get_mut(&address) {
            (known.last, known.heard) = (now, Some(Instant::now()));
        }
    }

    /// Takes the right to give out a document of this boot's seed with secrets, if there still is one: it counts as given
    /// from then on. There is none when it was given, or nobody saw the boot begin.
    pub fn release(&self, node: &Known, document: &str) -> bool {
        let mut all = self.all_of_them();
        let Some(known) = all.known.get_mut(&node.address) else { return false };
        let right = known.boot.began && known.boot.number == node.boot.number && known.identity == node.identity;
        right && known.boot.released.insert(document.to_owned())
    }

    /// Gives a right back that could not be written down, so that nothing was given for it.
    pub fn take_back(&self, node: &Known, document: &str) {
        if let Some(known) = self.all_of_them().known.get_mut(&node.address)
            && known.boot.number == node.boot.number
            && known.identity == node.identity
        {
            known.boot.released.remove(document);
        }
    }

    /// Notes that what is known of an address is still to be written down.
    pub fn again(&self, address: IpAddr) {
        self.all_of_them().changed.insert(address);
    }

    /// Puts a node back that was written down.
    pub fn restore(&self, known: Known) {
        let mut all = self.all_of_them();
        all.insert(known.clone());
        all.changed.remove(&known.address);
    }

    /// All nodes, by name and address.
    pub fn all(&self) -> Vec<Known> {
        let mut nodes: Vec<_> = self.all_of_them().known.values().cloned().collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name).then(a.address.cmp(&b.address)));
        nodes
    }

    /// Those that asked for an address and for nothing else yet, the first first.
    pub fn waiting(&self) -> Vec<Waiting> {
        let mut waiting: Vec<_> = self.all_of_them().waiting.values().cloned().collect();
        waiting.sort_by_key(|it| (it.events.first().map_or(0, |event| event.at), it.identity.mac));
        waiting
    }

    /// The node at an address.
    pub fn at(&self, address: IpAddr) -> Option<Known> {
        self.all_of_them().known.get(&address).cloned()
    }

    /// Another address at which a node of the same name was heard of lately.
    pub fn twin(&self, node: &Known) -> Option<IpAddr> {
        let all = self.all_of_them();
        let lately = |it: &&Known| it.heard.is_some_and(|heard| heard.elapsed() < PAUSE);
        let mut twins = all.known.values().filter(|it| it.name == node.name && it.address != node.address);
        twins.find(lately).map(|it| it.address)
    }

    /// The addresses of nodes of which something changed since this was asked last, and of those that are forgotten.
    pub fn changed(&self) -> BTreeSet<IpAddr> {
        let mut all = self.all_of_them();
        let all = &mut *all;
        all.changed.drain().chain(all.gone.drain()).collect()
    }

    /// The digests that nodes boot or run from.
    pub fn digests(&self) -> BTreeSet<Digest> {
        self.all_of_them().known.values().map(|it| it.boot.build.digest).collect()
    }
}

impl All {
    /// What was asked for by DHCP before this request: of the machine that it names, else for the address that it comes from,
    /// else of the machine that had this address last.
    fn asked(&self, seen: &Seen, told: &Identity, here: Option<&Known>) -> Option<&Waiting> {
        let recent = || {
            let recent = self.waiting.values().filter(|it| seen.now.saturating_sub(it.last()) <= PATIENCE);
            recent.filter(|it| !it.identity.is_another(told))
        };
        let latest = |fits: &dyn Fn(&Waiting) -> bool| recent().filter(|it| fits(it)).max_by_key(|it| it.last());
        latest(&|it| it.identity.is_same(told, false))
            .or_else(|| latest(&|it| it.address == Some(seen.address)))
            .or_else(|| latest(&|it| here.is_some_and(|known| it.identity.is_same(&known.identity, false))))
    }

    fn insert(&mut self, known: Known) {
        if !self.known.contains_key(&known.address) && self.known.len() >= NODES_MAX {
            // First those that only asked for boot files: that can be anybody.
            let oldest = self.known.values().min_by_key(|it| (it.boot.stage > Stage::BootFiles, it.last));
            if let Some(address) = oldest.map(|it| it.address) {
                self.known.remove(&address);
                self.gone.insert(address);
            }
        }
        self.gone.remove(&known.address);
        self.changed.insert(known.address);
        self.known.insert(known.address, known);
    }
}
