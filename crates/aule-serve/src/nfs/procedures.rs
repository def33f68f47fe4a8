//! The procedures of NFS version 3 (RFC 1813) over read-only trees.

use super::{
    access::{MAY_EXECUTE, MAY_READ, may},
    acl,
    attributes::{attributes, file_id},
    handle::{HandleKey, Prefix, prefix},
    rpc::{Accepted, Call, Credential},
    xdr::{Garbage, Reader, Writer},
};
use crate::{
    export::{Export, InodeNumber, Node},
    frames::FrameCache,
};
use aule_tree::{Content, Kind};
use std::sync::Arc;

/// The number of the program (RFC 1813, 3).
pub(crate) const PROGRAM: u32 = 100_003;
/// Its version.
pub(crate) const VERSION: u32 = 3;
/// The most bytes that one READ gives.
pub(crate) const READ_MAX: u32 = 1 << 20;
/// The most bytes that one WRITE may have, to be refused (libnfs mounts nothing that says less than 8 KiB).
pub(crate) const WRITE_MAX: u32 = 8192;
/// The number of the procedure READ.
pub(crate) const READ: u32 = 6;
/// The most bytes that one READDIR or READDIRPLUS gives.
const DIRECTORY_MAX: u32 = 1 << 20;
/// The longest handle that a client may send (RFC 1813, 2.4: NFS3_FHSIZE).
const HANDLE_MAX: usize = 64;
/// The longest name in a directory.
const NAME_MAX: usize = 255;

/// `nfsstat3`: how a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    Ok = 0,
    NoEntry = 2,
    Io = 5,
    Access = 13,
    NotDirectory = 20,
    IsDirectory = 21,
    Invalid = 22,
    ReadOnly = 30,
    NameTooLong = 63,
    Stale = 70,
    BadCookie = 10003,
    TooSmall = 10005,
    /// Ask again later (NFS3ERR_JUKEBOX).
    Later = 10008,
}

/// Why a procedure gives no results.
pub(crate) enum Failure {
    /// An answer of the protocol.
    Status(Status),
    /// Arguments that cannot be understood.
    Garbage,
}

impl From<Garbage> for Failure {
    fn from(_: Garbage) -> Self {
        Failure::Garbage
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Failure::Status(status)
    }
}

/// Finds the build that a handle names.
pub(crate) trait Builds: Send + Sync {
    /// The build whose digest begins so, if it is one of those that may be served.
    fn by_prefix(&self, prefix: Prefix) -> Located;
    /// Told of a file that cannot be read.
    fn damaged(&self, export: &Export, error: &crate::frames::ReadError);
}

/// What came of looking for a build.
pub(crate) enum Located {
    /// Here it is.
    Here(Arc<Export>),
    /// The site serves it, and cannot open it now.
    Later,
    /// The site does not serve it, or no more.
    Gone,
}

/// What the procedures work on.
pub(crate) struct Filesystem<'a> {
    /// The builds.
    pub(crate) builds: &'a dyn Builds,
    /// Of handles.
    pub(crate) key: &'a HandleKey,
    /// Of files.
    pub(crate) cache: &'a FrameCache,
}

/// An inode that a handle names.
struct Place {
    export: Arc<Export>,
    number: InodeNumber,
}

impl Place {
    fn node(&self) -> Result<&Node, Status> {
        self.export.node(self.number).ok_or(Status::Stale)
    }

    fn directory(&self) -> Result<&Node, Status> {
        self.node().and_then(|node| if node.inode.is_directory() { Ok(node) } else { Err(Status::NotDirectory) })
    }

    fn attributes(&self, writer: &mut Writer) {
        match self.export.node(self.number) {
            Some(node) => {
                writer.bool(true);
                attributes(writer, &self.export, self.number, node);
            }
            None => writer.bool(false),
        }
    }
}

/// A READ whose bytes are not in the cache: it goes to the disk, and is better done where nobody waits for it.
pub(crate) struct SlowRead {
    place: Place,
    content: Content,
    offset: u64,
    count: usize,
}

impl SlowRead {
    /// How many bytes it gives at most.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

/// What came of a call.
pub(crate) enum Answer {
    /// The results were written.
    Written(Accepted),
    /// The results are for [`Filesystem::read_slowly`] to write.
    Slow(Box<SlowRead>),
}

impl Filesystem<'_> {
    /// Answers a call. Of the writer only what follows the RPC header is the procedure's.
    pub(crate) fn call(&self, call: &Call<'_>, writer: &mut Writer) -> Answer {
        let begin = writer.len();
        let mut slow = None;
        let credential = &call.credential;
        let arguments = call.arguments;
        // What follows a status that is not OK: attributes that are not given, in words of four bytes.
        let (result, words) = match call.procedure {
            0 => return Answer::Written(Accepted::Success),
            1 => (self.attributes(arguments, writer), 0),
            3 => (self.lookup(arguments, credential, writer), 1),
            4 => (self.access(arguments, credential, writer), 1),
            5 => (self.read_link(arguments, writer), 1),
            READ => (self.read(arguments, credential, writer, &mut slow), 1),
            16 => (self.read_directory(arguments, credential, writer, false), 1),
            17 => (self.read_directory(arguments, credential, writer, true), 1),
            18 => (self.statistics(arguments, writer), 1),
            19 => (self.information(arguments, writer), 1),
            20 => (self.limits(arguments, writer), 1),
            // SETATTR, WRITE, CREATE, MKDIR, SYMLINK, MKNOD, REMOVE, RMDIR, COMMIT.
            2 | 7..=13 | 21 => (Err(Status::ReadOnly.into()), 2),
            // RENAME, LINK.
            14 => (Err(Status::ReadOnly.into()), 4),
            15 => (Err(Status::ReadOnly.into()), 3),
            _ => return Answer::Written(Accepted::ProcedureUnavailable),
        };
        if let Some(slow) = slow {
            return Answer::Slow(slow);
        }
        match result {
            Ok(()) => Answer::Written(Accepted::Success),
            Err(Failure::Garbage) => Answer::Written(Accepted::GarbageArguments),
            Err(Failure::Status(status)) => {
                writer.0.truncate(begin);
                writer.u32(status as u32);
                (0..words).for_each(|_| writer.u32(0));
                Answer::Written(Accepted::Success)
            }
        }
    }

    /// Answers a call of the side protocol for access control lists.
    pub(crate) fn call_acl(&self, call: &Call<'_>, writer: &mut Writer) -> Accepted {
        let begin = writer.len();
        let result = match call.procedure {
            0 => return Accepted::Success,
            1 => self.access_list(call.arguments, writer),
            // SETACL.
            2 => Err(Status::ReadOnly.into()),
            _ => return Accepted::ProcedureUnavailable,
        };
        match result {
            Ok(()) => Accepted::Success,
            Err(Failure::Garbage) => Accepted::GarbageArguments,
            Err(Failure::Status(status)) => {
                writer.0.truncate(begin);
                writer.u32(status as u32);
                writer.bool(false);
                Accepted::Success
            }
        }
    }

    fn access_list(&self, mut arguments: Reader<'_>, writer: &mut Writer) -> Result<(), Failure> {
        let place = self.place(&mut arguments)?;
        let asked = arguments.u32()?;
        writer.u32(Status::Ok as u32);
        place.attributes(writer);
        acl::write(writer, &place.node()?.inode, asked);
        Ok(())
    }

    fn place(&self, arguments: &mut Reader<'_>) -> Result<Place, Failure> {
        let handle = arguments.opaque(HANDLE_MAX)?;
        let (prefix, inode) = self.key.open(handle).ok_or(Status::Stale)?;
        let number = InodeNumber::try_from(inode).map_err(|_| Status::Stale)?;
        let export = match self.builds.by_prefix(prefix) {
            Located::Here(export) => export,
            Located::Later => return Err(Status::Later.into()),
            Located::Gone => return Err(Status::Stale.into()),
        };
        if export.node(number).is_none() {
            return Err(Status::Stale.into());
        }
        Ok(Place { export, number })
    }

    fn attributes(&self, mut arguments: Reader<'_>, writer: &mut Writer) -> Result<(), Failure> {
        let place = self.place(&mut arguments)?;
        writer.u32(Status::Ok as u32);
        attributes(writer, &place.export, place.number, place.node()?);
        Ok(())
    }

    fn lookup(&self, mut arguments: Reader<'_>, credential: &Credential, writer: &mut Writer) -> Result<(), Failure> {
        let place = self.place(&mut arguments)?;
        // A longer one than any filesystem has is told so; a still longer one is no name.
        let name = arguments.opaque(4 * NAME_MAX)?;
        let directory = place.directory()?;
        if !may(credential, &directory.inode, MAY_EXECUTE) {
            return Err(Status::Access.into());
        }
        if name.len() > NAME_MAX {
            return Err(Status::NameTooLong.into());
        }
        let number = match name {
            b"." => Some(place.number),
            b".." => Some(directory.parent),
            _ => place.export.child(directory, name),
        };
        let found = Place { number: number.ok_or(Status::NoEntry)?, export: Arc::clone(&place.export) };
        writer.u32(Status::Ok as u32);
        writer.opaque(&self.key.make(prefix(found.export.digest()), u64::from(found.number)));
        found.attributes(writer);
        place.attributes(writer);
        Ok(())
    }

    fn access(&self, mut arguments: Reader<'_>, credential: &Credential, writer: &mut Writer) -> Result<(), Failure> {
        // READ, LOOKUP, MODIFY, EXTEND, DELETE, EXECUTE (RFC 1813, 3.3.4): none that writes is ever given.
        const ASKED: [(u32, u16); 3] = [(0x01, MAY_READ), (0x02, MAY_EXECUTE), (0x20, MAY_EXECUTE)];
        let place = self.place(&mut arguments)?;
        let asked = arguments.u32()?;
        let inode = &place.node()?.inode;
        let meant = |bit: u32| match bit {
            0x02 => inode.is_directory(),
            0x20 => !inode.is_directory(),
            _ => true,
        };
        let given = ASKED.into_iter().filter(|(bit, wanted)| meant(*bit) && may(credential, inode, *wanted));
        let given = given.fold(0, |bits, (bit, _)| bits | bit);
        writer.u32(Status::Ok as u32);
        place.attributes(writer);
        writer.u32(asked & given);
        Ok(())
    }

    fn read_link(&self, mut arguments: Reader<'_>, writer: &mut Writer) -> Result<(), Failure> {
        let place = self.place(&mut arguments)?;
        let Kind::Symlink(target) = &place.node()?.inode.kind else { return Err(Status::Invalid.into()) };
        writer.u32(Status::Ok as u32);
        place.attributes(writer);
        writer.opaque(target);
        Ok(())
    }

    fn read(
        &self,
        mut arguments: Reader<'_>,
        credential: &Credential,
        writer: &mut Writer,
        slow: &mut Option<Box<SlowRead>>,
    ) -> Result<(), Failure> {
        let place = self.place(&mut arguments)?;
        let (offset, count) = (arguments.u64()?, arguments.u32()?.min(READ_MAX) as usize);
        let inode = &place.node()?.inode;
        let content = match &inode.kind {
            Kind::File(content) => content.clone(),
            Kind::Directory => return Err(Status::IsDirectory.into()),
            _ => return Err(Status::Invalid.into()),
        };
        // Who may execute a file may have its pages (as Linux's server does, too).
        if !may(credential, inode, MAY_READ) && !may(credential, inode, MAY_EXECUTE) {
            return Err(Status::Access.into());
        }
        let fast = offset >= content.size || self.cache.holds(place.export.contents(), &content, offset, count);
        let read = SlowRead { place, content, offset, count };
        if fast {
            return self.finish_read(&read, writer).map_err(Failure::from);
        }
        *slow = Some(Box::new(read));
        Ok(())
    }

    /// Writes the results of a READ that went to the disk.
    pub(crate) fn read_slowly(&self, read: &SlowRead, writer: &mut Writer) {
        let begin = writer.len();
        if let Err(status) = self.finish_read(read, writer) {
            writer.0.truncate(begin);
            writer.u32(status as u32);
            read.place.attributes(writer);
        }
    }

    fn finish_read(&self, read: &SlowRead, writer: &mut Writer) -> Result<(), Status> {
        let SlowRead { place, content, offset, count } = read;
        let length = content.size.saturating_sub(*offset).min(*count as u64) as usize;
        writer.0.reserve(length + 256);
        writer.u32(Status::Ok as u32);
        place.attributes(writer);
        let head = writer.len();
        [0, 0, 0].into_iter().for_each(|it| writer.u32(it));
        let data = writer.len();
        self.cache.read(place.export.contents(), content, *offset, *count, &mut writer.0).map_err(|error| {
            self.builds.damaged(&place.export, &error);
            Status::Io
        })?;
        let length = writer.len() - data;
        let end = offset.saturating_add(length as u64) >= content.size;
        for (index, value) in [length as u32, u32::from(end), length as u32].into_iter().enumerate() {
            writer.set_u32(head + index * 4, value);
        }
        writer.0.resize(writer.len() + super::xdr::padding(length), 0);
        Ok(())
    }

    fn read_directory(
        &self,
        mut arguments: Reader<'_>,
        credential: &Credential,
        writer: &mut Writer,
        plus: bool,
    ) -> Result<(), Failure> {
        let place = self.place(&mut arguments)?;
        let (cookie, _verifier) = (arguments.u64()?, arguments.u64()?);
        // READDIRPLUS: how much names and cookies may take, and how much all. Only the latter bounds our reply.
        let names = arguments.u32()?;
        let limit = if plus { arguments.u32()? } else { names }.min(DIRECTORY_MAX) as usize;
        let directory = place.directory()?;
        if !may(credential, &directory.inode, MAY_READ) {
            return Err(Status::Access.into());
        }
        // An entry's cookie is how many entries come up to it, `.` and `..` among them.
        if cookie > directory.children.len() as u64 + 2 {
            return Err(Status::BadCookie.into());
        }
        let begin = writer.len();
        writer.u32(Status::Ok as u32);
        place.attributes(writer);
        // The tree of a handle never changes, and so neither do cookies: any verifier is right.
        writer.u64(0);
        let build = prefix(place.export.digest());
        let dots = [(&b"."[..], place.number), (b"..", directory.parent)];
        let children = directory.children.iter().map(|(name, number)| (name.as_ref(), *number));
        let mut written = 0;
        let mut complete = true;
        for (index, (name, number)) in dots.into_iter().chain(children).enumerate().skip(cookie as usize) {
            let Some(node) = place.export.node(number) else { continue };
            let start = writer.len();
            writer.bool(true);
            writer.u64(file_id(number));
            writer.opaque(name);
            writer.u64(index as u64 + 1);
            if plus {
                writer.bool(true);
                attributes(writer, &place.export, number, node);
                writer.bool(true);
                writer.opaque(&self.key.make(build, u64::from(number)));
            }
            // The end of the list and the mark of the directory's end follow.
            if writer.len() + 8 - begin > limit {
                writer.0.truncate(start);
                complete = false;
                break;
            }
            written += 1;
        }
        if written == 0 && !complete {
            return Err(Status::TooSmall.into());
        }
        writer.bool(false);
        writer.bool(complete);
        Ok(())
    }

    fn statistics(&self, mut arguments: Reader<'_>, writer: &mut Writer) -> Result<(), Failure> {
        let place = self.place(&mut arguments)?;
        writer.u32(Status::Ok as u32);
        place.attributes(writer);
        // Total, free and available bytes; total, free and available inodes; how long they hold.
        [place.export.bytes(), 0, 0, place.export.inodes(), 0, 0].into_iter().for_each(|it| writer.u64(it));
        writer.u32(u32::MAX);
        Ok(())
    }

    fn information(&self, mut arguments: Reader<'_>, writer: &mut Writer) -> Result<(), Failure> {
        let place = self.place(&mut arguments)?;
        writer.u32(Status::Ok as u32);
        place.attributes(writer);
        // Reads: at most, preferred, multiple of; writes; directories.
        [READ_MAX, READ_MAX, 4096, WRITE_MAX, WRITE_MAX, 4096, 64 << 10].into_iter().for_each(|it| writer.u32(it));
        writer.u64(i64::MAX as u64);
        // Times are exact to the nanosecond.
        [0, 1].into_iter().for_each(|it| writer.u32(it));
        // FSF3_LINK, FSF3_SYMLINK, FSF3_HOMOGENEOUS.
        writer.u32(0x01 | 0x02 | 0x08);
        Ok(())
    }

    fn limits(&self, mut arguments: Reader<'_>, writer: &mut Writer) -> Result<(), Failure> {
        let place = self.place(&mut arguments)?;
        writer.u32(Status::Ok as u32);
        place.attributes(writer);
        [32_000, NAME_MAX as u32].into_iter().for_each(|it| writer.u32(it));
        // Long names are refused, owners cannot be given away, case counts and is kept.
        [true, true, false, true].into_iter().for_each(|it| writer.bool(it));
        Ok(())
    }
}
