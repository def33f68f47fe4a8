//! NFS, MOUNT and portmap as a client sees them: every reply is taken apart by the letter of RFC 1813.

#![allow(clippy::unwrap_used, reason = "a test panics when its own set-up is wrong")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../aule-store/tests/common/everything.rs"]
mod everything;

use aule_serve::hostile::Alone;
use aule_store::{
    Store,
    layer::{ArchiveOptions, ArchiveWriter, CHUNK, Contents},
};
use aule_testkit::noise::damage;
use aule_tree::{Kind, Tree};
use everything::{metadata, node, path};

const LARGE: usize = 2 * CHUNK + 17;
const MANY: usize = 10_000;

/// The tree, and a client of it.
struct Client {
    _directory: tempfile::TempDir,
    tree: Tree,
    alone: Alone,
    credential: (u32, u32, Vec<u32>),
}

/// What follows the status of a reply, read word by word.
#[derive(Clone)]
struct Reply(Vec<u8>);

impl Reply {
    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.0.drain(..4).collect::<Vec<_>>().try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }

    fn opaque(&mut self) -> Vec<u8> {
        let length = self.u32() as usize;
        let bytes = self.0.drain(..length).collect();
        assert!(self.0.drain(..length.next_multiple_of(4) - length).all(|it| it == 0));
        bytes
    }

    fn attributes(&mut self) -> Attributes {
        let [kind, mode, links, uid, gid] = [(); 5].map(|()| self.u32());
        let (size, used) = (self.u64(), self.u64());
        let device = (self.u32(), self.u32());
        let (filesystem, file) = (self.u64(), self.u64());
        let times = [(); 6].map(|()| self.u32());
        Attributes { kind, mode, links, uid, gid, size, used, device, filesystem, file, mtime: (times[2], times[3]) }
    }

    fn maybe_attributes(&mut self) -> Option<Attributes> {
        (self.u32() == 1).then(|| self.attributes())
    }

    fn end(&self) {
        assert_eq!(self.0, b"", "nothing follows");
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Attributes {
    kind: u32,
    mode: u32,
    links: u32,
    uid: u32,
    gid: u32,
    size: u64,
    used: u64,
    device: (u32, u32),
    filesystem: u64,
    file: u64,
    mtime: (u32, u32),
}

fn opaque(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|it| it.to_be_bytes()).collect()
}

impl Client {
    fn new() -> Client {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let lower = everything::write(&store, 1, LARGE);
        let options = ArchiveOptions { jobs: 1, table: true, diff_id: true };
        let upper = ArchiveWriter::write(&store, options, |writer| {
            writer.entry(node("", metadata(0o755), Kind::Directory))?;
            writer.entry(node("many", metadata(0o755), Kind::Directory))?;
            for number in 0..MANY {
                writer.file(path(format!("many/{number:05}")), metadata(0o644), 0, None, &mut &b""[..])?;
            }
            writer.entry(node("private", metadata(0o750), Kind::Directory))?;
            Ok::<_, aule_store::StoreError>(())
        })
        .unwrap();
        let (tree, contents) = Contents::open(&store, &[lower.digest, upper.digest]).unwrap();
        let digest = aule_tree::Digest::of(b"the build");
        Client { alone: Alone::new(digest, &tree, contents), tree, _directory: directory, credential: (0, 0, vec![]) }
    }

    fn raw(&self, program: u32, version: u32, procedure: u32, arguments: &[u8]) -> Option<Vec<u8>> {
        let (uid, gid, groups) = &self.credential;
        let mut credential = words(&[0]);
        credential.extend(opaque(b"host"));
        credential.extend(words(&[*uid, *gid, groups.len() as u32]));
        credential.extend(words(groups));
        let mut call = words(&[77, 0, 2, program, version, procedure, 1]);
        call.extend(opaque(&credential));
        call.extend(words(&[0, 0]));
        call.extend_from_slice(arguments);
        let mut record = words(&[0x8000_0000 | call.len() as u32]);
        record.extend(call);
        self.alone.answer(&record)
    }

    /// An accepted reply without its head.
    fn call(&self, program: u32, version: u32, procedure: u32, arguments: &[u8]) -> Reply {
        let mut reply = Reply(self.raw(program, version, procedure, arguments).unwrap());
        assert_eq!(reply.u32(), 0x8000_0000 + reply.0.len() as u32, "one record");
        let head = [(); 6].map(|()| reply.u32());
        assert_eq!(head, [77, 1, 0, 0, 0, 0], "accepted, success");
        reply
    }

    fn nfs(&self, procedure: u32, arguments: &[u8]) -> (u32, Reply) {
        let mut reply = self.call(100_003, 3, procedure, arguments);
        (reply.u32(), reply)
    }

    /// Status, handle and attributes of a path, looked up name by name from the root.
    fn find(&self, path: &[u8]) -> (Vec<u8>, Attributes) {
        let mut mounted = self.call(100_005, 3, 1, &opaque(b"/stable"));
        assert_eq!(mounted.u32(), 0);
        let mut handle = mounted.opaque();
        let mut attributes = self.get(&handle);
        for name in path.split(|it| *it == b'/').filter(|it| !it.is_empty()) {
            let (status, mut reply) = self.nfs(3, &[opaque(&handle), opaque(name)].concat());
            assert_eq!(status, 0, "{}", name.escape_ascii());
            handle = reply.opaque();
            attributes = reply.maybe_attributes().unwrap();
            reply.maybe_attributes().unwrap();
            reply.end();
        }
        (handle, attributes)
    }

    fn get(&self, handle: &[u8]) -> Attributes {
        let (status, mut reply) = self.nfs(1, &opaque(handle));
        assert_eq!(status, 0);
        let attributes = reply.attributes();
        reply.end();
        attributes
    }

    fn read(&self, handle: &[u8], offset: u64, count: u32) -> (u32, Vec<u8>, bool) {
        let arguments = [opaque(handle), offset.to_be_bytes().to_vec(), words(&[count])].concat();
        let (status, mut reply) = self.nfs(6, &arguments);
        reply.maybe_attributes();
        if status != 0 {
            return (status, vec![], false);
        }
        let (length, end) = (reply.u32(), reply.u32() == 1);
        let bytes = reply.opaque();
        reply.end();
        assert_eq!(bytes.len() as u32, length);
        (status, bytes, end)
    }

    fn access(&self, path: &[u8]) -> u32 {
        let (status, mut reply) = self.nfs(4, &[opaque(&self.find(path).0), words(&[0x3f])].concat());
        assert_eq!(status, 0);
        reply.maybe_attributes().unwrap();
        reply.u32()
    }

    /// All names of a directory with their numbers, in pages of `limit` bytes.
    fn list(&self, handle: &[u8], plus: bool, limit: u32) -> Vec<(Vec<u8>, u64)> {
        let (mut cookie, mut found) = (0_u64, Vec::new());
        loop {
            let mut arguments = [opaque(handle), cookie.to_be_bytes().to_vec(), vec![0; 8], words(&[limit])].concat();
            if plus {
                arguments.extend(words(&[limit]));
            }
            let (status, mut reply) = self.nfs(if plus { 17 } else { 16 }, &arguments);
            assert_eq!(status, 0);
            assert!(reply.0.len() + 4 <= limit as usize, "{} bytes", reply.0.len());
            reply.maybe_attributes().unwrap();
            reply.u64();
            while reply.u32() == 1 {
                let (number, name) = (reply.u64(), reply.opaque());
                cookie = reply.u64();
                if plus {
                    let attributes = reply.maybe_attributes().unwrap();
                    assert_eq!((attributes.file, reply.u32()), (number, 1));
                    assert_eq!(self.get(&reply.opaque()), attributes);
                }
                found.push((name, number));
            }
            if reply.u32() == 1 {
                reply.end();
                return found;
            }
        }
    }
}

#[test]
fn every_inode_is_what_the_tree_says() {
    let client = Client::new();
    for (path, id, inode) in client.tree.iter() {
        let (handle, found) = client.find(path.as_bytes());
        let (kind, size, device) = match &inode.kind {
            Kind::File(content) => (1, content.size, (0, 0)),
            Kind::Directory => (2, 4096, (0, 0)),
            Kind::BlockDevice { major, minor } => (3, 0, (*major, *minor)),
            Kind::CharDevice { major, minor } => (4, 0, (*major, *minor)),
            Kind::Symlink(target) => (5, target.len() as u64, (0, 0)),
            Kind::Socket => (6, 0, (0, 0)),
            Kind::Fifo => (7, 0, (0, 0)),
        };
        let meta = &inode.metadata;
        let names = client.tree.iter().filter(|(_, other, _)| *other == id).count() as u32;
        let below = client.tree.iter().filter(|(other, _, inode)| {
            inode.is_directory() && !other.is_root() && other.parent().as_ref() == Some(path)
        });
        let links = if inode.is_directory() { 2 + below.count() as u32 } else { names };
        assert_eq!(
            (found.kind, found.mode, found.links, found.uid, found.gid, found.size, found.device),
            (kind, u32::from(meta.mode), links, meta.uid, meta.gid, size, device),
            "{path}"
        );
        if meta.mtime.seconds >= 0 {
            assert_eq!(found.mtime, (meta.mtime.seconds as u32, meta.mtime.nanoseconds), "{path}");
        }
        if let Kind::Symlink(target) = &inode.kind {
            let (status, mut reply) = client.nfs(5, &opaque(&handle));
            reply.maybe_attributes().unwrap();
            assert_eq!((status, reply.opaque()), (0, target.clone()));
        }
        if path.as_bytes().starts_with(b"many/00010") {
            break;
        }
    }
    assert_eq!(client.find(b"bin/ping").1, client.find(b"bin/ping6").1, "hardlinks are one file");
    let (root, attributes) = client.find(b"");
    let up = |handle: &[u8], name: &[u8]| {
        let (status, mut reply) = client.nfs(3, &[opaque(handle), opaque(name)].concat());
        (status, reply.opaque())
    };
    assert_eq!(up(&client.find(b"bin").0, b".."), (0, root.clone()));
    assert_eq!(up(&root, b".."), (0, root.clone()));
    assert_eq!(up(&root, b"."), (0, root.clone()));
    assert_ne!(attributes.file, 0);
}

#[test]
fn files_are_read_at_any_offset() {
    let client = Client::new();
    let big = everything::noise(LARGE, 1);
    let (handle, _) = client.find(b"big");
    for (offset, count) in [(0, 10), (CHUNK - 1, 2), (CHUNK - 5, CHUNK), (LARGE - 3, 100), (0, 4 << 20)] {
        let end = LARGE.min(offset + count.min(1 << 20));
        let (status, bytes, last) = client.read(&handle, offset as u64, count as u32);
        assert!(status == 0 && bytes == big[offset..end] && last == (end == LARGE), "{offset} {count}");
    }
    for offset in [LARGE as u64, 1 << 40, u64::MAX] {
        assert_eq!(client.read(&handle, offset, 10), (0, vec![], true));
    }
    let (sparse, attributes) = client.find(b"sparse");
    assert_eq!((attributes.size, attributes.used), (1 << 40, 13));
    assert_eq!(client.read(&sparse, 4094, 14).1, b"\0\x000123456789\0\0");
    assert_eq!(client.read(&sparse, (1 << 39) - 1, 5).1, b"\0abc\0");
    assert_eq!(client.read(&sparse, (1 << 40) - 2, 50), (0, vec![0, 0], true));
    assert_eq!(client.read(&client.find(b"bin").0, 0, 1).0, 21);
    assert_eq!(client.read(&client.find(b"dev/null").0, 0, 1).0, 22);
}

#[test]
fn directories_of_any_size_in_pages_of_any_size() {
    let client = Client::new();
    let (handle, attributes) = client.find(b"many");
    for (plus, limit) in
        [(false, 512), (false, 8192), (false, 1 << 20), (true, 1024), (true, 32 << 10), (true, 1 << 20)]
    {
        let found = client.list(&handle, plus, limit);
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_slice()).collect();
        assert_eq!((names.len(), names[0], names[1]), (MANY + 2, &b"."[..], &b".."[..]), "{plus} {limit}");
        assert!(names[2..].windows(2).all(|pair| pair[0] < pair[1]));
        let numbers: std::collections::HashSet<_> = found.iter().map(|(_, number)| *number).collect();
        assert_eq!((numbers.len(), found[0].1), (MANY + 2, attributes.file));
    }
    let ask = |cookie: u64, limit: u32| {
        client.nfs(16, &[opaque(&handle), cookie.to_be_bytes().to_vec(), vec![9; 8], words(&[limit])].concat()).0
    };
    assert_eq!(ask(0, 50), 10_005, "too small for one entry");
    assert_eq!(ask(MANY as u64 + 2, 512), 0, "the end");
    assert_eq!(ask(MANY as u64 + 3, 512), 10_003);
    assert_eq!(ask(u64::MAX, 512), 10_003);
    let file = client.find(b"empty").0;
    assert_eq!(client.nfs(16, &[opaque(&file), vec![0; 16], words(&[512])].concat()).0, 20);
}

#[test]
fn who_may_do_what() {
    let mut client = Client::new();
    // READ, LOOKUP, EXECUTE; never MODIFY, EXTEND, DELETE.
    assert_eq!((client.access(b"private"), client.access(b"big"), client.access(b"bin/ping")), (0x03, 0x01, 0x21));
    client.credential = (1000, 1000, vec![]);
    assert_eq!((client.access(b"private"), client.access(b"big"), client.access(b"bin/ping")), (0, 0x01, 0x21));
    let private = client.find(b"private").0;
    assert_eq!(client.nfs(3, &[opaque(&private), opaque(b"x")].concat()).0, 13);
    client.credential = (1000, 1000, vec![7, 0]);
    assert_eq!(client.access(b"private"), 0x03);
    client.credential = (4_000_000_000, 0, vec![]);
    assert_eq!(client.access(b"bin/ping"), 0x21);
}

#[test]
fn nothing_is_ever_written() {
    let client = Client::new();
    let handle = opaque(&client.find(b"").0);
    for procedure in [2, 7, 8, 9, 10, 11, 12, 13, 14, 15, 21] {
        let (status, reply) = client.nfs(procedure, &handle);
        assert_eq!(status, 30, "{procedure}");
        // Two wcc_data for RENAME, post_op_attr and wcc_data for LINK, else one wcc_data: all without attributes.
        let wanted = match procedure {
            14 => 16,
            15 => 12,
            _ => 8,
        };
        assert_eq!(reply.0, vec![0; wanted], "{procedure}");
    }
}

#[test]
fn handles_cannot_be_made_up() {
    let client = Client::new();
    let good = client.find(b"").0;
    assert_eq!(good.len(), 48);
    for at in 0..good.len() {
        let mut forged = good.clone();
        forged[at] ^= 1;
        assert_eq!(client.nfs(1, &opaque(&forged)).0, 70, "byte {at}");
    }
    for wrong in [
        vec![],
        vec![0; 48],
        good[..47].to_vec(),
        vec![0; 64],
        client.alone.handle(u64::MAX),
        client.alone.handle(1 << 32),
    ] {
        assert_eq!(client.nfs(1, &opaque(&wrong)).0, 70);
    }
    // The same on every server with the key.
    assert_eq!(Client::new().find(b"many/00042").0, client.find(b"many/00042").0);
}

#[test]
fn what_the_filesystem_is() {
    let client = Client::new();
    let root = opaque(&client.find(b"").0);
    for (procedure, length) in [(18, 6 * 8 + 4), (19, 7 * 4 + 8 + 8 + 4), (20, 6 * 4)] {
        let (status, mut reply) = client.nfs(procedure, &root);
        assert_eq!(status, 0);
        reply.maybe_attributes().unwrap();
        assert_eq!(reply.0.len(), length, "{procedure}");
    }
    let (_, mut reply) = client.nfs(18, &root);
    reply.maybe_attributes();
    let (total, _) = (reply.u64(), reply.u64());
    assert!(total > LARGE as u64, "{total}");
    assert_eq!(client.call(100_000, 2, 3, &words(&[100_005, 3, 6, 0])).u32(), 2049);
    assert_eq!(client.call(100_000, 2, 3, &words(&[100_003, 3, 17, 0])).u32(), 0, "UDP");
    let mut exports = client.call(100_005, 3, 5, &[]);
    assert_eq!((exports.u32(), exports.opaque(), exports.u32(), exports.u32()), (1, b"/stable".to_vec(), 0, 0));
    assert_eq!(client.call(100_005, 3, 1, &opaque(b"/nothing")).u32(), 2);
}

/// Without this protocol overlayfs on a Linux client lets nobody but root in.
#[test]
fn access_control_lists() {
    let client = Client::new();
    let (handle, attributes) = client.find(b"bin/ping");
    let mut reply = client.call(100_227, 3, 1, &[opaque(&handle), words(&[5])].concat());
    assert_eq!((reply.u32(), reply.maybe_attributes()), (0, Some(attributes.clone())));
    let found: Vec<u32> = (0..reply.0.len() / 4).map(|_| reply.u32()).collect();
    assert_eq!(found[..6], [5, 4, 4, 1, attributes.uid, 7]);
    assert_eq!(found[found.len() - 2..], [0, 0], "no default list");
    let mut reply = client.call(100_227, 3, 2, &opaque(&handle));
    assert_eq!((reply.u32(), reply.0.len()), (30, 4), "SETACL");
    assert_eq!(client.call(100_227, 3, 1, &[opaque(&[0; 48]), words(&[5])].concat()).u32(), 70);
}

#[test]
fn damaged_calls_are_answered_or_dropped() {
    let client = Client::new();
    let handle = client.find(b"many").0;
    let mut sent = Vec::new();
    for (procedure, more) in [
        (1, vec![]),
        (3, opaque(b"00001")),
        (4, words(&[63])),
        (6, vec![0; 12]),
        (17, vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 16, 0]),
    ] {
        let mut call = words(&[1, 0, 2, 100_003, 3, procedure, 0, 0, 0, 0]);
        call.extend(opaque(&handle));
        call.extend(more);
        sent.extend(words(&[0x8000_0000 | call.len() as u32]));
        sent.extend(call);
    }
    assert!(client.alone.answer(&sent).unwrap().len() > 1000);
    for (seed, bytes) in damage(&sent, std::slice::from_ref(&(0..sent.len())), 20_000, 5).enumerate() {
        if let Some(reply) = client.alone.answer(&bytes) {
            assert!(reply.len() < 8 << 20, "{seed}");
        }
    }
}
