//! Running programs of the host with an environment that does not vary.

use std::{
    ffi::OsStr,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// Runs `program`, gives its standard output.
///
/// # Panics
/// When it is missing or fails; the message holds its standard error.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Vec<u8> {
    run_with_input(program, arguments, b"")
}

/// As [`run`], with `input` on standard input.
///
/// # Panics
/// As [`run`].
pub fn run_with_input<S: AsRef<OsStr>>(program: &str, arguments: &[S], input: &[u8]) -> Vec<u8> {
    let (success, stdout, stderr) = attempt(program, arguments, input);
    assert!(success, "{program} failed: {}", String::from_utf8_lossy(&stderr));
    stdout
}

/// Runs `program`; tells whether it succeeded, and what it wrote to its outputs.
///
/// # Panics
/// When it is missing.
pub fn attempt<S: AsRef<OsStr>>(program: &str, arguments: &[S], input: &[u8]) -> (bool, Vec<u8>, Vec<u8>) {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("MTOOLS_SKIP_CHECK", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} cannot be run ({error}): install it"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // From a thread, as a filter may fill its output before it has read all of its input.
    let writer = std::thread::spawn(move || {
        // A program need not read its input; whether it liked what it got shows in its status.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    (output.status.success(), output.stdout, output.stderr)
}

/// A path as text.
///
/// # Panics
/// When it is not UTF-8, which paths of temporary directories are.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
