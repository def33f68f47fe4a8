//! The connections: record marking (RFC 5531, 11), calls in, replies out, bounded in number, size and time.

use super::{
    handle::HandleKey,
    mount::{self, Names},
    portmap,
    procedures::{self, Answer, Builds, Filesystem, SlowRead},
    rpc::{self, Accepted, Call},
    xdr::Writer,
};
use crate::frames::FrameCache;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
};

/// The longest call that is taken: the arguments of a write, which is refused, included.
const CALL_MAX: usize = (1 << 20) + 4096;
/// How many reads of one connection may be on their way to the disk.
const SLOW_MAX: usize = 16;
/// Replies are written together up to about this size.
const BATCH: usize = 256 << 10;

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct NfsOptions {
    /// How many connections there may be at once; more wait to be accepted.
    pub connections: usize,
    /// A connection that says nothing for so long is ended: a client that lives makes a new one.
    pub idle: Duration,
    /// The port that the port mapper tells.
    pub port: u16,
}

impl Default for NfsOptions {
    fn default() -> Self {
        NfsOptions { connections: 16_384, idle: Duration::from_secs(3600), port: 2049 }
    }
}

/// What all connections share.
pub(crate) struct Service<S> {
    /// What is served.
    pub(crate) site: Arc<S>,
    /// How.
    pub(crate) options: NfsOptions,
}

/// What connections ask the site.
pub(crate) trait Site: Builds + Names + 'static {
    /// Whether somebody may ask anything at all.
    fn allows(&self, peer: SocketAddr) -> bool;
    /// The key of handles.
    fn key(&self) -> &HandleKey;
    /// Decompressed files.
    fn cache(&self) -> &FrameCache;
}

/// Answers NFS, MOUNT and portmap calls on a listener, for ever.
///
/// # Errors
/// When the listener fails for good.
pub(crate) async fn serve<S: Site>(listener: TcpListener, service: Arc<Service<S>>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(service.options.connections));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Out of file descriptors, or the client is gone again: neither is for good.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if !service.site.allows(peer) {
            continue;
        }
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            // A connection that breaks is the client's affair; it comes again.
            let _ = connection(stream, peer.ip(), &service).await;
            drop(place);
        });
    }
}

async fn connection<S: Site>(stream: TcpStream, peer: IpAddr, service: &Arc<Service<S>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let (replies, outbox) = mpsc::channel::<Vec<u8>>(2 * SLOW_MAX);
    let sending = tokio::spawn(send(writer, outbox));
    let result = receive(reader, peer, service, replies).await;
    sending.abort();
    result
}

/// Writes replies one after the other.
async fn send(mut writer: OwnedWriteHalf, mut outbox: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(reply) = outbox.recv().await {
        writer.write_all(&reply).await?;
    }
    Ok(())
}

/// Reads calls and answers them. Replies gather while more calls wait in the buffer, and are sent together.
async fn receive<S: Site>(
    mut reader: OwnedReadHalf,
    peer: IpAddr,
    service: &Arc<Service<S>>,
    replies: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let slow = Arc::new(Semaphore::new(SLOW_MAX));
    let mut input = Vec::with_capacity(64 << 10);
    let mut taken = 0;
    // A call may come in several fragments.
    let mut gathered: Vec<u8> = Vec::new();
    let mut out = Writer::default();
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
            match answer(service, peer, message, &mut out) {
                Done::Written => {}
                Done::Slow(xid, read) => {
                    let Ok(permit) = Arc::clone(&slow).acquire_owned().await else { return Ok(()) };
                    let (service, replies) = (Arc::clone(service), replies.clone());
                    tokio::task::spawn_blocking(move || {
                        let reply = slow_reply(&service, xid, &read);
                        // The connection may be gone by now.
                        let _ = replies.blocking_send(reply);
                        drop(permit);
                    });
                }
                Done::Broken => return Err(io::Error::other("not a call")),
            }
            if out.len() >= BATCH {
                flush(&mut out, &replies).await?;
            }
        }
        flush(&mut out, &replies).await?;
        input.drain(..taken);
        taken = 0;
        match tokio::time::timeout(service.options.idle, reader.read_buf(&mut input)).await {
            Err(_) | Ok(Ok(0)) => return Ok(()),
            Ok(read) => read?,
        };
    }
}

async fn flush(out: &mut Writer, replies: &mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    if out.len() > 0 {
        let batch = std::mem::take(&mut out.0);
        replies.send(batch).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    }
    Ok(())
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

fn answer<S: Site>(service: &Service<S>, peer: IpAddr, message: &[u8], out: &mut Writer) -> Done {
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
        (mount::PROGRAM, mount::VERSION) => mount::call(service.site.as_ref(), peer, &call, out),
        (portmap::PROGRAM, portmap::VERSION) => portmap::call(service.options.port, &call, out),
        (procedures::PROGRAM, _) => Accepted::ProgramMismatch { version: procedures::VERSION },
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

fn slow_reply<S: Site>(service: &Service<S>, xid: u32, read: &SlowRead) -> Vec<u8> {
    let mut out = Writer::default();
    let at = begin_record(&mut out);
    rpc::accept(&mut out, xid, Accepted::Success);
    service.filesystem().read_slowly(read, &mut out);
    end_record(&mut out, at);
    out.0
}

impl<S: Site> Service<S> {
    fn filesystem(&self) -> Filesystem<'_> {
        Filesystem { builds: self.site.as_ref(), key: self.site.key(), cache: self.site.cache() }
    }
}
