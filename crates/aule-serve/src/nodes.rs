//! The nodes that this server has seen: who asks from which address, what each boots, and how far it came.
//!
//! A *boot* begins when a node asks for an address or for its first boot file. From then on it has everything from the digest
//! that its image stood for at that moment, whatever the name stands for later.

use crate::{
    images::Images,
    published::Published,
    render,
    site::{Mac, Match, Node, Serial, Site},
};
use aule_tree::Digest;
use serde::Serialize;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// How many addresses are remembered; beyond it the one that was silent longest is forgotten.
const NODES_MAX: usize = 4096;
/// How many different files a timeline lists for each boot.
const EVENTS_MAX: usize = 128;
/// A node that was silent so long, in seconds, and then asks for a boot file begins a new boot.
const PAUSE: u64 = 60;

/// What is known of a node, from what it sends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// Serial number, from option 97 or the prefix of its TFTP requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
    /// Ethernet address, from DHCP or the prefix of its TFTP requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Model, from DHCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// How far a boot came. The order is that of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It asked for an address.
    Dhcp,
    /// It asked for boot files.
    BootFiles,
    /// It mounted its root.
    Mount,
    /// It read from its root.
    Root,
    /// It asked for its seed.
    Seed,
    /// cloud-init reported that it is done.
    Done,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Stage; 6] = [Stage::Dhcp, Stage::BootFiles, Stage::Mount, Stage::Root, Stage::Seed, Stage::Done];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Dhcp => "dhcp",
            Stage::BootFiles => "boot_files",
            Stage::Mount => "mount",
            Stage::Root => "root",
            Stage::Seed => "seed",
            Stage::Done => "done",
        }
    }

    /// What to look at when a node stops here.
    pub fn hint(self) -> &'static str {
        match self {
            Stage::Dhcp => "it asked for an address and then for no file: does UDP port 69 reach this server?",
            Stage::BootFiles => {
                "it has boot files and does not mount its root: do TCP ports 111 and 2049 reach this server?"
            }
            Stage::Mount => "it mounted its root and reads nothing: look at its console for the initramfs",
            Stage::Root => {
                "it reads its root and does not ask for a seed: does TCP port 80 reach this server, and is cloud-init enabled?"
            }
            Stage::Seed => "it has its seed and cloud-init does not report: see /var/log/cloud-init-output.log on it",
            Stage::Done => "it is up",
        }
    }
}

/// Something that a node did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub at: u64,
    /// What kind.
    pub stage: Stage,
    /// Which file or path, and what came of it.
    pub what: String,
}

/// A boot of a node.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Number of this boot of this node, from 1.
    pub number: u64,
    /// The image that it boots, by name.
    pub image: String,
    /// What the name stood for when the boot began.
    pub build: Arc<Published>,
    /// What it did, the first time that it did it.
    pub events: Vec<Event>,
    /// How far it came.
    pub stage: Stage,
    /// When it came so far.
    pub since: u64,
    /// Whether its secrets were given out.
    pub released: bool,
}

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
}

/// All nodes, by address.
#[derive(Debug, Default)]
pub struct Nodes {
    known: Mutex<HashMap<IpAddr, Known>>,
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
}

/// The rule for a node: the first that matches.
pub fn rule<'a>(site: &'a Site, identity: &Identity) -> Option<&'a Node> {
    site.nodes.iter().map(|rule| &rule.value).find(|rule| {
        let Match { serial, mac, model, any } = &rule.matches;
        let fits = |wanted: bool, equal: bool| !wanted || equal;
        *any || (fits(serial.is_some(), *serial == identity.serial)
            && fits(mac.is_some(), *mac == identity.mac)
            && fits(model.is_some(), *model == identity.model))
    })
}

/// What a request says of the node that sends it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Where it comes from.
    pub address: IpAddr,
    /// What it tells of the node.
    pub identity: Identity,
    /// How far the node is.
    pub stage: Stage,
    /// Which file or path.
    pub what: String,
    /// Seconds since 1970.
    pub now: u64,
}

impl Nodes {
    /// Notes a request and gives the node as it is then. Begins a boot where there is none, or where this request is the
    /// first of a new one.
    ///
    /// # Errors
    /// When the site has nothing for it.
    pub fn see(&self, site: &Site, images: &Images, seen: Seen) -> Result<Known, Unserved> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.get(&seen.address);
        let mut identity = before.map(|it| it.identity.clone()).unwrap_or_default();
        // Another serial or address from here is another machine: nothing of the one before counts.
        let other = |old: bool, differs: bool| old && differs;
        if other(identity.serial.is_some() && seen.identity.serial.is_some(), identity.serial != seen.identity.serial)
            || other(identity.mac.is_some() && seen.identity.mac.is_some(), identity.mac != seen.identity.mac)
        {
            identity = Identity::default();
        }
        identity.serial = seen.identity.serial.or(identity.serial);
        identity.mac = seen.identity.mac.or(identity.mac);
        identity.model = seen.identity.model.clone().or(identity.model);

        let rule = rule(site, &identity).ok_or(Unserved::NoRule)?;
        let fresh = match before {
            None => true,
            Some(known) => {
                known.identity.serial.is_some() && known.identity.serial != identity.serial
                    || known.boot.image != rule.image && seen.stage <= Stage::BootFiles
                    || seen.stage <= Stage::BootFiles
                        && (known.boot.stage > seen.stage.max(Stage::BootFiles)
                            || seen.now.saturating_sub(known.last) > PAUSE)
            }
        };
        let boot = match before.filter(|_| !fresh) {
            Some(known) => known.boot.clone(),
            None => Boot {
                number: before.map_or(0, |it| it.boot.number) + 1,
                image: rule.image.clone(),
                build: images.current(&rule.image).ok_or_else(|| Unserved::NoImage(rule.image.clone()))?,
                events: Vec::new(),
                stage: seen.stage,
                since: seen.now,
                released: false,
            },
        };
        let name = render::name(rule, &identity, seen.address).map_err(|error| Unserved::Name(error.to_string()))?;
        let mut known = Known { address: seen.address, identity, name, vars: rule.vars.clone(), boot, last: seen.now };
        known.boot.note(Event { at: seen.now, stage: seen.stage, what: seen.what });
        if !all.contains_key(&seen.address) && all.len() >= NODES_MAX {
            let oldest = all.values().min_by_key(|it| it.last).map(|it| it.address);
            oldest.and_then(|address| all.remove(&address));
        }
        all.insert(seen.address, known.clone());
        Ok(known)
    }

    /// Notes what a node did that is known already; says nothing of one that is not.
    pub fn note(&self, address: IpAddr, stage: Stage, what: &str, now: u64) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get_mut(&address) {
            known.last = now;
            known.boot.note(Event { at: now, stage, what: what.to_owned() });
        }
    }

    /// Whether the secrets of this boot may be given out now; they count as given from then on.
    pub fn release(&self, address: IpAddr) -> bool {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_mut(&address).is_some_and(|known| !std::mem::replace(&mut known.boot.released, true))
    }

    /// All nodes, by name and address.
    pub fn all(&self) -> Vec<Known> {
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = all.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name).then(a.address.cmp(&b.address)));
        all
    }

    /// The digests that nodes boot or run from.
    pub fn digests(&self) -> Vec<Digest> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).values().map(|it| it.boot.build.digest).collect()
    }
}

impl Boot {
    fn note(&mut self, event: Event) {
        if event.stage > self.stage {
            self.stage = event.stage;
            self.since = event.at;
        }
        let known = self.events.iter().any(|it| it.stage == event.stage && it.what == event.what);
        if !known && self.events.len() < EVENTS_MAX {
            self.events.push(event);
        }
    }
}

impl Serialize for Serial {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
