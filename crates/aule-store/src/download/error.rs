//! What can go wrong with a download, and how it is told without telling secrets.

use aule_tree::Digest;
use std::{io, path::PathBuf, time::Duration};
use url::Url;

/// Why a file could not be fetched. A URL in it has no user information and no query, for both can be secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The URL of the request is none. Its text is not repeated, for it may hold a password.
    #[error("the address to download from is not a valid URL: {reason}")]
    InvalidUrl {
        /// What the URL parser says.
        reason: String,
    },
    /// The URL is neither http nor https.
    #[error("cannot download from `{url}`: only http and https are supported")]
    UnsupportedScheme {
        /// The URL.
        url: String,
    },
    /// A proxy setting is not usable. Its text is not repeated, for it may hold a password.
    #[error("the proxy setting for {scheme} is not usable: {reason}; expected `http://HOST:PORT`")]
    InvalidProxy {
        /// Whose setting: `http`, `https` or `all`.
        scheme: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The extra TLS roots are not PEM certificates.
    #[error("the extra TLS roots are not usable: {reason}")]
    InvalidRoots {
        /// What is wrong with them.
        reason: String,
    },
    /// The server answered with an error, or with something that is no answer to the question.
    #[error("`{url}`: the server answered with status {status}{}", meaning(*status))]
    Status {
        /// The URL, after redirects.
        url: String,
        /// The status (RFC 9110 section 15).
        status: u16,
        /// What the server says in `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// One redirect follows the other.
    #[error("`{url}`: more than {limit} redirects")]
    TooManyRedirects {
        /// The URL that was asked for first.
        url: String,
        /// How many were followed.
        limit: u32,
    },
    /// A redirect leads nowhere.
    #[error("`{url}` redirects to an address that is not usable: {reason}")]
    BadRedirect {
        /// The URL that redirects.
        url: String,
        /// What is wrong with its `Location`.
        reason: String,
    },
    /// A redirect from https to http, where anybody could change what is sent.
    #[error("`{from}` redirects from https to the unprotected `{to}`: refused")]
    InsecureRedirect {
        /// The URL that redirects.
        from: String,
        /// The URL it redirects to.
        to: String,
    },
    /// No connection, or a lost one, or something else than HTTP.
    #[error("`{url}`: {reason}")]
    Network {
        /// The URL.
        url: String,
        /// What happened.
        reason: String,
        /// Whether another attempt may do better.
        may_pass: bool,
    },
    /// Nothing came for too long.
    #[error("`{url}`: timeout ({phase})")]
    Timeout {
        /// The URL.
        url: String,
        /// What was waited for.
        phase: String,
    },
    /// The connection ended before the body did.
    #[error("`{url}`: the connection ended after {received} bytes{}", of(*expected))]
    Incomplete {
        /// The URL.
        url: String,
        /// The bytes at hand, those of earlier runs included.
        received: u64,
        /// The bytes of the entire file.
        expected: Option<u64>,
    },
    /// The server sends more than it announced.
    #[error("`{url}`: the server sends more than the {length} bytes that it announced")]
    Excess {
        /// The URL.
        url: String,
        /// What it announced.
        length: u64,
    },
    /// The file is larger than the request allows.
    #[error("`{url}`: larger than the limit of {limit} bytes")]
    TooLarge {
        /// The URL.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// The file is larger than it should be; how large is not known, for it was not received to its end.
    #[error("`{url}`: larger than the expected {expected} bytes")]
    LargerThanExpected {
        /// The URL.
        url: String,
        /// The size it should have.
        expected: u64,
    },
    /// The file has the wrong size.
    #[error("`{url}`: the file has {actual} bytes, expected were {expected}")]
    SizeDiffers {
        /// The URL.
        url: String,
        /// The size it should have.
        expected: u64,
        /// The size it has.
        actual: u64,
    },
    /// The file has the wrong digest.
    #[error("`{url}`: the file has the digest {actual}, expected was {expected}; what was received is removed")]
    DigestDiffers {
        /// The URL.
        url: String,
        /// The digest it should have.
        expected: Digest,
        /// The digest it has.
        actual: Digest,
    },
    /// The server does not say how long the file is, so that a part of it could not be told from the whole.
    #[error("`{url}`: the server does not say how long the file is; give its size or its checksum to download it")]
    UnknownLength {
        /// The URL.
        url: String,
    },
    /// No room for the file.
    #[error("no room for `{path}`: {source}; what was received is kept, make room and start again")]
    NoRoom {
        /// The partial file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A partial file, or one beside it, cannot be worked with.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Every attempt failed in a way that might have passed.
    #[error("{last} (gave up after {attempts} attempts)")]
    GaveUp {
        /// Attempts since the last good piece of progress.
        attempts: u32,
        /// How the last one failed.
        last: Box<DownloadError>,
    },
}

impl DownloadError {
    /// Whether the server says that there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, DownloadError::Status { status: 404 | 410, .. })
    }

    /// Whether there is no server to ask, or none that answers.
    pub fn is_unreachable(&self) -> bool {
        match self {
            DownloadError::Network { .. } | DownloadError::Timeout { .. } => true,
            DownloadError::GaveUp { last, .. } => last.is_unreachable(),
            _ => false,
        }
    }

    /// Whether it is about this machine, so that no other server could do better.
    pub fn is_local(&self) -> bool {
        use DownloadError::{GaveUp, InvalidProxy, InvalidRoots, Io, NoRoom};
        match self {
            NoRoom { .. } | Io { .. } | InvalidProxy { .. } | InvalidRoots { .. } => true,
            GaveUp { last, .. } => last.is_local(),
            _ => false,
        }
    }

    /// Whether another attempt may do better.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            DownloadError::Status { status, .. } => (500..600).contains(status),
            DownloadError::Network { may_pass, .. } => *may_pass,
            DownloadError::Timeout { .. } | DownloadError::Incomplete { .. } | DownloadError::Excess { .. } => true,
            _ => false,
        }
    }

    /// Whether what was received cannot be the beginning of the wanted file.
    pub(super) fn condemns_what_was_received(&self) -> bool {
        matches!(
            self,
            DownloadError::Excess { .. }
                | DownloadError::TooLarge { .. }
                | DownloadError::LargerThanExpected { .. }
                | DownloadError::SizeDiffers { .. }
                | DownloadError::DigestDiffers { .. }
        )
    }

    /// How long the server asks to be left alone.
    pub(super) fn asked_wait(&self) -> Option<Duration> {
        match self {
            DownloadError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The error for a write that failed.
    pub(super) fn writing(path: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                DownloadError::NoRoom { path, source }
            }
            _ => DownloadError::Io { action: "write", path, source },
        }
    }

    /// The error for what the HTTP client says about `url` (as [`shown`]).
    pub(super) fn network(url: &str, error: ureq::Error) -> Self {
        let url = url.to_owned();
        let (reason, may_pass) = match error {
            ureq::Error::Timeout(phase) => return DownloadError::Timeout { url, phase: phase.to_string() },
            ureq::Error::Io(error) => {
                let reason = error.to_string();
                // The resolver has no kinds of errors, only words (gai_strerror(3), EAI_AGAIN).
                let again = reason.contains("Temporary failure in name resolution");
                (reason, again || is_transient(error.kind()))
            }
            ureq::Error::HostNotFound => ("the host was not found".to_owned(), false),
            // It would repeat the URL.
            ureq::Error::BadUri(_) => ("the HTTP client does not accept the address".to_owned(), false),
            ureq::Error::ConnectProxyFailed(reason) => (format!("the proxy does not connect: {reason}"), false),
            other => (other.to_string(), false),
        };
        DownloadError::Network { url, reason, may_pass }
    }
}

/// Failures of a connection that another connection need not share.
fn is_transient(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        kind,
        Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::ConnectionRefused
            | Kind::NotConnected
            | Kind::BrokenPipe
            | Kind::UnexpectedEof
            | Kind::TimedOut
            | Kind::WouldBlock
            | Kind::Interrupted
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
    )
}

/// `url` for people: without user information, and with the query and fragment only hinted at.
pub(super) fn shown(url: &Url) -> String {
    if url.cannot_be_a_base() {
        // `user:password@host` without a scheme is parsed as one of these.
        return format!("{}:…", url.scheme());
    }
    let mut plain = url.clone();
    // These fail for URLs without a host, which have no user information either.
    let _ = plain.set_username("");
    let _ = plain.set_password(None);
    plain.set_fragment(None);
    plain.set_query(url.query().map(|_| "…"));
    // The parser encodes the ellipsis; only that one can stand there.
    plain.as_str().replace("?%E2%80%A6", "?…")
}

/// Refuses URLs that are neither http nor https.
pub(super) fn check_scheme(url: &Url) -> Result<(), DownloadError> {
    match url.scheme() {
        "http" | "https" => Ok(()),
        _ => Err(DownloadError::UnsupportedScheme { url: shown(url) }),
    }
}

/// The meaning of the statuses that people meet.
fn meaning(status: u16) -> &'static str {
    match status {
        401 => " (it wants a user and a password)",
        403 => " (it does not permit it)",
        404 => " (there is no such file)",
        407 => " (the proxy wants a user and a password)",
        410 => " (there is no such file any more)",
        429 => " (it got too many requests)",
        500..=599 => " (it has trouble of its own)",
        _ => "",
    }
}

/// " of N" for a size that is known.
fn of(expected: Option<u64>) -> String {
    expected.map(|expected| format!(" of {expected}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_other_failures() {
        let error = |kind: io::ErrorKind| DownloadError::writing("x.part".into(), kind.into());
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge] {
            assert!(matches!(error(kind), DownloadError::NoRoom { .. }), "{kind}");
        }
        assert!(matches!(error(io::ErrorKind::PermissionDenied), DownloadError::Io { .. }));
    }

    #[test]
    fn shown_urls_have_no_secrets() {
        for (url, expected) in [
            ("https://user:secret@example.org/a.img?token=secret#secret", "https://example.org/a.img?…"),
            ("http://secret@example.org:8080/a%20b", "http://example.org:8080/a%20b"),
            ("https://[2001:db8::1]/", "https://[2001:db8::1]/"),
        ] {
            assert_eq!(shown(&Url::parse(url).unwrap()), expected);
        }
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let status = |status| DownloadError::Status { url: String::new(), status, retry_after: None };
        for (code, expected) in [(500, true), (503, true), (599, true), (400, false), (404, false), (429, false)] {
            assert_eq!(status(code).may_pass(), expected, "{code}");
        }
        let reset = ureq::Error::Io(io::ErrorKind::ConnectionReset.into());
        assert!(DownloadError::network("u", reset).may_pass());
        let resolver = "failed to lookup address information: Temporary failure in name resolution";
        assert!(DownloadError::network("u", ureq::Error::Io(io::Error::other(resolver))).may_pass());
        let certificate = ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, "certificate"));
        assert!(!DownloadError::network("u", certificate).may_pass());
    }
}
