//! `SHA256SUMS` files: the lines that sha256sum writes, and its `--tag` form.

use aule_tree::Digest;
use std::collections::BTreeMap;

/// Digests by file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksums(BTreeMap<String, Digest>);

/// A line that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line} of the checksums: {reason}")]
pub struct ChecksumsError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

impl Checksums {
    /// Reads `DIGEST  NAME`, `DIGEST *NAME` and `SHA256 (NAME) = DIGEST`. Empty lines and lines with `#` are skipped.
    ///
    /// # Errors
    /// When a line is something else, or a name has two digests.
    pub fn parse(bytes: &[u8]) -> Result<Self, ChecksumsError> {
        let mut found = BTreeMap::new();
        for (line, text) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
            let wrong = |reason: String| ChecksumsError { line, reason };
            let text = std::str::from_utf8(text).map_err(|_| wrong("it is not UTF-8".into()))?.trim_end_matches('\r');
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let (digest, name) =
                split(text).ok_or_else(|| wrong("expected a SHA-256 digest and a file name".into()))?;
            let digest = Digest::from_hex(&digest.to_ascii_lowercase()).map_err(|error| wrong(error.to_string()))?;
            let name = name.strip_prefix("./").unwrap_or(name).to_owned();
            if let Some(other) = found.insert(name.clone(), digest)
                && other != digest
            {
                return Err(wrong(format!("`{name}` has two different digests")));
            }
        }
        Ok(Checksums(found))
    }

    /// The digest of the file with this name.
    pub fn digest_for(&self, file_name: &str) -> Option<Digest> {
        self.0.get(file_name).copied()
    }

    /// All names, for telling the user what there is.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    if let Some(tagged) = text.strip_prefix("SHA256 (") {
        let (name, digest) = tagged.rsplit_once(") = ")?;
        return Some((digest, name));
    }
    let (digest, name) = text.split_once(' ')?;
    let name = name.strip_prefix([' ', '*'])?;
    (!name.is_empty()).then_some((digest, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_forms() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let text = format!(
            "# comment\n\n{}  a.img.xz\n{} *dir/b c.img\r\nSHA256 (d (e).img) = {}\n{}  ./f",
            a.hex(),
            b.hex(),
            a.hex(),
            b.hex().to_uppercase()
        );
        let sums = Checksums::parse(text.as_bytes()).unwrap();
        assert_eq!(sums.digest_for("a.img.xz"), Some(a));
        assert_eq!(sums.digest_for("dir/b c.img"), Some(b));
        assert_eq!(sums.digest_for("d (e).img"), Some(a));
        assert_eq!(sums.digest_for("f"), Some(b));
        assert_eq!(sums.digest_for("b c.img"), None);
        assert_eq!(sums.names().count(), 4);
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        let digest = Digest::of(b"a").hex();
        let other = Digest::of(b"b").hex();
        for (text, line) in [
            ("hello".to_owned(), 1),
            (format!("\n{digest}"), 2),
            (format!("{digest} name"), 1),
            (format!("{digest}  "), 1),
            (format!("{}  name", &digest[1..]), 1),
            (format!("{digest}  a\n{other}  a"), 2),
        ] {
            assert_eq!(Checksums::parse(text.as_bytes()).unwrap_err().line, line, "{text:?}");
        }
        assert!(Checksums::parse(b"\xff").is_err());
        assert!(Checksums::parse(format!("{digest}  a\n{digest}  a").as_bytes()).is_ok());
    }
}
