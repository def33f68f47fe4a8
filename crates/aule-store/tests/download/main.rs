//! Downloads from a server with faults: what is resumed, what starts over, what is tried again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test panics when its own set-up is wrong")]

mod network;
mod processes;
mod refusals;
mod server;

use aule_store::download::{DownloadError, Downloaded, Progress, Request, Retries, Timeouts, download, fetch_small};
use aule_tree::Digest;
use server::{Head, Server, Step, answer, content, cut, serve};
use std::{cell::RefCell, fs, path::Path, time::Duration};

const ETAG: &str = "\"one\"";

/// A request that waits for nothing but a stalled server.
fn request(url: String) -> Request {
    let soon = Duration::from_millis(1);
    let mut request = Request::new(url, 1 << 30);
    request.retries = Retries { attempts: 5, first_wait: soon, longest_wait: soon };
    request.timeouts = Timeouts { connect: Duration::from_secs(20), ..Timeouts::default() };
    request
}

fn fetch(request: &Request, into: &Path) -> Result<Downloaded, DownloadError> {
    download(request, into, &|_| {})
}

/// Downloads, compares with `expected`, and removes what was downloaded.
fn fetch_equal(request: &Request, into: &Path, expected: &[u8]) {
    let done = fetch(request, into).unwrap();
    assert!(fs::read(&done.path).unwrap() == expected, "the content differs");
    assert_eq!((done.size, done.digest), (expected.len() as u64, Digest::of(expected)));
    done.remove().unwrap();
    assert_eq!(names(into), [""; 0]);
}

/// The extensions of the files in a directory.
fn names(directory: &Path) -> Vec<String> {
    let path = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().path();
    let extension = |path: std::path::PathBuf| path.extension().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(path).map(extension).collect();
    names.sort();
    names
}

fn some(ranges: &[&str]) -> Vec<Option<String>> {
    ranges.iter().map(|range| (!range.is_empty()).then(|| format!("bytes={range}-"))).collect()
}

#[test]
fn a_file_is_downloaded_with_progress() {
    let (file, into) = (content(300_000), tempfile::tempdir().unwrap());
    let served = file.clone();
    let server = Server::start(move |_, head| vec![Step::Send(serve(head, &served, ETAG))]);
    let seen = RefCell::new(Vec::new());
    let done = download(&request(server.url("/a?b#c")), into.path(), &|at| seen.borrow_mut().push(at)).unwrap();
    assert!(fs::read(&done.path).unwrap() == file);
    assert_eq!(names(into.path()), ["lock", "part", "state"]);
    let name = Digest::of(server.url("/a?b").as_bytes()).hex();
    assert_eq!(done.path, into.path().join(format!("{name}.part")));
    let seen = seen.into_inner();
    assert_eq!(seen.first(), Some(&Progress { received: 0, total: Some(300_000) }));
    assert_eq!(seen.last(), Some(&Progress { received: 300_000, total: Some(300_000) }));
    assert!(seen.windows(2).all(|two| two[0].received <= two[1].received));
    let head = server.heads().remove(0);
    assert_eq!(head.line, "GET /a?b HTTP/1.1");
    assert_eq!(head.get("accept-encoding"), Some("identity"));
    assert_eq!(head.get("host"), Some(server.address.to_string().as_str()));
    assert_eq!(head.get("authorization"), None);
}

#[test]
fn an_empty_file_is_a_file() {
    let into = tempfile::tempdir().unwrap();
    let server = Server::start(|_, head| vec![Step::Send(serve(head, b"", ETAG))]);
    fetch_equal(&request(server.url("/")), into.path(), b"");
}

#[test]
fn a_connection_cut_several_times_is_resumed_each_time() {
    let (file, into) = (content(300_000), tempfile::tempdir().unwrap());
    let served = file.clone();
    let server = Server::start(move |number, head| {
        let whole = serve(head, &served, ETAG);
        vec![Step::Send(if number < 4 { cut(whole, [1, 70_000, 0, 200_000][number]) } else { whole })]
    });
    fetch_equal(&request(server.url("/")), into.path(), &file);
    assert_eq!(server.ranges(), some(&["", "1", "70001", "70001", "270001"]));
    assert!(server.heads()[1..].iter().all(|head| head.get("if-range") == Some(ETAG)));
}

#[test]
fn a_reset_connection_is_tried_again() {
    let (file, into) = (content(300_000), tempfile::tempdir().unwrap());
    let served = file.clone();
    let server = Server::start(move |number, head| {
        let whole = serve(head, &served, ETAG);
        match number {
            0 => vec![Step::Reset],
            1 => vec![Step::Send(cut(whole, 1000)), Step::Reset],
            _ => vec![Step::Send(whole)],
        }
    });
    fetch_equal(&request(server.url("/")), into.path(), &file);
    assert_eq!(server.heads().len(), 3);
}

#[test]
fn a_stalled_server_is_asked_again() {
    let (file, into) = (content(300_000), tempfile::tempdir().unwrap());
    let served = file.clone();
    let server = Server::start(move |number, head| {
        let whole = serve(head, &served, ETAG);
        match number {
            0 => vec![Step::Stall],
            1 => vec![Step::Send(cut(whole, 1000)), Step::Stall],
            _ => vec![Step::Send(whole)],
        }
    });
    let mut request = request(server.url("/"));
    request.timeouts.idle = Duration::from_millis(300);
    request.timeouts.response = Duration::from_millis(300);
    request.retries.attempts = 20;
    fetch_equal(&request, into.path(), &file);
    assert!(server.ranges().contains(&Some("bytes=1000-".into())), "{:?}", server.ranges());
}

#[test]
fn a_server_that_only_stalls_is_a_timeout() {
    let into = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| vec![Step::Stall]);
    let mut request = request(server.url("/"));
    request.timeouts.response = Duration::from_millis(50);
    request.retries.attempts = 2;
    let Err(DownloadError::GaveUp { attempts: 2, last }) = fetch(&request, into.path()) else { panic!() };
    assert!(matches!(*last, DownloadError::Timeout { .. }), "{last}");
}

/// A first answer is cut after 1000 bytes; the second one is what is under test; from the third one on all is sound.
fn second_answer(old: &[u8], new: &[u8], headers: &'static [&str], second: fn(&Head, &[u8]) -> Vec<u8>) -> Server {
    let (old, new) = (old.to_vec(), new.to_vec());
    Server::start(move |number, head| {
        let length = format!("Content-Length: {}", old.len());
        vec![Step::Send(match number {
            0 => cut(answer("200 OK", &[headers, &[&length]].concat(), &old), 1000),
            1 => second(head, &new),
            _ => serve(head, &new, "\"two\""),
        })]
    })
}

#[test]
fn a_file_that_changed_starts_over() {
    let (old, new) = (content(5000), content(6000).split_off(500));
    type Second = fn(&Head, &[u8]) -> Vec<u8>;
    let into = tempfile::tempdir().unwrap();
    let server = second_answer(&old, &new, &["ETag: \"one\""], |head, file| serve(head, file, "\"two\""));
    fetch_equal(&request(server.url("/")), into.path(), &new);
    assert_eq!(server.ranges(), some(&["", "1000"]), "the entire new file comes at once");
    let cases: &[(&str, Second)] = &[
        ("412", |_, _| answer("412 Precondition Failed", &["Content-Length: 0"], b"")),
        ("416", |_, _| answer("416 Range Not Satisfiable", &["Content-Range: bytes */500", "Content-Length: 0"], b"")),
        ("416 without a size", |_, _| answer("416 Range Not Satisfiable", &["Content-Length: 0"], b"")),
        ("206 of another version", |_, file| {
            let lines = ["ETag: \"two\"", "Content-Range: bytes 1000-5499/5500", "Content-Length: 4500"];
            answer("206 Partial Content", &lines, &file[1000..])
        }),
        ("206 of another size", |_, file| {
            let lines = ["Content-Range: bytes 1000-5499/5500", "Content-Length: 4500"];
            answer("206 Partial Content", &lines, &file[1000..])
        }),
        ("206 from another place", |_, file| {
            let lines = ["ETag: \"one\"", "Content-Range: bytes 999-4999/5000", "Content-Length: 4001"];
            answer("206 Partial Content", &lines, &file[..4001])
        }),
        ("206 of another length", |_, file| {
            let lines = ["ETag: \"one\"", "Content-Range: bytes 1000-4999/5000", "Content-Length: 3999"];
            answer("206 Partial Content", &lines, &file[..3999])
        }),
        ("206 without a range", |_, file| {
            answer("206 Partial Content", &["ETag: \"one\"", "Content-Length: 4000"], &file[..4000])
        }),
    ];
    for (name, second) in cases {
        let into = tempfile::tempdir().unwrap();
        let server = second_answer(&old, &new, &["ETag: \"one\""], *second);
        let done = fetch(&request(server.url("/")), into.path()).unwrap();
        assert!(fs::read(&done.path).unwrap() == new, "{name}");
        assert_eq!(server.ranges(), some(&["", "1000", ""]), "{name}");
    }
}

#[test]
fn a_server_that_ignores_ranges_starts_over() {
    let (file, into) = (content(5000), tempfile::tempdir().unwrap());
    let server = second_answer(&file, &file, &["ETag: \"one\""], |_, file| {
        answer("200 OK", &["ETag: \"one\"", "Content-Length: 5000"], file)
    });
    fetch_equal(&request(server.url("/")), into.path(), &file);
    assert_eq!(server.ranges(), some(&["", "1000"]));
}

#[test]
fn without_a_strong_validator_there_is_no_resuming() {
    let weak: &[&[&str]] = &[
        &[],
        &["ETag: W/\"one\""],
        &["Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT", "Date: Mon, 01 Jan 2024 00:00:00 GMT"],
    ];
    for headers in weak {
        let (file, into) = (content(5000), tempfile::tempdir().unwrap());
        let server = second_answer(&file, &file, headers, |head, file| serve(head, file, "\"two\""));
        fetch_equal(&request(server.url("/")), into.path(), &file);
        assert_eq!(server.ranges(), some(&["", ""]), "{headers:?}");
    }
}

#[test]
fn the_time_of_the_last_change_serves_as_validator() {
    let (file, into) = (content(5000), tempfile::tempdir().unwrap());
    let headers = &["Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT", "Date: Tue, 02 Jan 2024 00:00:00 GMT"];
    let server = second_answer(&file, &file, headers, |_, file| {
        let lines = ["Content-Range: bytes 1000-4999/5000", "Content-Length: 4000"];
        answer("206 Partial Content", &lines, &file[1000..])
    });
    fetch_equal(&request(server.url("/")), into.path(), &file);
    let head = server.heads().remove(1);
    assert_eq!(head.get("range"), Some("bytes=1000-"));
    assert_eq!(head.get("if-range"), Some("Mon, 01 Jan 2024 00:00:00 GMT"));
}

#[test]
fn a_range_that_ends_early_is_continued() {
    let (file, into) = (content(5000), tempfile::tempdir().unwrap());
    let server = second_answer(&file, &file, &["ETag: \"two\""], |_, file| {
        let lines = ["Content-Range: bytes 1000-2999/5000", "Content-Length: 2000"];
        answer("206 Partial Content", &lines, &file[1000..3000])
    });
    fetch_equal(&request(server.url("/")), into.path(), &file);
    assert_eq!(server.ranges(), some(&["", "1000", "3000"]));
}

#[test]
fn chunks_are_joined_and_a_cut_among_them_is_noticed() {
    let into = tempfile::tempdir().unwrap();
    let chunked = ["ETag: \"one\"", "Transfer-Encoding: chunked"];
    let server = Server::start(move |number, head| {
        let body: &[u8] = if number == 0 { b"3\r\nabc\r\n4\r\nde" } else { b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n" };
        match head.get("range") {
            None => vec![Step::Send(answer("200 OK", &chunked, body))],
            Some(_) => vec![Step::Send(serve(head, b"abcdefg", ETAG))],
        }
    });
    fetch_equal(&request(server.url("/")), into.path(), b"abcdefg");
    assert_eq!(server.ranges(), some(&["", "5"]));
    fetch_equal(&request(server.url("/")), into.path(), b"abcdefg");
    assert_eq!(server.ranges().len(), 3);
}

#[test]
fn a_complete_file_of_unknown_size_is_recognised() {
    let into = tempfile::tempdir().unwrap();
    let server = Server::start(move |number, head| {
        let chunked = ["ETag: \"one\"", "Transfer-Encoding: chunked"];
        match number {
            // All bytes, but not the end.
            0 => vec![Step::Send(answer("200 OK", &chunked, b"7\r\nabcdefg\r\n"))],
            _ => vec![Step::Send(serve(head, b"abcdefg", ETAG))],
        }
    });
    fetch_equal(&request(server.url("/")), into.path(), b"abcdefg");
    assert_eq!(server.ranges(), some(&["", "7"]));
}

#[test]
fn a_server_in_trouble_is_asked_again_but_not_for_ever() {
    let into = tempfile::tempdir().unwrap();
    let server = Server::start(|number, head| {
        let busy = answer("503 Service Unavailable", &["Retry-After: 100000", "Content-Length: 0"], b"");
        vec![Step::Send(if number < 2 { busy } else { serve(head, b"abc", ETAG) })]
    });
    fetch_equal(&request(server.url("/")), into.path(), b"abc");
    assert_eq!(server.heads().len(), 3);
    assert_eq!(fetch_small(&request(server.url("/")), 3).unwrap(), b"abc");

    let server = Server::start(|_, _| vec![Step::Send(answer("500 Oh", &["Content-Length: 0"], b""))]);
    let Err(DownloadError::GaveUp { attempts: 5, last }) = fetch(&request(server.url("/")), into.path()) else {
        panic!()
    };
    assert!(matches!(*last, DownloadError::Status { status: 500, .. }));
    assert_eq!(server.heads().len(), 5);
    assert!(fetch_small(&request(server.url("/")), 3).is_err());
    assert_eq!(server.heads().len(), 10);
    assert_eq!(names(into.path()), [""; 0], "nothing was received, nothing is left");
}

#[test]
fn progress_gives_new_attempts_and_starting_over_does_not() {
    // Six cuts with 2 MiB between them are more than five attempts.
    let (file, into) = (content(14 << 20), tempfile::tempdir().unwrap());
    let served = file.clone();
    let server = Server::start(move |number, head| {
        let whole = serve(head, &served, ETAG);
        vec![Step::Send(if number < 6 { cut(whole, 2 << 20) } else { whole })]
    });
    fetch_equal(&request(server.url("/")), into.path(), &file);
    assert_eq!(server.heads().len(), 7);
    // The same amount again and again, always from the start.
    let server =
        Server::start(move |number, head| vec![Step::Send(cut(serve(head, &file, &format!("\"{number}\"")), 2 << 20))]);
    let Err(DownloadError::GaveUp { attempts: 5, .. }) = fetch(&request(server.url("/")), into.path()) else {
        panic!()
    };
    assert_eq!(server.heads().len(), 5);
}

#[test]
fn what_was_received_is_kept_for_the_next_call() {
    let (file, into) = (content(5000), tempfile::tempdir().unwrap());
    let served = file.clone();
    let server = Server::start(move |number, head| {
        let whole = serve(head, &served, ETAG);
        vec![Step::Send(if number == 0 { cut(whole, 1000) } else { whole })]
    });
    let mut once = request(server.url("/"));
    once.retries.attempts = 1;
    let error = fetch(&once, into.path()).unwrap_err();
    assert!(error.to_string().contains("after 1000 bytes of 5000"), "{error}");
    assert_eq!(names(into.path()), ["lock", "part", "state"]);
    fetch_equal(&once, into.path(), &file);
    assert_eq!(server.ranges(), some(&["", "1000"]));
}

#[test]
fn a_complete_file_that_was_not_taken_is_asked_about_and_no_more() {
    let (file, into) = (content(5000), tempfile::tempdir().unwrap());
    let (served, changed) = (file.clone(), content(6000).split_off(1000));
    let new = changed.clone();
    let server = Server::start(move |number, head| {
        vec![Step::Send(if number < 2 { serve(head, &served, ETAG) } else { serve(head, &changed, "\"two\"") })]
    });
    let mut request = request(server.url("/"));
    drop(fetch(&request, into.path()).unwrap());
    let done = fetch(&request, into.path()).unwrap();
    assert!(fs::read(&done.path).unwrap() == file);
    drop(done);
    assert_eq!(server.ranges(), some(&["", "4999"]));
    request.expected_digest = Some(Digest::of(&file));
    assert_eq!(fetch(&request, into.path()).unwrap().digest, Digest::of(&file));
    assert_eq!(server.heads().len(), 2, "what is expected is at hand: no question");
    request.expected_digest = None;
    fetch_equal(&request, into.path(), &new);
}

#[test]
fn a_damaged_state_starts_over() {
    let file = content(5000);
    let name =
        |server: &Server, extension: &str| format!("{}.{extension}", Digest::of(server.url("/").as_bytes()).hex());
    let sound = r#"{"format":1,"validator":{"etag":"\"one\""},"total":5000}"#;
    for (what, state, part, range) in [
        ("sound", sound, &file[..1000], "1000"),
        ("of another format", &sound.replace(":1,", ":2,"), &file[..1000], ""),
        ("half", &sound[..20], &file[..1000], ""),
        ("empty", "", &file[..1000], ""),
        ("for less", &sound.replace("5000", "500"), &file[..1000], ""),
        ("for an empty part", sound, &[], ""),
    ] {
        let (served, into) = (file.clone(), tempfile::tempdir().unwrap());
        let server = Server::start(move |_, head| vec![Step::Send(serve(head, &served, ETAG))]);
        fs::write(into.path().join(name(&server, "state")), state).unwrap();
        fs::write(into.path().join(name(&server, "part")), part).unwrap();
        fetch_equal(&request(server.url("/")), into.path(), &file);
        assert_eq!(server.ranges(), some(&[range]), "{what}");
    }
}
