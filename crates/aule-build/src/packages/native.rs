//! Programs of this machine's own architecture that stand in for those of a foreign tree while packages are installed.
//!
//! Maintainer scripts are shell and Perl, and call the same few programs; emulation makes them some thirty times slower.
//! Those programs do the same whatever processor they run on, so the very same versions of them are fetched for this
//! machine's processor, from the same sources, signed by the same keys. They lie outside the tree, where nothing that a
//! script lists comes across them. What cannot be had is emulated: the result is the same, later.

use super::{
    Plan, debs,
    indices::{self, Fetched, Left},
    install::STATUS,
    system::{System, Trusted},
    trees,
};
use crate::{BuildError, BuildRequest, Result, key::step_key, stage::Stage};
use aule_deb::{
    archive::{DebError, Entry as Member, What as Kind},
    index::{Package, Packages},
    resolve::{Request, Source, Universe},
};
use aule_recipe::{LockedPackage, Merged, Sha256};
use aule_sandbox::{Entry, Native, Sandbox, SandboxError, Unpacker, What};
use aule_tree::{Digest, Hasher, Metadata, Timestamp, TreePath};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

/// Changes when the layer is made in another way.
const VERSION: u32 = 4;
/// Packages whose programs stand in, and the names of those that do not, as they tell of the machine that they run on.
const PACKAGES: [(&str, &[&str]); 32] = [
    ("bash", &[]),
    ("bzip2", &[]),
    ("coreutils", &["arch", "nproc", "stdbuf", "uname"]),
    ("cpio", &[]),
    ("dash", &[]),
    ("debianutils", &[]),
    ("diffutils", &[]),
    ("dpkg", &[]),
    ("findutils", &[]),
    ("gawk", &[]),
    ("grep", &[]),
    ("gzip", &[]),
    ("hostname", &[]),
    ("kmod", &[]),
    ("mawk", &[]),
    ("openssh-client", &[]),
    ("openssl", &[]),
    // These load modules of PAM from a directory of the tree, where this machine's are not; so do `su` and `runuser`.
    ("passwd", &["chage", "chfn", "chgpasswd", "chpasswd", "chsh", "expiry", "newusers", "passwd"]),
    ("perl", &[]),
    ("perl-base", &[]),
    ("procps", &[]),
    ("python3.11-minimal", &[]),
    ("python3.12-minimal", &[]),
    ("python3.13-minimal", &[]),
    ("sed", &[]),
    ("systemd", &[]),
    ("sysvinit-utils", &[]),
    ("tar", &[]),
    ("udev", &[]),
    ("util-linux", &["lscpu", "runuser", "setarch", "su"]),
    ("xz-utils", &[]),
    ("zstd", &[]),
];
/// Without these it is not worth it.
const NEEDED: [&str; 2] = ["dash", "dpkg"];
/// Perl's modules that are programs of a processor: Perl stands in only with all that the tree has.
const PERL: [&str; 2] = ["perl", "perl-base"];
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

/// A package as the store remembers it.
#[derive(Serialize, Deserialize)]
struct Remembered {
    name: String,
    architecture: String,
    version: String,
    url: String,
    size: u64,
    sha256: [u8; 32],
}

impl Remembered {
    fn of(package: &LockedPackage) -> Remembered {
        let LockedPackage { name, architecture, version, url, size, sha256: Sha256(sha256), .. } = package.clone();
        Remembered { name, architecture, version, url, size, sha256 }
    }

    fn package(self) -> LockedPackage {
        let Remembered { name, architecture, version, url, size, sha256 } = self;
        LockedPackage { name, architecture, version, url, size, sha256: Sha256(sha256), variants: Vec::new() }
    }
}

/// What there is to stand in.
pub(super) struct Programs {
    native: Native,
    packages: Vec<LockedPackage>,
    /// The name of its directory in the sandbox.
    pub(super) directory: String,
}

/// Finds what stands in for programs of the tree: nothing where this machine runs them itself.
pub(super) fn find(
    request: &BuildRequest<'_>,
    merged: &Merged,
    stage: &Stage,
    plan: &Plan,
    sources: &dyn Fn(&Stage) -> Result<Vec<Trusted>>,
) -> Result<Option<Programs>> {
    let Some(native) = Native::beside(&plan.architecture) else { return Ok(None) };
    let is_wanted = request.sandbox.as_ref().is_some_and(|tools| !tools.emulate_all);
    if !is_wanted {
        return Ok(None);
    }
    let wanted = wanted(stage, plan)?;
    let key = step_key("native programs", &(VERSION, native.architecture, &wanted))?;
    let remembered: Option<Vec<Remembered>> = request.store.step_result(key)?;
    let packages = match remembered {
        Some(found) => found.into_iter().map(Remembered::package).collect(),
        None => match sources(stage).and_then(|sources| {
            let found = choose(request, merged, native, &wanted, sources)?;
            debs::fetch(request, &found)?;
            Ok(found)
        }) {
            Ok(found) => {
                let blobs: Vec<Digest> = found.iter().map(debs::digest).collect();
                let remembered: Vec<Remembered> = found.iter().map(Remembered::of).collect();
                request.store.set_step_result(key, &blobs, &remembered)?;
                found
            }
            Err(
                error @ (BuildError::Download(_)
                | BuildError::Packages(_)
                | BuildError::Recipe(_)
                | BuildError::Unverified { .. }),
            ) => {
                let message = format!("all programs of the packages are emulated, which takes longer: {error}");
                request.observer.note(&message);
                return Ok(None);
            }
            Err(error) => return Err(error),
        },
    };
    let mut hasher = Hasher::new();
    hasher.field(&VERSION.to_le_bytes());
    hasher.field(plan.architecture.as_bytes());
    packages.iter().for_each(|it| hasher.field(&it.sha256.0));
    let directory = format!("native-{}{}", hasher.finish().hex(), trees::suffix());
    Ok(Some(Programs { native, packages, directory }))
}

/// The packages of the tree, as it will be, that have programs to stand in for, with their versions.
fn wanted(stage: &Stage, plan: &Plan) -> Result<BTreeMap<String, String>> {
    let status = stage.read_text(&TreePath::new(STATUS)?)?.unwrap_or_default();
    let there = Packages::parse(status).map_err(|error| BuildError::Packages(format!("/{STATUS}: {error}")))?;
    let mut versions: BTreeMap<String, String> = BTreeMap::new();
    for package in there.iter().filter(|it| it.architecture == plan.architecture && it.state() == Some("installed")) {
        versions.insert(package.name.to_owned(), package.version.to_owned());
    }
    for deb in plan.install.iter().filter(|it| it.architecture == plan.architecture) {
        versions.insert(deb.name.clone(), deb.version.clone());
    }
    plan.remove.iter().for_each(|name| drop(versions.remove(name)));
    versions.retain(|name, _| excluded(name).is_some() || is_perl_module(name));
    Ok(versions)
}

/// The programs of a package that do not stand in; `None` where none of them does.
fn excluded(package: &str) -> Option<&'static [&'static str]> {
    PACKAGES.iter().find(|(name, _)| *name == package).map(|(_, excluded)| *excluded)
}

fn is_perl_module(package: &str) -> bool {
    package.starts_with("lib") && package.ends_with("-perl")
}

/// A version without what Debian adds for a package that was built again for some architectures.
fn source_version(version: &str) -> &str {
    match version.rsplit_once("+b") {
        Some((before, number)) if !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit()) => before,
        _ => version,
    }
}

/// The packages of this machine's architecture that have the wanted programs, with the libraries that they need.
fn choose(
    request: &BuildRequest<'_>,
    merged: &Merged,
    native: Native,
    wanted: &BTreeMap<String, String>,
    sources: Vec<Trusted>,
) -> Result<Vec<LockedPackage>> {
    let system = System {
        architecture: native.architecture.to_owned(),
        installed: Packages::default(),
        automatic: BTreeSet::new(),
    };
    let fetched = fetch(request, merged, &system, sources)?;
    let mut there: BTreeMap<&str, &str> = BTreeMap::new();
    for package in fetched.iter().flat_map(|it| it.packages.iter()).filter(|it| it.architecture == native.architecture)
    {
        if wanted.get(package.name).is_some_and(|it| source_version(it) == source_version(package.version)) {
            there.insert(package.name, package.version);
        }
    }
    if wanted.keys().any(|name| is_perl_module(name) && !there.contains_key(name.as_str())) {
        there.retain(|name, _| !PERL.contains(name) && !is_perl_module(name));
    }
    if let Some(name) = NEEDED.iter().find(|name| !there.contains_key(*name)) {
        let message = format!("no source has {name} of the tree's version for {}", native.architecture);
        return Err(BuildError::Packages(message));
    }
    let names: Vec<String> = there.iter().map(|(name, version)| format!("{name}={version}")).collect();
    let given: Vec<Source<'_>> =
        fetched.iter().map(|it| Source { packages: &it.packages, priority: it.priority, is_pinned: false }).collect();
    let wrong = |error: &dyn std::fmt::Display| BuildError::Packages(error.to_string());
    let universe =
        Universe::new(native.architecture, &system.installed, &given, &names).map_err(|error| wrong(&error))?;
    let solution = universe.resolve(&Request { install: names, remove: Vec::new() }).map_err(|error| wrong(&error))?;
    let own = solution.install.iter().filter(|(_, package)| package.architecture == native.architecture);
    own.map(|(source, package): &(usize, Package<'_>)| {
        let source = fetched.get(*source).ok_or(BuildError::Internal("a package is of no source"))?;
        super::locked(source, package)
    })
    .collect()
}

/// The indices of this machine's architecture: of the tree's sources, else of this machine's own mirror, signed by the same
/// keys. (Ubuntu has some architectures in an archive of their own.)
fn fetch(request: &BuildRequest<'_>, merged: &Merged, system: &System, sources: Vec<Trusted>) -> Result<Vec<Fetched>> {
    let mut fetched = Vec::new();
    let mut failure = None;
    let (mut left, wanted) = (Left::all(), &merged.recipe.packages);
    for mut source in sources {
        source.list.architectures.clear();
        let own = source.list.uri.clone();
        let mirror = request.network.mirror.as_deref().map(|it| it.trim_end_matches('/').to_owned());
        let uris: BTreeSet<Option<String>> = [Some(own.clone()), mirror].into();
        let mut uris: Vec<String> = uris.into_iter().flatten().collect();
        uris.sort_by_key(|uri| *uri != own);
        for uri in uris {
            source.list.uri = uri;
            match indices::fetch(request, system, std::slice::from_ref(&source), wanted, &mut left) {
                Ok(found) => {
                    fetched.extend(found);
                    break;
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
    }
    match (fetched.is_empty(), failure) {
        (true, Some(error)) => Err(error),
        _ => Ok(fetched),
    }
}

impl Programs {
    /// Unpacks what stands in.
    pub(super) fn unpack(&self, request: &BuildRequest<'_>, sandbox: &mut Sandbox, architecture: &str) -> Result<()> {
        if sandbox.has(&self.directory)? {
            return Ok(());
        }
        debs::fetch(request, &self.packages)?;
        request.observer.note("unpacking programs of this machine's architecture, to run in place of emulated ones");
        sandbox.unpack(&self.directory, |unpacker| {
            let root = Metadata::root_owned(0o755, Timestamp::from_seconds(0));
            let metadata = root.clone();
            unpacker.entry(Entry { path: TreePath::root(), what: What::Directory { metadata, opaque: false } })?;
            let (metadata, target) =
                (Metadata { mode: 0o777, ..root.clone() }, format!("/{PERL_PROGRAM}").into_bytes());
            unpacker.entry(Entry { path: TreePath::new(PERL_LINK)?, what: What::Symlink { metadata, target } })?;
            let (directories, files) = (BTreeSet::from([TreePath::root()]), BTreeMap::new());
            let mut layer = Layer { native: self.native, architecture, unpacker, directories, files };
            for package in &self.packages {
                let mut failure = None;
                let read = debs::open(request, package)?.entries(|member, bytes| {
                    layer.take(&package.name, member, bytes).map_err(|error| {
                        let said = error.to_string();
                        failure = Some(error);
                        DebError::Form(said)
                    })
                });
                match (read, failure) {
                    (Err(_), Some(error)) => return Err(error),
                    (read, _) => {
                        read.map_err(|error| BuildError::Packages(format!("{}: {error}", package.url)))?;
                    }
                }
            }
            Ok(())
        })
    }
}

/// The layer, while packages are put into it.
struct Layer<'a, 'b> {
    native: Native,
    /// Debian's name of the tree's architecture.
    architecture: &'a str,
    unpacker: &'a mut Unpacker<'b>,
    directories: BTreeSet<TreePath>,
    /// What is there, by its path in the package.
    files: BTreeMap<TreePath, TreePath>,
}

impl Layer<'_, '_> {
    fn take(&mut self, package: &str, member: &Member, bytes: &mut dyn Read) -> Result<()> {
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
    fn versions_of_one_source() {
        for (version, wanted) in [
            ("1.2-3", "1.2-3"),
            ("1.2-3+b1", "1.2-3"),
            ("1.2-3+deb13u1", "1.2-3+deb13u1"),
            ("1.2-3+deb13u1+b12", "1.2-3+deb13u1"),
            ("1.2+beta", "1.2+beta"),
            ("1.2+b", "1.2+b"),
        ] {
            assert_eq!(source_version(version), wanted);
        }
    }

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
    fn only_listed_programs_stand_in() {
        assert_eq!(excluded("dash"), Some(&[][..]));
        assert!(excluded("coreutils").is_some_and(|it| it.contains(&"uname")));
        assert_eq!(excluded("libc-bin"), None);
        assert!(is_perl_module("libtext-charwidth-perl") && !is_perl_module("perl") && !is_perl_module("libperl5.40"));
        let mut sorted = PACKAGES;
        sorted.sort_unstable();
        assert_eq!(sorted, PACKAGES);
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
