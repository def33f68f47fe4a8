//! `Release`: what a suite is, until when it counts, and the digest of every index (wiki.debian.org, DebianRepository/Format).

use crate::control::{Paragraph, lines};
use std::collections::BTreeMap;

/// The largest `Release` file, in bytes; Debian's have some 200,000.
pub const RELEASE_MAX: usize = 16 << 20;

/// A `Release` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Who made it, such as `Debian`.
    pub origin: String,
    /// The name of the suite, such as `stable`.
    pub suite: String,
    /// Its other name, such as `trixie`.
    pub codename: String,
    /// When it was made, in seconds since 1970-01-01T00:00:00Z.
    pub date: Option<i64>,
    /// From when on it does not count any more.
    pub valid_until: Option<i64>,
    /// Where the archive can be had as it was: an address with `@SNAPSHOTID@` in it (apt's `Snapshots`).
    pub snapshots: Option<String>,
    /// Whether indices can be had by their digests, too.
    pub by_hash: bool,
    /// Whether packages come from it only where no other source has them, and are upgraded from it then.
    pub not_automatic: bool,
    /// See [`Release::not_automatic`].
    pub automatic_upgrades: bool,
    /// Size and SHA-256 of each file, by its path below the suite.
    pub files: BTreeMap<String, Listed>,
}

/// A file that a `Release` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// In bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// Why a text is no `Release`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// It is larger than any.
    #[error("it has more than {RELEASE_MAX} bytes")]
    TooLarge,
    /// It has no digests that count.
    #[error("it lists no file by SHA-256, and nothing else counts")]
    NoDigests,
    /// A line of its list cannot be understood.
    #[error("`{0}` is no line of a list of files: digest, size, path")]
    Line(String),
    /// A date cannot be understood.
    #[error("its field {field} is no date: `{value}`")]
    Date {
        /// The field.
        field: &'static str,
        /// What it says.
        value: String,
    },
}

impl Release {
    /// Reads the signed text of a `Release`.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Release, ReleaseError> {
        if text.len() > RELEASE_MAX {
            return Err(ReleaseError::TooLarge);
        }
        let paragraph = Paragraph::first(text).ok_or(ReleaseError::NoDigests)?;
        let field = |name: &str| paragraph.get(name).unwrap_or_default();
        let is_yes = |name: &str| field(name).eq_ignore_ascii_case("yes");
        let date = |name: &'static str| match field(name) {
            "" => Ok(None),
            value => seconds(value).map(Some).ok_or_else(|| ReleaseError::Date { field: name, value: value.into() }),
        };
        let mut files = BTreeMap::new();
        for line in lines(field("SHA256")) {
            let (path, listed) = listed(line).ok_or_else(|| ReleaseError::Line(line.chars().take(100).collect()))?;
            files.insert(path.to_owned(), listed);
        }
        if files.is_empty() {
            return Err(ReleaseError::NoDigests);
        }
        Ok(Release {
            origin: field("Origin").into(),
            suite: field("Suite").into(),
            codename: field("Codename").into(),
            date: date("Date")?,
            valid_until: date("Valid-Until")?,
            snapshots: Some(field("Snapshots")).filter(|it| it.contains("@SNAPSHOTID@")).map(str::to_owned),
            by_hash: is_yes("Acquire-By-Hash"),
            not_automatic: is_yes("NotAutomatic"),
            automatic_upgrades: is_yes("ButAutomaticUpgrades"),
            files,
        })
    }

    /// The priority of its packages (apt_preferences(5)).
    pub fn priority(&self) -> i32 {
        match (self.not_automatic, self.automatic_upgrades) {
            (true, false) => 1,
            (true, true) => 100,
            (false, _) => 500,
        }
    }

    /// The forms in which an index is there, those that are smallest to fetch first: its path and what is listed of it.
    /// `path` is that of the index itself, such as `main/binary-arm64/Packages`.
    pub fn forms(&self, path: &str) -> Vec<(String, Listed)> {
        let names = ["xz", "zst", "gz"].map(|form| format!("{path}.{form}")).into_iter().chain([path.to_owned()]);
        names.filter_map(|name| self.files.get(&name).map(|it| (name, *it))).collect()
    }
}

fn listed(line: &str) -> Option<(&str, Listed)> {
    let mut words = line.split_ascii_whitespace();
    let (digest, size, path) = (words.next()?, words.next()?, words.next()?);
    let is_plain = !path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let sha256 = <[u8; 32]>::try_from(hex::decode(digest).ok()?).ok()?;
    (words.next().is_none() && is_plain).then_some((path, Listed { size: size.parse().ok()?, sha256 }))
}

/// `Sat, 11 Jul 2026 10:16:37 UTC`, the form of RFC 5322 with a zone that is always UTC; in seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [day, month, year, time, zone] = words.as_slice() else { return None };
    if !matches!(*zone, "UTC" | "GMT" | "Z" | "+0000") {
        return None;
    }
    let month = MONTHS.iter().position(|it| it.eq_ignore_ascii_case(month))? as i64 + 1;
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    let time: Vec<i64> = time.split(':').map(|it| it.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = time.as_slice() else { return None };
    let right = (1..=31).contains(&day)
        && (1970..=9999).contains(&year)
        && (0..24).contains(hour)
        && (0..60).contains(minute)
        && (0..=60).contains(second);
    // Days since 1970-01-01 of a date, by the year that begins in March.
    let (shifted, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    right.then_some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_release_is_read() {
        let text = format!(
            "Origin: Debian\nSuite: stable\nCodename: trixie\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n\
             Acquire-By-Hash: yes\nMD5Sum:\n 0 0 x\nSHA256:\n {DIGEST} 0 main/binary-arm64/Packages\n {DIGEST}   7 \
             main/binary-arm64/Packages.gz\n"
        );
        let release = Release::parse(&text).unwrap();
        assert_eq!((release.suite.as_str(), release.codename.as_str(), release.by_hash), ("stable", "trixie", true));
        assert_eq!((release.date, release.valid_until, release.priority()), (Some(1_783_764_997), None, 500));
        let forms = release.forms("main/binary-arm64/Packages");
        assert_eq!(
            forms.iter().map(|(name, it)| (name.as_str(), it.size)).collect::<Vec<_>>(),
            [("main/binary-arm64/Packages.gz", 7), ("main/binary-arm64/Packages", 0)]
        );
    }

    #[test]
    fn what_is_no_release() {
        let with = |lines: &str| Release::parse(&format!("Suite: a\nSHA256:\n{lines}"));
        assert_eq!(with("").unwrap_err(), ReleaseError::NoDigests);
        for line in [
            " 00 1 a",
            &format!(" {DIGEST} x a"),
            &format!(" {DIGEST} 1"),
            &format!(" {DIGEST} 1 ../a"),
            &format!(" {DIGEST} 1 /a"),
            &format!(" {DIGEST} 1 a//b"),
        ] {
            assert!(matches!(with(line), Err(ReleaseError::Line(_))), "{line}");
        }
        let date = |text: &str| Release::parse(&format!("Date: {text}\nSHA256:\n {DIGEST} 1 a\n"));
        assert!(matches!(date("yesterday"), Err(ReleaseError::Date { field: "Date", .. })));
    }

    #[test]
    fn dates_of_releases() {
        for (text, wanted) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", Some(0)),
            ("Tue, 29 Feb 2000 23:59:59 GMT", Some(951_868_799)),
            ("Wed, 1 Mar 2000 00:00:00 +0000", Some(951_868_800)),
            ("Sat, 11 Jul 2026 10:16:37 +0200", None),
            ("Sat, 11 Jul 2026 25:16:37 UTC", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), wanted, "{text}");
        }
    }
}
