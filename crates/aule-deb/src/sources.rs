//! Where packages come from: `sources.list` in both of its forms (sources.list(5)).

use crate::control::{lines, paragraphs};

/// The sources of one suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceList {
    /// Where the archive is, without a slash at its end.
    pub uri: String,
    /// The suite, such as `trixie`; with a slash at its end it is the directory of the index itself, without components.
    pub suite: String,
    /// Such as `main`.
    pub components: Vec<String>,
    /// Only these architectures; all where it is empty.
    pub architectures: Vec<String>,
    /// Who must have signed it.
    pub signed_by: SignedBy,
    /// Whether it counts without any signature. Nothing here honours that.
    pub trusted: bool,
}

/// The keys that a source trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SignedBy {
    /// Those that the system trusts (`/etc/apt/trusted.gpg.d`).
    #[default]
    System,
    /// Those in these files of the system.
    Files(Vec<String>),
    /// Only these, by their fingerprints, of those that the system trusts.
    Fingerprints(Vec<String>),
    /// These, which stand in the file of sources itself.
    Keys(String),
}

/// Why a file of sources cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct SourcesError {
    /// Counted from 1.
    pub line: usize,
    /// Why.
    pub reason: String,
}

impl SignedBy {
    fn parse(value: &str) -> SignedBy {
        let words: Vec<String> =
            value.split([' ', ',', '\n', '\t']).filter(|it| !it.is_empty()).map(str::to_owned).collect();
        if value.contains("-----BEGIN PGP") {
            // Lines of a field begin with a space, and empty ones are a full stop.
            let lines = value.lines().map(str::trim).map(|line| if line == "." { "" } else { line });
            SignedBy::Keys(lines.map(|line| format!("{line}\n")).collect())
        } else if words.is_empty() {
            SignedBy::System
        } else if words.iter().all(|it| it.starts_with('/')) {
            SignedBy::Files(words)
        } else {
            SignedBy::Fingerprints(words)
        }
    }
}

/// The sources of a file in the form of one line each (`*.list`). Those of source code are left out.
///
/// # Errors
/// The first line that cannot be understood.
pub fn one_line(text: &str) -> Result<Vec<SourceList>, SourcesError> {
    let mut sources = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |reason: &str| SourcesError { line: number + 1, reason: reason.into() };
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((kind, rest)) = line.split_once([' ', '\t']) else {
            if line.is_empty() {
                continue;
            }
            return Err(wrong("a type, options, URI, suite and components are expected"));
        };
        if kind == "deb-src" {
            continue;
        }
        if kind != "deb" {
            return Err(wrong(&format!("`{kind}` is no type of a source")));
        }
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(|| wrong("`[` is not closed"))?,
            None => ("", rest),
        };
        let mut words = rest.split_ascii_whitespace().map(str::to_owned);
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else {
            return Err(wrong("a URI and a suite are expected"));
        };
        let mut source = SourceList {
            uri: uri.trim_end_matches('/').to_owned(),
            suite,
            components: words.collect(),
            architectures: Vec::new(),
            signed_by: SignedBy::System,
            trusted: false,
        };
        for option in options.split_ascii_whitespace() {
            let (name, value) = option.split_once('=').ok_or_else(|| wrong("an option is `name=value`"))?;
            match name.trim_end_matches(['+', '-']) {
                "arch" => source.architectures = value.split(',').map(str::to_owned).collect(),
                "signed-by" => source.signed_by = SignedBy::parse(value),
                "trusted" => source.trusted = value == "yes",
                _ => {}
            }
        }
        sources.push(source);
    }
    Ok(sources)
}

/// The sources of a file in the form of paragraphs (`*.sources`). Those of source code, and those that are off, are left out.
///
/// # Errors
/// The first paragraph that cannot be understood.
pub fn deb822(text: &str) -> Result<Vec<SourceList>, SourcesError> {
    let mut sources = Vec::new();
    for paragraph in paragraphs(text).filter(|it| it.fields().next().is_some()) {
        let line = line_of(text, paragraph.text());
        let wrong = |reason: &str| SourcesError { line, reason: reason.into() };
        let words = |field: &str| -> Vec<String> {
            let value = paragraph.get(field).unwrap_or_default();
            lines(value)
                .filter(|it| !it.starts_with('#'))
                .flat_map(str::split_ascii_whitespace)
                .map(str::to_owned)
                .collect()
        };
        let is = |field: &str, wanted: &str| paragraph.get(field).is_some_and(|it| it.eq_ignore_ascii_case(wanted));
        if is("Enabled", "no") || !words("Types").iter().any(|it| it == "deb") {
            continue;
        }
        let (uris, suites) = (words("URIs"), words("Suites"));
        if uris.is_empty() || suites.is_empty() {
            return Err(wrong("`URIs` and `Suites` are expected"));
        }
        for uri in &uris {
            for suite in &suites {
                sources.push(SourceList {
                    uri: uri.trim_end_matches('/').to_owned(),
                    suite: suite.clone(),
                    components: words("Components"),
                    architectures: words("Architectures"),
                    signed_by: SignedBy::parse(paragraph.get("Signed-By").unwrap_or_default()),
                    trusted: is("Trusted", "yes"),
                });
            }
        }
    }
    Ok(sources)
}

/// The line at which a part of a text begins.
fn line_of(text: &str, part: &str) -> usize {
    let start = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    text.get(..start).unwrap_or_default().lines().count() + 1
}

impl SourceList {
    /// Where the suite's `InRelease` and `Release` lie, below the URI; with a slash at its end.
    pub fn directory(&self) -> String {
        if self.suite.ends_with('/') {
            let suite = self.suite.trim_start_matches("./");
            return suite.trim_start_matches('/').to_owned();
        }
        format!("dists/{}/", self.suite)
    }

    /// The indices of an architecture, below [`SourceList::directory`].
    pub fn indices(&self, architecture: &str) -> Vec<String> {
        if self.suite.ends_with('/') {
            return vec!["Packages".into()];
        }
        if !self.architectures.is_empty() && !self.architectures.iter().any(|it| it == architecture) {
            return Vec::new();
        }
        self.components.iter().map(|component| format!("{component}/binary-{architecture}/Packages")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = "# a comment\n\ndeb-src http://a b c\ndeb [arch=arm64,armhf signed-by=/k.gpg] http://a.example/debian/ trixie main contrib # x\ndeb http://b ./\n";
        let sources = one_line(text).unwrap();
        assert_eq!(sources.len(), 2);
        assert_eq!(
            (sources[0].uri.as_str(), sources[0].directory().as_str()),
            ("http://a.example/debian", "dists/trixie/")
        );
        assert_eq!(sources[0].signed_by, SignedBy::Files(vec!["/k.gpg".into()]));
        assert_eq!(sources[0].indices("arm64"), ["main/binary-arm64/Packages", "contrib/binary-arm64/Packages"]);
        assert_eq!(sources[0].indices("amd64"), [""; 0]);
        assert_eq!((sources[1].directory().as_str(), sources[1].indices("arm64")), ("", vec!["Packages".into()]));
        for (text, line) in
            [("deb", 1), ("\ndeb http://a", 2), ("rpm a b", 1), ("deb [a=b http://a b", 1), ("deb [a] http://a b", 1)]
        {
            assert_eq!(one_line(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn paragraphs_are_read() {
        let text = "# Ubuntu\nTypes: deb deb-src\nURIs: http://ports.example/ubuntu-ports/\nSuites: noble noble-updates\nComponents: main\n universe\nSigned-By: /usr/share/keyrings/a.gpg\n\nTypes: deb\nURIs: http://b\nSuites: x\nEnabled: no\n\nTypes: deb\nURIs: http://c\nSuites: x/\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n";
        let sources = deb822(text).unwrap();
        let shown: Vec<_> =
            sources.iter().map(|it| (it.uri.as_str(), it.suite.as_str(), it.components.len())).collect();
        assert_eq!(
            shown,
            [
                ("http://ports.example/ubuntu-ports", "noble", 2),
                ("http://ports.example/ubuntu-ports", "noble-updates", 2),
                ("http://c", "x/", 0)
            ]
        );
        let SignedBy::Keys(keys) = &sources[2].signed_by else { panic!("{:?}", sources[2]) };
        assert_eq!(keys, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n");
        assert_eq!(deb822("\nTypes: deb\nURIs: http://a\n").unwrap_err().line, 2);
    }
}
