//! The layer of programs that stand in: where their files lie in the sandbox, and what is written anew in them.

use super::excluded;
use crate::Result;
use aule_deb::archive::{Entry as Member, What as Kind};
use aule_sandbox::{Entry, Native, SandboxError, Unpacker, What};
use aule_tree::{Metadata, Timestamp, TreePath};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

/// Directories that programs are taken from.
const PROGRAMS: [&str; 4] = ["usr/bin/", "usr/sbin/", "usr/lib/systemd/", "usr/lib/udev/"];
/// dpkg has the name of its architecture in it, and is that of the tree here.
const DPKG: &str = "usr/bin/dpkg";
/// Perl asks the kernel where it is itself (`$^X`): there it is told that it is the tree's.
const PERL_PROGRAM: &str = "usr/bin/perl";
const ITSELF: (&[u8], &[u8]) = (b"/proc/self/exe\0", b"/run/lib/.perl\0");
const PERL_LINK: &str = ".perl";
/// Where Perl writes down what it was made for, below `perl-base` or `perl/VERSION` of its libraries' directory.
const PERL_CONFIGURATION: [&str; 2] = ["Config.pm", "Config_heavy.pl"];
/// The largest program or library that is taken.
const FILE_MAX: u64 = 64 << 20;

/// The layer, while packages are put into it.
pub(super) struct Layer<'a, 'b> {
    native: Native,
    /// Debian's name of the tree's architecture.
    architecture: &'a str,
    unpacker: &'a mut Unpacker<'b>,
    directories: BTreeSet<TreePath>,
    /// What is there, by its path in the package.
    files: BTreeMap<TreePath, TreePath>,
}

impl<'a, 'b> Layer<'a, 'b> {
    /// A layer that has no package yet, for a tree of `architecture` (Debian's name).
    pub(super) fn new(native: Native, architecture: &'a str, unpacker: &'a mut Unpacker<'b>) -> Result<Layer<'a, 'b>> {
        let root = Metadata::root_owned(0o755, Timestamp::from_seconds(0));
        let metadata = root.clone();
        unpacker.entry(Entry { path: TreePath::root(), what: What::Directory { metadata, opaque: false } })?;
        let (metadata, target) = (Metadata { mode: 0o777, ..root }, format!("/{PERL_PROGRAM}").into_bytes());
        unpacker.entry(Entry { path: TreePath::new(PERL_LINK)?, what: What::Symlink { metadata, target } })?;
        let (directories, files) = (BTreeSet::from([TreePath::root()]), BTreeMap::new());
        Ok(Layer { native, architecture, unpacker, directories, files })
    }

    /// Takes a file of a package, if it belongs here.
    pub(super) fn take(&mut self, package: &str, member: &Member, bytes: &mut dyn Read) -> Result<()> {
        let path = merged_path(&member.path)?;
        let is_program = member.mode & 0o111 != 0;
        let Some(place) = self.place(package, &path, is_program)? else { return Ok(()) };
        if self.files.contains_key(&path) {
            return Ok(());
        }
        let metadata =
            Metadata::root_owned(u16::try_from(member.mode & 0o777).unwrap_or(0o644), Timestamp::from_seconds(0));
        let (old, new) = self.library_paths();
        let mut edited = None;
        let what = match &member.what {
            Kind::File(size) => match self.edit(&path, *size, bytes)? {
                Some(bytes) => {
                    let size = edited.insert(bytes).len() as u64;
                    What::File { metadata, size }
                }
                None => return Ok(()),
            },
            Kind::Symlink(target) => {
                let mut target = target.clone();
                replace_all(&mut target, old.as_bytes(), new.as_bytes());
                What::Symlink { metadata, target }
            }
            Kind::Link(target) => match self.files.get(&merged_path(target)?) {
                Some(target) => What::Link(target.clone()),
                None => return Ok(()),
            },
            Kind::Directory | Kind::Special => return Ok(()),
        };
        self.above(&place)?;
        self.unpacker.entry(Entry { path: place.clone(), what })?;
        if let Some(bytes) = edited {
            self.unpacker.bytes(&bytes)?;
        }
        self.files.insert(path, place);
        Ok(())
    }

    /// What programs and libraries say where libraries are, and what they have to say.
    fn library_paths(&self) -> (String, String) {
        (format!("/usr/lib/{}", self.native.triplet), format!("/run/lib/{}", self.native.triplet))
    }

    /// Where a file of a package belongs, if anywhere (see [`Native`]).
    fn place(&self, package: &str, path: &TreePath, is_program: bool) -> Result<Option<TreePath>> {
        let Ok(text) = std::str::from_utf8(path.as_bytes()) else { return Ok(None) };
        let triplet = self.native.triplet;
        if let Some(rest) = text.strip_prefix("usr/lib/").filter(|rest| rest.starts_with(&format!("{triplet}/"))) {
            let is_needed = !text.ends_with(".a") && !text.contains("/gconv/");
            return Ok(if is_needed { Some(TreePath::new(rest)?) } else { None });
        }
        let Some(excluded) = excluded(package) else { return Ok(None) };
        let name = text.rsplit('/').next().unwrap_or(text);
        let is_wanted = is_program && PROGRAMS.iter().any(|it| text.starts_with(it)) && !excluded.contains(&name);
        Ok(if is_wanted { Some(TreePath::new(format!("root/{text}"))?) } else { None })
    }

    /// A program or library that finds its libraries in the sandbox, a program its loader too, and dpkg as one of the tree's
    /// architecture; `None` for what cannot be made so.
    fn edit(&self, path: &TreePath, size: u64, bytes: &mut dyn Read) -> Result<Option<Vec<u8>>> {
        if size > FILE_MAX {
            return Ok(None);
        }
        let mut file = Vec::new();
        bytes.read_to_end(&mut file).map_err(SandboxError::Input)?;
        if self.is_perl_configuration(path) {
            let other = aule_sandbox::triplet(self.architecture);
            return Ok(Some(other.map_or(file.clone(), |other| renamed(&file, self.native.triplet, other))));
        }
        let (old, new) = self.library_paths();
        replace_all(&mut file, old.as_bytes(), new.as_bytes());
        let mut wanted = Vec::new();
        if !path.as_bytes().starts_with(format!("usr/lib/{}/", self.native.triplet).as_bytes()) {
            let (old, new) = self.native.loader;
            wanted.push((format!("{old}\0"), format!("{new}\0")));
        }
        if path.as_bytes() == DPKG.as_bytes() {
            wanted.push((format!("\0{}\0", self.native.architecture), format!("\0{}\0", self.architecture)));
        }
        if path.as_bytes() == PERL_PROGRAM.as_bytes() {
            // One that finds itself otherwise does not need it.
            replace(&mut file, ITSELF.0, ITSELF.1);
        }
        let is_done = wanted.iter().all(|(old, new)| replace(&mut file, old.as_bytes(), new.as_bytes()));
        Ok(is_done.then_some(file))
    }

    fn is_perl_configuration(&self, path: &TreePath) -> bool {
        let text = std::str::from_utf8(path.as_bytes()).unwrap_or_default();
        let below =
            text.strip_prefix("usr/lib/").and_then(|rest| rest.strip_prefix(self.native.triplet)).unwrap_or_default();
        match below.split('/').collect::<Vec<_>>().as_slice() {
            ["", "perl-base", name] | ["", "perl", _, name] => PERL_CONFIGURATION.contains(name),
            _ => false,
        }
    }

    fn above(&mut self, path: &TreePath) -> Result<()> {
        let above: Vec<TreePath> = std::iter::successors(path.parent(), TreePath::parent).collect();
        for directory in above.into_iter().rev() {
            if self.directories.insert(directory.clone()) {
                let metadata = Metadata::root_owned(0o755, Timestamp::from_seconds(0));
                self.unpacker.entry(Entry { path: directory, what: What::Directory { metadata, opaque: false } })?;
            }
        }
        Ok(())
    }
}

/// A text that tells of one architecture, as it tells of another one: its triplet, and the processor alone.
fn renamed(text: &[u8], old: &str, new: &str) -> Vec<u8> {
    let processor = |triplet: &str| triplet.split('-').next().unwrap_or_default().to_owned();
    let text = written_anew(text, old.as_bytes(), new.as_bytes());
    written_anew(&text, processor(old).as_bytes(), processor(new).as_bytes())
}

/// A text with `new` in place of each `old`.
fn written_anew(text: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let (mut written, mut from) = (Vec::with_capacity(text.len()), 0);
    for place in memchr::memmem::find_iter(text, old) {
        written.extend_from_slice(text.get(from..place).unwrap_or_default());
        written.extend_from_slice(new);
        from = place + old.len();
    }
    written.extend_from_slice(text.get(from..).unwrap_or_default());
    written
}

/// Writes `new` over each `old`, which is as long.
fn replace_all(file: &mut [u8], old: &[u8], new: &[u8]) {
    let finder = memchr::memmem::Finder::new(old);
    let mut from = 0;
    while let Some(place) = file.get(from..).and_then(|rest| finder.find(rest)) {
        from += place;
        if let Some(there) = file.get_mut(from..from + old.len()).filter(|there| there.len() == new.len()) {
            there.copy_from_slice(new);
        }
        from += old.len();
    }
}

/// Writes `new` over `old`, which is to be there once; anything else is a program that this code does not know.
fn replace(program: &mut [u8], old: &[u8], new: &[u8]) -> bool {
    let mut places = program.windows(old.len()).enumerate().filter(|(_, it)| *it == old).map(|(place, _)| place);
    let (Some(place), None) = (places.next(), places.next()) else { return false };
    match program.get_mut(place..place + new.len()) {
        Some(there) if new.len() <= old.len() => {
            there.copy_from_slice(new);
            true
        }
        _ => false,
    }
}

/// A path of a package in a tree whose `/usr` is merged (Debian Policy 9.1.1, usrmerge).
fn merged_path(path: &[u8]) -> Result<TreePath> {
    let moved = ["bin/", "sbin/", "lib/", "lib64/"].iter().any(|it| path.starts_with(it.as_bytes()));
    Ok(match moved {
        true => TreePath::new([b"usr/", path].concat())?,
        false => TreePath::new(path)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_replaced_where_they_stand_once() {
        let (old, new) = (b"/lib64/ld-linux-x86-64.so.2\0", b"/run/aule.loader\0");
        let mut program = [&b"ELF..."[..], old, b"rest"].concat();
        assert!(replace(&mut program, old, new));
        assert_eq!(program, [&b"ELF..."[..], new, &old[new.len()..], b"rest"].concat());
        assert!(!replace(&mut program, old, new), "it is there no more");
        let mut twice = [&old[..], old].concat();
        assert!(!replace(&mut twice, old, new));
        let mut longer = b"ab\0".to_vec();
        assert!(!replace(&mut longer, b"b\0", b"longer\0") && longer == b"ab\0");
        assert!(!replace(&mut [], old, new));
    }

    #[test]
    fn all_paths_of_libraries_are_replaced() {
        let mut file = b"/usr/lib/x:/usr/lib/x/perl\0usr/lib/x /usr/lib/".to_vec();
        replace_all(&mut file, b"/usr/lib/x", b"/run/lib/x");
        assert_eq!(file, b"/run/lib/x:/run/lib/x/perl\0usr/lib/x /usr/lib/");
    }

    #[test]
    fn perl_tells_of_the_trees_architecture() {
        let text = b"archname => 'x86_64-linux-gnu-thread', myuname='linux x86_64 gnulinux', libpth => '/lib/x86_64-linux-gnu'";
        let wanted = "archname => 'aarch64-linux-gnu-thread', myuname='linux aarch64 gnulinux', libpth => '/lib/aarch64-linux-gnu'";
        let found = renamed(text, "x86_64-linux-gnu", "aarch64-linux-gnu");
        assert_eq!(String::from_utf8_lossy(&found), wanted);
        assert_eq!(ITSELF.0.len(), ITSELF.1.len());
        assert_eq!(renamed(b"", "a-b", "c-d"), b"");
    }

    #[test]
    fn paths_of_a_merged_usr() {
        for (path, wanted) in [
            ("bin/sh", "usr/bin/sh"),
            ("./lib/x/y", "usr/lib/x/y"),
            ("usr/bin/a", "usr/bin/a"),
            ("etc/lib/a", "etc/lib/a"),
        ] {
            assert_eq!(merged_path(path.trim_start_matches("./").as_bytes()).ok(), TreePath::new(wanted).ok());
        }
    }
}
