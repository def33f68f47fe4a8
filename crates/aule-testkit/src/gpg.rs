//! Throw-away OpenPGP keys and signatures by gpg.

use crate::tool;
use std::path::Path;

/// A key ring of its own in a temporary directory.
#[derive(Debug)]
pub struct Gpg {
    home: tempfile::TempDir,
}

impl Default for Gpg {
    fn default() -> Self {
        Self::new()
    }
}

impl Gpg {
    /// An empty one.
    ///
    /// # Panics
    /// When no temporary directory can be made.
    pub fn new() -> Self {
        // Sockets of the agent need a short path, which the default temporary directory has.
        Gpg { home: tempfile::Builder::new().prefix("gpg").tempdir().unwrap() }
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs gpg with `arguments`, gives its standard output.
    ///
    /// # Panics
    /// When gpg fails.
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let home = tool::text(self.home());
        let fixed =
            ["--homedir", home, "--batch", "--no-tty", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""];
        tool::run_with_input("gpg", &[&fixed, arguments].concat(), input)
    }

    /// Makes a key that signs. `algorithm` is `rsa2048`, `ed25519` …; `made` and `expires` are times as `20260101T000000`,
    /// `expires` may be `never`.
    ///
    /// # Panics
    /// As [`Gpg::run`].
    pub fn make_key(&self, user: &str, algorithm: &str, made: &str, expires: &str) {
        self.run(
            &["--faked-system-time", &format!("{made}!"), "--quick-gen-key", user, algorithm, "sign", expires],
            b"",
        );
    }

    /// The public keys of `users` (all when empty), in armor or binary.
    ///
    /// # Panics
    /// As [`Gpg::run`].
    pub fn export(&self, users: &[&str], armor: bool) -> Vec<u8> {
        let form: &[&str] = if armor { &["--armor", "--export"] } else { &["--export"] };
        self.run(&[form, users].concat(), b"")
    }

    /// The revocation certificate that gpg made along with the only key, ready to be imported.
    ///
    /// # Panics
    /// When there is none.
    pub fn revocation(&self) -> Vec<u8> {
        let mut files = std::fs::read_dir(self.home().join("openpgp-revocs.d")).unwrap();
        let text = std::fs::read_to_string(files.next().unwrap().unwrap().path()).unwrap();
        // A colon keeps people from importing it by accident.
        text.replace(":-----BEGIN", "-----BEGIN").into_bytes()
    }

    /// A detached signature of `data` by `user` at the time `at`.
    ///
    /// # Panics
    /// As [`Gpg::run`].
    pub fn sign(&self, user: &str, at: &str, armor: bool, more: &[&str], data: &[u8]) -> Vec<u8> {
        let (time, form) = (format!("{at}!"), if armor { "--armor" } else { "--no-armor" });
        let first = ["--faked-system-time", &time, "-u", user, form];
        self.run(&[&first, more, &["--detach-sign"]].concat(), data)
    }

    /// `data` with a signature in clear text.
    ///
    /// # Panics
    /// As [`Gpg::run`].
    pub fn clear_sign(&self, user: &str, at: &str, data: &[u8]) -> Vec<u8> {
        self.run(&["--faked-system-time", &format!("{at}!"), "-u", user, "--clear-sign"], data)
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        // The agent stays for a while when its directory is gone; ask it to end.
        tool::attempt("gpgconf", &["--homedir", tool::text(self.home()), "--kill", "all"], b"");
    }
}
