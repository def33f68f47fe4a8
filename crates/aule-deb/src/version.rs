//! Versions of packages and their order (deb-version(7), Debian Policy 5.6.12).

use std::{cmp::Ordering, fmt, str::FromStr};

/// The longest version that is taken, in bytes; the longest of Debian has some sixty.
const VERSION_MAX: usize = 255;

/// A version, `[epoch:]upstream[-revision]`. Two are equal when neither is later, so `1.0` equals `1.00` and `0:1.0-0`.
#[derive(Debug, Clone)]
pub struct Version {
    text: Box<str>,
    epoch: u32,
    /// Where the upstream version begins, and where it ends.
    upstream: (u16, u16),
}

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no version: {reason}")]
pub struct VersionError {
    /// The text, or its beginning.
    pub text: String,
    /// Why.
    pub reason: &'static str,
}

impl Version {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part that the authors of the program gave.
    pub fn upstream(&self) -> &str {
        self.text.get(usize::from(self.upstream.0)..usize::from(self.upstream.1)).unwrap_or_default()
    }

    /// The part that Debian gave; empty where there is none.
    pub fn revision(&self) -> &str {
        self.text.get(usize::from(self.upstream.1) + 1..).unwrap_or_default()
    }

    /// Without its epoch, as names of files have it.
    pub fn without_epoch(&self) -> &str {
        self.text.get(usize::from(self.upstream.0)..).unwrap_or_default()
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = |reason| VersionError { text: text.chars().take(64).collect(), reason };
        if text.is_empty() || text.len() > VERSION_MAX {
            return Err(wrong("it is empty or far too long"));
        }
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => (epoch.parse().map_err(|_| wrong("its epoch is no number"))?, rest),
            None => (0, text),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+~".contains(&byte);
        if upstream.is_empty() || !upstream.bytes().all(|byte| plain(byte) || b"-:".contains(&byte)) {
            return Err(wrong("letters, digits and `.+~-:` make it up"));
        }
        if !revision.bytes().all(plain) || rest.ends_with('-') {
            return Err(wrong("letters, digits and `.+~` make up its revision"));
        }
        let start = text.len() - rest.len();
        // It has at most 255 bytes.
        let upstream = (start as u16, (start + upstream.len()) as u16);
        Ok(Version { text: text.into(), epoch, upstream })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare(self.upstream(), other.upstream()))
            .then_with(|| compare(self.revision(), other.revision()))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

/// Compares parts that are no numbers by character, `~` before the end, letters before all else, and numbers by value; in turn.
fn compare(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    while !one.is_empty() || !other.is_empty() {
        let (words, numbers) = (split(one, u8::is_ascii_digit), split(other, u8::is_ascii_digit));
        let ((word, rest), (other_word, other_rest)) = (words, numbers);
        let order = compare_words(word, other_word);
        if order != Ordering::Equal {
            return order;
        }
        let is_no_digit = |byte: &u8| !byte.is_ascii_digit();
        let ((number, rest), (other_number, other_rest)) = (split(rest, is_no_digit), split(other_rest, is_no_digit));
        let order = compare_numbers(number, other_number);
        if order != Ordering::Equal {
            return order;
        }
        (one, other) = (rest, other_rest);
    }
    Ordering::Equal
}

/// What is before the first byte that fits, and the rest.
fn split(bytes: &[u8], fits: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(fits).unwrap_or(bytes.len()))
}

fn compare_words(one: &[u8], other: &[u8]) -> Ordering {
    let weight = |byte: Option<&u8>| match byte.copied() {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(byte),
        Some(byte) => i32::from(byte) + 256,
    };
    let longest = one.len().max(other.len());
    let pairs = (0..longest).map(|at| weight(one.get(at)).cmp(&weight(other.get(at))));
    pairs.into_iter().find(|order| *order != Ordering::Equal).unwrap_or(Ordering::Equal)
}

/// Numbers of any length.
fn compare_numbers(one: &[u8], other: &[u8]) -> Ordering {
    let (one, other) = (split(one, |byte| *byte != b'0').1, split(other, |byte| *byte != b'0').1);
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    /// In their order; those on one line are equal.
    const ORDERED: &[&[&str]] = &[
        &["0~~a"],
        &["0~"],
        &["0", "00", "0-0", "0:0"],
        &["0a"],
        &["0+"],
        &["1.0~rc1"],
        &["1.0~rc1+b1"],
        &["1.0", "1.00", "1.0-0"],
        &["1.0-0.1"],
        &["1.0-1"],
        &["1.0-1+deb12u1"],
        &["1.0-1.1"],
        &["1.0+dfsg-1"],
        &["1.0-2-1"],
        &["1.0.0"],
        &["1.2"],
        &["1.10"],
        &["2.99999999999999999999999"],
        &["2.100000000000000000000000"],
        &["1:0.1"],
        &["1:1:2-3"],
        &["2:0"],
    ];

    #[test]
    fn versions_have_their_order() {
        for (number, equal) in ORDERED.iter().enumerate() {
            for text in *equal {
                for (other, texts) in ORDERED.iter().enumerate() {
                    for other_text in *texts {
                        let found = version(text).cmp(&version(other_text));
                        assert_eq!(found, number.cmp(&other), "{text} and {other_text}");
                    }
                }
            }
        }
    }

    #[test]
    fn dpkg_says_the_same() {
        let all: Vec<&str> = ORDERED.iter().flat_map(|it| it.iter().copied()).collect();
        for one in &all {
            for other in &all {
                let Ok(status) = Command::new("dpkg").args(["--compare-versions", one, "lt", other]).status() else {
                    return;
                };
                assert_eq!(version(one) < version(other), status.success(), "{one} and {other}");
            }
        }
    }

    #[test]
    fn parts_are_found() {
        let it = version("2:1.2-3~rc-4+b1");
        assert_eq!(
            (it.epoch, it.upstream(), it.revision(), it.without_epoch()),
            (2, "1.2-3~rc", "4+b1", "1.2-3~rc-4+b1")
        );
        assert_eq!((version("7").upstream(), version("7").revision()), ("7", ""));
    }

    #[test]
    fn what_is_no_version() {
        for text in ["", ":1", "a:1", "1:", "-1", "1-", "1 2", "1_2", "1-2_3", "99999999999:1", "1\n", "ä"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
