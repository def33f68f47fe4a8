//! The sockets: all of one port, as data from another port is lost behind address translation.
//!
//! Every packet is answered in the order in which it came, and no client is sent more than one window for each packet of
//! its own: that is what makes it fair.

use super::{
    names::{self, Name},
    packet::{self, Options, Packet, Request},
    transfer::{Next, Transfer},
};
use crate::{
    boot_files,
    nodes::Stage,
    published::Published,
    server::{Server, now},
    udp::{Datagrams, Sharing},
};
use aule_tree::Content;
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// How many transfers a thread may have at once, and how many of one address.
const TRANSFERS_MAX: usize = 1024;
const PER_ADDRESS_MAX: usize = 16;
/// How many bytes of a file a transfer has at hand.
const AHEAD: usize = 16 << 10;
/// How many bytes are sent without waiting: any client may write another one's address on its packets.
const WINDOW_BYTES: u16 = 65_535;
/// How many threads answer, however many processors there are: in lockstep each waits for its clients and is woken beside them,
/// where few that have all clients would be woken by each packet from another processor. (On two processors, 32 clients:
/// 16 threads send a third more than two.)
const THREADS: usize = 16;
/// How often is looked for packets that are to be sent again.
const TICK: Duration = Duration::from_millis(100);
/// The longest packet of a client.
const PACKET_MAX: usize = 1024;

/// Where the bytes of a transfer come from.
enum Source {
    /// Made for the node.
    Made(Vec<u8>),
    /// A file of a build.
    File(Arc<Published>, Content),
}

impl Source {
    fn size(&self) -> u64 {
        match self {
            Source::Made(bytes) => bytes.len() as u64,
            Source::File(_, content) => content.size,
        }
    }
}

struct Active {
    begun: Instant,
    /// The address that was asked, and answers.
    own: Option<IpAddr>,
    transfer: Transfer,
    granted: Options,
    source: Arc<Source>,
    /// Bytes of the file from an offset on, read ahead, as a block is far smaller than what is read at once.
    ahead: (u64, Vec<u8>),
    /// Blocks that wait for their bytes to come from the disk.
    waiting: Option<RangeInclusive<u64>>,
}

/// The sockets of an address, one for each thread that answers: the kernel gives each client to one of them, always the same.
///
/// # Errors
/// When they cannot be had.
pub(crate) fn sockets(address: SocketAddr) -> io::Result<Vec<Datagrams>> {
    // Another program of the same user could share the port as our threads do. It must not.
    let alone = Datagrams::bind(address, Sharing::None, TICK)?;
    let address = alone.local_address()?;
    drop(alone);
    (0..THREADS).map(|_| Datagrams::bind(address, Sharing::Threads, TICK)).collect()
}

/// Answers requests on a socket, for ever.
///
/// # Errors
/// When the socket fails for good.
pub(crate) fn serve(socket: Datagrams, server: Arc<Server>, runtime: &Handle) -> io::Result<()> {
    let service = Arc::new(Service { socket, server, runtime: runtime.clone(), transfers: Mutex::default() });
    let mut buffer = [0; PACKET_MAX];
    let mut ticked = Instant::now();
    loop {
        match service.socket.receive(&mut buffer) {
            Ok((length, peer, own)) => {
                Service::packet(&service, buffer.get(..length).unwrap_or_default(), peer, own);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // What an earlier packet met at a client that is gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => {
                service.server.warn(format!("TFTP cannot receive: {error}"));
                std::thread::sleep(TICK);
            }
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            service.transfers().expire(&service, ticked);
        }
    }
}

/// A socket with the transfers that run over it.
struct Service {
    socket: Datagrams,
    server: Arc<Server>,
    runtime: Handle,
    /// The thread of the socket has them, and, for a moment, each that read from the disk what a client waits for.
    transfers: Mutex<Transfers>,
}

#[derive(Default)]
struct Transfers {
    active: HashMap<SocketAddr, Active>,
    /// How many transfers each address has.
    of_address: HashMap<IpAddr, usize>,
    /// What is sent: kept for its room.
    out: Vec<u8>,
}

impl Service {
    fn transfers(&self) -> MutexGuard<'_, Transfers> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a packet. One that cannot be sent is as good as lost on the way, and sent again when its time comes.
    fn send(&self, bytes: &[u8], peer: SocketAddr, own: Option<IpAddr>) {
        let _ = self.socket.send(bytes, peer, own);
    }

    fn packet(service: &Arc<Service>, bytes: &[u8], peer: SocketAddr, own: Option<IpAddr>) {
        match Packet::parse(bytes) {
            Some(Packet::Read(request)) => Service::request(service, &request, peer, own),
            Some(Packet::Write) if service.server.site().allows(peer.ip()) => {
                service.send(&packet::error(2, "nothing can be written here"), peer, own);
            }
            Some(Packet::Acknowledge(number)) => {
                let mut transfers = service.transfers();
                if let Some(active) = transfers.active.get_mut(&peer) {
                    let next = active.transfer.acknowledge(number, Instant::now());
                    transfers.go_on(service, peer, next);
                }
            }
            // Early ends are normal: the firmware asks for the size alone.
            Some(Packet::Error { .. }) => service.transfers().remove(peer),
            Some(Packet::Write) | None => {}
        }
    }

    fn request(service: &Arc<Service>, request: &Request, peer: SocketAddr, own: Option<IpAddr>) {
        if !service.server.site().allows(peer.ip()) {
            return;
        }
        {
            let mut transfers = service.transfers();
            // The same request again, as its answer was lost: the transfer begins anew.
            transfers.remove(peer);
            if !transfers.make_room(peer.ip()) {
                let message = format!("{} has too many transfers, or all together have", peer.ip());
                return service.server.refuse(peer.ip(), message);
            }
        }
        if !request.octet {
            service.send(&packet::error(0, "only mode octet is served"), peer, own);
            return;
        }
        match service.find(request, peer.ip(), own) {
            Some(source) => {
                let mut granted = request.options;
                let block = granted.block.unwrap_or(packet::BLOCK_DEFAULT);
                granted.window = granted.window.map(|window| window.min((WINDOW_BYTES / block).max(1)));
                let begun = Instant::now();
                let (transfer, next) = Transfer::begin(source.size(), &granted, begun);
                let mut transfers = service.transfers();
                *transfers.of_address.entry(peer.ip()).or_default() += 1;
                let (source, ahead) = (Arc::new(source), (0, Vec::new()));
                let active = Active { begun, own, transfer, granted, source, ahead, waiting: None };
                transfers.active.insert(peer, active);
                transfers.go_on(service, peer, next);
            }
            None => service.send(&packet::error(1, "no such file"), peer, own),
        }
    }

    fn find(&self, request: &Request, address: IpAddr, own: Option<IpAddr>) -> Option<Source> {
        let own = own.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let name = Name::parse(&request.name);
        let shown = name.path.escape_ascii().to_string();
        let seen = self.server.see_if(address, name.identity.clone(), None, Stage::BootFiles, &shown, |node| {
            let found = names::find(node.boot.build.boot.as_ref()?, &name.path)?;
            Some((node.clone(), found))
        });
        let (node, found) = seen.ok()?;
        let build = &node.boot.build;
        let made = match found {
            names::Found::File(file) if !boot_files::is_own(&file) => {
                return Some(Source::File(Arc::clone(build), file.content));
            }
            names::Found::File(file) => boot_files::rendered(&self.server, build, &file, &node, own),
            names::Found::Configuration(loader) => {
                let line = boot_files::command_line(&self.server, build, &node, own)?;
                Some(loader.configuration(line.trim()))
            }
        };
        Some(Source::Made(made?.into_bytes()))
    }
}

impl Transfers {
    /// Forgets a transfer.
    fn remove(&mut self, peer: SocketAddr) {
        if self.active.remove(&peer).is_some()
            && let Some(count) = self.of_address.get_mut(&peer.ip())
        {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&peer.ip());
            }
        }
    }

    /// Whether there is room for one more transfer of this address. One that nobody ever answered, as firmware leaves behind
    /// that asks for sizes alone, makes room; the oldest first.
    fn make_room(&mut self, address: IpAddr) -> bool {
        let of_address = self.of_address.get(&address).copied().unwrap_or_default();
        let of_it = |peer: &SocketAddr| of_address < PER_ADDRESS_MAX || peer.ip() == address;
        if of_address < PER_ADDRESS_MAX && self.active.len() < TRANSFERS_MAX {
            return true;
        }
        let unanswered = self.active.iter().filter(|(peer, it)| of_it(peer) && !it.transfer.is_seen());
        let oldest = unanswered.min_by_key(|(_, it)| it.begun).map(|(peer, _)| *peer);
        oldest.map(|peer| self.remove(peer)).is_some()
    }

    fn go_on(&mut self, service: &Arc<Service>, peer: SocketAddr, next: Next) {
        match next {
            Next::Wait => {}
            Next::Done => {
                self.remove(peer);
                // A large file takes its time, and what the node asks for then belongs to the same boot.
                service.server.nodes.touch(peer.ip().to_canonical(), now());
            }
            Next::GaveUp => self.remove(peer),
            Next::Options => {
                if let Some(active) = self.active.get(&peer) {
                    service.send(&packet::options(&active.granted, active.source.size()), peer, active.own);
                }
            }
            Next::Blocks(blocks) => self.send_blocks(service, peer, blocks),
        }
    }

    /// Sends a window, or has its bytes read first where they are not in memory.
    fn send_blocks(&mut self, service: &Arc<Service>, peer: SocketAddr, blocks: RangeInclusive<u64>) {
        let Some(active) = self.active.get_mut(&peer) else { return };
        let (first, length) = active.transfer.span(&blocks);
        let Source::File(build, content) = &*active.source else { return self.send_now(service, peer, blocks) };
        let Some(boot) = &build.boot else { return };
        let (start, ahead) = &active.ahead;
        let is_ahead = first >= *start && first + length as u64 <= start + ahead.len() as u64;
        if length == 0 || is_ahead || service.server.cache.holds(boot.contents(), content, first, length) {
            return self.send_now(service, peer, blocks);
        }
        let reading = active.waiting.replace(blocks).is_some();
        if reading {
            return;
        }
        let (service, source) = (Arc::clone(service), Arc::clone(&active.source));
        service.runtime.clone().spawn_blocking(move || {
            let Source::File(build, content) = &*source else { return };
            let Some(boot) = &build.boot else { return };
            let read = service.server.cache.read(boot.contents(), content, first, length, &mut Vec::new());
            if let Err(error) = &read {
                service.server.warn(format!("a boot file of {}: {error}", build.digest));
            }
            let mut transfers = service.transfers();
            // Another transfer may have begun from there since.
            let Some(active) = transfers.active.get_mut(&peer).filter(|it| Arc::ptr_eq(&it.source, &source)) else {
                return;
            };
            let waiting = active.waiting.take();
            active.transfer.late(Instant::now());
            match (read, waiting) {
                (Ok(()), Some(blocks)) => transfers.send_now(&service, peer, blocks),
                (Ok(()), None) => {}
                (Err(_), _) => {
                    service.send(&packet::error(0, "the file is damaged"), peer, active.own);
                    transfers.remove(peer);
                }
            }
        });
    }

    fn send_now(&mut self, service: &Service, peer: SocketAddr, blocks: RangeInclusive<u64>) {
        let Some(active) = self.active.get_mut(&peer) else { return };
        let (first, wanted) = active.transfer.span(&blocks);
        let bytes = match &*active.source {
            Source::Made(bytes) => bytes.get(first as usize..first as usize + wanted).unwrap_or_default(),
            Source::File(build, content) => {
                let (start, ahead) = &mut active.ahead;
                if first < *start || first + wanted as u64 > *start + ahead.len() as u64 {
                    *start = first;
                    ahead.clear();
                    let (cache, more) = (&service.server.cache, wanted.max(AHEAD));
                    // What is not in memory would have to be waited for: then only what is needed is taken.
                    let read = build.boot.as_ref().map(|boot| {
                        let held = cache.holds(boot.contents(), content, first, more);
                        cache.read(boot.contents(), content, first, if held { more } else { wanted }, ahead)
                    });
                    if let Some(Err(error)) = read {
                        service.server.warn(format!("a boot file of {}: {error}", build.digest));
                    }
                }
                let at = (first - *start) as usize;
                ahead.get(at..at + wanted).unwrap_or_default()
            }
        };
        // A packet that is too short would end the file early.
        if bytes.len() != wanted {
            return;
        }
        let block = active.transfer.block();
        self.out.clear();
        for number in blocks {
            let (offset, length) = active.transfer.range(number);
            let at = (offset - first) as usize;
            self.out.extend_from_slice(&packet::data(number as u16));
            self.out.extend_from_slice(bytes.get(at..at + length).unwrap_or_default());
        }
        service.server.counters.tftp_bytes.fetch_add(wanted as u64, Ordering::Relaxed);
        // What cannot be sent is as good as lost on the way.
        let _ = service.socket.send_all(&self.out, block + 4, peer, active.own);
    }

    fn expire(&mut self, service: &Arc<Service>, now: Instant) {
        // Who waits for our disk is not late.
        let due = self.active.iter().filter(|(_, it)| it.transfer.due <= now && it.waiting.is_none());
        let due: Vec<_> = due.map(|(peer, _)| *peer).collect();
        for peer in due {
            if let Some(active) = self.active.get_mut(&peer) {
                let next = active.transfer.expire(now);
                self.go_on(service, peer, next);
            }
        }
    }
}
