//! The site file: which images are served, to which nodes, on which ports.
//!
//! This module knows the file alone. What it says is compared with the store, the templates and the secrets by
//! a check of its own.

mod values;

pub use values::{Mac, Network, Serial, ValueError};

use serde::Deserialize;
use serde_saphyr::Spanned;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// The largest site file that is read, in bytes.
pub const SITE_MAX: usize = 1 << 20;

/// A site, as its file says. Paths are relative to the file's directory, and joined with it already.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The store that images come from.
    pub store: PathBuf,
    /// Where small files are kept: SSH host keys of nodes, leases, timelines.
    pub state: PathBuf,
    /// The file with the key of NFS handles, shared by replicas; without it one is made in `state`.
    #[serde(default)]
    pub handle_key: Option<InFile>,
    /// What nodes are told; without it the address on which a node reached the server.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// Images by the name that nodes boot.
    pub images: BTreeMap<String, Image>,
    /// Which node boots what; the first that matches wins.
    #[serde(default)]
    pub nodes: Vec<Spanned<Node>>,
    /// The private key with which `boot.img` is signed; without it no `boot.sig` is served.
    #[serde(default)]
    pub signing_key: Option<InFile>,
    /// Whether nodes get SSH host keys that are theirs for ever.
    #[serde(default)]
    pub ssh_host_keys: HostKeys,
    /// Files with secrets, by the name that templates have for them.
    #[serde(default)]
    pub secrets: BTreeMap<String, InFile>,
    /// How often a seed with secrets is given.
    #[serde(default)]
    pub release: Release,
    /// Ports.
    #[serde(default)]
    pub listen: Listen,
    /// Who may ask; without it whoever reaches the server.
    #[serde(default)]
    pub allow: Vec<Network>,
    /// How many bytes of decompressed files are kept in memory.
    #[serde(default = "default_cache")]
    pub cache: u64,
}

/// Less holds not even the frames that a few nodes read at the same time.
const CACHE_MIN: u64 = 16 << 20;

fn default_cache() -> u64 {
    256 << 20
}

/// Something that stands in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InFile {
    /// The file.
    pub file: PathBuf,
}

/// An image that nodes can boot.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its reference in the store: `name:variant`, perhaps with `@sha256:…`, or a digest.
    #[serde(rename = "ref")]
    pub reference: Spanned<String>,
}

/// A rule for nodes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Which nodes it is for.
    #[serde(rename = "match")]
    pub matches: Match,
    /// The node's name, a template.
    pub name: String,
    /// The image that it boots.
    pub image: String,
    /// Values for its templates.
    #[serde(default)]
    pub vars: BTreeMap<String, serde_json::Value>,
}

/// What a rule asks of a node; all that is said must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The last eight hex digits of its serial number.
    #[serde(default)]
    pub serial: Option<Serial>,
    /// Its Ethernet address.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// What it calls itself in DHCP: `RPi4`, `RPi5`, `uefi-arm64`.
    #[serde(default)]
    pub model: Option<String>,
    /// Any node.
    #[serde(default)]
    pub any: bool,
}

impl Match {
    /// Whether it fits every node that the other one fits.
    fn covers(&self, other: &Match) -> bool {
        let Match { serial, mac, model, any } = self;
        let says_something = serial.is_some() || mac.is_some() || model.is_some();
        *any || says_something
            && !other.any
            && (serial.is_none() || *serial == other.serial)
            && (mac.is_none() || *mac == other.mac)
            && (model.is_none() || *model == other.model)
    }
}

/// How often a seed with secrets is given out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Release {
    /// Once in each boot that this server saw begin.
    #[default]
    Once,
    /// Whenever it is asked for.
    Always,
}

/// Where the SSH host keys of nodes come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostKeys {
    /// From the site's handle key and the node's identity: the same at each boot and on each replica.
    #[default]
    Derived,
    /// From the node itself, which makes new ones at each boot.
    Off,
}

/// Where each part listens; `None` where it is off.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// TFTP, UDP.
    #[serde(deserialize_with = "port")]
    pub tftp: Option<SocketAddr>,
    /// HTTP: seeds, artifacts, the OCI pull API, metrics.
    #[serde(deserialize_with = "port")]
    pub http: Option<SocketAddr>,
    /// NFS and MOUNT, TCP.
    #[serde(deserialize_with = "port")]
    pub nfs: Option<SocketAddr>,
    /// The port mapper, TCP.
    #[serde(deserialize_with = "port")]
    pub portmap: Option<SocketAddr>,
    /// ProxyDHCP, UDP.
    #[serde(deserialize_with = "port")]
    pub proxy_dhcp: Option<SocketAddr>,
}

impl Default for Listen {
    fn default() -> Self {
        let at = |port| Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        Listen { tftp: at(69), http: at(80), nfs: at(2049), portmap: at(111), proxy_dhcp: None }
    }
}

fn port<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "off" | "false" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            serde::de::Error::custom(format!("`{text}` is no address with a port; expected `0.0.0.0:69` or `off`"))
        }),
    }
}

/// A mistake in a site file, with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Mistake {
    /// The file, with line and column where they are known.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the site works with it, though perhaps not as it is meant.
    pub is_warning: bool,
}

impl Mistake {
    /// A mistake at a place in `file`; a line of 0 is none.
    pub(crate) fn new(file: &Path, (line, column): (u64, u64), message: impl Into<String>) -> Self {
        let place = match line {
            0 => file.display().to_string(),
            _ => format!("{}:{line}:{column}", file.display()),
        };
        Mistake { place, message: message.into(), hint: None, is_warning: false }
    }

    /// With what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// One with which the site works.
    pub(crate) fn warning(mut self) -> Self {
        self.is_warning = true;
        self
    }
}

/// Line and column of a value.
pub(crate) fn place<T>(value: &Spanned<T>) -> (u64, u64) {
    (value.referenced.line(), value.referenced.column())
}

impl Site {
    /// Reads a site file; `path` is its name in messages, and what paths in it are relative to.
    ///
    /// # Errors
    /// What cannot be understood, with its place; all that contradicts itself.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Site, Vec<Mistake>> {
        let one = |place, message: String| vec![Mistake::new(path, place, message)];
        if bytes.len() > SITE_MAX {
            return Err(one((0, 0), format!("the file has more than {SITE_MAX} bytes")));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| one((0, 0), "the file is not UTF-8 text".into()))?;
        let mut site: Site = serde_saphyr::from_str(text).map_err(|error| {
            let at = error.location().map_or((0, 0), |it| (it.line(), it.column()));
            let message = error.without_snippet().to_string();
            let message = message.lines().next().unwrap_or("the file cannot be understood");
            // It says once more where, which stands before it already.
            let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
            // What its caller could set is nothing for who writes a site.
            let message = message.split_once(", set DuplicateKeyPolicy").map_or(message, |(message, _)| message);
            one(at, message.to_owned())
        })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let keys = site.handle_key.iter_mut().chain(&mut site.signing_key);
        let files = site.secrets.values_mut().chain(keys).map(|it| &mut it.file);
        for file in files.chain([&mut site.store, &mut site.state]) {
            *file = directory.join(&*file);
        }
        let mistakes = site.contradictions(path);
        if mistakes.is_empty() { Ok(site) } else { Err(mistakes) }
    }

    fn contradictions(&self, path: &Path) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if self.images.is_empty() {
            mistakes.push(Mistake::new(path, (0, 0), "`images` is empty: there is nothing to boot"));
        }
        for name in self.images.keys().filter(|name| !is_name(name)) {
            let message = format!("the image name `{name}` cannot stand in a path");
            let hint = "small letters and digits can, with `-`, `_` and `.` between them";
            mistakes.push(Mistake::new(path, (0, 0), message).hint(hint));
        }
        if self.listen.proxy_dhcp.is_some() && self.address.is_none() {
            let message =
                "`listen.proxy_dhcp` needs `address`: a node that has no address yet cannot be seen to reach one";
            mistakes
                .push(Mistake::new(path, (0, 0), message).hint("the address of this machine in the nodes' network"));
        }
        if self.nodes.is_empty() {
            let mistake = Mistake::new(path, (0, 0), "`nodes` is empty: no node gets anything");
            mistakes.push(mistake.hint("one rule with `match: { any: true }` is for all"));
        }
        if self.cache < CACHE_MIN {
            let message = format!("`cache` is {} bytes: almost every read would go to the disk", self.cache);
            mistakes.push(Mistake::new(path, (0, 0), message).hint(format!("at least {CACHE_MIN}")));
        }
        if let Some(address) = self.address.filter(|it| it.is_unspecified() || it.is_multicast() || it.is_broadcast()) {
            let message = format!("`address` is {address}, at which no node can ask");
            mistakes
                .push(Mistake::new(path, (0, 0), message).hint("the address of this machine in the nodes' network"));
        }
        let Listen { tftp, http, nfs, portmap, proxy_dhcp } = self.listen;
        if [tftp, http, nfs, portmap, proxy_dhcp].iter().all(Option::is_none) {
            mistakes.push(Mistake::new(path, (0, 0), "`listen` turns everything off"));
        }
        let boot_server = proxy_dhcp.map(|it| SocketAddr::new(it.ip(), crate::dhcp::BOOT_SERVER_PORT));
        let tcp = [("http", http), ("nfs", nfs), ("portmap", portmap)];
        let udp = [("tftp", tftp), ("proxy_dhcp", proxy_dhcp), ("proxy_dhcp (its second port)", boot_server)];
        let overlap = |one: SocketAddr, other: SocketAddr| {
            one.port() != 0
                && one.port() == other.port()
                && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
        };
        for ports in [tcp, udp] {
            for (at, (name, address)) in ports.iter().enumerate() {
                let taken = |other: &Option<SocketAddr>| address.zip(*other).is_some_and(|(a, b)| overlap(a, b));
                let twin = ports.iter().take(at).find(|(_, other)| taken(other));
                mistakes.extend(twin.map(|(other, _)| {
                    Mistake::new(path, (0, 0), format!("`listen.{name}` and `listen.{other}` are the same port"))
                }));
            }
        }
        let mut names: BTreeMap<String, u64> = BTreeMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let (at, node) = (place(node), &node.value);
            let Match { serial, mac, model, any } = &node.matches;
            match (serial.is_none() && mac.is_none() && model.is_none(), any) {
                (true, false) => {
                    let message = "`match` says nothing".to_owned();
                    mistakes
                        .push(Mistake::new(path, at, message).hint("one of `serial`, `mac`, `model`, or `any: true`"));
                }
                (false, true) => {
                    mistakes.push(Mistake::new(path, at, "`any: true` beside other conditions makes no sense"));
                }
                (true, true) | (false, false) => {}
            }
            let before = self.nodes.iter().take(number).find(|it| it.value.matches.covers(&node.matches));
            if let Some(before) = before {
                let message = format!(
                    "this rule is never reached: the one on line {} fits every node that it fits",
                    place(before).0
                );
                mistakes.push(Mistake::new(path, at, message).hint("put it before that one"));
            }
            let is_known = |model: &str| model == "uefi-arm64" || model.len() == 4 && model.starts_with("RPi");
            if let Some(model) = model.as_deref().filter(|it| !is_known(it)) {
                let message = format!("no node calls itself `{model}`");
                mistakes.push(Mistake::new(path, at, message).hint("models are `RPi4`, `RPi5`, `uefi-arm64`"));
            } else if model.is_some() && self.listen.proxy_dhcp.is_none() {
                let message = "`model` fits no node, as nodes tell theirs by DHCP only, and `listen.proxy_dhcp` is off";
                mistakes.push(Mistake::new(path, at, message).hint("match by `serial` or `mac`, or turn it on"));
            }
            let twin = names.insert(node.name.to_ascii_lowercase(), at.0);
            if let Some(line) = twin.filter(|_| !node.name.contains("{{")) {
                let message = format!("`{}` is the name of the rule on line {line}, too", node.name);
                mistakes
                    .push(Mistake::new(path, at, message).hint("two nodes of one name would be taken for each other"));
            }
            if !self.images.contains_key(&node.image) {
                let known: Vec<_> = self.images.keys().map(String::as_str).collect();
                let message = format!("there is no image `{}`", node.image);
                mistakes.push(Mistake::new(path, at, message).hint(format!("the images are: {}", known.join(", "))));
            }
        }
        mistakes
    }

    /// Whether this address may ask. This machine itself always may.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allow.is_empty()
            || address.to_canonical().is_loopback()
            || self.allow.iter().any(|network| network.contains(address))
    }
}

/// Whether a name can stand in paths of exports and URLs, and is one of a repository (OCI distribution-spec 1.1, 3).
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = |byte: Option<&u8>| byte.copied().is_some_and(plain);
    name.len() <= 128
        && ends(name.as_bytes().first())
        && ends(name.as_bytes().last())
        && name.bytes().all(|byte| plain(byte) || b"-_.".contains(&byte))
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Site, String> {
        Site::parse(Path::new("etc/site.yaml"), text.as_bytes())
            .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    const GOOD: &str = "store: store
state: /var/lib/site
address: 192.168.1.59
images:
  stable: { ref: 'ainur:netboot' }
nodes:
  - match: { serial: 5a1d3c2b }
    name: manwe
    image: stable
    vars: { role: server, count: 3 }
  - match: { mac: 'DC-A6-32-00-00-01', model: RPi4 }
    name: varda
    image: stable
  - match: { any: true }
    name: 'valar-{{ serial }}'
    image: stable
secrets:
  token: { file: secrets/token }
listen:
  tftp: 0.0.0.0:6969
  proxy_dhcp: 0.0.0.0:67
allow: [192.168.1.0/24, '::1']
";

    #[test]
    fn a_site_is_read() {
        let site = parse(GOOD).unwrap();
        assert_eq!(site.store, Path::new("etc/store"));
        assert_eq!(site.state, Path::new("/var/lib/site"));
        assert_eq!(site.secrets["token"].file, Path::new("etc/secrets/token"));
        assert_eq!(site.nodes[0].value.matches.serial, Some(Serial(0x5a1d_3c2b)));
        assert_eq!(site.nodes[1].value.matches.mac, Some(Mac([0xdc, 0xa6, 0x32, 0, 0, 1])));
        assert_eq!(site.listen.tftp.unwrap().port(), 6969);
        assert_eq!(site.listen.proxy_dhcp.unwrap().port(), 67);
        assert_eq!(site.listen.nfs.unwrap().port(), 2049);
        assert_eq!(site.release, Release::Once);
        for (address, allowed) in
            [("192.168.1.7", true), ("192.168.2.7", false), ("::1", true), ("::ffff:192.168.1.7", true), ("::2", false)]
        {
            assert_eq!(site.allows(address.parse().unwrap()), allowed, "{address}");
        }
    }

    #[test]
    fn mistakes_have_their_place() {
        for (old, new, wanted) in [
            ("images:", "imagse:", "site.yaml:4:1"),
            ("serial: 5a1d3c2b", "serial: 5a1d3c2", "8 or 16 hex digits"),
            ("serial: 5a1d3c2b", "serial: +a1d3c2b", "8 or 16 hex digits"),
            ("match: { any: true }", "match: {}", "site.yaml:14:5: `match` says nothing"),
            ("serial: 5a1d3c2b", "any: true", "site.yaml:11:5: this rule is never reached"),
            (
                "name: manwe\n    image: stable",
                "name: manwe\n    image: next",
                "site.yaml:7:5: there is no image `next`",
            ),
            ("192.168.1.0/24", "192.168.1.0/33", "`192.168.1.0/33` is no network"),
            ("0.0.0.0:6969", "6969", "`6969` is no address with a port"),
            ("  stable: {", "  ../x: {", "cannot stand in a path"),
            ("proxy_dhcp: 0.0.0.0:67", "dhcp: off", "dhcp"),
            ("proxy_dhcp: 0.0.0.0:67", "proxy_dhcp: off", "site.yaml:11:5: `model` fits no node"),
            ("model: RPi4", "model: Pi4", "site.yaml:11:5: no node calls itself `Pi4`"),
            ("store: store", "store: [", "site.yaml:"),
            ("store: store", "store: store\nstore: again", "site.yaml:2:1: duplicate mapping key: store"),
            ("  stable: {", "  Stable: {", "the image name `Stable`"),
            ("mac: 'DC-A6-32-00-00-01'", "serial: 5a1d3c2b", "site.yaml:11:5: this rule is never reached"),
            ("6969", "4011", "`listen.proxy_dhcp (its second port)` and `listen.tftp` are the same port"),
            ("listen:", "listen:\n  http: 127.0.0.1:2049", "`listen.nfs` and `listen.http` are the same port"),
            ("192.168.1.59", "0.0.0.0", "`address` is 0.0.0.0"),
            ("secrets:", "cache: 1\nsecrets:", "`cache` is 1 bytes"),
        ] {
            let text = GOOD.replacen(old, new, 1);
            assert_ne!(text, GOOD);
            let error = parse(&text).unwrap_err();
            assert!(error.contains(wanted) && error.starts_with("etc/site.yaml"), "{new}: {error}");
        }
    }
}
