//! Who a node is, from what it sends, and which rule of the site is for it.

use crate::site::{Mac, Match, Node, Serial, Site};
use serde::{Deserialize, Serialize};

/// What is known of a node, from what it sends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Serial number, from option 97 or the prefix of its TFTP requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
    /// Ethernet address, from DHCP, the prefix of its TFTP requests or the kernel's table of neighbours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Model, from DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

impl Identity {
    /// Whether the other one is of the same machine, as far as both say something.
    pub(super) fn agrees(&self, other: &Identity) -> bool {
        let same = |differs: bool, known: bool| !(differs && known);
        same(self.serial != other.serial, self.serial.is_some() && other.serial.is_some())
            && same(self.mac != other.mac, self.mac.is_some() && other.mac.is_some())
    }

    /// Whether both are the same by their Ethernet address, or else by their serial number or because `otherwise`.
    pub(super) fn is_same(&self, other: &Identity, otherwise: bool) -> bool {
        match (self.mac, other.mac) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => otherwise || self.serial.is_some() && self.serial == other.serial,
        }
    }

    /// Whether the other one, of which DHCP tells, is of another machine. The Ethernet address decides, where both have one: the
    /// serial number is written in DHCP by the firmware's own rules.
    pub(super) fn is_another(&self, other: &Identity) -> bool {
        match (self.mac, other.mac) {
            (Some(ours), Some(theirs)) => ours != theirs,
            _ => !self.agrees(other),
        }
    }

    /// With what DHCP said of the same machine. Boot loaders tell another model than the firmware before them.
    pub(super) fn with_dhcp(self, dhcp: &Identity) -> Identity {
        let is_board = dhcp.model.as_deref().is_some_and(|it| it.starts_with("RPi"));
        let model = if is_board { dhcp.model.clone() } else { self.model.clone() };
        Identity { model, ..self }.and(dhcp)
    }

    /// With what the other one says beside.
    pub(super) fn and(self, other: &Identity) -> Identity {
        Identity {
            serial: self.serial.or(other.serial),
            mac: self.mac.or(other.mac),
            model: self.model.or_else(|| other.model.clone()),
        }
    }
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

/// Whether the name that a rule gave a node says which machine it is: what a template makes of something else, or of a part of
/// it, may be the same for many.
pub fn is_named(rule: &Node, identity: &Identity, name: &str) -> bool {
    let digits: String = name.chars().filter(char::is_ascii_hexdigit).collect();
    let says = |what: Option<String>| what.is_some_and(|it| name.contains(&it) || digits.contains(&it));
    rule.matches.serial.is_some()
        || rule.matches.mac.is_some()
        || says(identity.serial.map(|it| it.to_string()))
        || says(identity.mac.map(|it| hex::encode(it.0)))
}
