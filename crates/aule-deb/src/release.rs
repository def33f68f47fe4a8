//! `Release`: what a suite is, until when it counts, and the digest of every index (wiki.debian.org, DebianRepository/Format).

use crate::{
    control::{Paragraph, lines},
    sources::SourceList,
};
use std::collections::{BTreeMap, BTreeSet};

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
    /// Its architectures, `all` among them where packages of no architecture have indices of their own.
    pub architectures: Vec<String>,
    /// Its components; where it does not say them, those of the indices that it lists.
    pub components: Vec<String>,
    /// Whether the indices of an architecture have all packages of no architecture, too
    /// (`No-Support-for-Architecture-all: Packages`).
    pub all_included: bool,
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

/// An index of packages that a source asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The component that it is of; empty where the source has none.
    pub component: String,
    /// Its path below the suite, without what says how it is compressed.
    pub path: String,
    /// The path of the form that is smallest to fetch, with what is listed of it; `None` where there is none.
    pub form: Option<(String, Listed)>,
}

impl Index {
    /// Where its form lies below the suite: by its digest, or by its name.
    pub fn address(&self, by_hash: bool) -> Option<String> {
        let (path, listed) = self.form.as_ref()?;
        let directory = path.rsplit_once('/').map_or(String::new(), |(directory, _)| format!("{directory}/"));
        match by_hash {
            true => Some(format!("{directory}by-hash/SHA256/{}", hex::encode(listed.sha256))),
            false => Some(path.clone()),
        }
    }
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
        let words = |name: &str| field(name).split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut components = words("Components");
        if components.is_empty() {
            components = files.keys().filter_map(|it| it.split_once("/binary-")).map(|(it, _)| it.to_owned()).collect();
            components.dedup();
        }
        Ok(Release {
            architectures: words("Architectures"),
            components,
            all_included: words("No-Support-for-Architecture-all").iter().any(|it| it == "Packages"),
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

    /// Whether it is of the suite that a source asks for: its name or its codename, in which what follows the last slash does
    /// not count, as in `stable/updates` (apt, `pkgAcqMetaBase::VerifyVendor`).
    pub fn is_of_suite(&self, asked: &str) -> bool {
        let short = asked.rsplit_once('/').map_or(asked, |(suite, _)| suite);
        [&self.suite, &self.codename].iter().any(|it| !it.is_empty() && (*it == asked || *it == short))
    }

    /// The indices of packages of a source that count on an architecture, by component; those of packages of no architecture
    /// only where they are not in the others.
    pub fn indices(&self, source: &SourceList, architecture: &str) -> Vec<Index> {
        let index = |component: &str, path: String| {
            let forms = self.forms(&path).into_iter().next();
            Index { component: component.to_owned(), path, form: forms }
        };
        if source.is_flat() {
            return vec![index("", "Packages".into())];
        }
        if !source.has(architecture) {
            return Vec::new();
        }
        let supports = |it: &str| self.architectures.is_empty() || self.architectures.iter().any(|own| own == it);
        let mut indices = Vec::new();
        // One that is named twice is not read twice.
        let mut named = BTreeSet::new();
        for component in source.components.iter().filter(|it| named.insert(it.as_str())) {
            indices.push(index(component, format!("{component}/binary-{architecture}/Packages")));
            if !self.all_included && supports("all") {
                indices.push(index(component, format!("{component}/binary-all/Packages")));
            }
        }
        indices
    }

    /// The components that a source names and this suite does not have.
    pub fn unknown_components<'s>(&self, source: &'s SourceList) -> Vec<&'s str> {
        // Suites in a directory of their own have longer names: `updates/main`.
        let is_known = |it: &str| {
            let ends = |own: &String| own.rsplit_once('/').is_some_and(|(_, last)| last == it);
            self.components.iter().any(|own| own == it || ends(own))
        };
        source.components.iter().map(String::as_str).filter(|it| !is_known(it)).collect()
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
    use crate::sources::one_line;

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
    fn suites_are_called_by_either_name() {
        for (suite, codename, asked, wanted) in [
            ("stable", "trixie", "trixie", true),
            ("stable", "trixie", "stable", true),
            ("stable", "trixie", "bookworm", false),
            ("stable", "trixie", "Trixie", false),
            ("stable-security", "trixie-security", "trixie-security", true),
            ("stable-security", "trixie-security", "stable", false),
            ("stable-updates", "bookworm-updates", "bookworm-updates", true),
            // Ubuntu's all have the same codename.
            ("noble-updates", "noble", "noble-updates", true),
            ("noble-updates", "noble", "jammy-updates", false),
            // Before bullseye.
            ("oldstable", "buster", "buster/updates", true),
            ("oldstable", "buster", "oldstable/updates", true),
            ("oldstable", "buster", "stretch/updates", false),
            ("oldstable", "buster", "updates", false),
            ("", "trixie", "trixie", true),
            ("", "", "trixie", false),
            ("", "", "/x", false),
        ] {
            let release =
                Release::parse(&format!("Suite: {suite}\nCodename: {codename}\nSHA256:\n {DIGEST} 1 a\n")).unwrap();
            assert_eq!(release.is_of_suite(asked), wanted, "{asked} is {suite} ({codename})");
        }
    }

    #[test]
    fn indices_of_a_source() {
        let source = |text: &str| one_line(text).unwrap().remove(0);
        let found = |fields: &str, files: &[&str], text: &str| {
            let files: String = files.iter().map(|it| format!(" {DIGEST} 1 {it}\n")).collect();
            let release = Release::parse(&format!("{fields}SHA256:\n{files}")).unwrap();
            let source = source(text);
            let indices = release.indices(&source, "arm64");
            let forms: Vec<String> = indices.into_iter().filter_map(|it| it.address(false)).collect();
            (forms, release.unknown_components(&source).into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        let (arm64, all) = ("main/binary-arm64/Packages.xz", "main/binary-all/Packages.xz");
        let both = [arm64, all];
        let line = "deb http://a s main";
        let separate = "Architectures: all arm64\n";
        let included = "Architectures: all arm64\nNo-Support-for-Architecture-all: Packages\n";
        for (fields, files, text, wanted, unknown) in [
            (separate, &both[..], line, &both[..], ""),
            (separate, &both, "deb http://a s main main", &both, ""),
            (included, &both, line, &both[..1], ""),
            ("", &both, line, &both, ""),
            ("Architectures: arm64\n", &both, line, &both[..1], ""),
            ("Architectures: all\n", &both[1..], line, &both[1..], ""),
            (separate, &both[..1], line, &both[..1], ""),
            (separate, &both, "deb [arch=armhf] http://a s main", &[], ""),
            (separate, &both, "deb [arch-=arm64] http://a s main", &[], ""),
            (separate, &both, "deb http://a s mian main", &both, "mian"),
            ("Components: main contrib\n", &both, "deb http://a s contrib free", &[], "free"),
            ("Components: updates/main\n", &both, line, &both, ""),
        ] {
            let (forms, found) = found(fields, files, text);
            assert_eq!(
                (forms.as_slice(), found.join(" ").as_str()),
                (&wanted.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()[..], unknown),
                "{fields}{text}"
            );
        }
        for flat in ["deb http://a ./", "deb http://a /", "deb http://a x/"] {
            assert_eq!(found("", &["Packages.gz"], flat).0, ["Packages.gz"], "{flat}");
        }
    }

    #[test]
    fn indices_by_digest() {
        let index = |path: &str| {
            let release = Release::parse(&format!("SHA256:\n {DIGEST} 1 {path}\n")).unwrap();
            let line = if path.contains('/') { "deb http://a s main" } else { "deb http://a ./" };
            release.indices(&one_line(line).unwrap()[0], "arm64").remove(0)
        };
        for (path, directory) in [("Packages.gz", ""), ("main/binary-arm64/Packages", "main/binary-arm64/")] {
            let wanted = format!("{directory}by-hash/SHA256/{DIGEST}");
            assert_eq!((index(path).address(true), index(path).address(false)), (Some(wanted), Some(path.into())));
        }
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
