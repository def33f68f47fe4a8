//! Programs of this machine's own architecture that stand in for those of a foreign tree while packages are installed.
//!
//! Maintainer scripts are shell and Perl, and call the same few programs; emulation makes them some thirty times slower.
//! Those programs do the same whatever processor they run on, so the very same versions of them are fetched for this
//! machine's processor, from the same sources, signed by the same keys. They lie outside the tree, where nothing that a
//! script lists comes across them. What cannot be had is emulated: the result is the same, later.

mod layer;

use super::{
    Plan, debs,
    indices::{self, Fetched, Left},
    install::STATUS,
    pins,
    system::{System, Trusted},
    trees,
};
use crate::{BuildError, BuildRequest, Result, key::step_key, stage::Stage};
use aule_deb::{
    archive::DebError,
    index::{Package, Packages},
    resolve::{Request, Source, Universe},
};
use aule_recipe::{LockedPackage, Merged, Sha256};
use aule_sandbox::{Native, Sandbox};
use aule_tree::{Digest, Hasher, TreePath};
use layer::Layer;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
        pins::locked(source, package)
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
            let mut layer = Layer::new(self.native, architecture, unpacker)?;
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
    fn only_listed_programs_stand_in() {
        assert_eq!(excluded("dash"), Some(&[][..]));
        assert!(excluded("coreutils").is_some_and(|it| it.contains(&"uname")));
        assert_eq!(excluded("libc-bin"), None);
        assert!(is_perl_module("libtext-charwidth-perl") && !is_perl_module("perl") && !is_perl_module("libperl5.40"));
        let mut sorted = PACKAGES;
        sorted.sort_unstable();
        assert_eq!(sorted, PACKAGES);
    }
}
