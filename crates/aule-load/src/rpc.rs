//! ONC RPC (RFC 5531) over TCP: calls as bytes, replies taken apart, and two ways of sending them. A [`Connection`] asks and
//! waits, as a booting node mostly does; a [`Pipe`] keeps several calls on their way.

use crate::{
    failure::{Doing, Result, failure},
    xdr::{Reader, put_opaque, put_u32},
};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// Which program, version and procedure is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Procedure(pub(crate) u32, pub(crate) u32, pub(crate) u32);

/// The longest reply that is taken: a READ of a mebibyte with what stands around it, marks of fragments included.
const REPLY_MAX: usize = (1 << 20) + (64 << 10);
/// How long a node waits for a reply before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);
const LAST: u32 = 0x8000_0000;

/// Appends a call, framed as a record (RFC 5531, 11), by root.
pub(crate) fn put_call(out: &mut Vec<u8>, xid: u32, procedure: Procedure, arguments: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    let Procedure(program, version, number) = procedure;
    [0, xid, 0, 2, program, version, number].into_iter().for_each(|it| put_u32(out, it));
    // AUTH_SYS: stamp, machine, uid 0, gid 0, no groups. The verifier is empty.
    put_u32(out, 1);
    put_u32(out, 24);
    put_u32(out, 0);
    put_opaque(out, b"load");
    [0, 0, 0, 0, 0].into_iter().for_each(|it| put_u32(out, it));
    arguments(out);
    let length = u32::try_from(out.len() - at - 4).unwrap_or(0);
    if let Some(mark) = out.get_mut(at..at + 4) {
        mark.copy_from_slice(&(LAST | length).to_be_bytes());
    }
}

/// The xid of a reply, and its results where the call was accepted.
pub(crate) fn results(message: &[u8]) -> Result<(u32, Reader<'_>)> {
    let mut reader = Reader(message);
    let (xid, kind, state) = (reader.u32()?, reader.u32()?, reader.u32()?);
    if kind != 1 || state != 0 {
        return failure("a call was refused");
    }
    let _flavor = reader.u32()?;
    let _verifier = reader.opaque()?;
    match reader.u32()? {
        0 => Ok((xid, reader)),
        accepted => failure(format!("a call was not done: accept_stat {accepted}")),
    }
}

/// A connection from an address of ours; port 0 is any.
///
/// # Errors
/// When the server does not answer.
pub(crate) async fn connect(from: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into()).doing("bind")?;
    let connecting = tokio::time::timeout(PATIENCE, socket.connect(to)).await;
    let stream = connecting.doing("connect")?.doing("connect")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Asks one call after the other.
pub(crate) struct Connection {
    stream: TcpStream,
    xid: u32,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(crate) async fn open(from: Ipv4Addr, to: SocketAddr) -> Result<Self> {
        Ok(Connection { stream: connect(from, to).await?, xid: 1, out: Vec::new(), input: Vec::new() })
    }

    /// Calls, and gives the results.
    ///
    /// # Errors
    /// When there are none.
    pub(crate) async fn call(
        &mut self,
        procedure: Procedure,
        arguments: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Reader<'_>> {
        self.xid = self.xid.wrapping_add(1);
        self.out.clear();
        put_call(&mut self.out, self.xid, procedure, arguments);
        self.stream.write_all(&self.out).await?;
        match tokio::time::timeout(PATIENCE, self.record()).await {
            Err(_) => return failure("no reply to a call"),
            Ok(read) => read?,
        }
        let (xid, reader) = results(&self.input)?;
        if xid != self.xid { failure("a reply to no call") } else { Ok(reader) }
    }

    /// Reads a record.
    async fn record(&mut self) -> Result<()> {
        self.input.clear();
        loop {
            let mark = self.stream.read_u32().await?;
            let length = (mark & !LAST) as usize;
            let begin = self.input.len();
            if begin + length > REPLY_MAX {
                return failure("a reply is too long");
            }
            self.input.resize(begin + length, 0);
            self.stream.read_exact(self.input.get_mut(begin..).unwrap_or_default()).await?;
            if mark & LAST != 0 {
                return Ok(());
            }
        }
    }
}

/// Keeps several calls on their way over a connection; blocks, and so costs little.
pub(crate) struct Pipe {
    stream: std::net::TcpStream,
    out: Vec<u8>,
    input: Vec<u8>,
    /// What was read: `taken..filled` of the input is not taken apart yet.
    taken: usize,
    filled: usize,
}

impl Pipe {
    /// Connects.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(crate) fn open(to: SocketAddr) -> Result<Self> {
        let stream = std::net::TcpStream::connect_timeout(&to, PATIENCE).doing("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Pipe { stream, out: Vec::new(), input: vec![0; 4 * REPLY_MAX], taken: 0, filled: 0 })
    }

    /// Makes a call ready; it goes out when the next reply is waited for.
    pub(crate) fn push(&mut self, xid: u32, procedure: Procedure, arguments: impl FnOnce(&mut Vec<u8>)) {
        put_call(&mut self.out, xid, procedure, arguments);
    }

    /// The next reply: the xid of its call, and the results.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn reply(&mut self) -> Result<(u32, Reader<'_>)> {
        let range = loop {
            if let Some(range) = self.record()? {
                break range;
            }
            // Calls gather while there are replies to take apart.
            if !self.out.is_empty() {
                self.stream.write_all(&self.out)?;
                self.out.clear();
            }
            if self.taken == self.filled {
                (self.taken, self.filled) = (0, 0);
            } else if self.input.len() - self.taken < REPLY_MAX + 4096 {
                self.input.copy_within(self.taken..self.filled, 0);
                self.filled -= self.taken;
                self.taken = 0;
            }
            match self.stream.read(self.input.get_mut(self.filled..).unwrap_or_default()).doing("a reply")? {
                0 => return failure("the server ended the connection"),
                read => self.filled += read,
            }
        };
        results(self.input.get(range).unwrap_or_default())
    }

    /// Where the next whole record lies. Its fragments are put together in place, once all of them are there.
    fn record(&mut self) -> Result<Option<std::ops::Range<usize>>> {
        let mut at = self.taken;
        let mut fragments = 0;
        loop {
            let received = self.input.get(at..self.filled).unwrap_or_default();
            let Some((mark, rest)) = received.split_first_chunk::<4>() else { return Ok(None) };
            let mark = u32::from_be_bytes(*mark);
            let length = (mark & !LAST) as usize;
            if at - self.taken + length > REPLY_MAX {
                return failure("a reply is too long");
            }
            if rest.len() < length {
                return Ok(None);
            }
            fragments += 1;
            at += 4 + length;
            if mark & LAST != 0 {
                break;
            }
        }
        let start = self.taken + 4;
        let mut end = start;
        while fragments > 0 {
            let mark = self.input.get(self.taken..).and_then(|it| it.first_chunk()).copied().unwrap_or_default();
            let length = (u32::from_be_bytes(mark) & !LAST) as usize;
            let begin = self.taken + 4;
            // Of a single fragment this moves nothing.
            if begin != end {
                self.input.copy_within(begin..begin + length, end);
            }
            end += length;
            self.taken = begin + length;
            fragments -= 1;
        }
        Ok(Some(start..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_framed() {
        let mut out = Vec::new();
        put_call(&mut out, 9, Procedure(100_003, 3, 1), |out| put_u32(out, 77));
        let mut reader = Reader(&out);
        assert_eq!(reader.u32(), Ok(LAST | (out.len() as u32 - 4)));
        let head: Vec<_> = (0..6).map(|_| reader.u32().unwrap()).collect();
        assert_eq!(head, [9, 0, 2, 100_003, 3, 1]);
        assert_eq!(reader.u32(), Ok(1));
        assert_eq!(reader.opaque().unwrap().len(), 24);
        assert_eq!((reader.u32(), reader.opaque(), reader.u32()), (Ok(0), Ok(&b""[..]), Ok(77)));
    }

    #[test]
    fn refusals_are_failures() {
        let words = |words: &[u32]| words.iter().flat_map(|it| it.to_be_bytes()).collect::<Vec<_>>();
        assert_eq!(results(&words(&[9, 1, 0, 0, 0, 0, 5])).map(|(xid, mut rest)| (xid, rest.u32())), Ok((9, Ok(5))));
        for wrong in [&[9, 1, 1, 0, 2, 2][..], &[9, 1, 0, 0, 0, 3], &[9, 0, 0, 0, 0, 0], &[9, 1]] {
            assert!(results(&words(wrong)).is_err(), "{wrong:?}");
        }
    }
}
