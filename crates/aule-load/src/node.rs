//! One node's boot, from DHCP to cloud-init's report, as a Raspberry Pi does it. Where its root and its seed are it learns
//! from its own command line, as a real one does.

use crate::{
    checksum::Checksum,
    dhcp::{self, Machine},
    failure::{Doing, Failure, Result, failure},
    http::{self, Url},
    nfs,
    root::{Done, Root, Step},
    rpc::Connection,
    tftp::{self, Counts, Missing, Request},
};
use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What the firmware of a Pi asks for.
const BLOCK: u16 = 1468;
/// The first node's address; the others' follow.
const FIRST: u32 = 0x7f01_0001;
/// cloud-init's order.
const DOCUMENTS: [&str; 4] = ["network-config", "meta-data", "user-data", "vendor-data"];

/// The parts of a boot, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// DISCOVER to OFFER.
    Dhcp,
    /// All of TFTP.
    BootFiles,
    /// Port mapper, MOUNT, FSINFO, GETATTR.
    Mount,
    /// The recorded reads.
    Root,
    /// The four documents.
    Seed,
    /// The report.
    PhoneHome,
}

impl Phase {
    /// All, in order.
    pub(crate) const ALL: [Phase; 6] =
        [Phase::Dhcp, Phase::BootFiles, Phase::Mount, Phase::Root, Phase::Seed, Phase::PhoneHome];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Dhcp => "dhcp",
            Phase::BootFiles => "boot files",
            Phase::Mount => "mount",
            Phase::Root => "root",
            Phase::Seed => "seed",
            Phase::PhoneHome => "phone home",
        }
    }
}

/// What all nodes do.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Where the server is.
    pub(crate) server: Ipv4Addr,
    /// Its port for TFTP.
    pub(crate) tftp: u16,
    /// Its port mapper's.
    pub(crate) portmap: u16,
    /// Its port for ProxyDHCP; without, nodes begin with TFTP.
    pub(crate) proxy_dhcp: Option<u16>,
    /// File names.
    pub(crate) kernel: String,
    /// File names.
    pub(crate) initrd: String,
    /// What is done with the root.
    pub(crate) steps: Vec<Step>,
    /// The most bytes that are read of a file.
    pub(crate) read_max: u64,
    /// When a node counts as failed.
    pub(crate) deadline: Duration,
    /// What the first node got, by name: all others must get the same.
    pub(crate) first: Mutex<HashMap<String, u64>>,
}

impl Plan {
    fn at(&self, port: u16) -> SocketAddr {
        (self.server, port).into()
    }

    /// Sees that all nodes get the same.
    fn same(&self, what: &str, sum: u64) -> Result<()> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        match *first.entry(what.to_owned()).or_insert(sum) == sum {
            true => Ok(()),
            false => failure(format!("{what} is not what another node got")),
        }
    }
}

/// What came of a boot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Boot {
    /// How long each phase took.
    pub(crate) phases: [Duration; 6],
    /// All of it.
    pub(crate) total: Duration,
    /// Packets of ours, UDP, that were sent again.
    pub(crate) repeated: u64,
    /// Blocks of TFTP that came again or out of order.
    pub(crate) unexpected: u64,
    /// Bytes of the boot files.
    pub(crate) boot_bytes: u64,
    /// What was done with the root.
    pub(crate) root: Done,
}

/// The address of a node.
pub(crate) fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(FIRST + number)
}

/// Boots a node.
///
/// # Errors
/// Where the boot stopped, and why.
pub(crate) async fn boot(plan: &Plan, number: u32) -> Result<Boot> {
    let mut node = Node { plan, number, address: address(number), boot: Boot::default() };
    let begin = Instant::now();
    let mut phase = Phase::Dhcp;
    let result = tokio::time::timeout(plan.deadline, node.all(&mut phase)).await;
    let result = result.map_err(|_| Failure("not done in time".into())).and_then(|it| it);
    result.doing(phase.name())?;
    node.boot.total = begin.elapsed();
    Ok(node.boot)
}

struct Node<'a> {
    plan: &'a Plan,
    number: u32,
    address: Ipv4Addr,
    boot: Boot,
}

impl Node<'_> {
    async fn all(&mut self, phase: &mut Phase) -> Result<()> {
        let mut since = Instant::now();
        let mut done = |it: Phase, boot: &mut Boot, next: Phase| {
            let now = Instant::now();
            if let Some(place) = boot.phases.get_mut(it as usize) {
                *place = now - since;
            }
            since = now;
            *phase = next;
        };
        self.dhcp().await?;
        done(Phase::Dhcp, &mut self.boot, Phase::BootFiles);
        let line = self.boot_files().await?;
        let (server, export, seed) = places(&line)?;
        done(Phase::BootFiles, &mut self.boot, Phase::Mount);
        let mut root = self.mount(server, &export).await?;
        done(Phase::Mount, &mut self.boot, Phase::Root);
        for step in &self.plan.steps {
            root.step(step, self.plan.read_max).await?;
        }
        self.boot.root = root.done;
        if root.done.files == 0 && !self.plan.steps.is_empty() {
            return failure("nothing of the record is there");
        }
        self.plan.same(&format!("what was read of {export}"), root.sum.value())?;
        done(Phase::Root, &mut self.boot, Phase::Seed);
        let report = self.seed(&seed).await?;
        done(Phase::Seed, &mut self.boot, Phase::PhoneHome);
        let body = format!("hostname=node-{0}&instance_id=node-{0}", self.number);
        http::ask(self.address, "POST", &report, body.as_bytes()).await?;
        // The connection to the root stays, as a running node's does, until here.
        drop(root);
        done(Phase::PhoneHome, &mut self.boot, Phase::PhoneHome);
        Ok(())
    }

    fn serial(&self) -> u32 {
        0x1000_0000 | self.number
    }

    async fn dhcp(&mut self) -> Result<()> {
        let Some(port) = self.plan.proxy_dhcp else { return Ok(()) };
        let [_, a, b, c] = self.number.to_be_bytes();
        let pi5 = self.number % 2 == 1;
        let maker = if pi5 { [0x2c, 0xcf, 0x67] } else { [0xdc, 0xa6, 0x32] };
        let [x, y, z] = maker;
        let machine = Machine { mac: [x, y, z, a, b, c], serial: self.serial(), pi5 };
        self.boot.repeated += dhcp::offer(self.address, self.plan.at(port), &machine).await?;
        Ok(())
    }

    async fn fetch(
        &mut self,
        name: &str,
        probe: bool,
        sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> std::result::Result<Counts, Missing> {
        let name = format!("{:08x}/{name}", self.serial());
        let request = Request { name, block: BLOCK, window: 1, probe };
        let counts = tftp::fetch(self.address, self.plan.at(self.plan.tftp), request, sink).await?;
        self.boot.repeated += counts.repeated;
        self.boot.unexpected += counts.unexpected;
        self.boot.boot_bytes += counts.bytes;
        Ok(counts)
    }

    /// Fetches a file that must be there; gives its bytes where they are wanted.
    async fn file(&mut self, name: &str, keep: bool) -> Result<Vec<u8>> {
        let mut kept = Vec::new();
        let mut sum = Checksum::default();
        let there = |missing| match missing {
            Missing::NotThere => Failure(format!("TFTP: no such file: {name}")),
            Missing::Failed(failure) => failure,
        };
        let sink = |bytes: &[u8]| {
            match keep {
                true => kept.extend_from_slice(bytes),
                false => sum.add(bytes),
            }
            Ok(())
        };
        self.fetch(name, false, sink).await.map_err(there)?;
        if !keep {
            self.plan.same(name, sum.value())?;
        }
        Ok(kept)
    }

    /// Asks for the size alone, and breaks the transfer off: what is not there is no failure.
    async fn probe(&mut self, name: &str) -> Result<()> {
        match self.fetch(name, true, |_| Ok(())).await {
            Ok(counts) if counts.told.is_none() => failure("TFTP: the size is not told"),
            Ok(_) | Err(Missing::NotThere) => Ok(()),
            Err(Missing::Failed(failure)) => Err(failure),
        }
    }

    /// The boot files; gives the command line.
    async fn boot_files(&mut self) -> Result<String> {
        let (kernel, initrd) = (&self.plan.kernel, &self.plan.initrd);
        self.probe("start4.elf").await?;
        self.file("config.txt", false).await?;
        self.probe(initrd).await?;
        self.file(initrd, false).await?;
        let line = self.file("cmdline.txt", true).await?;
        self.probe(kernel).await?;
        self.file(kernel, false).await?;
        String::from_utf8(line).doing("cmdline.txt")
    }

    async fn mount(&mut self, server: Ipv4Addr, export: &str) -> Result<Root> {
        let mut portmap = Connection::open(self.address, (server, self.plan.portmap).into()).await?;
        let mut ports = [0; 2];
        for (port, program) in ports.iter_mut().zip([nfs::MOUNT_PROGRAM, nfs::NFS_PROGRAM]) {
            *port = nfs::port(portmap.call(nfs::GETPORT, |out| nfs::put_get_port(out, program)).await?)?;
        }
        let [mount, port] = ports;
        let mut mount = Connection::open(self.address, (server, mount).into()).await?;
        let arguments = |out: &mut Vec<u8>| crate::xdr::put_opaque(out, export.as_bytes());
        let handle = nfs::mounted(mount.call(nfs::MNT, arguments).await?)?;
        Root::open(Connection::open(self.address, (server, port).into()).await?, handle).await
    }

    /// The seed; gives where to report to.
    async fn seed(&mut self, seed: &str) -> Result<Url> {
        let mut report = None;
        for document in DOCUMENTS {
            let url = Url::parse(&format!("{seed}{document}"))?;
            let body = http::ask(self.address, "GET", &url, &[]).await.doing(document)?;
            let text = String::from_utf8(body).doing(document)?;
            match document {
                "meta-data" if !text.contains("instance-id") => return failure("meta-data has no instance-id"),
                "vendor-data" => report = phone_home(&text),
                _ => {}
            }
        }
        // A server may leave it to the user-data of its operator; this server takes the report there.
        let own = || seed.trim_end_matches('/').replacen("/seed/", "/phone-home/", 1);
        Url::parse(&report.unwrap_or_else(own))
    }
}

/// Server and path of the root, and the URL of the seed, as a command line names them.
fn places(line: &str) -> Result<(Ipv4Addr, String, String)> {
    let word = |key: &str| line.split_whitespace().find_map(|it| it.strip_prefix(key));
    let root = word("nfsroot=").and_then(|it| it.split(',').next()?.split_once(':'));
    let Some((server, path)) = root else { return failure("cmdline.txt has no nfsroot=SERVER:PATH") };
    let server = server.parse().map_err(|_| Failure("nfsroot= of cmdline.txt names no address".into()))?;
    let seed = word("ds=nocloud").and_then(|it| it.split(';').find_map(|it| it.strip_prefix("s=")));
    match seed {
        Some(seed) => Ok((server, path.into(), seed.into())),
        None => failure("cmdline.txt has no ds=nocloud;s=URL"),
    }
}

/// The URL of cloud-init's `phone_home`, as far as it can be told without reading YAML.
fn phone_home(text: &str) -> Option<String> {
    let after = text.split_once("phone_home")?.1;
    let url = after.get(after.find("http://")?..)?;
    let end = url.find(|it: char| it.is_whitespace() || "\"',}".contains(it)).unwrap_or(url.len());
    url.get(..end).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_says_where_things_are() {
        let line = "tty1 nfsroot=127.0.0.1:/ab12,vers=3,tcp ds=nocloud;s=http://127.0.0.1:8080/seed/n/ quiet\n";
        let wanted = (Ipv4Addr::LOCALHOST, "/ab12".into(), "http://127.0.0.1:8080/seed/n/".into());
        assert_eq!(places(line), Ok(wanted));
        assert!(places("root=/dev/sda").is_err());
        assert!(places("nfsroot=host:/x ds=nocloud;s=http://h/").is_err());
        assert!(places("nfsroot=127.0.0.1:/x").is_err());
    }

    #[test]
    fn where_to_report() {
        let wanted = Some("http://127.0.0.1/phone-home/n".to_owned());
        assert_eq!(
            phone_home("#cloud-config\nphone_home:\n  url: http://127.0.0.1/phone-home/n\n  tries: 3\n"),
            wanted
        );
        assert_eq!(phone_home("{\"phone_home\":{\"url\":\"http://127.0.0.1/phone-home/n\"}}"), wanted);
        assert_eq!(phone_home("#cloud-config\n"), None);
    }

    #[test]
    fn nodes_have_addresses_of_their_own() {
        assert_eq!((address(0), address(255)), (Ipv4Addr::new(127, 1, 0, 1), Ipv4Addr::new(127, 1, 1, 0)));
    }
}
