//! The packages of an index (`Packages`) or of dpkg's database (`status`): names first, everything else when it is asked for.

use crate::{
    control::{Paragraph, paragraphs},
    relation::{Relation, RelationError, relations},
    version::{Version, VersionError},
};
use std::collections::HashMap;

/// The largest index that is taken, in bytes; Debian's largest has some sixty million.
pub const INDEX_MAX: usize = 512 << 20;

/// The most packages that one may have: Debian's largest has some seventy thousand.
const PACKAGES_MAX: usize = 1 << 20;

/// What a package counts beside its text, in bytes, an estimate: its place in the text, and in the tables of names of whoever chooses.
const PACKAGE_SIZE: usize = 512;

/// How many threads look at an index.
const CHECKERS: usize = 4;

/// The fields that name other packages and count.
const RELATIONS: [&str; 5] = ["Pre-Depends", "Depends", "Conflicts", "Breaks", "Provides"];

/// The packages of one text.
#[derive(Debug, Default)]
pub struct Packages {
    text: String,
    entries: Vec<Entry>,
}

/// Where in the text a package stands.
#[derive(Debug, Clone, Copy)]
struct Entry {
    paragraph: Span,
    name: Span,
    version: Span,
    architecture: Span,
}

/// A part of the text; it has less than 4 GiB.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

/// Why a text is no index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It is larger than any index.
    #[error("it has more than {INDEX_MAX} bytes")]
    TooLarge,
    /// It has more packages than any index.
    #[error("it has more than {PACKAGES_MAX} packages")]
    TooMany,
    /// A paragraph has no name, version or architecture.
    #[error("paragraph {number} has no field `{field}`")]
    Field {
        /// Counted from 1.
        number: usize,
        /// The field.
        field: &'static str,
    },
    /// Its name is none that a package may have (Debian Policy 5.6.7).
    #[error("paragraph {number}: `{name}` is no name of a package")]
    Name {
        /// Counted from 1.
        number: usize,
        /// What stands there.
        name: String,
    },
    /// A field cannot be understood.
    #[error("{field} of {package}: {reason}")]
    Value {
        /// The package.
        package: String,
        /// The field.
        field: &'static str,
        /// Why.
        reason: String,
    },
}

/// What was left out of an index, as it could not be understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many packages.
    pub count: usize,
    /// Why the first of them.
    pub first: Option<IndexError>,
}

impl LeftOut {
    fn add(&mut self, error: IndexError) {
        self.count += 1;
        self.first.get_or_insert(error);
    }
}

/// One package of an index.
#[derive(Debug, Clone, Copy)]
pub struct Package<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version, as it is written.
    pub version: &'a str,
    /// Its architecture, or `all`.
    pub architecture: &'a str,
    paragraph: Paragraph<'a>,
}

/// Whether packages of several architectures can stand for each other (Debian wiki, Multiarch).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultiArch {
    /// Only those of the same architecture need it.
    No,
    /// The same, and it stands beside itself of another architecture.
    Same,
    /// It serves all architectures.
    Foreign,
    /// It serves those that ask for it with `:any`.
    Allowed,
}

impl Packages {
    /// Reads an index, or a database of dpkg.
    ///
    /// # Errors
    /// When a paragraph is no package.
    pub fn parse(text: String) -> Result<Packages, IndexError> {
        Packages::read(text, Err)
    }

    /// Reads an index whose packages somebody else made: one that cannot be understood is left out, as one of thousands is no
    /// reason to have none.
    ///
    /// # Errors
    /// When it is too large.
    pub fn parse_index(text: String) -> Result<(Packages, LeftOut), IndexError> {
        let mut left_out = LeftOut::default();
        let mut packages = Packages::read(text, |error| {
            left_out.add(error);
            Ok(())
        })?;
        let (odd, first) = packages.odd();
        left_out.count += odd.len();
        left_out.first = left_out.first.take().or(first);
        let mut number = 0;
        packages.entries.retain(|_| {
            number += 1;
            odd.binary_search(&(number - 1)).is_err()
        });
        packages.entries.shrink_to_fit();
        Ok((packages, left_out))
    }

    /// The packages that cannot be understood, by number, and why the first of them. (Looking at all of them takes as long as finding
    /// them: several threads do.)
    fn odd(&self) -> (Vec<usize>, Option<IndexError>) {
        let each = self.entries.len().div_ceil(CHECKERS).max(1);
        // An index may be one of millions of them, on purpose: of the others there is no word to keep.
        let check = |from: usize| -> (Vec<usize>, Option<IndexError>) {
            let mut first = None;
            let mut is_odd = |number: &usize| {
                let error = self.get(*number).and_then(|package| package.check(number + 1).err());
                error.map(|error| first.get_or_insert(error)).is_some()
            };
            let numbers = (from..(from + each).min(self.entries.len())).filter(&mut is_odd).collect();
            (numbers, first)
        };
        let check = &check;
        std::thread::scope(|scope| {
            let starts = (0..self.entries.len()).step_by(each);
            let spawn = |from| std::thread::Builder::new().spawn_scoped(scope, move || check(from)).ok();
            let threads: Vec<_> = starts.map(|from| (from, spawn(from))).collect();
            // What no thread could be had for, and what one panicked at, is gone through here.
            let found = |(from, thread): (usize, Option<std::thread::ScopedJoinHandle<'_, _>>)| {
                thread.and_then(|it| it.join().ok()).unwrap_or_else(|| check(from))
            };
            let (numbers, firsts): (Vec<Vec<usize>>, Vec<_>) = threads.into_iter().map(found).unzip();
            (numbers.concat(), firsts.into_iter().flatten().next())
        })
    }

    fn read(text: String, mut wrong: impl FnMut(IndexError) -> Result<(), IndexError>) -> Result<Packages, IndexError> {
        if text.len() > INDEX_MAX {
            return Err(IndexError::TooLarge);
        }
        let start = text.as_ptr() as usize;
        let span = |part: &str| {
            // Every part lies in the text, which is that small.
            let begin = (part.as_ptr() as usize).wrapping_sub(start) as u32;
            Span { start: begin, end: begin.wrapping_add(part.len() as u32) }
        };
        let mut entries = Vec::new();
        for (number, paragraph) in paragraphs(&text).enumerate() {
            if number == PACKAGES_MAX {
                return Err(IndexError::TooMany);
            }
            let (mut name, mut version, mut architecture) = (None, None, None);
            for (field, value) in paragraph.fields() {
                let place = match field {
                    "Package" => &mut name,
                    "Version" => &mut version,
                    "Architecture" => &mut architecture,
                    _ => continue,
                };
                *place = Some(span(value));
                if name.is_some() && version.is_some() && architecture.is_some() {
                    break;
                }
            }
            let Some(name) = name else {
                wrong(IndexError::Field { number: number + 1, field: "Package" })?;
                continue;
            };
            entries.push(Entry {
                paragraph: span(paragraph.text()),
                name,
                // dpkg's database has packages without any, of which only the choice of a user is left.
                version: version.unwrap_or_default(),
                architecture: architecture.unwrap_or_default(),
            });
        }
        Ok(Packages { text, entries })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how many bytes of memory they take, with what it takes to choose among them.
    pub fn size(&self) -> usize {
        self.text.len() + self.entries.len() * PACKAGE_SIZE
    }

    /// The package of this number, from 0.
    pub fn get(&self, number: usize) -> Option<Package<'_>> {
        let entry = self.entries.get(number)?;
        let part = |span: Span| self.text.get(span.start as usize..span.end as usize).unwrap_or_default();
        Some(Package {
            name: part(entry.name),
            version: part(entry.version),
            architecture: part(entry.architecture),
            paragraph: Paragraph::of(part(entry.paragraph)),
        })
    }

    /// All packages, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = Package<'_>> {
        (0..self.entries.len()).filter_map(|number| self.get(number))
    }

    /// The numbers of the packages of each name.
    pub fn by_name(&self) -> HashMap<&str, Vec<usize>> {
        let mut names: HashMap<&str, Vec<usize>> = HashMap::with_capacity(self.entries.len());
        for (number, package) in self.iter().enumerate() {
            names.entry(package.name).or_default().push(number);
        }
        names
    }
}

impl<'a> Package<'a> {
    /// The value of a field.
    pub fn get(&self, field: &str) -> Option<&'a str> {
        self.paragraph.get(field)
    }

    /// Its paragraph.
    pub fn paragraph(&self) -> Paragraph<'a> {
        self.paragraph
    }

    /// Sees that all can be understood that decides whether it is chosen; `number` is its place.
    fn check(&self, number: usize) -> Result<(), IndexError> {
        let is_name = self.name.bytes().all(|it| it.is_ascii_alphanumeric() || b"+-.".contains(&it))
            && self.name.starts_with(|it: char| it.is_ascii_alphanumeric());
        if !is_name {
            return Err(IndexError::Name { number, name: self.name.chars().take(80).collect() });
        }
        if self.architecture.is_empty() {
            return Err(IndexError::Field { number, field: "Architecture" });
        }
        self.parsed_version()?;
        for (field, value) in self.paragraph.fields() {
            if let Some(field) = RELATIONS.iter().find(|it| it.eq_ignore_ascii_case(field)) {
                relations(value).map_err(|error: RelationError| self.wrong(field, error))?;
            }
        }
        Ok(())
    }

    fn wrong(&self, field: &'static str, reason: impl ToString) -> IndexError {
        IndexError::Value { package: self.name.to_owned(), field, reason: reason.to_string() }
    }

    /// Its version.
    ///
    /// # Errors
    /// When it is none.
    pub fn parsed_version(&self) -> Result<Version, IndexError> {
        self.version.parse().map_err(|error: VersionError| self.wrong("Version", error))
    }

    /// The relations of a field; none where it is not there.
    ///
    /// # Errors
    /// When they cannot be understood.
    pub fn relations(&self, field: &'static str) -> Result<Vec<Vec<Relation<'a>>>, IndexError> {
        let value = self.get(field).unwrap_or_default();
        relations(value).map_err(|error: RelationError| self.wrong(field, error))
    }

    /// Whether it must never be removed.
    pub fn is_essential(&self) -> bool {
        self.get("Essential").is_some_and(|it| it.eq_ignore_ascii_case("yes"))
    }

    /// Whether it is to be removed only by somebody who insists: dpkg's `Protected`, apt's `Important`.
    pub fn is_protected(&self) -> bool {
        ["Protected", "Important"].iter().any(|field| self.get(field).is_some_and(|it| it.eq_ignore_ascii_case("yes")))
    }

    /// What it is to other architectures.
    pub fn multi_arch(&self) -> MultiArch {
        match self.get("Multi-Arch") {
            Some("same") => MultiArch::Same,
            Some("foreign") => MultiArch::Foreign,
            Some("allowed") => MultiArch::Allowed,
            _ => MultiArch::No,
        }
    }

    /// The state of a package in dpkg's database: the third word of `Status`, such as `installed`. An index has none.
    pub fn state(&self) -> Option<&'a str> {
        self.get("Status")?.split_ascii_whitespace().nth(2)
    }

    /// Whether dpkg's database has it as installed: configured, whatever triggers wait for (deb-triggers(5)).
    pub fn is_installed(&self) -> bool {
        matches!(self.state(), Some("installed" | "triggers-awaited" | "triggers-pending"))
    }

    /// Whether it is on hold: it must not change (dpkg(1), "Package selection states").
    pub fn is_held(&self) -> bool {
        self.get("Status").and_then(|it| it.split_ascii_whitespace().next()) == Some("hold")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Package: a\nVersion: 1\nArchitecture: arm64\nDepends: b (>= 2) | c, d\nMulti-Arch: foreign\n\n\
                        Package: b\nStatus: install ok installed\nEssential: yes\nArchitecture: all\nVersion: 2:3\n\n\
                        Package: a\nArchitecture: arm64\nVersion: 2\nDepends: b (\n";

    #[test]
    fn packages_are_found() {
        let packages = Packages::parse(TEXT.into()).unwrap();
        let shown: Vec<_> = packages.iter().map(|it| (it.name, it.version, it.architecture)).collect();
        assert_eq!(shown, [("a", "1", "arm64"), ("b", "2:3", "all"), ("a", "2", "arm64")]);
        assert_eq!(packages.by_name()["a"], [0, 2]);
        let (a, b) = (packages.get(0).unwrap(), packages.get(1).unwrap());
        assert_eq!(a.relations("Depends").unwrap()[0][1].to_string(), "c");
        assert_eq!((a.multi_arch(), b.multi_arch()), (MultiArch::Foreign, MultiArch::No));
        assert_eq!((a.is_essential(), b.is_essential(), a.state(), b.state()), (false, true, None, Some("installed")));
        let error = packages.get(2).unwrap().relations("Depends").unwrap_err();
        assert_eq!(
            error.to_string(),
            "Depends of a: `b (` is no relation to a package, such as `name` or `name (>= 1.0)`"
        );
    }

    #[test]
    fn what_the_database_says() {
        for (status, installed, held) in [
            ("install ok installed", true, false),
            ("hold ok installed", true, true),
            ("install ok triggers-awaited", true, false),
            ("install ok triggers-pending", true, false),
            ("deinstall ok config-files", false, false),
            ("install ok half-configured", false, false),
            ("install ok unpacked", false, false),
        ] {
            let packages = Packages::parse(format!("Package: a\nStatus: {status}\n")).unwrap();
            let package = packages.get(0).unwrap();
            assert_eq!((package.is_installed(), package.is_held()), (installed, held), "{status}");
        }
        for (field, wanted) in [("Protected: yes", true), ("Important: yes", true), ("Protected: no", false)] {
            let packages = Packages::parse(format!("Package: a\n{field}\n")).unwrap();
            assert_eq!(packages.get(0).unwrap().is_protected(), wanted, "{field}");
        }
    }

    #[test]
    fn odd_packages_of_an_index_are_left_out() {
        let good = "Package: good\nVersion: 1\nArchitecture: all\n";
        for (odd, reason) in [
            ("Version: 1\n", "paragraph 2 has no field `Package`"),
            ("Package: a\nArchitecture: all\n", "Version of a: "),
            ("Package: a\nVersion: 1\n", "paragraph 2 has no field `Architecture`"),
            ("Package: --a\nVersion: 1\nArchitecture: all\n", "paragraph 2: `--a` is no name of a package"),
            ("Package: a\nVersion: 1 2\nArchitecture: all\n", "Version of a: "),
            ("Package: a\nVersion: 1\nArchitecture: all\nDepends: b (\n", "Depends of a: `b (` is no relation"),
            ("Package: a\nVersion: 1\nArchitecture: all\nprovides: b c\n", "Provides of a: `b c` is no relation"),
        ] {
            let text = format!("{good}\n{odd}\n{good}\nPackage: more odd\nVersion: 1\nArchitecture: all\n");
            let (packages, left_out) = Packages::parse_index(text).unwrap();
            assert_eq!((packages.len(), left_out.count), (2, 2), "{odd}");
            let first = left_out.first.unwrap().to_string();
            assert!(first.starts_with(reason), "{odd}: {first}");
        }
        // What does not count is not looked at.
        let text = format!("{good}Recommends: b (\n");
        assert_eq!(Packages::parse_index(text).unwrap().1, LeftOut::default());
    }

    #[test]
    fn what_is_no_index() {
        assert_eq!(
            Packages::parse("Version: 1\n".into()).unwrap_err(),
            IndexError::Field { number: 1, field: "Package" }
        );
        assert!(Packages::parse(String::new()).unwrap().is_empty());
        let many = "Package: a\n\n".repeat(PACKAGES_MAX + 1);
        assert_eq!(Packages::parse_index(many).unwrap_err(), IndexError::TooMany);
    }
}
