//! A boot of a node and its timeline: what it asked for, when, and how far it came.

use crate::published::Published;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// How many different files a timeline lists for each boot.
const EVENTS_MAX: usize = 128;
/// The longest text of an event: names are for anybody to choose.
const WHAT_MAX: usize = 64;
/// How far a boot came. The order is that of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whether this server saw it begin, by DHCP or a boot file.
    pub began: bool,
    /// The documents of its seed that were given out with secrets.
    pub released: BTreeSet<String>,
    /// The boot file that it asked for last, where that is not there. (Firmware asks for much that is not; but what it asked
    /// for before it stopped shows why.)
    pub missing: Option<String>,
}

impl Boot {
    /// What to look at when the node stops here.
    pub fn hint(&self) -> String {
        match &self.missing {
            Some(missing) if self.stage <= Stage::BootFiles => {
                format!("{}; it asked last for {missing}, which its image does not have", self.stage.hint())
            }
            _ => self.stage.hint().to_owned(),
        }
    }

    /// Notes that it asked for a boot file that is not there.
    pub(super) fn miss(&mut self, what: &str) {
        self.missing = Some(what.chars().take(WHAT_MAX).collect());
    }

    /// Whether that was new.
    pub(super) fn note(&mut self, mut event: Event) -> bool {
        event.what = event.what.chars().take(WHAT_MAX).collect();
        self.missing = None;
        let further = event.stage > self.stage;
        if further {
            self.stage = event.stage;
            self.since = event.at;
        }
        let known = self.events.iter().any(|it| it.stage == event.stage && it.what == event.what);
        // A long list of boot files must not push out what comes after them.
        let room = self.events.len() < EVENTS_MAX || further && self.events.len() < EVENTS_MAX + Stage::ALL.len();
        let new = !known && room;
        if new {
            self.events.push(event);
        }
        new || further
    }
}
