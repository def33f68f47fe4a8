//! The files of packages: fetched into the store, several at a time, and read.

use crate::{BuildError, BuildRequest, Result, base::fetch_into_store};
use aule_deb::{
    archive::{Deb, DebError, What},
    index::Packages,
};
use aule_recipe::LockedPackage;
use aule_store::download::{DownloadError, shown};
use aule_tree::{Digest, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::BufReader,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// How many are fetched at a time: mirrors ask for few, and latency is what is saved.
const CONNECTIONS: usize = 6;
/// The most bytes that one may have unpacked: Debian's largest have some 4 GB.
const UNPACKED_MAX: u64 = 16 << 30;

/// Sees that all of them are in the store.
pub(super) fn fetch<'a>(
    request: &BuildRequest<'_>,
    packages: impl IntoIterator<Item = &'a LockedPackage>,
) -> Result<()> {
    let silent = Silent::default();
    each(CONNECTIONS, &not_there(request, packages), |package| fetch_one(request, package, &silent))
}

/// Sees that those of them are in the store that can be had, and gives the others.
///
/// # Errors
/// What has nothing to do with where they are.
pub(super) fn fetch_what_can_be<'a>(
    request: &BuildRequest<'_>,
    packages: impl IntoIterator<Item = &'a LockedPackage>,
) -> Result<BTreeSet<LockedPackage>> {
    let lost = Mutex::new(BTreeSet::new());
    let not_asked = AtomicUsize::new(0);
    let silent = Silent::default();
    each(CONNECTIONS, &not_there(request, packages), |package| {
        let Err(error) = fetch_one(request, package, &silent) else { return Ok(()) };
        if !is_elsewhere(&error) {
            return Err(error);
        }
        match is_not_asked(&error) {
            true => drop(not_asked.fetch_add(1, Ordering::Relaxed)),
            false => request.observer.note(&format!("a package of the lock cannot be fetched: {error}")),
        }
        lost.lock().unwrap_or_else(PoisonError::into_inner).insert((*package).clone());
        Ok(())
    })?;
    match not_asked.into_inner() {
        0 => {}
        more => {
            request.observer.note(&format!("{more} more packages of the lock were not asked for: nobody answers there"))
        }
    }
    Ok(lost.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// How many requests in a row tell that a server does not answer: one may have been cut off by chance.
const SILENT_AFTER: usize = 2;

/// Servers that did not answer, each with how often in a row and what was said of the first time: they are not asked for a hundred other
/// packages.
#[derive(Default)]
struct Silent(Mutex<BTreeMap<String, (usize, String)>>);

/// A package that was not asked for, as its server had not answered before.
#[derive(Debug, thiserror::Error)]
#[error("{url} was not asked for: {said}")]
struct NotAsked {
    url: String,
    said: String,
}

fn is_not_asked(error: &BuildError) -> bool {
    matches!(error, BuildError::Download(error) if error.is::<NotAsked>())
}

impl Silent {
    fn server(url: &str) -> String {
        url.split('/').take(3).collect::<Vec<_>>().join("/")
    }

    /// What was said of the server of a URL, if it does not answer.
    fn said_of(&self, url: &str) -> Option<String> {
        let silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        silent.get(&Silent::server(url)).filter(|(times, _)| *times >= SILENT_AFTER).map(|(_, said)| said.clone())
    }

    /// What came of a request.
    fn note(&self, url: &str, done: &Result<(Digest, u64)>) {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let error = match done {
            Ok(_) => None,
            Err(BuildError::Download(error)) => match error.downcast_ref::<DownloadError>() {
                // What fails on this machine says nothing of the server.
                Some(error) if error.is_local() => return,
                error => error,
            },
            Err(_) => return,
        };
        let server = Silent::server(url);
        match error.filter(|it| it.is_unreachable()) {
            Some(error) => silent.entry(server).or_insert_with(|| (0, error.to_string())).0 += 1,
            // That it has not got it, or another file in its place, is an answer, too.
            None => drop(silent.remove(&server)),
        }
    }
}

fn not_there<'a>(
    request: &BuildRequest<'_>,
    packages: impl IntoIterator<Item = &'a LockedPackage>,
) -> Vec<&'a LockedPackage> {
    packages.into_iter().filter(|it| !request.store.has_intact_blob(digest(it))).collect()
}

/// Whether another server could do better: the failure is not about this machine.
fn is_elsewhere(error: &BuildError) -> bool {
    match error {
        BuildError::Download(error) => error.downcast_ref::<DownloadError>().is_none_or(|it| !it.is_local()),
        _ => false,
    }
}

/// From where the lock says, else from the mirror that this machine uses: archives have the same paths everywhere.
fn fetch_one(request: &BuildRequest<'_>, package: &LockedPackage, silent: &Silent) -> Result<()> {
    let from = |url: &str| -> Result<()> {
        if let Some(said) = silent.said_of(url) {
            return Err(BuildError::Download(NotAsked { url: shown(url), said }.into()));
        }
        let done = fetch_into_store(request, url, Some(digest(package)), Some(package.size));
        silent.note(url, &done);
        done.map(drop)
    };
    let Err(error) = from(&package.url) else { return Ok(()) };
    match (is_elsewhere(&error), in_mirror(request, &package.url)) {
        (true, Some(url)) => match from(&url) {
            // Where it should be is what people want to read, if that was asked.
            Err(other) if is_elsewhere(&other) && !is_not_asked(&error) => Err(error),
            done => done,
        },
        _ => Err(error),
    }
}

/// Where a package would be in this machine's mirror, if that is another place.
fn in_mirror(request: &BuildRequest<'_>, url: &str) -> Option<String> {
    let mirror = request.network.mirror.as_deref()?.trim_end_matches('/');
    let (_, path) = url.split_once("/pool/")?;
    Some(format!("{mirror}/pool/{path}")).filter(|there| there != url)
}

/// Those that a system of this architecture could have.
pub(super) fn fitting<'a>(packages: &'a [LockedPackage], architecture: &str) -> Vec<&'a LockedPackage> {
    packages.iter().filter(|it| it.architecture == architecture || it.architecture == "all").collect()
}

/// Does something with each, several at a time; the first failure ends it.
fn each<T: Sync>(threads: usize, all: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(all.len()) {
            scope.spawn(|| {
                let failed = || failure.lock().unwrap_or_else(PoisonError::into_inner);
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| failed().is_none()) {
                    if let Err(error) = work(one) {
                        failed().get_or_insert(error);
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Reads all of them to the end before dpkg does, and gives the newest time that a file has: no name may lead out of the tree, none may be a device, and there is an end
/// to what each unpacks to.
pub(super) fn inspect<'a>(
    request: &BuildRequest<'_>,
    packages: impl IntoIterator<Item = &'a LockedPackage>,
) -> Result<Timestamp> {
    let packages: Vec<&LockedPackage> = packages.into_iter().collect();
    let newest = AtomicU64::new(0);
    each(request.jobs, &packages, |package| {
        let wrong = |error: DebError| BuildError::Packages(format!("{}: {error}", package.url));
        let checked = open(request, package)?.entries(|entry, _| {
            newest.fetch_max(entry.mtime, Ordering::Relaxed);
            match entry.what {
                What::Special => {
                    let path = String::from_utf8_lossy(&entry.path).into_owned();
                    Err(DebError::Form(format!("/{path} is a device or a pipe, which no package may bring")))
                }
                _ => Ok(()),
            }
        });
        checked.map_err(wrong)
    })?;
    Ok(Timestamp::from_seconds(i64::try_from(newest.into_inner()).unwrap_or(i64::MAX)))
}

pub(super) fn digest(package: &LockedPackage) -> Digest {
    Digest::from_bytes(package.sha256.0)
}

/// An index of the files themselves: what each says of itself, which must be what the lock says of it.
pub(super) fn index(request: &BuildRequest<'_>, architecture: &str, packages: &[LockedPackage]) -> Result<Packages> {
    let packages = fitting(packages, architecture);
    fetch(request, packages.iter().copied())?;
    let mut text = String::new();
    for package in packages {
        let wrong = |error: &dyn std::fmt::Display| BuildError::Packages(format!("{}: {error}", package.url));
        let deb = open(request, package)?;
        let paragraph = deb.paragraph().map_err(|error| wrong(&error))?;
        let own = [("Package", &package.name), ("Version", &package.version), ("Architecture", &package.architecture)];
        for (field, locked) in own {
            let found = paragraph.get(field).unwrap_or_default();
            if found != locked {
                return Err(wrong(&format!("it has the {field} `{found}`, and the lock says `{locked}`")));
            }
        }
        // A second paragraph would be a package that nobody locked.
        let control = String::from_utf8_lossy(deb.control.get("control").map_or(&b""[..], Vec::as_slice));
        let lines = control.lines().skip_while(|line| line.trim().is_empty());
        lines.take_while(|line| !line.trim().is_empty()).for_each(|line| {
            text.push_str(line);
            text.push('\n');
        });
        text.push('\n');
    }
    Packages::parse(text).map_err(|error| BuildError::Packages(error.to_string()))
}

/// Opens one that is in the store.
pub(super) fn open(request: &BuildRequest<'_>, package: &LockedPackage) -> Result<Deb<BufReader<File>>> {
    let file = request.store.open_blob(digest(package))?;
    let wrong = |error: DebError| BuildError::Packages(format!("{}: {error}", package.url));
    Deb::open(BufReader::new(file), UNPACKED_MAX).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_silent_when_nothing_answers_twice() {
        let (silent, url) = (Silent::default(), "http://a.example/pool/b.deb");
        let timeout = || DownloadError::Timeout { url: url.into(), phase: "connecting".into() };
        let failed = |error: DownloadError| Err(BuildError::Download(error.into()));
        let missing = || DownloadError::Status { url: url.into(), status: 404, retry_after: None };
        let there = || Ok((Digest::of(b"b"), 1));
        for (done, is_silent) in [
            (failed(timeout()), false),
            (there(), false),
            (failed(timeout()), false),
            (failed(missing()), false),
            (failed(timeout()), false),
            (failed(timeout()), true),
            // It was asked by others before that.
            (there(), false),
        ] {
            silent.note(url, &done);
            assert_eq!(silent.said_of("http://a.example/pool/c.deb").is_some(), is_silent, "{done:?}");
        }
        silent.note(url, &failed(timeout()));
        silent.note(url, &failed(timeout()));
        assert_eq!(silent.said_of("http://b.example/pool/b.deb"), None);
    }
}
