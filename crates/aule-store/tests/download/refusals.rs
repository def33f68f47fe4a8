//! Files that are refused, and how that is told.

use super::{ETAG, fetch, fetch_equal, names, request};
use crate::server::{Server, Step, answer, content, serve};
use aule_store::download::{DownloadError, Proxies, fetch_small};
use aule_tree::Digest;

#[test]
fn a_wrong_digest_names_both_and_keeps_nothing() {
    let into = tempfile::tempdir().unwrap();
    let server = Server::start(|_, head| vec![Step::Send(serve(head, b"abc", ETAG))]);
    let mut request = request(server.url("/"));
    request.expected_digest = Some(Digest::of(b"abd"));
    let error = fetch(&request, into.path()).unwrap_err().to_string();
    assert!(error.contains(&Digest::of(b"abc").to_string()) && error.contains(&Digest::of(b"abd").to_string()));
    assert_eq!(names(into.path()), [""; 0]);
    assert_eq!(server.heads().len(), 1, "it is not tried again");
    assert!(matches!(fetch_small(&request, 10), Err(DownloadError::DigestDiffers { .. })));
    request.expected_digest = Some(Digest::of(b"abc"));
    fetch_equal(&request, into.path(), b"abc");
    assert_eq!(fetch_small(&request, 10).unwrap(), b"abc");
}

#[test]
fn a_body_longer_than_announced_is_not_taken() {
    let into = tempfile::tempdir().unwrap();
    let server = Server::start(|number, head| {
        let long = answer("200 OK", &["ETag: \"one\"", "Content-Length: 3"], b"abcdefg");
        vec![Step::Send(if number < 2 { long } else { serve(head, b"abc", ETAG) })]
    });
    fetch_equal(&request(server.url("/")), into.path(), b"abc");
    assert_eq!(server.ranges(), [None, None, None]);

    let server = Server::start(|_, _| vec![Step::Send(answer("200 OK", &["Content-Length: 3"], b"abcdefg"))]);
    let error = fetch(&request(server.url("/")), into.path()).unwrap_err();
    assert!(error.to_string().contains("more than the 3 bytes that it announced"), "{error}");
    assert!(fetch_small(&request(server.url("/")), 10).is_err());
    assert_eq!(names(into.path()), [""; 0]);
}

#[test]
fn sizes_are_limited_whether_announced_or_not() {
    let chunks = |body: &str| answer("200 OK", &["Transfer-Encoding: chunked"], body.as_bytes());
    let four = chunks("4\r\nabcd\r\n0\r\n\r\n");
    let sized = answer("200 OK", &["Content-Length: 4"], b"abcd");
    let closed = answer("200 OK", &[], b"abcd");
    type Check = fn(&DownloadError) -> bool;
    let too_large: Check = |error| matches!(error, DownloadError::TooLarge { limit: 3, .. });
    let larger: Check = |error| matches!(error, DownloadError::LargerThanExpected { expected: 3, .. });
    let differs: Check = |error| matches!(error, DownloadError::SizeDiffers { actual: 4, .. });
    let unknown: Check = |error| matches!(error, DownloadError::UnknownLength { .. });
    let cut: Check = |error| matches!(error, DownloadError::GaveUp { .. });
    for (name, reply, max_size, expected_size, check) in [
        ("announced, too large", &sized, 3, None, too_large),
        ("chunks, too large", &four, 3, None, too_large),
        ("announced, larger than expected", &sized, 9, Some(3), differs),
        ("chunks, larger than expected", &four, 9, Some(3), larger),
        ("announced, smaller than expected", &sized, 9, Some(5), differs),
        ("chunks, smaller than expected", &four, 9, Some(5), differs),
        ("until the connection ends", &closed, 9, None, unknown),
        ("until the connection ends, too small", &closed, 9, Some(5), cut),
        ("until the connection ends, too large", &closed, 9, Some(3), larger),
    ] {
        let (reply, into) = (reply.clone(), tempfile::tempdir().unwrap());
        let server = Server::start(move |_, _| vec![Step::Send(reply.clone())]);
        let mut request = request(server.url("/"));
        (request.max_size, request.expected_size) = (max_size, expected_size);
        let error = fetch(&request, into.path()).unwrap_err();
        assert!(check(&error), "{name}: {error:?}");
        let error = fetch_small(&request, 100).unwrap_err();
        assert!(check(&error), "{name}: {error:?}");
        // Only a part that might still become the file would stay, and none of these has a validator.
        assert!(!names(into.path()).contains(&"state".to_owned()), "{name}");
        // The same answers are fine where they fit.
        if expected_size.is_some() {
            (request.max_size, request.expected_size) = (4, Some(4));
            fetch_equal(&request, into.path(), b"abcd");
            assert_eq!(fetch_small(&request, 4).unwrap(), b"abcd");
        }
    }
}

#[test]
fn a_digest_makes_up_for_an_unknown_length() {
    let into = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| vec![Step::Send(answer("200 OK", &[], b"abcd"))]);
    let mut request = request(server.url("/"));
    request.expected_digest = Some(Digest::of(b"abcd"));
    fetch_equal(&request, into.path(), b"abcd");
}

#[test]
fn an_endless_body_ends_at_the_limit() {
    let into = tempfile::tempdir().unwrap();
    let chunk = [format!("{:x}\r\n", 1 << 20).as_bytes(), &content(1 << 20), b"\r\n"].concat();
    let server = Server::start(move |_, _| {
        let mut steps = vec![Step::Send(answer("200 OK", &["ETag: \"a\"", "Transfer-Encoding: chunked"], b""))];
        steps.extend((0..8).map(|_| Step::Send(chunk.clone())));
        steps.push(Step::Stall);
        steps
    });
    let mut request = request(server.url("/"));
    request.max_size = 3 << 20;
    assert!(matches!(fetch(&request, into.path()), Err(DownloadError::TooLarge { .. })));
    assert!(matches!(fetch_small(&request, 1000), Err(DownloadError::TooLarge { limit: 1000, .. })));
    assert_eq!(names(into.path()), [""; 0], "it cannot become a file of that size");
}

#[test]
fn a_content_encoding_is_not_undone() {
    let (file, into) = (b"\x1f\x8b looks like gzip".to_vec(), tempfile::tempdir().unwrap());
    let body = file.clone();
    let server = Server::start(move |_, _| {
        let length = format!("Content-Length: {}", body.len());
        vec![Step::Send(answer("200 OK", &["Content-Encoding: gzip", &length], &body))]
    });
    fetch_equal(&request(server.url("/")), into.path(), &file);
    assert_eq!(fetch_small(&request(server.url("/")), 100).unwrap(), file);
}

#[test]
fn what_the_server_refuses_is_not_tried_again() {
    for status in ["400 Bad", "401 Who", "403 No", "404 Not Found", "410 Gone", "429 Slow", "204 None", "304 Same"] {
        let into = tempfile::tempdir().unwrap();
        let server = Server::start(move |_, _| vec![Step::Send(answer(status, &["Content-Length: 0"], b""))]);
        let error = fetch(&request(server.url("/")), into.path()).unwrap_err();
        assert!(matches!(error, DownloadError::Status { .. }), "{status}: {error:?}");
        assert!(error.to_string().contains(&status[..3]), "{error}");
        assert!(fetch_small(&request(server.url("/")), 100).is_err());
        assert_eq!(server.heads().len(), 2, "{status}");
    }
}

#[test]
fn what_is_not_http_is_an_error() {
    let into = tempfile::tempdir().unwrap();
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    for reply in ["SSH-2.0-OpenSSH\r\n", "\r\n\r\n", "HTTP/1.1 banana\r\n\r\n", &long] {
        let bytes = reply.as_bytes().to_vec();
        let server = Server::start(move |_, _| vec![Step::Send(bytes.clone())]);
        assert!(fetch(&request(server.url("/")), into.path()).is_err());
    }
    let server = Server::start(|_, _| {
        vec![Step::Send(answer("200 OK", &["Transfer-Encoding: chunked"], b"fffffffffffffffffffffff\r\nabc"))]
    });
    assert!(fetch(&request(server.url("/")), into.path()).is_err());
}

#[test]
fn secrets_in_urls_are_sent_but_never_told() {
    let into = tempfile::tempdir().unwrap();
    let refusals: &[(&str, &[&str])] = &[
        ("404 Not Found", &["Content-Length: 0"]),
        ("503 Busy", &["Content-Length: 0"]),
        ("200 OK", &["Content-Length: 9999999999"]),
        ("200 OK", &["Content-Length: 7"]),
        ("200 OK", &[]),
        ("302 Found", &["Location: ftp://me:sesame@127.0.0.1/?sesame", "Content-Length: 0"]),
        ("302 Found", &["Location: http://me:sesame@:99999/", "Content-Length: 0"]),
        ("302 Found", &["Content-Length: 0"]),
        ("302 Found", &["Location: /again?sesame", "Content-Length: 0"]),
    ];
    for (status, headers) in refusals {
        let server = Server::start(move |_, _| vec![Step::Send(answer(status, headers, b""))]);
        let request = request(format!("http://me:sesame@{}/a?token=sesame", server.address));
        let error = fetch(&request, into.path()).unwrap_err();
        assert!(!format!("{error} {error:?} {request:?}").contains("sesame"), "{error:?}");
        assert_eq!(server.heads()[0].get("authorization"), Some("Basic bWU6c2VzYW1l"));
    }
    for url in ["http://me:sesame@", "me:sesame@host/", "http://me:sesame@host:99999/", "ftp://me:sesame@host/"] {
        let request = request(url.into());
        let error = fetch(&request, into.path()).unwrap_err();
        assert!(!format!("{error} {error:?} {request:?}").contains("sesame"), "{error:?}");
    }
    // Nobody listens at the port of a server that has ended.
    let gone = Server::start(|_, _| Vec::new()).address;
    let mut request = request("http://me:sesame@127.0.0.1:1/?sesame".into());
    request.proxies = Some(Proxies { all: Some(format!("http://me:sesame@{gone}")), ..Proxies::default() });
    let error = fetch(&request, into.path()).unwrap_err();
    assert!(!format!("{error} {error:?} {request:?}").contains("sesame"), "{error:?}");
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let server = Server::start(|_, head| vec![Step::Send(serve(head, b"abc", ETAG))]);
    let error = fetch(&request(server.url("/")), "/nonexistent/directory".as_ref()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/directory"), "{error}");
}
