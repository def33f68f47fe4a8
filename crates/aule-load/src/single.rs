//! Single protocols, measured: TFTP by several clients at once, and NFS with several calls on their way. One client for all
//! servers, so that what differs is the server.

use crate::{
    checksum::checksum,
    failure::{Doing, Failure, Result, failure},
    nfs::{self, Handle, Kind},
    rpc::{Pipe, Procedure},
    tftp::{self, Counts, Missing, Request},
    xdr::{Reader, put_opaque},
};
use serde::Serialize;
use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Barrier},
    thread,
    time::Instant,
};

/// The first client's address; the others' follow.
const FIRST: u32 = 0x7f02_0001;

/// What was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Measured {
    /// How long it took.
    pub(crate) seconds: f64,
    /// Bytes of contents, of all clients together.
    pub(crate) bytes: u64,
    /// Files or entries.
    pub(crate) items: u64,
    /// Sum over contents and names, the same for every server that gives the same; TFTP compares with a file instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checksum: Option<String>,
    /// TFTP: the window that was granted, packets that were sent again, blocks that came again or out of order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<u16>,
    /// See there.
    pub(crate) repeated: u64,
    /// See there.
    pub(crate) unexpected: u64,
}

/// Fetches a file with some clients at once; each compares what it gets with `expected`.
///
/// # Errors
/// When one of them does not get it.
pub(crate) fn tftp(server: SocketAddr, request: &Request, clients: u32, expected: Option<Vec<u8>>) -> Result<Measured> {
    let expected = Arc::new(expected);
    let barrier = Arc::new(Barrier::new(clients as usize + 1));
    let threads: Vec<_> = (0..clients)
        .map(|number| {
            let (expected, barrier, request) = (Arc::clone(&expected), Arc::clone(&barrier), request.clone());
            thread::spawn(move || {
                barrier.wait();
                client(Ipv4Addr::from(FIRST + number), server, request, expected.as_deref())
            })
        })
        .collect();
    barrier.wait();
    let begin = Instant::now();
    let counts: Vec<Result<Counts>> =
        threads.into_iter().map(|it| it.join().unwrap_or_else(|_| failure("a client panicked"))).collect();
    let seconds = begin.elapsed().as_secs_f64();
    let counts = counts.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(Measured {
        seconds,
        bytes: counts.iter().map(|it| it.bytes).sum(),
        items: counts.len() as u64,
        window: counts.iter().map(|it| it.window).min(),
        repeated: counts.iter().map(|it| it.repeated).sum(),
        unexpected: counts.iter().map(|it| it.unexpected).sum(),
        checksum: None,
    })
}

fn client(from: Ipv4Addr, server: SocketAddr, request: Request, expected: Option<&[u8]>) -> Result<Counts> {
    let mut at = 0;
    let sink = |bytes: &[u8]| {
        let end = at + bytes.len();
        if expected.is_some_and(|it| it.get(at..end) != Some(bytes)) {
            return failure("the bytes are not those that were expected");
        }
        at = end;
        Ok(())
    };
    let counts = tftp::fetch_blocking(from, server, request, sink).map_err(|missing| match missing {
        Missing::NotThere => Failure("TFTP: no such file".into()),
        Missing::Failed(failure) => failure,
    })?;
    match expected {
        Some(expected) if expected.len() as u64 != counts.bytes => {
            failure("the file is shorter than what was expected")
        }
        _ => Ok(counts),
    }
}

/// A mounted export, with several calls on their way.
pub(crate) struct Mounted {
    pipe: Pipe,
    root: Handle,
    depth: usize,
}

/// What is asked of a directory: its handle, cookie and verifier.
type Listing = (Handle, u64, u64);

impl Mounted {
    /// Mounts.
    ///
    /// # Errors
    /// When the server does not let us.
    pub(crate) fn open(mount: SocketAddr, server: SocketAddr, export: &str, depth: usize) -> Result<Mounted> {
        let mut asking = Pipe::open(mount).doing("MOUNT")?;
        asking.push(1, nfs::MNT, |out| put_opaque(out, export.as_bytes()));
        let root = nfs::mounted(asking.reply()?.1).doing("MOUNT")?;
        let mut it = Mounted { pipe: Pipe::open(server)?, root, depth: depth.max(1) };
        let root = it.root.clone();
        nfs::ok(&mut it.call(nfs::FSINFO, |out| put_opaque(out, &root))?).doing("FSINFO")?;
        Ok(it)
    }

    fn call(&mut self, procedure: Procedure, arguments: impl FnOnce(&mut Vec<u8>)) -> Result<Reader<'_>> {
        self.pipe.push(1, procedure, arguments);
        self.pipe.reply().map(|(_, reader)| reader)
    }

    /// Handle and size of what a path without symlinks leads to.
    fn find(&mut self, path: &str) -> Result<(Handle, u64)> {
        let (mut handle, mut size) = (self.root.clone(), 0);
        for name in path.split('/').filter(|it| !it.is_empty()) {
            let found = nfs::found(self.call(nfs::LOOKUP, |out| nfs::put_lookup(out, &handle, name.as_bytes()))?)?;
            let Some((found, Some(attributes))) = found else { return failure(format!("there is no {path}")) };
            handle = found.into();
            size = attributes.size;
        }
        Ok((handle, size))
    }

    /// Reads a file from its beginning to its end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(&mut self, path: &str) -> Result<Measured> {
        let (handle, size) = self.find(path)?;
        let begin = Instant::now();
        let block = |number: u32| {
            let offset = u64::from(number) * u64::from(nfs::READ_SIZE);
            (offset, size.saturating_sub(offset).min(nfs::READ_SIZE.into()) as u32)
        };
        let blocks = u32::try_from(size.div_ceil(nfs::READ_SIZE.into())).doing("the file's size")?;
        let mut sum = 0_u64;
        let mut asked = 0;
        for done in 0..blocks {
            while asked < blocks && ((asked - done) as usize) < self.depth {
                let (offset, count) = block(asked);
                self.pipe.push(asked, nfs::READ, |out| nfs::put_read(out, &handle, offset, count));
                asked += 1;
            }
            let (number, reader) = self.pipe.reply()?;
            let (bytes, _) = nfs::read(reader).doing("READ")?;
            let (offset, count) = block(number);
            if bytes.len() != count as usize {
                return failure("READ gives fewer bytes than there are");
            }
            sum = sum.wrapping_add(checksum(bytes) ^ offset);
        }
        let checksum = Some(format!("{sum:016x}"));
        Ok(Measured { seconds: begin.elapsed().as_secs_f64(), bytes: size, items: 1, checksum, ..Measured::default() })
    }

    /// Lists a directory and reads every file in it: LOOKUP, ACCESS, READ.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn small(&mut self, path: &str) -> Result<Measured> {
        let (directory, _) = self.find(path)?;
        let begin = Instant::now();
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut next = Some((0, 0));
        while let Some((cookie, verifier)) = next {
            let reader = self.call(nfs::READDIRPLUS, |out| nfs::put_list(out, &directory, cookie, verifier))?;
            next = nfs::entries(reader, |entry| {
                if entry.attributes.is_none_or(|it| it.kind == Kind::File) {
                    names.push(entry.name.to_vec());
                }
                Ok(())
            })?;
        }
        let mut handles: Vec<Handle> = vec![Handle::default(); names.len()];
        let mut started = 0;
        let mut done = 0;
        let (mut sum, mut total) = (0_u64, 0_u64);
        // The number of a call is that of its file and, in the last two bits, of the step.
        while done < names.len() {
            while started < names.len() && started - done < self.depth {
                let name = names.get(started).map(Vec::as_slice).unwrap_or_default();
                self.pipe.push((started as u32) << 2, nfs::LOOKUP, |out| nfs::put_lookup(out, &directory, name));
                started += 1;
            }
            let (number, mut reader) = self.pipe.reply()?;
            let file = (number >> 2) as usize;
            let Some(handle) = handles.get_mut(file) else { return failure("a reply to no call") };
            match number & 3 {
                0 => {
                    let Some((found, _)) = nfs::found(reader)? else { return failure("a file is gone") };
                    *handle = found.into();
                    self.pipe.push(number + 1, nfs::ACCESS, |out| nfs::put_access(out, handle));
                }
                1 => {
                    nfs::ok(&mut reader).doing("ACCESS")?;
                    self.pipe.push(number + 1, nfs::READ, |out| nfs::put_read(out, handle, 0, nfs::READ_SIZE));
                }
                _ => {
                    let (bytes, end) = nfs::read(reader).doing("READ")?;
                    if !end {
                        return failure("a file is not small");
                    }
                    let name = names.get(file).map(Vec::as_slice).unwrap_or_default();
                    sum = sum.wrapping_add(checksum(bytes) ^ checksum(name).rotate_left(9));
                    total += bytes.len() as u64;
                    done += 1;
                }
            }
        }
        Ok(Measured {
            seconds: begin.elapsed().as_secs_f64(),
            bytes: total,
            items: names.len() as u64,
            checksum: Some(format!("{sum:016x}")),
            ..Measured::default()
        })
    }

    /// Lists everything, with attributes.
    ///
    /// # Errors
    /// When a directory cannot be listed.
    pub(crate) fn walk(&mut self) -> Result<Measured> {
        let begin = Instant::now();
        let mut waiting: VecDeque<Listing> = VecDeque::from([(self.root.clone(), 0, 0)]);
        let mut flying: Vec<Option<Listing>> = vec![None; self.depth];
        let (mut sum, mut items) = (0_u64, 0);
        loop {
            for (number, place) in flying.iter_mut().enumerate().filter(|(_, place)| place.is_none()) {
                let Some(listing) = waiting.pop_front() else { break };
                let (handle, cookie, verifier) = &listing;
                let arguments = |out: &mut Vec<u8>| nfs::put_list(out, handle, *cookie, *verifier);
                self.pipe.push(number as u32, nfs::READDIRPLUS, arguments);
                *place = Some(listing);
            }
            if flying.iter().all(Option::is_none) {
                break;
            }
            let (number, reader) = self.pipe.reply()?;
            let Some((directory, ..)) = flying.get_mut(number as usize).and_then(Option::take) else {
                return failure("a reply to no call");
            };
            let more = nfs::entries(reader, |entry| {
                let Some(it) = entry.attributes else { return failure("an entry without attributes") };
                items += 1;
                // The size of a directory is the server's own affair.
                let size = if it.kind == Kind::File { it.size } else { 0 };
                let numbers = [u64::from(it.mode & 0o7777), it.uid.into(), it.gid.into(), size];
                let numbers = numbers.into_iter().fold(0_u64, |all, it| all.rotate_left(16) ^ it);
                sum = sum.wrapping_add(checksum(entry.name) ^ numbers.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                if it.kind == Kind::Directory {
                    let Some(handle) = entry.handle else { return failure("a directory without a handle") };
                    waiting.push_back((handle.into(), 0, 0));
                }
                Ok(())
            })
            .doing("READDIRPLUS")?;
            if let Some((cookie, verifier)) = more {
                waiting.push_back((directory, cookie, verifier));
            }
        }
        let checksum = Some(format!("{sum:016x}"));
        Ok(Measured { seconds: begin.elapsed().as_secs_f64(), items, checksum, ..Measured::default() })
    }
}
