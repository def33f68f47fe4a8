//! What a node asks of portmap, MOUNT and NFS version 3 (RFC 1833, RFC 1813): arguments onto calls, results from replies.

use crate::{
    failure::{Result, failure},
    rpc::Procedure,
    xdr::{Reader, put_opaque, put_u32, put_u64},
};

/// GETPORT of the port mapper.
pub(crate) const GETPORT: Procedure = Procedure(100_000, 2, 3);
/// MNT of MOUNT.
pub(crate) const MNT: Procedure = Procedure(MOUNT_PROGRAM, VERSION, 1);
/// NFS: attributes.
pub(crate) const GETATTR: Procedure = Procedure(NFS_PROGRAM, VERSION, 1);
/// NFS: a name in a directory.
pub(crate) const LOOKUP: Procedure = Procedure(NFS_PROGRAM, VERSION, 3);
/// NFS: what the caller may do.
pub(crate) const ACCESS: Procedure = Procedure(NFS_PROGRAM, VERSION, 4);
/// NFS: the target of a symlink.
pub(crate) const READLINK: Procedure = Procedure(NFS_PROGRAM, VERSION, 5);
/// NFS: bytes of a file.
pub(crate) const READ: Procedure = Procedure(NFS_PROGRAM, VERSION, 6);
/// NFS: names, attributes and handles of a directory.
pub(crate) const READDIRPLUS: Procedure = Procedure(NFS_PROGRAM, VERSION, 17);
/// NFS: what the server does.
pub(crate) const FSINFO: Procedure = Procedure(NFS_PROGRAM, VERSION, 19);

/// The number of MOUNT.
pub(crate) const MOUNT_PROGRAM: u32 = 100_005;
/// The number of NFS.
pub(crate) const NFS_PROGRAM: u32 = 100_003;
/// Of both.
pub(crate) const VERSION: u32 = 3;
/// The most bytes that are asked for at once, as Linux does by default.
pub(crate) const READ_SIZE: u32 = 1 << 20;
/// How many bytes of a directory are asked for at once.
const DIRECTORY_SIZE: u32 = 64 << 10;
const NO_ENTRY: u32 = 2;

/// A file handle: up to 64 bytes.
pub(crate) type Handle = Box<[u8]>;

/// The kind of an inode that matters here (`ftype3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symlink.
    Symlink,
    /// Devices, sockets, fifos.
    Other(u32),
}

/// What is looked at of `fattr3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// What it is.
    pub(crate) kind: Kind,
    /// Permissions.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Bytes.
    pub(crate) size: u64,
}

/// An entry of a directory.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// Its name.
    pub(crate) name: &'a [u8],
    /// Its attributes, where they came along.
    pub(crate) attributes: Option<Attributes>,
    /// Its handle, where it came along.
    pub(crate) handle: Option<&'a [u8]>,
}

/// Arguments of GETPORT for a program over TCP.
pub(crate) fn put_get_port(out: &mut Vec<u8>, program: u32) {
    const TCP: u32 = 6;
    [program, VERSION, TCP, 0].into_iter().for_each(|it| put_u32(out, it));
}

/// Arguments of LOOKUP.
pub(crate) fn put_lookup(out: &mut Vec<u8>, directory: &[u8], name: &[u8]) {
    put_opaque(out, directory);
    put_opaque(out, name);
}

/// Arguments of ACCESS: may it be read, looked into, executed?
pub(crate) fn put_access(out: &mut Vec<u8>, handle: &[u8]) {
    put_opaque(out, handle);
    put_u32(out, 0x01 | 0x02 | 0x20);
}

/// Arguments of READ.
pub(crate) fn put_read(out: &mut Vec<u8>, handle: &[u8], offset: u64, count: u32) {
    put_opaque(out, handle);
    put_u64(out, offset);
    put_u32(out, count);
}

/// Arguments of READDIRPLUS; cookie and verifier of where to go on, 0 at the beginning.
pub(crate) fn put_list(out: &mut Vec<u8>, handle: &[u8], cookie: u64, verifier: u64) {
    put_opaque(out, handle);
    put_u64(out, cookie);
    put_u64(out, verifier);
    put_u32(out, DIRECTORY_SIZE);
    put_u32(out, DIRECTORY_SIZE);
}

/// The port that GETPORT tells.
pub(crate) fn port(mut reader: Reader<'_>) -> Result<u16> {
    match u16::try_from(reader.u32()?) {
        Ok(port) if port != 0 => Ok(port),
        _ => failure("the port mapper knows no port"),
    }
}

/// The handle that MNT gives.
pub(crate) fn mounted(mut reader: Reader<'_>) -> Result<Handle> {
    match reader.u32()? {
        0 => Ok(reader.opaque()?.into()),
        status => failure(format!("mountstat3 {status}")),
    }
}

/// Takes the status of a reply off.
pub(crate) fn ok(reader: &mut Reader<'_>) -> Result<()> {
    match reader.u32()? {
        0 => Ok(()),
        status => failure(format!("nfsstat3 {status}")),
    }
}

/// `fattr3`.
pub(crate) fn attributes(reader: &mut Reader<'_>) -> Result<Attributes> {
    let kind = match reader.u32()? {
        1 => Kind::File,
        2 => Kind::Directory,
        5 => Kind::Symlink,
        other => Kind::Other(other),
    };
    let mode = reader.u32()?;
    let _links = reader.u32()?;
    let (uid, gid, size) = (reader.u32()?, reader.u32()?, reader.u64()?);
    // Bytes used, device, file system, file id, three times.
    reader.skip(8 + 8 + 8 + 8 + 3 * 8)?;
    Ok(Attributes { kind, mode, uid, gid, size })
}

/// `post_op_attr`.
pub(crate) fn perhaps_attributes(reader: &mut Reader<'_>) -> Result<Option<Attributes>> {
    if reader.bool()? { attributes(reader).map(Some) } else { Ok(None) }
}

/// What LOOKUP found, if anything.
pub(crate) fn found(mut reader: Reader<'_>) -> Result<Option<(&[u8], Option<Attributes>)>> {
    match reader.u32()? {
        0 => {
            let handle = reader.opaque()?;
            Ok(Some((handle, perhaps_attributes(&mut reader)?)))
        }
        NO_ENTRY => Ok(None),
        status => failure(format!("LOOKUP: nfsstat3 {status}")),
    }
}

/// The bytes that READ gives, and whether they are the last.
pub(crate) fn read(mut reader: Reader<'_>) -> Result<(&[u8], bool)> {
    ok(&mut reader)?;
    perhaps_attributes(&mut reader)?;
    let (count, end) = (reader.u32()? as usize, reader.bool()?);
    let data = reader.opaque()?;
    if data.len() != count { failure("READ counts other bytes than it gives") } else { Ok((data, end)) }
}

/// The target that READLINK gives.
pub(crate) fn target(mut reader: Reader<'_>) -> Result<&[u8]> {
    ok(&mut reader)?;
    perhaps_attributes(&mut reader)?;
    reader.opaque()
}

/// Hands each entry of a READDIRPLUS but `.` and `..` over; gives cookie and verifier of where to go on, if there is more.
pub(crate) fn entries<'a>(
    mut reader: Reader<'a>,
    mut each: impl FnMut(Entry<'a>) -> Result<()>,
) -> Result<Option<(u64, u64)>> {
    ok(&mut reader)?;
    perhaps_attributes(&mut reader)?;
    let verifier = reader.u64()?;
    let mut last = None;
    while reader.bool()? {
        let _file = reader.u64()?;
        let (name, cookie) = (reader.opaque()?, reader.u64()?);
        let attributes = perhaps_attributes(&mut reader)?;
        let handle = if reader.bool()? { Some(reader.opaque()?) } else { None };
        last = Some(cookie);
        if name != b"." && name != b".." {
            each(Entry { name, attributes, handle })?;
        }
    }
    match (reader.bool()?, last) {
        (true, _) => Ok(None),
        (false, Some(cookie)) => Ok(Some((cookie, verifier))),
        (false, None) => failure("READDIRPLUS gives neither an entry nor the end"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_apart() {
        let mut bytes = Vec::new();
        // Status, no attributes, verifier 7.
        [0, 0, 0, 7].into_iter().for_each(|it| put_u32(&mut bytes, it));
        for (cookie, name) in [(1, &b"."[..]), (2, b"hosts")] {
            put_u32(&mut bytes, 1);
            put_u64(&mut bytes, 100 + cookie);
            put_opaque(&mut bytes, name);
            put_u64(&mut bytes, cookie);
            [0, 1].into_iter().for_each(|it| put_u32(&mut bytes, it));
            put_opaque(&mut bytes, b"handle");
        }
        let list = |bytes: &[u8]| {
            let mut names = Vec::new();
            let more = entries(Reader(bytes), |entry| {
                names.push((entry.name.to_vec(), entry.handle.map(<[u8]>::to_vec)));
                Ok(())
            });
            (more, names)
        };
        let end = |complete: u32| [&bytes[..], &[0; 4], &complete.to_be_bytes()].concat();
        let (more, names) = list(&end(0));
        assert_eq!((more, names), (Ok(Some((2, 7))), vec![(b"hosts".to_vec(), Some(b"handle".to_vec()))]));
        assert_eq!(list(&end(1)).0, Ok(None));
        assert!(list(&bytes).0.is_err());
        assert!(entries(Reader(&[0, 0, 0, 70]), |_| Ok(())).is_err());
    }
}
