//! Fetching indices: what a suite's signed `Release` lists, by digest.

use super::system::{System, Trusted};
use crate::{BuildError, BuildRequest, Result, key::step_key};
use aule_deb::{
    index::{INDEX_MAX, IndexError, Packages as Index},
    release::{Listed, RELEASE_MAX, Release},
};
use aule_image::{Signature, SignatureError, verify_signature_by};
use aule_recipe::Packages;
use aule_store::{
    StepKey,
    download::{Progress, download, fetch_small},
};
use aule_tree::{Digest, Timestamp};
use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

/// The largest detached signature.
const SIGNATURE_MAX: usize = 1 << 20;
/// How far a `Release` may lie in the future, as clocks differ: a day in seconds.
const CLOCK_SKEW: i64 = 86_400;
/// How often a source is read anew that changes while it is read.
const ATTEMPTS: u32 = 3;

/// The most bytes that all indices take together: Debian's and Ubuntu's largest have some 70 MB.
const INDICES_MAX: usize = 1 << 30;

/// What indices may still take, in bytes: all of them are in memory at once.
#[derive(Clone, Copy)]
pub(super) struct Left(usize);

impl Left {
    pub(super) fn all() -> Left {
        Left(INDICES_MAX)
    }

    /// Takes an index from it.
    fn take(&mut self, bytes: usize, place: &str) -> Result<()> {
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| {
            BuildError::Packages(format!(
                "the indices take more than {INDICES_MAX} bytes together; {place} has one too many"
            ))
        })?;
        Ok(())
    }
}

const EXPIRED: &str = "it has expired: the mirror is not kept up to date, or somebody keeps updates back; \
                       `packages.accept_expired: true` takes it nevertheless";

/// An index.
pub(super) struct Fetched {
    /// Where its archive is.
    pub(super) uri: String,
    /// How it is called in messages.
    pub(super) name: String,
    pub(super) packages: Index,
    /// What apt thinks of its source.
    pub(super) priority: i32,
}

/// Fetches the indices of all sources of the image.
pub(super) fn fetch(
    request: &BuildRequest<'_>,
    system: &System,
    sources: &[Trusted],
    wanted: &Packages,
    left: &mut Left,
) -> Result<Vec<Fetched>> {
    let mut fetched: Vec<Fetched> = Vec::new();
    for source in sources {
        let source = &Trusted { list: source.list.on(&system.architecture), ..source.clone() };
        let uri = match wanted.snapshot {
            Some(at) => snapshot(request, source, wanted, at)?,
            None => source.list.uri.clone(),
        };
        let place = format!("{uri}/{}", source.list.directory());
        // A snapshot is judged as of its time: it has expired long ago.
        let time = wanted.snapshot.map(|at| Timestamp::from_seconds(at.seconds())).or(request.now);
        let mut said = release(request, source, &place, time, wanted.accept_expired)?;
        let mut attempts = 1..ATTEMPTS;
        let indices = loop {
            // What an attempt read that failed is gone again.
            let mut after = *left;
            match indices(request, source, &system.architecture, &place, &said, &mut after) {
                Err(error @ BuildError::Download(_)) if attempts.next().is_some() => {
                    // The mirror may have been brought up to date between the two; then it has another `Release` now.
                    let now = release(request, source, &place, time, wanted.accept_expired)?;
                    if now == said {
                        return Err(error);
                    }
                    request.observer.note(&format!("{place} has changed meanwhile; once more"));
                    said = now;
                }
                Err(error) => return Err(error),
                Ok(found) => {
                    *left = after;
                    break found;
                }
            }
        };
        note_unknown_components(request, source, &place, &said);
        for (index, packages) in indices {
            let name = format!("{uri} {} ({index})", source.list.suite);
            fetched.push(Fetched { uri: uri.clone(), name, packages, priority: said.priority() });
        }
    }
    if fetched.is_empty() {
        let message = "neither the image nor the recipe names a source of packages that has any for it";
        return Err(BuildError::Packages(message.into()));
    }
    Ok(fetched)
}

/// The indices of a source, by their names.
fn indices(
    request: &BuildRequest<'_>,
    source: &Trusted,
    architecture: &str,
    place: &str,
    release: &Release,
    left: &mut Left,
) -> Result<Vec<(String, Index)>> {
    let mut indices = Vec::new();
    for index in release.indices(&source.list, architecture) {
        // An architecture or a component that a suite does not have is no mistake of its sources, as apt sees it.
        let (Some((path, listed)), Some(address)) = (&index.form, index.address(release.by_hash)) else { continue };
        let packages = packages(request, place, path, *listed, &address, *left)?;
        left.take(packages.size(), place)?;
        indices.push((index.path, packages));
    }
    Ok(indices)
}

/// A component that a suite does not have may be a mistake in its name.
fn note_unknown_components(request: &BuildRequest<'_>, source: &Trusted, place: &str, release: &Release) {
    let unknown = release.unknown_components(&source.list);
    if !unknown.is_empty() {
        let (unknown, there) = (unknown.join(", "), release.components.join(", "));
        request.observer.note(&format!("{place} has no component {unknown}; it has {there}"));
    }
}

/// Where an archive can be had as it was: as the recipe says, else as the archive itself does.
fn snapshot(
    request: &BuildRequest<'_>,
    source: &Trusted,
    wanted: &Packages,
    at: aule_recipe::Timestamp,
) -> Result<String> {
    let uri = &source.list.uri;
    let service = match wanted.snapshots.get(uri.trim_end_matches('/')) {
        Some(service) => service.clone(),
        None => {
            let place = format!("{uri}/{}", source.list.directory());
            let said = release(request, source, &place, request.now, wanted.accept_expired)?.snapshots;
            said.ok_or_else(|| {
                let message = format!("{uri} says nothing of a snapshot service; name it in `packages.snapshots`");
                BuildError::Packages(message)
            })?
        }
    };
    // 2025-11-01T00:00:00Z is 20251101T000000Z there.
    let id: String = at.to_string().chars().filter(|it| !matches!(it, '-' | ':')).collect();
    Ok(service.replace("@SNAPSHOTID@", &id).trim_end_matches('/').to_owned())
}

/// The suite's `Release`, signed by one of its keys, and of the right time.
fn release(
    request: &BuildRequest<'_>,
    source: &Trusted,
    place: &str,
    time: Option<Timestamp>,
    accept_expired: bool,
) -> Result<Release> {
    let unverified = |what: &str, error: Box<dyn std::error::Error + Send + Sync>| BuildError::Unverified {
        what: format!("{place}{what}"),
        source: error,
    };
    let small =
        |name: &str, most: usize| fetch_small(&request.network.request(&format!("{place}{name}"), most as u64), most);
    request.observer.note(&format!("fetching {place}InRelease"));
    let (name, bytes, signature) = match small("InRelease", RELEASE_MAX) {
        Ok(bytes) => ("InRelease", bytes, None),
        Err(error) if error.is_not_found() => {
            let failed = |error: aule_store::download::DownloadError| BuildError::Download(error.into());
            let bytes = small("Release", RELEASE_MAX).map_err(failed)?;
            ("Release", bytes, Some(small("Release.gpg", SIGNATURE_MAX).map_err(failed)?))
        }
        Err(error) => return Err(BuildError::Download(error.into())),
    };
    let form = signature.as_deref().map_or(Signature::Clearsigned, Signature::Detached);
    let mut failure: Option<SignatureError> = None;
    let mut text = None;
    for keys in source.keys.iter() {
        let counts = |signer: &str, primary: &str| {
            source.fingerprints.is_empty() || source.fingerprints.iter().any(|it| it.means(signer, primary))
        };
        match verify_signature_by(&bytes, form, keys, time, &counts) {
            Ok(verified) => {
                text = Some(verified.text);
                break;
            }
            // Of several files of keys most know nothing of this one.
            Err(error @ SignatureError::UnknownKey { .. }) => failure = failure.or(Some(error)),
            Err(error) => failure = Some(error),
        }
    }
    let Some(text) = text else {
        let reason: Box<dyn std::error::Error + Send + Sync> = match failure {
            Some(failure) => failure.into(),
            None => "no key is trusted for it".into(),
        };
        return Err(unverified(name, reason));
    };
    let text = String::from_utf8_lossy(&text);
    let release = Release::parse(&text).map_err(|error| unverified(name, error.into()))?;
    // Else a mirror could give another suite, which the same keys have signed. (What is flat has no name.)
    let asked = &source.list.suite;
    if !source.list.is_flat() && !release.is_of_suite(asked) {
        let names = [&release.suite, &release.codename].map(|it| if it.is_empty() { "-" } else { it.as_str() });
        let reason = format!("`{asked}` is asked for, and this is suite `{}`, codename `{}`", names[0], names[1]);
        return Err(unverified(name, reason.into()));
    }
    if let Some(now) = time.map(|it| it.seconds) {
        let expired = !accept_expired && release.valid_until.is_some_and(|until| now > until);
        let future = release.date.is_some_and(|date| date > now + CLOCK_SKEW);
        if expired || future {
            let reason = if expired { EXPIRED } else { "it is of a day to come" };
            return Err(unverified(name, reason.into()));
        }
    }
    Ok(release)
}

/// An index, of the size and digest that its `Release` says.
fn packages(
    request: &BuildRequest<'_>,
    place: &str,
    path: &str,
    listed: Listed,
    address: &str,
    mut left: Left,
) -> Result<Index> {
    let digest = Digest::from_bytes(listed.sha256);
    let wrong = |error: &dyn std::fmt::Display| BuildError::Packages(format!("{place}{path}: {error}"));
    // How it is decoded goes by the ending of its name.
    let key = step_key("index", &(digest, path.rsplit('/').next().unwrap_or(path)))?;
    let known = remembered(request, key)?;
    let is_known = known.is_some();
    let text = match known {
        Some(text) => text,
        None => {
            let file = fetched(request, place, path, listed, address)?;
            let file = File::open(file).map_err(|error| wrong(&error))?;
            let mut text = Vec::new();
            let read = decoded(path, file).and_then(|reader| reader.take(INDEX_MAX as u64 + 1).read_to_end(&mut text));
            read.map_err(|error| wrong(&error))?;
            text
        }
    };
    if text.len() > INDEX_MAX {
        return Err(wrong(&IndexError::TooLarge));
    }
    left.take(text.len(), place)?;
    if !is_known {
        remember(request, key, &text)?;
    }
    // A name in an older encoding is no reason to do without all packages.
    let text = mended(text);
    let (packages, left_out) = Index::parse_index(text).map_err(|error| wrong(&error))?;
    if let Some(first) = left_out.first {
        let count = left_out.count;
        request
            .observer
            .note(&format!("{place}{path}: {count} packages that cannot be understood are left out: {first}"));
    }
    Ok(packages)
}

/// A text with a question mark for each byte that is not of UTF-8; it takes no more room than before.
fn mended(mut text: Vec<u8>) -> String {
    let mut from = 0;
    while let Some(Err(error)) = text.get(from..).map(std::str::from_utf8) {
        let start = from + error.valid_up_to();
        let end = error.error_len().map_or(text.len(), |length| start + length);
        text.get_mut(start..end).unwrap_or_default().fill(b'?');
        from = end;
    }
    String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The path of its file, which stays in the cache of downloads: the next run finds it by its digest and asks nobody.
fn fetched(request: &BuildRequest<'_>, place: &str, path: &str, listed: Listed, address: &str) -> Result<PathBuf> {
    let failed = |error: aule_store::download::DownloadError| BuildError::Download(error.into());
    request.observer.note(&format!("fetching {place}{path}"));
    let progress = |progress: Progress| request.observer.progress("fetch", progress.received, progress.total);
    let fetch = |url: &str| {
        let mut wanted = request.network.request(url, listed.size);
        (wanted.expected_size, wanted.expected_digest) = (Some(listed.size), Some(Digest::from_bytes(listed.sha256)));
        download(&wanted, &request.store.downloads(), &progress)
    };
    let done = match fetch(&format!("{place}{address}")) {
        // Mirrors that were copied by hand say that they have names by hash, and have none.
        Err(error) if error.is_not_found() && address != path => {
            fetch(&format!("{place}{path}")).map_err(|_| failed(error))?
        }
        done => done.map_err(failed)?,
    };
    Ok(done.path)
}

/// How an index is kept once it was decoded: xz, the form that is smallest to fetch, takes far longer to read.
const KEPT_LEVEL: i32 = 1;

/// The text of an index that was read before. One that rotted is read anew.
fn remembered(request: &BuildRequest<'_>, key: StepKey) -> Result<Option<Vec<u8>>> {
    let Some(blob) = request.store.derived(key)? else { return Ok(None) };
    let Ok(bytes) = request.store.read_blob(blob, INDEX_MAX as u64, "an index of packages") else { return Ok(None) };
    let mut text = Vec::new();
    let read = zstd::Decoder::new(bytes.as_slice()).and_then(|it| it.take(INDEX_MAX as u64 + 1).read_to_end(&mut text));
    Ok(read.ok().map(|_| text))
}

fn remember(request: &BuildRequest<'_>, key: StepKey, text: &[u8]) -> Result<()> {
    if request.store.is_only_looked_at() {
        return Ok(());
    }
    let bytes = zstd::encode_all(text, KEPT_LEVEL).map_err(|error| BuildError::Packages(error.to_string()))?;
    let blob = request.store.put(&bytes)?;
    Ok(request.store.set_derived(key, blob)?)
}

fn decoded(path: &str, file: File) -> io::Result<Box<dyn Read>> {
    aule_deb::archive::decode(path, io::BufReader::new(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_share_what_is_left() {
        let mut left = Left(10);
        left.take(6, "a").unwrap();
        assert!(left.take(5, "b").unwrap_err().to_string().contains("b has one too many"));
        // What did not fit takes nothing from the others.
        left.take(4, "c").unwrap();
        assert!(left.take(1, "d").is_err());
    }

    #[test]
    fn bytes_of_no_text_are_replaced() {
        for (text, wanted) in [
            (&b""[..], ""),
            (b"Maintainer: J\xc3\xb6rg\n", "Maintainer: J\u{f6}rg\n"),
            (b"Maintainer: J\xf6rg\n", "Maintainer: J?rg\n"),
            (b"\xff\xff a \xe2\x82", "?? a ??"),
            (b"\xe2\x82x", "??x"),
        ] {
            assert_eq!(mended(text.to_vec()), wanted, "{text:?}");
        }
    }
}
