//! The licences that a machine-readable copyright file names ("Machine-readable debian/copyright file", version 1.0), as SPDX
//! calls them (SPDX licence list; SPDX 2.3, annexes A and D).

use aule_deb::control::paragraphs;
use std::collections::{BTreeMap, BTreeSet};

/// What a package says of its licences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Licences {
    /// All that its files are under, in the order in which they are named first; none where it does not say it in a form that
    /// can be read.
    pub(super) terms: Vec<Term>,
    /// The texts of those that SPDX has no name for, by the names of the file.
    pub(super) texts: BTreeMap<String, String>,
}

/// A licence, or several of which one may be chosen or which all count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Term {
    /// SPDX's own name.
    Known(&'static str),
    /// A name of the file.
    Other(String),
    /// One of them.
    Any(Vec<Term>),
    /// All of them.
    All(Vec<Term>),
}

impl Term {
    /// As an expression; `name` says how a licence that SPDX does not know is called.
    pub(super) fn expression(&self, name: &impl Fn(&str) -> String) -> String {
        let joined = |terms: &[Term], word: &str| {
            let terms: Vec<String> = terms.iter().map(|it| it.expression(name)).collect();
            format!("({})", terms.join(word))
        };
        match self {
            Term::Known(known) => (*known).to_owned(),
            Term::Other(other) => name(other),
            Term::Any(terms) => joined(terms, " OR "),
            Term::All(terms) => joined(terms, " AND "),
        }
    }
}

impl Licences {
    /// All of them as one expression.
    pub(super) fn expression(&self, name: impl Fn(&str) -> String) -> Option<String> {
        let terms: Vec<String> = self.terms.iter().map(|it| it.expression(&name)).collect();
        (!terms.is_empty()).then(|| terms.join(" AND "))
    }

    /// The names that SPDX does not know, each with an identifier that no other of them has (SPDX 2.3, clause 10.1).
    /// `scope` is part of it: the same name means different things in different packages.
    pub(super) fn references(&self, scope: usize) -> BTreeMap<&str, String> {
        let mut references = BTreeMap::new();
        let mut taken = BTreeSet::new();
        // Of names that look alike, where the next one begins to count.
        let mut next: BTreeMap<String, usize> = BTreeMap::new();
        let mut terms: Vec<&Term> = self.terms.iter().rev().collect();
        while let Some(term) = terms.pop() {
            match term {
                Term::Known(_) => {}
                Term::Any(inner) | Term::All(inner) => terms.extend(inner.iter().rev()),
                Term::Other(name) if references.contains_key(name.as_str()) => {}
                Term::Other(name) => {
                    let plain = identifier(name);
                    let mut reference = format!("LicenseRef-{scope}-{plain}");
                    let number = next.entry(plain.clone()).or_insert(2);
                    while !taken.insert(reference.clone()) {
                        reference = format!("LicenseRef-{scope}-{plain}.{number}");
                        *number += 1;
                    }
                    references.insert(name.as_str(), reference);
                }
            }
        }
        references
    }
}

/// Letters, digits, `.` and `-`, of which identifiers consist.
pub(super) fn identifier(name: &str) -> String {
    name.chars().map(|it| if it.is_ascii_alphanumeric() || it == '.' { it } else { '-' }).collect()
}

/// Reads a copyright file.
pub(super) fn licences(text: &str) -> Licences {
    let (mut licences, mut seen) = (Licences::default(), BTreeSet::new());
    let mut paragraphs = paragraphs(text);
    let Some(header) = paragraphs.next() else { return licences };
    if !header.get("Format").is_some_and(|format| format.contains("copyright-format/1")) {
        return licences;
    }
    for paragraph in std::iter::once(header).chain(paragraphs) {
        let Some(licence) = paragraph.get("License") else { continue };
        let (name, body) = licence.split_once('\n').unwrap_or((licence, ""));
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        if name.is_empty() {
            continue;
        }
        if !body.trim().is_empty() {
            licences.texts.entry(name.clone()).or_insert_with(|| plain(body));
        }
        // A paragraph of a licence alone only has its text.
        if paragraph.get("Files").is_some() || paragraph.get("Format").is_some() {
            let term = term(&name);
            if seen.insert(term.clone()) {
                licences.terms.push(term);
            }
        }
    }
    licences
}

/// The text of a field of several lines: each without its first space, `.` for an empty one.
fn plain(body: &str) -> String {
    let line = |line: &str| {
        let line = line.strip_prefix([' ', '\t']).unwrap_or(line).trim_end();
        if line == "." { String::new() } else { line.to_owned() }
    };
    body.lines().map(line).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

/// What a name stands for. With commas the order of `and` and `or` is a matter of English: such a name stays as it is.
fn term(name: &str) -> Term {
    if !name.contains([',', '/']) {
        let choices: Vec<&str> = name.split(" or ").collect();
        if choices.len() > 1 {
            return Term::Any(choices.into_iter().map(term).collect());
        }
        let parts: Vec<&str> = name.split(" and ").collect();
        if parts.len() > 1 {
            return Term::All(parts.into_iter().map(term).collect());
        }
    }
    let lower = name.trim().to_ascii_lowercase();
    let found = NAMES.iter().find(|(debian, spdx)| *debian == lower || spdx.to_ascii_lowercase() == lower);
    found.map_or_else(|| Term::Other(name.trim().to_owned()), |(_, spdx)| Term::Known(spdx))
}

/// Debian's short names in lower case, and SPDX's. What means different things in different packages (`bsd`, `public-domain`,
/// `gpl` without a version) is not here.
const NAMES: &[(&str, &str)] = &[
    ("agpl-3", "AGPL-3.0-only"),
    ("agpl-3+", "AGPL-3.0-or-later"),
    ("apache-2", "Apache-2.0"),
    ("apache-2.0", "Apache-2.0"),
    ("artistic-2", "Artistic-2.0"),
    ("artistic-2.0", "Artistic-2.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-4-clause", "BSD-4-Clause"),
    ("bsl-1.0", "BSL-1.0"),
    ("cc-by-3.0", "CC-BY-3.0"),
    ("cc-by-4.0", "CC-BY-4.0"),
    ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("cc0", "CC0-1.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("curl", "curl"),
    ("expat", "MIT"),
    ("fsfap", "FSFAP"),
    ("fsful", "FSFUL"),
    ("fsfullr", "FSFULLR"),
    ("gfdl-1.2", "GFDL-1.2-only"),
    ("gfdl-1.2+", "GFDL-1.2-or-later"),
    ("gfdl-1.3", "GFDL-1.3-only"),
    ("gfdl-1.3+", "GFDL-1.3-or-later"),
    ("gfdl-niv-1.2+", "GFDL-1.2-no-invariants-or-later"),
    ("gfdl-niv-1.3+", "GFDL-1.3-no-invariants-or-later"),
    ("gpl-1", "GPL-1.0-only"),
    ("gpl-1+", "GPL-1.0-or-later"),
    ("gpl-2", "GPL-2.0-only"),
    ("gpl-2.0", "GPL-2.0-only"),
    ("gpl-2+", "GPL-2.0-or-later"),
    ("gpl-2.0+", "GPL-2.0-or-later"),
    ("gpl-3", "GPL-3.0-only"),
    ("gpl-3.0", "GPL-3.0-only"),
    ("gpl-3+", "GPL-3.0-or-later"),
    ("gpl-3.0+", "GPL-3.0-or-later"),
    ("hpnd", "HPND"),
    ("icu", "ICU"),
    ("ijg", "IJG"),
    ("isc", "ISC"),
    ("lgpl-2", "LGPL-2.0-only"),
    ("lgpl-2.0", "LGPL-2.0-only"),
    ("lgpl-2+", "LGPL-2.0-or-later"),
    ("lgpl-2.0+", "LGPL-2.0-or-later"),
    ("lgpl-2.1", "LGPL-2.1-only"),
    ("lgpl-2.1+", "LGPL-2.1-or-later"),
    ("lgpl-3", "LGPL-3.0-only"),
    ("lgpl-3.0", "LGPL-3.0-only"),
    ("lgpl-3+", "LGPL-3.0-or-later"),
    ("lgpl-3.0+", "LGPL-3.0-or-later"),
    ("mit-0", "MIT-0"),
    ("mpl-1.1", "MPL-1.1"),
    ("mpl-2.0", "MPL-2.0"),
    ("openssl", "OpenSSL"),
    ("psf-2", "PSF-2.0"),
    ("sil-1.1", "OFL-1.1"),
    ("ofl-1.1", "OFL-1.1"),
    ("unlicense", "Unlicense"),
    ("w3c", "W3C"),
    ("x11", "X11"),
    ("zlib", "Zlib"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(name: &str) -> String {
        term(name).expression(&|other| format!("<{other}>"))
    }

    #[test]
    fn names_are_those_of_spdx() {
        for (name, wanted) in [
            ("GPL-2+", "GPL-2.0-or-later"),
            ("Expat", "MIT"),
            ("GPL-2.0-or-later", "GPL-2.0-or-later"),
            ("BSD-3-Clause", "BSD-3-Clause"),
            ("public-domain", "<public-domain>"),
            ("GPL-1+ or Artistic", "(GPL-1.0-or-later OR <Artistic>)"),
            ("GPL-2 and MIT-0 or ISC", "((GPL-2.0-only AND MIT-0) OR ISC)"),
            ("GPL-2+ with OpenSSL exception", "<GPL-2+ with OpenSSL exception>"),
            ("GPL-2, and ISC or Expat", "<GPL-2, and ISC or Expat>"),
        ] {
            assert_eq!(expression(name), wanted, "{name}");
        }
    }

    #[test]
    fn copyright_files_are_read() {
        let text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
                    Files: *\nCopyright: x\nLicense: GPL-2+\n\nFiles: a\nLicense: odd\n Text of\n .\n  it.\n\n\
                    Files: b\nLicense: GPL-2+\n\nLicense: GPL-2+\n On Debian systems\n\nLicense: unused\n x\n";
        let found = licences(text);
        assert_eq!(found.expression(|name| format!("<{name}>")).unwrap(), "GPL-2.0-or-later AND <odd>");
        assert_eq!(found.texts["odd"], "Text of\n\n it.");
        for text in
            ["", "This package was debianized by …\n\nLicense: GPL-2\n", "Format: x\n\nFiles: *\nLicense: ISC\n"]
        {
            assert_eq!(licences(text), Licences::default(), "{text}");
        }
    }

    #[test]
    fn names_that_look_alike_stay_apart() {
        let text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
                    Files: *\nLicense: my own\n one\n\nFiles: a\nLicense: my-own or ISC\n\nFiles: b\nLicense: my own and x\n";
        let found = licences(text);
        let references = found.references(7);
        assert_eq!(references["my own"], "LicenseRef-7-my-own");
        assert_eq!(references["my-own"], "LicenseRef-7-my-own.2");
        assert_eq!(references.keys().copied().collect::<Vec<_>>(), ["my own", "my-own", "x"]);
    }

    #[test]
    fn the_list_has_each_name_once() {
        let mut names: Vec<_> = NAMES.iter().map(|(debian, _)| *debian).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
    }
}
