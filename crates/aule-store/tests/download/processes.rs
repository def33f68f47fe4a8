//! Several processes, killed processes, and no room: children are this test program itself, started for one URL.

use super::{ETAG, fetch, fetch_equal, names, request};
use crate::server::{Server, Step, content, cut, serve};
use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
    thread,
    time::Duration,
};

/// What a child downloads, and where to.
const URL: &str = "DOWNLOAD_TEST_URL";
const INTO: &str = "DOWNLOAD_TEST_INTO";

/// Not a test but what children do: one download, its error on stderr.
#[test]
#[ignore = "run by other tests as a child"]
fn child() {
    let (url, into) = (env::var(URL).unwrap(), env::var(INTO).unwrap());
    if let Err(error) = fetch(&request(url), Path::new(&into)) {
        panic!("{error}");
    }
}

/// The command of a child, after a shell did `before`.
fn child_command(before: &str, url: &str, into: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{before}; exec \"$0\" --ignored --exact processes::child --nocapture")])
        .arg(env::current_exe().unwrap())
        .env(URL, url)
        .env(INTO, into)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

#[test]
fn a_killed_process_is_continued() {
    let (file, into) = (content(5_000_000), tempfile::tempdir().unwrap());
    let served = file.clone();
    let server = Server::start(move |number, head| {
        let whole = serve(head, &served, ETAG);
        if number == 0 { vec![Step::Send(cut(whole, 3_000_000)), Step::Stall] } else { vec![Step::Send(whole)] }
    });
    let mut child = child_command(":", &server.url("/"), into.path()).spawn().unwrap();
    let received = || {
        let part = fs::read_dir(into.path()).unwrap().map(|entry| entry.unwrap());
        let part = part.filter(|entry| entry.path().extension().unwrap() == "part");
        part.map(|entry| entry.metadata().unwrap().len()).sum::<u64>()
    };
    while received() < 3_000_000 {
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        thread::sleep(Duration::from_millis(5));
    }
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    fetch_equal(&request(server.url("/")), into.path(), &file);
    assert_eq!(server.ranges(), [None, Some("bytes=3000000-".into())]);
}

#[test]
fn a_full_disk_is_told_and_what_fits_is_kept() {
    let (file, into) = (content(1_000_000), tempfile::tempdir().unwrap());
    let served = file.clone();
    let server = Server::start(move |_, head| vec![Step::Send(serve(head, &served, ETAG))]);
    // A limit on the size of files stands for the disk, which nobody may fill without privileges.
    let output = child_command("trap '' XFSZ; ulimit -f 600", &server.url("/"), into.path()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(told.contains("no room for `") && told.contains(".part`"), "{told}");
    assert_eq!(names(into.path()), ["lock", "part", "state"]);
    fetch_equal(&request(server.url("/")), into.path(), &file);
    let ranges = server.ranges();
    assert_eq!(ranges.len(), 2, "a full disk is not tried again");
    assert!(ranges[1].is_some(), "{ranges:?}");
}

#[test]
fn processes_with_the_same_url_take_turns() {
    let (file, into) = (content(2_000_000), tempfile::tempdir().unwrap());
    let (served, working) = (file.clone(), Arc::new(AtomicUsize::new(0)));
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let server = Server::start(move |number, head| {
        seen.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let whole = serve(head, &served, &format!("\"{}\"", number / 3));
        thread::sleep(Duration::from_millis(20));
        working.fetch_sub(1, Ordering::SeqCst);
        vec![Step::Send(if number % 2 == 0 { cut(whole, 500_000) } else { whole })]
    });
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let output = child_command(":", &server.url("/"), into.path()).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            });
            scope.spawn(|| {
                let done = fetch(&request(server.url("/")), into.path()).unwrap();
                assert!(fs::read(&done.path).unwrap() == file);
                // The next one has to begin anew, also with the lock.
                done.remove().unwrap();
            });
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 1, "the server never had two of them at once");
}

#[test]
fn a_file_in_use_is_not_touched() {
    let (file, into) = (content(5000), tempfile::tempdir().unwrap());
    let served = file.clone();
    // Every request sees another version.
    let server = Server::start(move |number, head| {
        let served = &served[number..];
        vec![Step::Send(serve(head, served, &format!("\"{number}\"")))]
    });
    let first = fetch(&request(server.url("/")), into.path()).unwrap();
    thread::scope(|scope| {
        let second = scope.spawn(|| fetch(&request(server.url("/")), into.path()).unwrap());
        thread::sleep(Duration::from_millis(100));
        assert!(fs::read(&first.path).unwrap() == file);
        assert_eq!(server.heads().len(), 1, "the second waits before it asks");
        drop(first);
        let second = second.join().unwrap();
        assert!(fs::read(&second.path).unwrap() == file[1..]);
    });
}
