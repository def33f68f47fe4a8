//! The socket: one for all clients, as data from another port is lost behind address translation.
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
    udp::Datagrams,
};
use aule_tree::Content;
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// How many transfers there may be at once, and how many of one address.
const TRANSFERS_MAX: usize = 8192;
const PER_ADDRESS_MAX: usize = 64;
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
    /// The address that was asked, and answers.
    own: Option<IpAddr>,
    transfer: Transfer,
    granted: Options,
    source: Arc<Source>,
    /// Blocks that wait for their bytes to come from the disk.
    waiting: Option<std::ops::RangeInclusive<u64>>,
}

/// Answers requests on a socket, for ever.
///
/// # Errors
/// When the socket fails for good.
pub(crate) async fn serve(socket: Datagrams, server: Arc<Server>) -> io::Result<()> {
    let (ready, mut loaded) = mpsc::unbounded_channel();
    let mut service = Service {
        socket,
        server,
        active: HashMap::new(),
        of_address: HashMap::new(),
        ready,
        bytes: Vec::new(),
        out: Vec::new(),
    };
    let mut tick = tokio::time::interval(TICK);
    let mut buffer = [0; PACKET_MAX];
    loop {
        tokio::select! {
            readable = service.socket.readable() => {
                readable?;
                // As many as there are, but never so many that the others wait for long.
                for _ in 0..256 {
                    match service.socket.receive(&mut buffer) {
                        Ok((length, peer, own)) => {
                            service.packet(buffer.get(..length).unwrap_or_default(), peer, own);
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        // What an earlier packet met at a client that is gone.
                        Err(_) => {}
                    }
                }
            }
            Some(peer) = loaded.recv() => service.resume(peer),
            _ = tick.tick() => service.expire(),
        }
    }
}

struct Service {
    socket: Datagrams,
    server: Arc<Server>,
    active: HashMap<SocketAddr, Active>,
    /// How many transfers each address has.
    of_address: HashMap<IpAddr, usize>,
    ready: mpsc::UnboundedSender<SocketAddr>,
    /// What is read, and what is sent: kept for their room.
    bytes: Vec<u8>,
    out: Vec<u8>,
}

impl Service {
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

    /// Sends a packet. One that cannot be sent is as good as lost on the way, and sent again when its time comes.
    fn send(&self, bytes: &[u8], peer: SocketAddr, own: Option<IpAddr>) {
        let _ = self.socket.send(bytes, peer, own);
    }

    fn packet(&mut self, bytes: &[u8], peer: SocketAddr, own: Option<IpAddr>) {
        match Packet::parse(bytes) {
            Some(Packet::Read(request)) => self.request(request, peer, own),
            Some(Packet::Write) if self.server.site().allows(peer.ip()) => {
                self.send(&packet::error(2, "nothing can be written here"), peer, own);
            }
            Some(Packet::Acknowledge(number)) => {
                if let Some(active) = self.active.get_mut(&peer) {
                    let next = active.transfer.acknowledge(number, Instant::now());
                    self.go_on(peer, next);
                }
            }
            // Early ends are normal: the firmware asks for the size alone.
            Some(Packet::Error { .. }) => self.remove(peer),
            Some(Packet::Write) | None => {}
        }
    }

    fn request(&mut self, request: Request, peer: SocketAddr, own: Option<IpAddr>) {
        if !self.server.site().allows(peer.ip()) {
            return;
        }
        // The same request again, as its answer was lost: the transfer begins anew.
        self.remove(peer);
        let of_address = self.of_address.get(&peer.ip()).copied().unwrap_or_default();
        if self.active.len() >= TRANSFERS_MAX || of_address >= PER_ADDRESS_MAX {
            self.server.warn(format!("{} has too many transfers, or all together have", peer.ip()));
            return;
        }
        if !request.octet {
            self.send(&packet::error(0, "only mode octet is served"), peer, own);
            return;
        }
        match self.find(&request, peer.ip(), own) {
            Some(source) => {
                let granted = request.options;
                let (transfer, next) = Transfer::begin(source.size(), &granted, Instant::now());
                *self.of_address.entry(peer.ip()).or_default() += 1;
                self.active.insert(peer, Active { own, transfer, granted, source: Arc::new(source), waiting: None });
                self.go_on(peer, next);
            }
            None => self.send(&packet::error(1, "no such file"), peer, own),
        }
    }

    fn find(&self, request: &Request, address: IpAddr, own: Option<IpAddr>) -> Option<Source> {
        let own = own.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let name = Name::parse(&request.name);
        let shown = name.path.escape_ascii().to_string();
        let node = self.server.see(address, name.identity, Stage::BootFiles, &shown).ok()?;
        let build = Arc::clone(&node.boot.build);
        let boot = build.boot.as_ref()?;
        if name.path.starts_with(b"pxelinux.cfg/") {
            let line = boot_files::command_line(&self.server, &build, &node, own)?;
            return names::pxe_configuration(boot, &name.path, &node, &line).map(|it| Source::Made(it.into_bytes()));
        }
        let file = names::find(boot, &name.path)?.clone();
        if boot_files::is_own(&file) {
            let text = boot_files::rendered(&self.server, &build, &file, &node, own);
            return text.map(|text| Source::Made(text.into_bytes()));
        }
        Some(Source::File(build, file.content))
    }

    fn go_on(&mut self, peer: SocketAddr, next: Next) {
        match next {
            Next::Wait => {}
            Next::Done => {
                self.remove(peer);
                // A large file takes its time, and what the node asks for then belongs to the same boot.
                self.server.nodes.touch(peer.ip().to_canonical(), now());
            }
            Next::GaveUp => self.remove(peer),
            Next::Options => {
                if let Some(active) = self.active.get(&peer) {
                    self.send(&packet::options(&active.granted, active.source.size()), peer, active.own);
                }
            }
            Next::Blocks(blocks) => self.send_blocks(peer, blocks),
        }
    }

    /// Sends a window, or has its bytes read first where they are not in memory.
    fn send_blocks(&mut self, peer: SocketAddr, blocks: std::ops::RangeInclusive<u64>) {
        let Some(active) = self.active.get_mut(&peer) else { return };
        let (first, _) = active.transfer.range(*blocks.start());
        let (last, length) = active.transfer.range(*blocks.end());
        let length_of_all = (last - first) as usize + length;
        if let Source::File(build, content) = &*active.source
            && length_of_all > 0
            && let Some(boot) = &build.boot
            && !self.server.cache.holds(boot.contents(), content, first, length_of_all)
        {
            active.waiting = Some(blocks);
            let (server, source, ready) = (Arc::clone(&self.server), Arc::clone(&active.source), self.ready.clone());
            tokio::task::spawn_blocking(move || {
                if let Source::File(build, content) = &*source
                    && let Some(boot) = &build.boot
                {
                    let mut bytes = Vec::new();
                    match server.cache.read(boot.contents(), content, first, length_of_all, &mut bytes) {
                        // The service may be gone by now.
                        Ok(()) => drop(ready.send(peer)),
                        Err(error) => server.warn(format!("a boot file of {}: {error}", build.digest)),
                    }
                }
            });
            return;
        }
        self.send_now(peer, blocks);
    }

    /// The bytes that a client waits for are in memory.
    fn resume(&mut self, peer: SocketAddr) {
        let Some(active) = self.active.get_mut(&peer) else { return };
        if let Some(blocks) = active.waiting.take() {
            self.send_now(peer, blocks);
        }
    }

    fn send_now(&mut self, peer: SocketAddr, blocks: std::ops::RangeInclusive<u64>) {
        let Some(active) = self.active.get(&peer) else { return };
        let (first, _) = active.transfer.range(*blocks.start());
        let (last, length) = active.transfer.range(*blocks.end());
        let wanted = (last - first) as usize + length;
        self.bytes.clear();
        let bytes = match &*active.source {
            Source::Made(bytes) => bytes.get(first as usize..first as usize + wanted).unwrap_or_default(),
            Source::File(build, content) => {
                let read = build
                    .boot
                    .as_ref()
                    .map(|boot| self.server.cache.read(boot.contents(), content, first, wanted, &mut self.bytes));
                if let Some(Err(error)) = read {
                    self.server.warn(format!("a boot file of {}: {error}", build.digest));
                }
                &self.bytes
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
        self.server.counters.tftp_bytes.fetch_add(wanted as u64, Ordering::Relaxed);
        // What cannot be sent is as good as lost on the way.
        let _ = self.socket.send_all(&self.out, block + 4, peer, active.own);
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self.active.iter().filter(|(_, it)| it.transfer.due <= now).map(|(peer, _)| *peer).collect();
        for peer in due {
            if let Some(active) = self.active.get_mut(&peer) {
                let next = active.transfer.expire(now);
                self.go_on(peer, next);
            }
        }
    }
}
