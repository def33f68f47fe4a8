//! The connections: record marking (RFC 5531, 11), calls in, replies out, bounded in number, size and time.

use super::{
    acl,
    handle::HandleKey,
    mount::{self, Names},
    portmap,
    procedures::{self, Answer, Builds, Filesystem, SlowRead},
    rpc::{self, Accepted, Call},
    xdr::Writer,
};
use crate::{frames::FrameCache, limits::Places};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

/// The longest call that is taken: the arguments of a write, which is refused, included.
const CALL_MAX: usize = procedures::WRITE_MAX as usize + 4096;
/// How many reads of one address may be on their way to the disk.
const SLOW_MAX: usize = 16;
/// The same of all together: far fewer than there are threads for what may wait, so that others find one.
const DISK_MAX: usize = 64;
/// Replies are written together up to about this size.
const BATCH: usize = 256 << 10;
/// How many bytes of replies may wait for one connection to take them, for all of one address, and for all together: who
/// takes nothing must not use up what others need.
const WAITING_MAX: usize = 8 << 20;
const WAITING_ADDRESS_MAX: usize = 16 << 20;
const WAITING_ALL_MAX: usize = 256 << 20;
/// What the budget of waiting replies is counted in.
const UNIT: usize = 1 << 10;
/// A client that is quiet so long needs no memory kept ready.
const QUIET: Duration = Duration::from_secs(5);
/// How often is noted that a client lives.
const LIVES: Duration = Duration::from_secs(2);

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct NfsOptions {
    /// How many connections there may be at once, in all and from one address.
    pub connections: (usize, usize),
    /// A connection that says nothing for so long is ended: a client that lives makes a new one.
    pub idle: Duration,
    /// The same for one that never said anything, or stopped in the middle of a call or of taking a reply.
    pub stalled: Duration,
    /// The port that the port mapper tells.
    pub port: u16,
}

impl Default for NfsOptions {
    fn default() -> Self {
        NfsOptions {
            connections: (16_384, 64),
            idle: Duration::from_secs(3600),
            stalled: Duration::from_secs(30),
            port: 2049,
        }
    }
}

/// What all connections share.
pub(crate) struct Service<S> {
    /// What is served.
    site: Arc<S>,
    options: NfsOptions,
    /// Room for replies that wait to be taken, in all.
    waiting: Arc<Semaphore>,
    /// What each address that is connected has for itself.
    of_address: Mutex<HashMap<IpAddr, Weak<Share>>>,
    spare: Spare,
    /// Reads that are on their way to the disk.
    disk: Arc<Semaphore>,
}

/// What all connections of an address share.
struct Share {
    /// Room for replies that wait to be taken.
    room: Arc<Semaphore>,
    /// Reads that are on their way to the disk.
    slow: Arc<Semaphore>,
}

impl<S> Service<S> {
    /// A service of a site.
    pub(crate) fn new(site: Arc<S>, options: NfsOptions) -> Self {
        Service {
            site,
            options,
            waiting: Arc::new(Semaphore::new(WAITING_ALL_MAX / UNIT)),
            of_address: Mutex::default(),
            spare: Spare::default(),
            disk: Arc::new(Semaphore::new(DISK_MAX)),
        }
    }

    /// What is served.
    pub(crate) fn site(&self) -> &S {
        &self.site
    }

    fn share(&self, address: IpAddr) -> Arc<Share> {
        let mut shares = self.of_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&address).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let semaphore = |places| Arc::new(Semaphore::new(places));
        let share = Arc::new(Share { room: semaphore(WAITING_ADDRESS_MAX / UNIT), slow: semaphore(SLOW_MAX) });
        shares.insert(address, Arc::downgrade(&share));
        share
    }
}

/// What connections ask the site.
pub(crate) trait Site: Builds + Names + 'static {
    /// Whether somebody may ask anything at all.
    fn allows(&self, peer: IpAddr) -> bool;
    /// The key of handles.
    fn key(&self) -> &HandleKey;
    /// Decompressed files.
    fn cache(&self) -> &FrameCache;
    /// Told of the first READ of a connection.
    fn reads(&self, peer: IpAddr);
    /// Told now and then that a client made so many calls since.
    fn lives(&self, peer: IpAddr, calls: u64);
}

/// Answers NFS, MOUNT and portmap calls on a listener, for ever.
///
/// # Errors
/// When the listener fails for good.
pub(crate) async fn serve<S: Site>(listener: TcpListener, service: Arc<Service<S>>) -> io::Result<()> {
    let places = Places::new(service.options.connections.0, service.options.connections.1);
    loop {
        let (stream, peer, place) = places.accept(&listener, |peer| service.site.allows(peer)).await?;
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            // A connection that breaks is the client's affair; it comes again.
            let _ = connection(stream, peer, &service).await;
            drop(place);
        });
    }
}

/// Replies with what they take of the budgets.
struct Reply {
    bytes: Vec<u8>,
    _room: [OwnedSemaphorePermit; 3],
}

async fn connection<S: Site>(stream: TcpStream, peer: SocketAddr, service: &Arc<Service<S>>) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    // What may wait in it is bounded by the room that each reply takes.
    let (replies, outbox) = mpsc::unbounded_channel::<Reply>();
    let mut sending = tokio::spawn(send(writer, outbox, service.options.stalled, service.spare.clone()));
    let address = peer.ip().to_canonical();
    let own = Arc::new(Semaphore::new(WAITING_MAX / UNIT));
    let share = service.share(address);
    let room = [own, Arc::clone(&share.room), Arc::clone(&service.waiting)];
    let outbox = Outbox { replies, room, spare: service.spare.clone() };
    tokio::select! {
        received = receive(reader, address, service, &share, outbox) => {
            received?;
            // What was asked before the client closed its side is still answered.
            sending.await.map_err(io::Error::other)?
        }
        // It takes nothing any more.
        sent = &mut sending => sent.map_err(io::Error::other)?,
    }
}

/// Writes replies one after the other.
async fn send(
    mut writer: OwnedWriteHalf,
    mut outbox: mpsc::UnboundedReceiver<Reply>,
    stalled: Duration,
    spare: Spare,
) -> io::Result<()> {
    while let Some(reply) = outbox.recv().await {
        tokio::time::timeout(stalled, writer.write_all(&reply.bytes)).await??;
        spare.give(reply.bytes);
    }
    Ok(())
}

/// Buffers of replies that were sent: the next replies have them, as fresh memory must be cleared by the kernel first.
#[derive(Clone, Default)]
struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    /// How many are kept, and of which size: small ones cost little anew, and a small reply in a large buffer would take more
    /// memory than its room says.
    const KEPT: usize = 16;
    const SIZES: RangeInclusive<usize> = 64 << 10..=2 << 20;

    fn give(&self, mut buffer: Vec<u8>) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < Self::KEPT && Self::SIZES.contains(&buffer.capacity()) {
            buffer.clear();
            spare.push(buffer);
        }
    }

    /// A buffer for about so many bytes.
    fn take(&self, bytes: usize) -> Vec<u8> {
        if bytes < *Self::SIZES.start() {
            return Vec::new();
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }
}

/// Where replies go.
#[derive(Clone)]
struct Outbox {
    replies: mpsc::UnboundedSender<Reply>,
    /// Of the connection, of its address, of all. In this order: who has none of his own holds nothing of the others'.
    room: [Arc<Semaphore>; 3],
    spare: Spare,
}

impl Outbox {
    /// Waits until there is room for a reply of this size.
    async fn room(&self, bytes: usize) -> io::Result<[OwnedSemaphorePermit; 3]> {
        let units = (bytes / UNIT + 1).min(WAITING_MAX / UNIT) as u32;
        let take =
            async |room: &Arc<Semaphore>| Arc::clone(room).acquire_many_owned(units).await.map_err(io::Error::other);
        let [own, address, all] = &self.room;
        Ok([take(own).await?, take(address).await?, take(all).await?])
    }

    async fn flush(&self, out: &mut Writer) -> io::Result<()> {
        if out.len() > 0 {
            let room = self.room(out.len()).await?;
            // A small reply leaves a large buffer here.
            let bytes = if out.len() * 2 < out.0.capacity() {
                out.0.drain(..).collect()
            } else {
                let next = self.spare.take(out.len());
                std::mem::replace(&mut out.0, next)
            };
            self.send(Reply { bytes, _room: room })?;
        }
        Ok(())
    }

    fn send(&self, reply: Reply) -> io::Result<()> {
        self.replies.send(reply).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads calls and answers them. Replies gather while more calls wait in the buffer, and are sent together.
async fn receive<S: Site>(
    mut reader: OwnedReadHalf,
    peer: IpAddr,
    service: &Arc<Service<S>>,
    share: &Share,
    outbox: Outbox,
) -> io::Result<()> {
    let mut input = Vec::with_capacity(16 << 10);
    let mut taken = 0;
    // A call may come in several fragments.
    let mut gathered: Vec<u8> = Vec::new();
    let mut out = Writer::default();
    let mut life = Life { peer, calls: 0, all_calls: 0, told: None, read: false };
    // Since when a call is only half there: who sends it byte by byte is as silent as who sends nothing.
    let mut half: Option<Instant> = None;
    loop {
        while let Some((last, fragment)) = next_fragment(input.get(taken..).unwrap_or_default())? {
            taken += 4 + fragment.len();
            if gathered.len() + fragment.len() > CALL_MAX {
                return Err(io::Error::other("a call is too long"));
            }
            let whole;
            let message = match (last, gathered.is_empty()) {
                (true, true) => fragment,
                _ => {
                    gathered.extend_from_slice(fragment);
                    if !last {
                        continue;
                    }
                    whole = std::mem::take(&mut gathered);
                    &whole
                }
            };
            half = None;
            match answer(service, &mut life, message, &mut out) {
                Done::Written => {}
                Done::Slow(xid, read) => {
                    let Ok(permit) = Arc::clone(&share.slow).acquire_owned().await else { return Ok(()) };
                    let room = outbox.room(read.count()).await?;
                    let Ok(disk) = Arc::clone(&service.disk).acquire_owned().await else { return Ok(()) };
                    let (service, outbox) = (Arc::clone(service), outbox.clone());
                    tokio::task::spawn_blocking(move || {
                        let buffer = outbox.spare.take(read.count());
                        // The connection may be gone by now. (Nothing here may wait for a client: others need the thread.)
                        let _ = outbox.send(Reply { bytes: slow_reply(&service, xid, &read, buffer), _room: room });
                        drop((disk, permit));
                    });
                }
                Done::Broken => return Err(io::Error::other("not a call")),
            }
            if out.len() >= BATCH {
                outbox.flush(&mut out).await?;
            }
        }
        outbox.flush(&mut out).await?;
        life.tell(service.site.as_ref());
        input.drain(..taken);
        taken = 0;
        let idle = input.is_empty() && gathered.is_empty();
        half = half.or_else(|| (!idle).then(Instant::now));
        let patience = match half {
            Some(since) => service.options.stalled.saturating_sub(since.elapsed()),
            None if life.all_calls > 0 => service.options.idle,
            None => service.options.stalled,
        };
        let read = match tokio::time::timeout(QUIET.min(patience), reader.read_buf(&mut input)).await {
            Ok(read) => read?,
            Err(_) => {
                out.0 = Vec::new();
                match tokio::time::timeout(patience.saturating_sub(QUIET), reader.read_buf(&mut input)).await {
                    Ok(read) => read?,
                    Err(_) => return Ok(()),
                }
            }
        };
        if read == 0 {
            return Ok(());
        }
    }
}

/// Answers all calls in what a client sent, one after the other; `None` when the connection would be ended.
pub(crate) fn answer_all<S: Site>(service: &Service<S>, mut sent: &[u8]) -> Option<Vec<u8>> {
    let mut out = Writer::default();
    let mut gathered = Vec::new();
    let peer = IpAddr::from([127, 0, 0, 1]);
    let mut life = Life { peer, calls: 0, all_calls: 0, told: None, read: false };
    while let Some((last, fragment)) = next_fragment(sent).ok()? {
        sent = sent.get(4 + fragment.len()..)?;
        gathered.extend_from_slice(fragment);
        if gathered.len() > CALL_MAX {
            return None;
        }
        if last {
            match answer(service, &mut life, &std::mem::take(&mut gathered), &mut out) {
                Done::Written => {}
                Done::Slow(xid, read) => out.0.extend(slow_reply(service, xid, &read, Vec::new())),
                Done::Broken => return None,
            }
        }
    }
    Some(out.0)
}

/// What the site is told of a client.
struct Life {
    peer: IpAddr,
    /// Calls that were not told yet, and all.
    calls: u64,
    all_calls: u64,
    told: Option<Instant>,
    read: bool,
}

impl Life {
    fn call<S: Site>(&mut self, site: &S, call: &Call<'_>) {
        self.calls += 1;
        self.all_calls += 1;
        if !self.read && call.program == procedures::PROGRAM && call.procedure == procedures::READ {
            self.read = true;
            site.reads(self.peer);
        }
    }

    fn tell<S: Site>(&mut self, site: &S) {
        if self.calls > 0 && self.told.is_none_or(|told| told.elapsed() >= LIVES) {
            site.lives(self.peer, std::mem::take(&mut self.calls));
            self.told = Some(Instant::now());
        }
    }
}

/// The first whole fragment of what was received, and whether it is the last of its record.
fn next_fragment(input: &[u8]) -> io::Result<Option<(bool, &[u8])>> {
    let Some((head, rest)) = input.split_first_chunk::<4>() else { return Ok(None) };
    let head = u32::from_be_bytes(*head);
    let length = (head & 0x7fff_ffff) as usize;
    if length > CALL_MAX {
        return Err(io::Error::other("a call is too long"));
    }
    Ok(rest.get(..length).map(|fragment| (head >> 31 == 1, fragment)))
}

enum Done {
    Written,
    Slow(u32, Box<SlowRead>),
    Broken,
}

fn begin_record(out: &mut Writer) -> usize {
    let at = out.len();
    out.u32(0);
    at
}

fn end_record(out: &mut Writer, at: usize) {
    let length = out.len() - at - 4;
    out.set_u32(at, 0x8000_0000 | length as u32);
}

fn answer<S: Site>(service: &Service<S>, life: &mut Life, message: &[u8], out: &mut Writer) -> Done {
    let at = begin_record(out);
    let call = match Call::read(message) {
        Ok(call) => call,
        Err(refusal) => {
            if !rpc::refuse(out, refusal) {
                return Done::Broken;
            }
            end_record(out, at);
            return Done::Written;
        }
    };
    life.call(service.site.as_ref(), &call);
    let body = out.len();
    rpc::accept(out, call.xid, Accepted::Success);
    let accepted = match (call.program, call.version) {
        (procedures::PROGRAM, procedures::VERSION) => match service.filesystem().call(&call, out) {
            Answer::Written(accepted) => accepted,
            Answer::Slow(read) => {
                out.0.truncate(at);
                return Done::Slow(call.xid, read);
            }
        },
        (acl::PROGRAM, acl::VERSION) => service.filesystem().call_acl(&call, out),
        (mount::PROGRAM, mount::VERSION) => mount::call(service.site.as_ref(), life.peer, &call, out),
        (portmap::PROGRAM, portmap::VERSION) => portmap::call(service.options.port, &call, out),
        (procedures::PROGRAM, _) => Accepted::ProgramMismatch { version: procedures::VERSION },
        (acl::PROGRAM, _) => Accepted::ProgramMismatch { version: acl::VERSION },
        (mount::PROGRAM, _) => Accepted::ProgramMismatch { version: mount::VERSION },
        (portmap::PROGRAM, _) => Accepted::ProgramMismatch { version: portmap::VERSION },
        _ => Accepted::ProgramUnavailable,
    };
    if accepted != Accepted::Success {
        out.0.truncate(body);
        rpc::accept(out, call.xid, accepted);
    }
    end_record(out, at);
    Done::Written
}

fn slow_reply<S: Site>(service: &Service<S>, xid: u32, read: &SlowRead, buffer: Vec<u8>) -> Vec<u8> {
    let mut out = Writer(buffer);
    let at = begin_record(&mut out);
    rpc::accept(&mut out, xid, Accepted::Success);
    service.filesystem().read_slowly(read, &mut out);
    end_record(&mut out, at);
    // It counts by its length.
    if out.0.capacity() > 2 * out.0.len() {
        out.0.shrink_to_fit();
    }
    out.0
}

impl<S: Site> Service<S> {
    fn filesystem(&self) -> Filesystem<'_> {
        Filesystem { builds: self.site.as_ref(), key: self.site.key(), cache: self.site.cache() }
    }
}
