//! Files of the store over HTTP, by digest: whole or in ranges, never before they were compared with their digest.

use super::{
    Ends, Shared,
    files::{Opened, Unread},
};
use crate::{limits::Place, published::Blob};
use aule_tree::Digest;
use axum::{
    body::{Body, Bytes},
    extract::{ConnectInfo, Path, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::mpsc;

/// How many pieces wait for the client.
const PIECES: usize = 2;
/// A client that takes nothing for so long is given up.
pub(super) const STALLED: Duration = Duration::from_secs(30);
/// A blob of one of the site's builds.
pub(super) async fn artifact(
    State(shared): State<Shared>,
    ConnectInfo(ends): ConnectInfo<Ends>,
    Path(digest): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let found = digest.parse().ok().and_then(|digest| Some((digest, shared.server.images.blob(digest)?)));
    match found {
        Some((digest, blob)) => respond(&shared, ends, digest, &blob, &method, &headers).await,
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What of a file is wanted (RFC 9110, 14.2). Several ranges are answered with all of it, as is what cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    /// From the first to before the second.
    Part(u64, u64),
    Nothing,
}

fn wanted(range: Option<&HeaderValue>, size: u64) -> Wanted {
    let Some((unit, range)) = range.and_then(|it| it.to_str().ok()).and_then(|it| it.split_once('=')) else {
        return Wanted::All;
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Wanted::All;
    }
    let Some((first, last)) = range.trim().split_once('-').filter(|_| !range.contains(',')) else { return Wanted::All };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Wanted::All,
        (Ok(first), _) if first >= size => Wanted::Nothing,
        (Ok(first), Ok(last)) => Wanted::Part(first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.is_empty() => Wanted::Part(first, size),
        (Err(_), Ok(0)) if first.is_empty() => Wanted::Nothing,
        (Err(_), Ok(_)) if first.is_empty() && size == 0 => Wanted::Nothing,
        (Err(_), Ok(last)) if first.is_empty() => Wanted::Part(size.saturating_sub(last), size),
        _ => Wanted::All,
    }
}

/// Answers with a blob. Its digest is its strong entity tag.
pub(super) async fn respond(
    shared: &Shared,
    ends: Ends,
    digest: Digest,
    blob: &Blob,
    method: &Method,
    headers: &HeaderMap,
) -> Response {
    let tag = format!("\"{digest}\"");
    let mut answer = Response::builder()
        .header(header::CONTENT_TYPE, &blob.media_type)
        .header(header::ETAG, &tag)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CACHE_CONTROL, "public, max-age=31536000, immutable")
        .header("docker-content-digest", digest.to_string());
    let value = |name: header::HeaderName| headers.get(name).and_then(|it| it.to_str().ok());
    let names = |value: &str, weak: bool| {
        let same = |it: &str| it == tag || it == "*" || weak && it.strip_prefix("W/") == Some(&tag);
        value.split(',').any(|it| same(it.trim()))
    };
    if value(header::IF_MATCH).is_some_and(|it| !names(it, false)) {
        return answer.status(StatusCode::PRECONDITION_FAILED).body(Body::empty()).unwrap_or_else(failed);
    }
    if value(header::IF_NONE_MATCH).is_some_and(|it| names(it, true)) {
        return answer.status(StatusCode::NOT_MODIFIED).body(Body::empty()).unwrap_or_else(failed);
    }
    // (A range is for GET alone: RFC 9110, 14.2.)
    let range = headers.get(header::RANGE).filter(|_| method == Method::GET);
    let range = range.filter(|_| value(header::IF_RANGE).is_none_or(|it| it.trim() == tag));
    let (first, end) = match wanted(range, blob.size) {
        Wanted::All => (0, blob.size),
        Wanted::Part(first, end) => {
            let part = format!("bytes {first}-{}/{}", end - 1, blob.size);
            answer = answer.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, part);
            (first, end)
        }
        Wanted::Nothing => {
            let answer = answer.status(StatusCode::RANGE_NOT_SATISFIABLE);
            let answer = answer.header(header::CONTENT_RANGE, format!("bytes */{}", blob.size));
            return answer.body(Body::empty()).unwrap_or_else(failed);
        }
    };
    answer = answer.header(header::CONTENT_LENGTH, end - first);
    if method == Method::HEAD {
        return answer.body(Body::empty()).unwrap_or_else(failed);
    }
    let Some(place) = shared.files.transfers.enter(ends.peer.ip().to_canonical()).await else { return later() };
    match shared.files.open(&shared.server, digest).await {
        Ok(file) => answer.body(stream(shared.clone(), place, file, first, end)).unwrap_or_else(failed),
        Err(unread) => {
            // What is known to be damaged was told when that was seen.
            if let Unread::Store(error) = unread {
                shared.server.warn(format!("an artifact cannot be served: {error}"));
            }
            (StatusCode::INTERNAL_SERVER_ERROR, "it is damaged or cannot be read\n").into_response()
        }
    }
}

/// An answer to who asks for more than its share.
pub(super) fn later() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "2")], "too many transfers to this address\n")
        .into_response()
}

/// An answer that cannot be made, which only happens with headers that are none.
pub(super) fn failed(_: axum::http::Error) -> Response {
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// A body of bytes `first..end` of a file, read as the client takes them.
fn stream(shared: Shared, place: Place, file: Opened, first: u64, end: u64) -> Body {
    let (pieces, body) = channel(end - first);
    tokio::spawn(async move {
        let _place = place;
        let (file, spare) = (Arc::new(file), Spare::default());
        let mut at = first;
        while at < end {
            let (file_of_piece, spare) = (Arc::clone(&file), spare.clone());
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = spare.take();
                let start = file_of_piece.read(at, &mut piece)?;
                let whole = Bytes::from_owner(Lent { piece, home: spare });
                let (from, to) = ((at - start) as usize, (end - start).min(whole.len() as u64) as usize);
                Ok(whole.slice(from..to))
            });
            let piece = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            let broken = piece.is_err();
            match &piece {
                Ok(piece) => at += piece.len() as u64,
                Err(error) => {
                    let digest = file.digest;
                    if error.kind() == io::ErrorKind::InvalidData {
                        shared.files.damaged(digest);
                    }
                    shared.server.warn(format!("an artifact cannot be sent to its end: blob {digest}: {error}"));
                }
            }
            // The client may be gone, or take nothing.
            let sent = tokio::time::timeout(STALLED, pieces.send(piece)).await;
            if !matches!(sent, Ok(Ok(()))) || broken {
                return;
            }
        }
    });
    body
}

/// Buffers of a transfer that were sent: the next pieces have them, as fresh memory must be cleared by the kernel first.
#[derive(Clone, Default)]
struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }
}

/// A piece that goes back when it was sent.
struct Lent {
    piece: Vec<u8>,
    home: Spare,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut spare = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        spare.push(std::mem::take(&mut self.piece));
    }
}

/// A body that is given piece by piece, `size` bytes in all.
pub(super) fn channel(size: u64) -> (mpsc::Sender<io::Result<Bytes>>, Body) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (sender, Body::new(Pieces { receiver, left: size }))
}

struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<http_body::Frame<Bytes>>>> {
        self.receiver.poll_recv(context).map(|piece| {
            let piece = match piece {
                Some(piece) => piece,
                // The end of a body that is too short must not look like a good one.
                None if self.left > 0 => return Some(Err(io::ErrorKind::UnexpectedEof.into())),
                None => return None,
            };
            Some(piece.map(|piece| {
                self.left = self.left.saturating_sub(piece.len() as u64);
                http_body::Frame::data(piece)
            }))
        })
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, expected) in [
            ("bytes=0-0", Wanted::Part(0, 1)),
            ("bytes=5-", Wanted::Part(5, 10)),
            ("bytes=5-99", Wanted::Part(5, 10)),
            ("bytes=5-18446744073709551615", Wanted::Part(5, 10)),
            ("bytes=-3", Wanted::Part(7, 10)),
            ("bytes=-99", Wanted::Part(0, 10)),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=3-2", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("bytes=x-1", Wanted::All),
            ("bytes=-", Wanted::All),
            ("lines=1-2", Wanted::All),
        ] {
            assert_eq!(wanted(Some(&HeaderValue::from_static(range)), 10), expected, "{range}");
        }
        assert_eq!(wanted(None, 10), Wanted::All);
        for range in ["bytes=0-", "bytes=-5", "bytes=-0", "bytes=0-0"] {
            assert_eq!(wanted(Some(&HeaderValue::from_static(range)), 0), Wanted::Nothing, "{range} of nothing");
        }
    }
}
