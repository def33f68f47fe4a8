//! Tar headers in the POSIX pax form (POSIX.1-2017, `pax`), deterministic: numeric owners only, no access or change
//! times, fixed names for the extended headers, records in a fixed order.

use aule_tree::{Content, Inode, Kind, LayerEntry, Metadata, TreePath, What};

const BLOCK: usize = 512;
/// The largest numbers that the octal fields hold.
const OCTAL_7: u64 = 0o7_777_777;
const OCTAL_11: u64 = 0o77_777_777_777;

/// The header blocks of an entry: an extended header where needed, then the ustar header. Content and padding are the
/// caller's. Nothing for a socket, which tar has no form for.
///
/// `linked` is what a hardlink names: its header repeats the metadata, as some tools that unpack set them from there again
/// (`handleLChmod` in containers/storage and containerd).
pub(super) fn header(entry: &LayerEntry, linked: Option<&Metadata>) -> Vec<u8> {
    let LayerEntry { path, what } = entry;
    match what {
        What::Whiteout => {
            let name = [b".wh.", path.name()].concat();
            let path = [path.parent().unwrap_or_else(TreePath::root).as_bytes(), &name].join(&b'/');
            Header::new(path.strip_prefix(b"/").unwrap_or(&path), b'0', &marker()).encode()
        }
        What::Opaque => {
            let path = [path.as_bytes(), b".wh..wh..opq"].join(&b'/');
            Header::new(path.strip_prefix(b"/").unwrap_or(&path), b'0', &marker()).encode()
        }
        What::Link(target) => {
            let marker = marker();
            let mut header = Header::new(path.as_bytes(), b'1', linked.unwrap_or(&marker));
            header.link = target.as_bytes().to_vec();
            header.encode()
        }
        What::Node(inode) => node(path, inode),
    }
}

fn marker() -> Metadata {
    Metadata::root_owned(0, aule_tree::Timestamp::default())
}

fn node(path: &TreePath, inode: &Inode) -> Vec<u8> {
    let name = path.as_bytes();
    match &inode.kind {
        Kind::Directory => {
            let name = if path.is_root() { b"./".to_vec() } else { [name, b"/"].concat() };
            Header::new(&name, b'5', &inode.metadata).encode()
        }
        Kind::File(content) => file(name, &inode.metadata, content),
        Kind::Symlink(target) => {
            let mut header = Header::new(name, b'2', &inode.metadata);
            header.link.clone_from(target);
            header.encode()
        }
        Kind::CharDevice { major, minor } => device(name, b'3', &inode.metadata, *major, *minor),
        Kind::BlockDevice { major, minor } => device(name, b'4', &inode.metadata, *major, *minor),
        Kind::Fifo => Header::new(name, b'6', &inode.metadata).encode(),
        Kind::Socket => Vec::new(),
    }
}

fn device(name: &[u8], kind: u8, metadata: &Metadata, major: u32, minor: u32) -> Vec<u8> {
    let mut header = Header::new(name, kind, metadata);
    header.device = (major, minor);
    header.encode()
}

fn file(name: &[u8], metadata: &Metadata, content: &Content) -> Vec<u8> {
    let mut header = Header::new(name, b'0', metadata);
    header.size = content.stored_length();
    if content.sparse.is_some() {
        // GNU tar manual, "PAX Format, Version 1.0": the real name and size are in records.
        header.records.push((b"GNU.sparse.major".to_vec(), b"1".to_vec()));
        header.records.push((b"GNU.sparse.minor".to_vec(), b"0".to_vec()));
        header.records.push((b"GNU.sparse.name".to_vec(), name.to_vec()));
        header.records.push((b"GNU.sparse.realsize".to_vec(), content.size.to_string().into_bytes()));
        header.name = b"GNUSparseFile.0/sparse".to_vec();
    }
    header.encode()
}

struct Header<'a> {
    name: Vec<u8>,
    kind: u8,
    metadata: &'a Metadata,
    size: u64,
    link: Vec<u8>,
    device: (u32, u32),
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Header<'a> {
    fn new(name: &[u8], kind: u8, metadata: &'a Metadata) -> Self {
        Header { name: name.to_vec(), kind, metadata, size: 0, link: Vec::new(), device: (0, 0), records: Vec::new() }
    }

    fn encode(mut self) -> Vec<u8> {
        let mut block = [0; BLOCK];
        let metadata = self.metadata;

        let name = std::mem::take(&mut self.name);
        match split(&name) {
            Some((prefix, rest)) => {
                put(&mut block, 345, prefix);
                put(&mut block, 0, rest);
            }
            None => {
                put(&mut block, 0, name.get(..100).unwrap_or(&name));
                self.record("path", &name);
            }
        }
        let link = std::mem::take(&mut self.link);
        put(&mut block, 157, link.get(..100).unwrap_or(&link));
        if link.len() > 100 {
            self.record("linkpath", &link);
        }
        octal(&mut block, 100, 7, u64::from(metadata.mode));
        self.number(&mut block, 108, 7, OCTAL_7, "uid", u64::from(metadata.uid));
        self.number(&mut block, 116, 7, OCTAL_7, "gid", u64::from(metadata.gid));
        let size = self.size;
        self.number(&mut block, 124, 11, OCTAL_11, "size", size);
        let (major, minor) = self.device;
        self.number(&mut block, 329, 7, OCTAL_7, "SCHILY.devmajor", u64::from(major));
        self.number(&mut block, 337, 7, OCTAL_7, "SCHILY.devminor", u64::from(minor));
        let mtime = metadata.mtime;
        match u64::try_from(mtime.seconds) {
            Ok(seconds) if seconds <= OCTAL_11 && mtime.nanoseconds == 0 => octal(&mut block, 136, 11, seconds),
            seconds => {
                octal(&mut block, 136, 11, seconds.unwrap_or(0).min(OCTAL_11));
                self.record("mtime", decimal_time(mtime).as_bytes());
            }
        }
        for (name, value) in &metadata.xattrs {
            self.records.push(([b"SCHILY.xattr.".to_vec(), attribute_keyword(name)].concat(), value.clone()));
        }
        put(&mut block, 156, &[self.kind]);
        put(&mut block, 257, b"ustar\x0000");
        checksum(&mut block);

        let mut bytes = extended(&self.records);
        bytes.extend_from_slice(&block);
        bytes
    }

    fn record(&mut self, key: &str, value: &[u8]) {
        self.records.push((key.as_bytes().to_vec(), value.to_vec()));
    }

    /// A number in its octal field, or in a record where it is too large for the field.
    fn number(&mut self, block: &mut [u8; BLOCK], at: usize, digits: usize, max: u64, key: &str, value: u64) {
        if value > max {
            octal(block, at, digits, 0);
            self.record(key, value.to_string().as_bytes());
        } else {
            octal(block, at, digits, value);
        }
    }
}

/// The name of an attribute as a keyword, which ends at the first `=`: written as GNU tar does (`xattr_encode_keyword`).
fn attribute_keyword(name: &[u8]) -> Vec<u8> {
    let mut keyword = Vec::with_capacity(name.len());
    for &byte in name {
        match byte {
            b'%' => keyword.extend_from_slice(b"%25"),
            b'=' => keyword.extend_from_slice(b"%3D"),
            _ => keyword.push(byte),
        }
    }
    keyword
}

/// The extended header with these records; nothing when there are none.
fn extended(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    if records.is_empty() {
        return Vec::new();
    }
    let mut data = Vec::new();
    for (key, value) in records {
        // "LENGTH KEY=VALUE\n", where LENGTH counts itself.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        data.extend_from_slice(format!("{length} ").as_bytes());
        data.extend_from_slice(key);
        data.push(b'=');
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    let mut block = [0; BLOCK];
    put(&mut block, 0, b"././@PaxHeader");
    octal(&mut block, 100, 7, 0o644);
    octal(&mut block, 108, 7, 0);
    octal(&mut block, 116, 7, 0);
    octal(&mut block, 124, 11, data.len() as u64);
    octal(&mut block, 136, 11, 0);
    put(&mut block, 156, b"x");
    put(&mut block, 257, b"ustar\x0000");
    checksum(&mut block);
    data.resize(data.len().next_multiple_of(BLOCK), 0);
    [block.as_slice(), &data].concat()
}

/// Prefix and name of ustar: split at the last slash that leaves at most 155 and 100 bytes.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((b"", name));
    }
    // The last byte may be a directory's slash, which belongs to the name.
    let slash = name.get(..name.len() - 1)?.iter().rposition(|&b| b == b'/')?;
    let slash = (0..=slash).rev().find(|&at| name.get(at) == Some(&b'/') && at <= 155)?;
    let (prefix, rest) = (name.get(..slash)?, name.get(slash + 1..)?);
    (!prefix.is_empty() && rest.len() <= 100).then_some((prefix, rest))
}

/// Seconds with a fraction of as many digits as needed; negative times as pax writes them (-1.5 is 1.5 s before 1970).
fn decimal_time(time: aule_tree::Timestamp) -> String {
    let nanoseconds = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (seconds, fraction) = (nanoseconds.unsigned_abs() / 1_000_000_000, nanoseconds.unsigned_abs() % 1_000_000_000);
    if fraction == 0 {
        return format!("{sign}{seconds}");
    }
    format!("{sign}{seconds}.{}", format!("{fraction:09}").trim_end_matches('0'))
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    for (to, from) in block.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

fn octal(block: &mut [u8; BLOCK], at: usize, digits: usize, value: u64) {
    put(block, at, format!("{value:0digits$o}").as_bytes());
}

fn checksum(block: &mut [u8; BLOCK]) {
    put(block, 148, b"        ");
    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
    put(block, 148, format!("{sum:06o}\0 ").as_bytes());
}
