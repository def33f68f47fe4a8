//! A root over NFS as a booting node uses it: paths looked up component by component, symlinks followed, files read
//! and directories listed. What was looked up is remembered, as a kernel does.

use crate::{
    checksum::Checksum,
    failure::{Doing, Failure, Result, failure},
    nfs::{self, Attributes, Handle, Kind},
    rpc::Connection,
};
use std::collections::HashMap;

/// What a boot reads, recorded.
pub(crate) const RECORDED: &str = include_str!("reads.txt");
/// How many symlinks a path may lead through, as in Linux.
const LINKS_MAX: u32 = 40;

/// One thing that a node does with its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read a file.
    Read(String),
    /// List a directory.
    List(String),
}

/// Reads a record: `read PATH` and `list PATH`, a line each.
///
/// # Errors
/// When a line is neither.
pub(crate) fn steps(record: &str) -> Result<Vec<Step>> {
    let lines = record.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| match line.split_once(' ') {
            Some(("read", path)) => Ok(Step::Read(path.into())),
            Some(("list", path)) => Ok(Step::List(path.into())),
            _ => failure(format!("line {} of the record is neither `read PATH` nor `list PATH`", number + 1)),
        })
        .collect()
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Done {
    /// Calls of NFS.
    pub(crate) calls: u64,
    /// Files that were read.
    pub(crate) files: u64,
    /// Directories that were listed.
    pub(crate) directories: u64,
    /// Steps of the record that this root has nothing for.
    pub(crate) skipped: u64,
    /// Bytes that were read.
    pub(crate) bytes: u64,
}

#[derive(Debug, Clone)]
struct Found {
    handle: Handle,
    attributes: Attributes,
    /// Of a symlink that was followed.
    target: Option<String>,
}

/// A mounted root.
pub(crate) struct Root {
    connection: Connection,
    /// By path from the root, without symlinks in it; the root itself is empty. `None` is what is not there.
    known: HashMap<String, Option<Found>>,
    /// So far.
    pub(crate) done: Done,
    /// Of all that was read and listed.
    pub(crate) sum: Checksum,
}

impl Root {
    /// Looks at the root's own attributes and at what the server does.
    ///
    /// # Errors
    /// When the server does not say.
    pub(crate) async fn open(mut connection: Connection, handle: Handle) -> Result<Root> {
        let mut reader = connection.call(nfs::FSINFO, |out| crate::xdr::put_opaque(out, &handle)).await?;
        nfs::ok(&mut reader).doing("FSINFO")?;
        let mut reader = connection.call(nfs::GETATTR, |out| crate::xdr::put_opaque(out, &handle)).await?;
        nfs::ok(&mut reader).doing("GETATTR")?;
        let attributes = nfs::attributes(&mut reader)?;
        if attributes.kind != Kind::Directory {
            return failure("the root is no directory");
        }
        let known = HashMap::from([(String::new(), Some(Found { handle, attributes, target: None }))]);
        let done = Done { calls: 2, ..Done::default() };
        Ok(Root { connection, known, done, sum: Checksum::default() })
    }

    /// Does a step; at most `read_max` bytes of a file.
    ///
    /// # Errors
    /// When the server does, and other than that something is not there.
    pub(crate) async fn step(&mut self, step: &Step, read_max: u64) -> Result<()> {
        let (path, wanted) = match step {
            Step::Read(path) => (path, Kind::File),
            Step::List(path) => (path, Kind::Directory),
        };
        let Some(found) = self.resolve(path).await?.filter(|it| it.attributes.kind == wanted) else {
            self.done.skipped += 1;
            return Ok(());
        };
        self.done.calls += 1;
        let mut reader = self.connection.call(nfs::ACCESS, |out| nfs::put_access(out, &found.handle)).await?;
        nfs::ok(&mut reader).doing("ACCESS")?;
        match step {
            Step::Read(_) => self.read(&found, read_max).await.doing("READ"),
            Step::List(_) => self.list(&found.handle).await.doing("READDIRPLUS"),
        }
    }

    async fn read(&mut self, found: &Found, read_max: u64) -> Result<()> {
        let wanted = found.attributes.size.min(read_max);
        let mut offset = 0;
        while offset < wanted {
            let count = (wanted - offset).min(nfs::READ_SIZE.into()) as u32;
            self.done.calls += 1;
            let reply = self.connection.call(nfs::READ, |out| nfs::put_read(out, &found.handle, offset, count)).await?;
            let (bytes, end) = nfs::read(reply)?;
            offset += bytes.len() as u64;
            if bytes.is_empty() || bytes.len() > count as usize || end != (offset >= found.attributes.size) {
                return failure("a file is not as long as its attributes say");
            }
            self.sum.add(bytes);
        }
        self.done.files += 1;
        self.done.bytes += offset;
        Ok(())
    }

    async fn list(&mut self, handle: &[u8]) -> Result<()> {
        let mut next = Some((0, 0));
        while let Some((cookie, verifier)) = next {
            self.done.calls += 1;
            let sum = &mut self.sum;
            let arguments = |out: &mut Vec<u8>| nfs::put_list(out, handle, cookie, verifier);
            let reply = self.connection.call(nfs::READDIRPLUS, arguments).await?;
            next = nfs::entries(reply, |entry| {
                sum.add(entry.name);
                Ok(())
            })?;
        }
        self.done.directories += 1;
        Ok(())
    }

    /// What a path leads to, symlinks followed.
    async fn resolve(&mut self, path: &str) -> Result<Option<Found>> {
        let mut todo: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
        let mut here = String::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    here.truncate(here.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let Some(found) = self.child(&here, &name).await? else { return Ok(None) };
            match (found.attributes.kind, found.target) {
                (Kind::Symlink, Some(target)) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Ok(None);
                    }
                    if target.starts_with('/') {
                        here.clear();
                    }
                    todo.extend(target.rsplit('/').map(str::to_owned));
                }
                (kind, _) if kind == Kind::Directory || todo.is_empty() => here = format!("{here}/{name}"),
                _ => return Ok(None),
            }
        }
        Ok(self.known.get(&here).cloned().flatten())
    }

    async fn child(&mut self, directory: &str, name: &str) -> Result<Option<Found>> {
        let path = format!("{directory}/{name}");
        if let Some(known) = self.known.get(&path) {
            return Ok(known.clone());
        }
        let Some(Some(parent)) = self.known.get(directory) else { return Ok(None) };
        self.done.calls += 1;
        let arguments = |out: &mut Vec<u8>| nfs::put_lookup(out, &parent.handle, name.as_bytes());
        let found = nfs::found(self.connection.call(nfs::LOOKUP, arguments).await?)?;
        let found = match found {
            None => None,
            Some((_, None)) => return failure("LOOKUP gives no attributes"),
            Some((handle, Some(attributes))) => Some(Found { handle: handle.into(), attributes, target: None }),
        };
        let found = match found {
            Some(mut link) if link.attributes.kind == Kind::Symlink => {
                self.done.calls += 1;
                let arguments = |out: &mut Vec<u8>| crate::xdr::put_opaque(out, &link.handle);
                let target = nfs::target(self.connection.call(nfs::READLINK, arguments).await?).doing("READLINK")?;
                let target = std::str::from_utf8(target).map_err(|_| Failure("a target is no text".into()))?;
                link.target = Some(target.to_owned());
                Some(link)
            }
            other => other,
        };
        self.known.insert(path, found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let wanted = vec![Step::Read("/etc/fstab".into()), Step::List("/etc".into())];
        assert_eq!(steps("# boot\nread /etc/fstab\n\nlist /etc\n"), Ok(wanted));
        assert!(steps("write /etc/fstab").is_err());
        assert!(steps(RECORDED).unwrap().len() > 1000);
    }
}
