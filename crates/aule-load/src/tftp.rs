//! TFTP (RFC 1350, with the options of RFC 2347, 2348, 2349 and 7440) as a client: a state machine that knows no sockets,
//! and two ways to run it, with threads for measuring and with tasks for nodes.
//!
//! A packet is sent again only when nothing came for a while, and then what was sent last. A window with a hole is
//! acknowledged at once, up to the hole.

use crate::failure::{Doing, Failure, Result, failure};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

/// How long is waited before something is sent again, and how often.
const TIMEOUT: Duration = Duration::from_secs(1);
const RETRIES: u32 = 8;
/// The largest packet that is taken: a block of the largest size.
const PACKET_MAX: usize = 65_468;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The file.
    pub(crate) name: String,
    /// Bytes of a block.
    pub(crate) block: u16,
    /// Blocks that come without being acknowledged each; 1 does not ask for the option.
    pub(crate) window: u16,
    /// The transfer is ended once its size is known.
    pub(crate) probe: bool,
}

/// What a transfer came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// The size that was told before, if any.
    pub(crate) told: Option<u64>,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// The window that was granted.
    pub(crate) window: u16,
    /// Packets of ours that had to be sent again.
    pub(crate) repeated: u64,
    /// Blocks that came again, or out of order.
    pub(crate) unexpected: u64,
}

/// Why there is no file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The server says that there is none.
    NotThere,
    /// Anything else.
    Failed(Failure),
}

impl From<Failure> for Missing {
    fn from(failure: Failure) -> Self {
        Missing::Failed(failure)
    }
}

/// What to do after a packet.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Send what [`Receiver::out`] has.
    Send,
    /// Send that, and it is complete.
    Last,
    /// Wait on.
    Wait,
}

/// A transfer as its receiver sees it.
struct Receiver {
    request: Request,
    /// The packet that was sent last.
    out: Vec<u8>,
    block: usize,
    window: u64,
    /// The last block that came, counted from 1; and the last one that was acknowledged.
    received: u64,
    acknowledged: u64,
    /// Whether a hole was told already.
    told_hole: bool,
    started: bool,
    counts: Counts,
}

impl Receiver {
    fn new(request: Request) -> Self {
        let mut out = vec![0, 1];
        let mut text = |text: &str| {
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        };
        [&request.name, "octet", "tsize", "0", "blksize", &request.block.to_string()].into_iter().for_each(&mut text);
        if request.window > 1 {
            ["windowsize", &request.window.to_string()].into_iter().for_each(&mut text);
        }
        let counts = Counts { window: 1, ..Counts::default() };
        Receiver {
            request,
            out,
            block: 512,
            window: 1,
            received: 0,
            acknowledged: 0,
            told_hole: false,
            started: false,
            counts,
        }
    }

    /// Takes a packet in; `sink` gets the bytes of the file in their order.
    fn packet(
        &mut self,
        packet: &[u8],
        sink: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> std::result::Result<Next, Missing> {
        let Some((head, rest)) = packet.split_first_chunk::<4>() else {
            return Err(Failure("a packet of TFTP is too short".into()).into());
        };
        let number = u16::from_be_bytes([head[2], head[3]]);
        match u16::from_be_bytes([head[0], head[1]]) {
            3 => self.data(number, rest, sink).map_err(Missing::from),
            5 if number == 1 => Err(Missing::NotThere),
            5 => {
                let text = String::from_utf8_lossy(rest.strip_suffix(b"\0").unwrap_or(rest)).into_owned();
                Err(Failure(format!("TFTP error {number}: {text}")).into())
            }
            6 if self.received == 0 => self.options(packet.get(2..).unwrap_or_default()).map_err(Missing::from),
            6 => Ok(Next::Wait),
            other => Err(Failure(format!("a server sends TFTP packets of type {other}")).into()),
        }
    }

    fn options(&mut self, bytes: &[u8]) -> Result<Next> {
        let mut texts = bytes.split(|byte| *byte == 0);
        while let (Some(option), Some(value)) = (texts.next(), texts.next()) {
            let number = std::str::from_utf8(value).ok().and_then(|it| it.parse::<u64>().ok());
            let Some(number) = number else { return failure("TFTP: an option without a number") };
            match option.to_ascii_lowercase().as_slice() {
                b"tsize" => self.counts.told = Some(number),
                b"blksize" if number <= self.request.block.into() => self.block = number as usize,
                b"windowsize" if number <= self.request.window.into() => self.window = number.max(1),
                _ => return failure("TFTP: an option was granted that was not asked for"),
            }
        }
        self.counts.window = self.window as u16;
        self.started = true;
        if self.request.probe {
            // As the firmware of a Pi does.
            self.out = [&[0, 5, 0, 0], &b"Early terminate"[..], &[0]].concat();
            return Ok(Next::Last);
        }
        Ok(self.acknowledge())
    }

    fn acknowledge(&mut self) -> Next {
        self.acknowledged = self.received;
        let [high, low] = (self.received as u16).to_be_bytes();
        self.out.clear();
        self.out.extend_from_slice(&[0, 4, high, low]);
        Next::Send
    }

    fn data(&mut self, number: u16, bytes: &[u8], sink: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<Next> {
        if self.request.probe {
            return failure("TFTP: a request for the size is answered with data");
        }
        self.started = true;
        if number != (self.received + 1) as u16 {
            self.counts.unexpected += 1;
            // One that is ahead: something is lost. One that came before is not answered, or it would come ever again.
            let ahead = number.wrapping_sub(self.received as u16);
            if u64::from(ahead) <= self.window && self.window > 1 && !self.told_hole {
                self.told_hole = true;
                return Ok(self.acknowledge());
            }
            return Ok(Next::Wait);
        }
        if bytes.len() > self.block {
            return failure("TFTP: a block is too long");
        }
        sink(bytes)?;
        self.told_hole = false;
        self.received += 1;
        self.counts.bytes += bytes.len() as u64;
        if bytes.len() < self.block {
            self.acknowledge();
            return Ok(Next::Last);
        }
        if self.received - self.acknowledged >= self.window { Ok(self.acknowledge()) } else { Ok(Next::Wait) }
    }

    /// Nothing came: what is sent again is what has been received in order.
    fn expire(&mut self) {
        self.counts.repeated += 1;
        if self.started && self.received > 0 {
            self.acknowledge();
        }
    }

    fn counts(&self) -> Result<Counts> {
        match self.counts.told {
            Some(told) if !self.request.probe && told != self.counts.bytes => {
                failure(format!("TFTP: {told} bytes were promised, {} came", self.counts.bytes))
            }
            _ => Ok(self.counts),
        }
    }
}

fn silent(name: &str) -> Missing {
    // Without the prefix of the node, so that a report has it once.
    Missing::Failed(Failure(format!("TFTP: no answer for {}", name.rsplit('/').next().unwrap_or(name))))
}

/// Fetches a file with a socket that blocks: nothing is quicker for a thread that has nothing else to do.
///
/// # Errors
/// When the file does not come.
pub(crate) fn fetch_blocking(
    from: Ipv4Addr,
    server: SocketAddr,
    request: Request,
    mut sink: impl FnMut(&[u8]) -> Result<()>,
) -> std::result::Result<Counts, Missing> {
    let open = || -> Result<UdpSocket> {
        let socket = UdpSocket::bind((from, 0)).doing("bind")?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(socket)
    };
    let socket = open()?;
    let mut receiver = Receiver::new(request);
    let mut buffer = vec![0; PACKET_MAX];
    let io = |it: io::Result<usize>| it.doing("TFTP").map_err(Missing::from);
    io(socket.send_to(&receiver.out, server))?;
    let mut peer = None;
    let mut retries = 0;
    loop {
        let received = match peer {
            None => socket.recv_from(&mut buffer),
            Some(peer) => socket.recv(&mut buffer).map(|length| (length, peer)),
        };
        let next = match received {
            Ok((length, from)) => {
                if peer.is_none() {
                    // Servers go on from another port; whoever answers first is the one.
                    socket.connect(from).doing("TFTP").map_err(Missing::from)?;
                    peer = Some(from);
                }
                retries = 0;
                receiver.packet(buffer.get(..length).unwrap_or_default(), &mut sink)?
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                retries += 1;
                if retries > RETRIES {
                    return Err(silent(&receiver.request.name));
                }
                receiver.expire();
                Next::Send
            }
            Err(error) => return Err(Failure(format!("TFTP: {error}")).into()),
        };
        if next != Next::Wait {
            io(if peer.is_some() { socket.send(&receiver.out) } else { socket.send_to(&receiver.out, server) })?;
        }
        if next == Next::Last {
            return Ok(receiver.counts()?);
        }
    }
}

/// Fetches a file as one of many nodes.
///
/// # Errors
/// When the file does not come.
pub(crate) async fn fetch(
    from: Ipv4Addr,
    server: SocketAddr,
    request: Request,
    mut sink: impl FnMut(&[u8]) -> Result<()>,
) -> std::result::Result<Counts, Missing> {
    let io = |it: io::Result<usize>| it.doing("TFTP").map_err(Missing::from);
    let socket = tokio::net::UdpSocket::bind((from, 0)).await.doing("bind").map_err(Missing::from)?;
    let mut receiver = Receiver::new(request);
    let mut buffer = vec![0; usize::from(receiver.request.block) + 64];
    io(socket.send_to(&receiver.out, server).await)?;
    let mut peer = None;
    let mut retries = 0;
    loop {
        let received = tokio::time::timeout(TIMEOUT, async {
            match peer {
                None => socket.recv_from(&mut buffer).await,
                Some(peer) => socket.recv(&mut buffer).await.map(|length| (length, peer)),
            }
        });
        let next = match received.await {
            Ok(Ok((length, from))) => {
                if peer.is_none() {
                    socket.connect(from).await.doing("TFTP").map_err(Missing::from)?;
                    peer = Some(from);
                }
                retries = 0;
                receiver.packet(buffer.get(..length).unwrap_or_default(), &mut sink)?
            }
            Ok(Err(error)) => return Err(Failure(format!("TFTP: {error}")).into()),
            Err(_) => {
                retries += 1;
                if retries > RETRIES {
                    return Err(silent(&receiver.request.name));
                }
                receiver.expire();
                Next::Send
            }
        };
        if next != Next::Wait {
            io(match peer {
                Some(_) => socket.send(&receiver.out).await,
                None => socket.send_to(&receiver.out, server).await,
            })?;
        }
        if next == Next::Last {
            return Ok(receiver.counts()?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(block: u16, window: u16, probe: bool) -> Receiver {
        Receiver::new(Request { name: "5a1d3c2b/vmlinuz".into(), block, window, probe })
    }

    fn data(number: u16, length: usize) -> Vec<u8> {
        [&[0, 3][..], &number.to_be_bytes(), &vec![7; length]].concat()
    }

    #[test]
    fn requests_have_their_options() {
        assert_eq!(receiver(1468, 1, false).out, b"\0\x015a1d3c2b/vmlinuz\0octet\0tsize\x000\0blksize\x001468\0");
        assert!(receiver(1468, 16, false).out.ends_with(b"windowsize\x0016\0"));
    }

    #[test]
    fn lockstep_to_the_end() {
        let mut it = receiver(8, 1, false);
        let mut got = Vec::new();
        let mut sink = |bytes: &[u8]| {
            got.extend_from_slice(bytes);
            Ok(())
        };
        assert_eq!(it.packet(b"\0\x06tsize\x0020\0blksize\x008\0", &mut sink), Ok(Next::Send));
        assert_eq!(it.out, [0, 4, 0, 0]);
        assert_eq!(it.packet(&data(1, 8), &mut sink), Ok(Next::Send));
        assert_eq!(it.packet(&data(1, 8), &mut sink), Ok(Next::Wait), "a duplicate is not answered");
        it.expire();
        assert_eq!(it.out, [0, 4, 0, 1]);
        assert_eq!(it.packet(&data(2, 8), &mut sink), Ok(Next::Send));
        assert_eq!(it.packet(&data(3, 4), &mut sink), Ok(Next::Last));
        assert_eq!(it.counts(), Ok(Counts { told: Some(20), bytes: 20, window: 1, repeated: 1, unexpected: 1 }));
        assert_eq!(got.len(), 20);
    }

    #[test]
    fn holes_in_a_window_are_told_once() {
        let mut it = receiver(8, 4, false);
        let mut sink = |_: &[u8]| Ok(());
        assert_eq!(it.packet(b"\0\x06blksize\x008\0windowsize\x004\0", &mut sink), Ok(Next::Send));
        assert_eq!(it.packet(&data(1, 8), &mut sink), Ok(Next::Wait));
        assert_eq!(it.packet(&data(3, 8), &mut sink), Ok(Next::Send));
        assert_eq!(it.out, [0, 4, 0, 1]);
        assert_eq!(it.packet(&data(4, 8), &mut sink), Ok(Next::Wait));
        for number in 2..5 {
            assert_eq!(it.packet(&data(number, 8), &mut sink), Ok(Next::Wait));
        }
        assert_eq!(it.packet(&data(5, 8), &mut sink), Ok(Next::Send));
        assert_eq!(it.out, [0, 4, 0, 5]);
    }

    #[test]
    fn numbers_roll_over() {
        let mut it = receiver(8, 1, false);
        let mut sink = |_: &[u8]| Ok(());
        it.packet(b"\0\x06blksize\x008\0", &mut sink).unwrap();
        for number in 1..=70_000_u32 {
            assert_eq!(it.packet(&data(number as u16, 8), &mut sink), Ok(Next::Send), "{number}");
        }
        assert_eq!(it.counts.bytes, 560_000);
    }

    #[test]
    fn probes_errors_and_short_files() {
        let mut it = receiver(1468, 1, true);
        let mut sink = |_: &[u8]| Ok(());
        assert_eq!(it.packet(b"\0\x06tsize\x0099\0", &mut sink), Ok(Next::Last));
        assert_eq!(it.out, b"\0\x05\0\0Early terminate\0");
        assert_eq!(it.counts().unwrap().told, Some(99));
        assert_eq!(receiver(8, 1, false).packet(b"\0\x05\0\x01no\0", &mut sink), Err(Missing::NotThere));
        let mut it = receiver(8, 1, false);
        it.packet(b"\0\x06tsize\x0099\0blksize\x008\0", &mut sink).unwrap();
        assert_eq!(it.packet(&data(1, 3), &mut sink), Ok(Next::Last));
        assert!(it.counts().is_err(), "99 bytes were promised");
    }
}
