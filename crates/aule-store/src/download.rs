//! Fetching a file over http or https: resumed after an interruption, verified, bounded.
//!
//! [`download`] keeps what it receives in a partial file in the caller's directory, named by the SHA-256 of the URL:
//!
//! | File           | Holds                                                                                      |
//! |----------------|--------------------------------------------------------------------------------------------|
//! | `<hash>.part`  | the bytes received so far, always a prefix of one version of the file                       |
//! | `<hash>.state` | JSON: the validator of that version (strong ETag or Last-Modified), its size where known   |
//! | `<hash>.lock`  | nothing; locked for as long as a process works on the two others                            |
//!
//! An interrupted download, by a lost connection or by `kill -9`, goes on where it stopped with `Range` and `If-Range`
//! (RFC 9110 sections 13.1.5 and 14.2); where the server has another version by now, or does not do ranges, it starts
//! over. [`fetch_small`] is for checksum and signature files: in memory, never resumed.
//!
//! Nothing here reads the environment: proxies and extra TLS roots are values of the [`Request`].

mod connection;
mod error;
mod partial;
mod proxy;
mod response;

use self::{
    connection::{Answer, Client, Framing},
    partial::Partial,
};
use aule_tree::Digest;
use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};
use url::Url;

pub use self::{error::DownloadError, proxy::Proxies};

/// Bytes read at a time.
const BUFFER: usize = 128 * 1024;

/// A download that got this many bytes further than ever before counts its failures anew.
const PROGRESS_THAT_COUNTS: u64 = 1024 * 1024;

/// What to fetch, and within which limits.
#[derive(Clone)]
pub struct Request {
    /// An `http://` or `https://` URL. A user and a password in it are sent as basic authentication (RFC 7617) to this
    /// origin alone, and never appear in an error.
    pub url: String,
    /// The size in bytes that the file must have.
    pub expected_size: Option<u64>,
    /// The digest that the file must have.
    pub expected_digest: Option<Digest>,
    /// The size in bytes that the file must not exceed.
    pub max_size: u64,
    /// The proxies to use; `None` for direct connections.
    pub proxies: Option<Proxies>,
    /// PEM certificates to trust beside the built-in roots of the web, as in `/etc/ssl/certs/ca-certificates.crt`.
    pub extra_roots: Vec<u8>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// How to go on after a failure that may pass.
    pub retries: Retries,
}

impl Request {
    /// A request for `url`, of at most `max_size` bytes, with the default timeouts and retries.
    pub fn new(url: impl Into<String>, max_size: u64) -> Self {
        Request {
            url: url.into(),
            expected_size: None,
            expected_digest: None,
            max_size,
            proxies: None,
            extra_roots: Vec::new(),
            timeouts: Timeouts::default(),
            retries: Retries::default(),
        }
    }
}

/// Says nothing that may be secret: of the URL no user information and no query, of the proxies nothing.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(&self.url).map_or_else(|_| "(not a URL)".to_owned(), |url| error::shown(&url));
        f.debug_struct("Request")
            .field("url", &url)
            .field("expected_size", &self.expected_size)
            .field("expected_digest", &self.expected_digest)
            .field("max_size", &self.max_size)
            .field("timeouts", &self.timeouts)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

/// How long to wait. There is no limit on the total: a slow line takes its time, a silent one does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the name of the host to be resolved and the connection to be made, with proxy and TLS handshakes.
    pub connect: Duration,
    /// For the head of the answer, after the request was sent.
    pub response: Duration,
    /// Between two pieces of the body.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Timeouts { connect: seconds(30), response: seconds(60), idle: seconds(60) }
    }
}

/// How to go on after a lost connection, a timeout, a body cut short or an answer 5xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Attempts in all, at least one; a download that got a good piece further counts anew.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles with each.
    pub first_wait: Duration,
    /// The longest pause, also where the server asks for a longer one with `Retry-After`.
    pub longest_wait: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Retries { attempts: 6, first_wait: Duration::from_secs(1), longest_wait: Duration::from_secs(30) }
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes at hand, those of earlier runs included. It falls to zero when the download starts over.
    pub received: u64,
    /// Bytes of the entire file, where the server or the request says so.
    pub total: Option<u64>,
}

/// A complete and verified file. For as long as this value lives no other process touches it.
///
/// A caller that moves or copies the file elsewhere ends with [`Downloaded::remove`]. Where it is killed before that,
/// the next download of the same URL finds the file and asks the server only whether it is still the same; where its
/// digest is expected, not even that.
#[derive(Debug)]
pub struct Downloaded {
    /// Where the file is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub digest: Digest,
    partial: Partial,
}

impl Downloaded {
    /// Removes the file, if it is still there, and what was kept beside it.
    pub fn remove(self) -> Result<(), DownloadError> {
        self.partial.remove()
    }
}

/// Fetches the file of `request` into the directory `into`, which must exist; see the module's description.
///
/// Waits while another process (or another [`Downloaded`] in this one: do not hold two of one URL in one thread)
/// works on the same URL in the same directory. `progress` is called for every piece received, and often: the callee
/// chooses what to show.
///
/// A file of the wrong size or digest, or one that is too large, is removed; after every other error what was received
/// stays, for the next call to go on from.
pub fn download(request: &Request, into: &Path, progress: &dyn Fn(Progress)) -> Result<Downloaded, DownloadError> {
    let url = parse(&request.url)?;
    let client = Client::new(request)?;
    let mut partial = Partial::open(into, &Digest::of(url.as_str().as_bytes()), request.max_size)?;
    let complete_already = partial.is_complete()
        && request.expected_digest.is_some_and(|expected| expected == partial.digest())
        && request.expected_size.is_none_or(|expected| expected == partial.len());
    if !complete_already {
        partial.prepare_to_resume()?;
        let mut failures = Failures::new(request.retries, partial.len());
        loop {
            match receive(request, &client, &url, &mut partial, progress) {
                Ok(Received::All) => break,
                Ok(Received::NotThis) => partial.clear()?,
                Err(failure) => {
                    if failure.condemns_what_was_received() {
                        partial.clear()?;
                    }
                    if let Err(last) = failures.wait_after(failure, partial.len()) {
                        if partial.is_empty() {
                            partial.remove()?;
                        }
                        return Err(last);
                    }
                }
            }
        }
    }
    let (size, digest) = (partial.len(), partial.digest());
    if let Err(wrong) = verify(request, &url, size, digest) {
        partial.remove()?;
        return Err(wrong);
    }
    partial.sync()?;
    progress(Progress { received: size, total: Some(size) });
    Ok(Downloaded { path: partial.path().to_owned(), size, digest, partial })
}

/// Fetches the file of `request` into memory, at most `limit` bytes of it (or `request.max_size`, where that is less).
pub fn fetch_small(request: &Request, limit: usize) -> Result<Vec<u8>, DownloadError> {
    let url = parse(&request.url)?;
    let client = Client::new(request)?;
    let limit = request.max_size.min(limit as u64);
    let mut failures = Failures::new(request.retries, 0);
    loop {
        match receive_small(request, &client, &url, limit) {
            Ok(bytes) => {
                verify(request, &url, bytes.len() as u64, Digest::of(&bytes))?;
                return Ok(bytes);
            }
            Err(failure) => failures.wait_after(failure, 0)?,
        }
    }
}

/// How many bytes the server says that the file has; nothing of it is received. It is asked once.
pub fn size_of(request: &Request) -> Result<Option<u64>, DownloadError> {
    let url = parse(&request.url)?;
    let answer = Client::new(request)?.get(&url, None)?;
    if answer.status != 200 {
        return Err(answer.unexpected_status());
    }
    Ok(answer.length())
}

/// A URL for people: without user information, and with a query only hinted at, as both may be secret. What is no URL of ours
/// stays as it is.
pub fn shown(url: &str) -> String {
    parse(url).map_or_else(|_| url.to_owned(), |url| error::shown(&url))
}

/// How many bytes of `url` lie in `directory` to go on from; they are not read.
pub(crate) fn at_hand(url: &str, directory: &Path) -> u64 {
    parse(url).map_or(0, |url| partial::length(directory, &Digest::of(url.as_str().as_bytes())))
}

/// How an attempt that did not fail ended.
enum Received {
    /// With the entire file.
    All,
    /// With the discovery that what is kept is of no use: the next attempt asks for the entire file.
    NotThis,
}

/// One attempt: asks for what is missing and appends it to `partial`.
fn receive(
    request: &Request,
    client: &Client,
    url: &Url,
    partial: &mut Partial,
    progress: &dyn Fn(Progress),
) -> Result<Received, DownloadError> {
    let resumption = partial.resumption();
    let mut answer = client.get(url, resumption.as_ref())?;
    let total = match (answer.status, &resumption) {
        (200, _) => {
            let total = answer.length();
            partial.restart(response::validator(&answer.headers), total)?;
            total
        }
        (206, Some(asked)) => {
            let known = partial.total();
            match response::check_range(&answer.headers, answer.length(), asked, known) {
                Ok(total) => total.or(known),
                Err(_) => return Ok(Received::NotThis),
            }
        }
        // The file is another or shorter by now, or its size was never known and all of it is here.
        (416, Some(asked)) if response::unsatisfied_size(&answer.headers) == Some(asked.from) => {
            return Ok(Received::All);
        }
        (412 | 416, Some(_)) => return Ok(Received::NotThis),
        _ => return Err(answer.unexpected_status()),
    };
    let expected = total.or(request.expected_size);
    let limit = size_limit(request, &answer, total, request.max_size)?;
    progress(Progress { received: partial.len(), total: expected });
    let mut buffer = vec![0; BUFFER];
    loop {
        let piece = answer.read(&mut buffer, partial.len(), expected)?;
        if piece.is_empty() {
            break;
        }
        if partial.len().saturating_add(piece.len() as u64) > limit {
            return Err(over_limit(request, &answer, total, limit));
        }
        partial.append(piece)?;
        progress(Progress { received: partial.len(), total: expected });
    }
    // The framing was kept, but it can be that of a part only, or none at all (the end of the connection).
    let whole = if answer.framing == Framing::UntilClose { expected } else { total };
    match whole {
        Some(whole) if partial.len() < whole => {
            Err(DownloadError::Incomplete { url: answer.shown, received: partial.len(), expected })
        }
        _ => Ok(Received::All),
    }
}

/// One attempt of [`fetch_small`].
fn receive_small(request: &Request, client: &Client, url: &Url, max_size: u64) -> Result<Vec<u8>, DownloadError> {
    let mut answer = client.get(url, None)?;
    if answer.status != 200 {
        return Err(answer.unexpected_status());
    }
    let total = answer.length();
    let expected = total.or(request.expected_size);
    let limit = size_limit(request, &answer, total, max_size)?;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let piece = answer.read(&mut buffer, bytes.len() as u64, expected)?;
        if piece.is_empty() {
            break;
        }
        if (bytes.len() + piece.len()) as u64 > limit {
            return Err(over_limit(request, &answer, total, limit));
        }
        bytes.extend_from_slice(piece);
    }
    match expected {
        Some(expected) if answer.framing == Framing::UntilClose && (bytes.len() as u64) < expected => {
            let received = bytes.len() as u64;
            Err(DownloadError::Incomplete { url: answer.shown, received, expected: Some(expected) })
        }
        _ => Ok(bytes),
    }
}

/// Refuses what can be refused before the body is read; otherwise the size in bytes that the file may reach.
fn size_limit(request: &Request, answer: &Answer, total: Option<u64>, max_size: u64) -> Result<u64, DownloadError> {
    let url = || answer.shown.clone();
    if let Some(total) = total {
        if total > max_size {
            return Err(DownloadError::TooLarge { url: url(), limit: max_size });
        }
        match request.expected_size {
            Some(expected) if expected != total => {
                return Err(DownloadError::SizeDiffers { url: url(), expected, actual: total });
            }
            _ => return Ok(total),
        }
    }
    // A body that ends with its connection looks complete wherever it is cut.
    if answer.framing == Framing::UntilClose && request.expected_size.is_none() && request.expected_digest.is_none() {
        return Err(DownloadError::UnknownLength { url: url() });
    }
    Ok(request.expected_size.unwrap_or(max_size).min(max_size))
}

/// The error for a body that goes beyond `limit` of [`size_limit`].
fn over_limit(request: &Request, answer: &Answer, total: Option<u64>, limit: u64) -> DownloadError {
    let url = answer.shown.clone();
    match (total, request.expected_size) {
        (Some(length), _) => DownloadError::Excess { url, length },
        (None, Some(expected)) if expected == limit => DownloadError::LargerThanExpected { url, expected },
        (None, _) => DownloadError::TooLarge { url, limit },
    }
}

/// Compares a complete file with what is expected of it.
fn verify(request: &Request, url: &Url, size: u64, digest: Digest) -> Result<(), DownloadError> {
    let url = || error::shown(url);
    match request.expected_size {
        Some(expected) if expected != size => {
            return Err(DownloadError::SizeDiffers { url: url(), expected, actual: size });
        }
        _ => {}
    }
    match request.expected_digest {
        Some(expected) if expected != digest => {
            Err(DownloadError::DigestDiffers { url: url(), expected, actual: digest })
        }
        _ => Ok(()),
    }
}

/// The URL of a request.
fn parse(text: &str) -> Result<Url, DownloadError> {
    let mut url = Url::parse(text).map_err(|reason| DownloadError::InvalidUrl { reason: reason.to_string() })?;
    error::check_scheme(&url)?;
    // It names a place in the document and is not sent.
    url.set_fragment(None);
    Ok(url)
}

/// Counts the failures of one call, and waits between them.
struct Failures {
    retries: Retries,
    count: u32,
    furthest: u64,
}

impl Failures {
    fn new(retries: Retries, furthest: u64) -> Self {
        Failures { retries, count: 0, furthest }
    }

    /// Waits before the next attempt, or says that there is none.
    ///
    /// Only bytes beyond the furthest point ever reached set the count back, so that there is an end also with a
    /// server that lets every download start over.
    fn wait_after(&mut self, failure: DownloadError, reached: u64) -> Result<(), DownloadError> {
        if !failure.may_pass() {
            return Err(failure);
        }
        if reached >= self.furthest.saturating_add(PROGRESS_THAT_COUNTS) {
            self.furthest = reached;
            self.count = 0;
        }
        self.count += 1;
        if self.count >= self.retries.attempts {
            return Err(DownloadError::GaveUp { attempts: self.count, last: Box::new(failure) });
        }
        let doublings = (self.count - 1).min(20);
        let wait = self.retries.first_wait.saturating_mul(1 << doublings);
        let asked = failure.asked_wait().unwrap_or_default();
        std::thread::sleep(wait.max(asked).min(self.retries.longest_wait));
        Ok(())
    }
}
