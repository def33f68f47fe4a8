//! Where packages come from: `sources.list` in both of its forms (sources.list(5)).

use crate::control::paragraphs;

/// The sources of one suite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceList {
    /// Where the archive is, without a slash at its end, and without a name and password.
    pub uri: String,
    /// Whether the address has a name or password, which must not get into what is shared.
    pub has_secret: bool,
    /// The suite, such as `trixie`; with a slash at its end it is the directory of the index itself, without components.
    pub suite: String,
    /// Such as `main`.
    pub components: Vec<String>,
    /// Only these architectures; all where it is empty.
    pub architectures: Vec<String>,
    /// Not these.
    pub without: Vec<String>,
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
    Fingerprints(Vec<Fingerprint>),
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
    fn parse(value: &str) -> Result<SignedBy, String> {
        let words: Vec<String> =
            value.split([' ', ',', '\n', '\t']).filter(|it| !it.is_empty()).map(str::to_owned).collect();
        if value.contains("-----BEGIN PGP") {
            // Lines of a field begin with a space, and empty ones are a full stop.
            let lines = value.lines().map(str::trim).map(|line| if line == "." { "" } else { line });
            Ok(SignedBy::Keys(lines.map(|line| format!("{line}\n")).collect()))
        } else if words.is_empty() {
            Ok(SignedBy::System)
        } else if words.iter().all(|it| it.starts_with('/')) {
            Ok(SignedBy::Files(words))
        } else {
            words.iter().map(|it| it.parse()).collect::<Result<_, _>>().map(SignedBy::Fingerprints)
        }
    }
}

/// The fingerprint of a key or of one of its subkeys (RFC 9580, 5.5.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// In upper-case hex: 40 digits of a key of version 4, 64 of a later one.
    digits: String,
    /// Whether it is this key alone, and not what its subkeys sign: it ends with `!`.
    alone: bool,
}

impl Fingerprint {
    /// Whether it means the key `signer`, which is `primary` itself or one of its subkeys; both in hex.
    pub fn means(&self, signer: &str, primary: &str) -> bool {
        let is = |it: &str| it.eq_ignore_ascii_case(&self.digits);
        is(signer) || !self.alone && is(primary)
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Fingerprint, String> {
        let digits = text.strip_suffix('!').unwrap_or(text);
        // What is shorter can be made again by anybody.
        if !matches!(digits.len(), 40 | 64) || !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
            let text: String = text.chars().take(80).collect();
            return Err(format!("`{text}` in Signed-By is neither the path of a file of keys nor a whole fingerprint"));
        }
        Ok(Fingerprint { digits: digits.to_ascii_uppercase(), alone: digits.len() < text.len() })
    }
}

/// The most sources that a file may name, and a system may have: there are some ten, and each is asked over the network.
pub const SOURCES_MAX: usize = 1000;
/// The most bytes that the sources of a paragraph may have, written out one by one.
const WRITTEN_OUT_MAX: usize = 16 << 20;
const TOO_MANY: &str = "these are more sources than any system has";

/// The sources of a file in the form of one line each (`*.list`). Those of source code and of discs are left out.
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
        // Names of discs have spaces in brackets, and nothing here could ask for one.
        if rest.trim_start().starts_with("cdrom:") {
            continue;
        }
        let mut words = rest.split_ascii_whitespace().map(str::to_owned);
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else {
            return Err(wrong("a URI and a suite are expected"));
        };
        let mut source = SourceList::of(&uri, &suite, words.collect()).map_err(|reason| wrong(&reason))?;
        for option in options.split_ascii_whitespace() {
            let (name, value) = option.split_once('=').ok_or_else(|| wrong("an option is `name=value`"))?;
            let words = || value.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect();
            match name {
                "arch" => source.architectures = words(),
                // (`arch+` adds to those that the system has anyway.)
                "arch-" => source.without = words(),
                "signed-by" => source.signed_by = SignedBy::parse(value).map_err(|reason| wrong(&reason))?,
                "trusted" => source.trusted = truth(value) == Some(true),
                _ => {}
            }
        }
        if sources.len() >= SOURCES_MAX {
            return Err(wrong(TOO_MANY));
        }
        sources.push(source);
    }
    Ok(sources)
}

/// The sources of a file in the form of paragraphs (`*.sources`). Those of source code and of discs, and those that are off, are
/// left out.
///
/// # Errors
/// The first paragraph that cannot be understood.
pub fn deb822(text: &str) -> Result<Vec<SourceList>, SourcesError> {
    let mut sources = Vec::new();
    // A comment is no line at all: a field goes on after it.
    let (mut plain, mut numbers) = (String::new(), Vec::new());
    for (number, line) in text.split_inclusive('\n').enumerate().filter(|(_, line)| !line.starts_with('#')) {
        plain.push_str(line);
        numbers.push(number + 1);
    }
    let (mut counted, mut lines) = (0, 0);
    for paragraph in paragraphs(&plain).filter(|it| it.fields().next().is_some()) {
        let start = (paragraph.text().as_ptr() as usize).saturating_sub(plain.as_ptr() as usize);
        lines += plain.get(counted..start).unwrap_or_default().lines().count();
        counted = counted.max(start);
        let line = numbers.get(lines).copied().unwrap_or(1);
        let wrong = |reason: &str| SourcesError { line, reason: reason.into() };
        let words = |field: &str| -> Vec<String> {
            let value = paragraph.get(field).unwrap_or_default();
            value.split_ascii_whitespace().map(str::to_owned).collect()
        };
        let truth = |field: &str| truth(paragraph.get(field).unwrap_or_default());
        if truth("Enabled") == Some(false) {
            continue;
        }
        let types = words("Types");
        if let Some(kind) = types.iter().find(|it| !matches!(it.as_str(), "deb" | "deb-src")) {
            return Err(wrong(&format!("`{kind}` is no type of a source")));
        }
        if types.is_empty() {
            return Err(wrong("`Types` is expected"));
        }
        if !types.iter().any(|it| it == "deb") {
            continue;
        }
        let (uris, suites) = (words("URIs"), words("Suites"));
        if uris.is_empty() || suites.is_empty() {
            return Err(wrong("`URIs` and `Suites` are expected"));
        }
        let signed_by =
            SignedBy::parse(paragraph.get("Signed-By").unwrap_or_default()).map_err(|reason| wrong(&reason))?;
        let count = uris.len().saturating_mul(suites.len());
        if count.saturating_mul(paragraph.text().len()) > WRITTEN_OUT_MAX || sources.len() + count > SOURCES_MAX {
            return Err(wrong(TOO_MANY));
        }
        for uri in uris.iter().filter(|uri| !uri.starts_with("cdrom:")) {
            for suite in &suites {
                let source = SourceList::of(uri, suite, words("Components")).map_err(|reason| wrong(&reason))?;
                sources.push(SourceList {
                    architectures: words("Architectures"),
                    without: words("Architectures-Remove"),
                    signed_by: signed_by.clone(),
                    trusted: truth("Trusted") == Some(true),
                    ..source
                });
            }
        }
    }
    Ok(sources)
}

/// A word for yes or no, as apt takes them (`StringToBool`).
fn truth(word: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|it| it.eq_ignore_ascii_case(word));
    match (is(&["yes", "true", "with", "on", "enable", "1"]), is(&["no", "false", "without", "off", "disable", "0"])) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// An address without a slash at its end and without a name and password, and whether it had any.
fn address(uri: &str) -> (String, bool) {
    let authority = uri.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let secret = authority.rsplit_once('@').map(|(secret, _)| format!("{secret}@"));
    let plain = secret.as_ref().map_or_else(|| uri.to_owned(), |secret| uri.replacen(secret.as_str(), "", 1));
    (plain.trim_end_matches('/').to_owned(), secret.is_some())
}

/// The mirror that a list of mirrors has first: by its priority, where any has one, of which the smallest counts most
/// (apt-transport-mirror(1)).
pub fn first_mirror(list: &str) -> Option<&str> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let mirrors = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let uri = words.next()?;
        let priority = words.find_map(|word| word.strip_prefix("priority:")?.parse::<u64>().ok());
        Some((priority.unwrap_or(u64::MAX), uri))
    });
    // Of equal ones the first.
    mirrors.min_by_key(|(priority, _)| *priority).map(|(_, uri)| uri)
}

impl SourceList {
    /// A source that trusts what the system trusts, for all architectures.
    fn of(uri: &str, suite: &str, components: Vec<String>) -> Result<SourceList, String> {
        let (uri, has_secret) = address(uri);
        match (suite.ends_with('/'), components.is_empty()) {
            (true, false) => Err(format!("`{suite}` is the directory of an index, and has no components")),
            (false, true) => Err(format!("the components of `{suite}` are expected")),
            _ => Ok(SourceList { uri, has_secret, suite: suite.to_owned(), components, ..SourceList::default() }),
        }
    }

    /// The same at another address.
    #[must_use]
    pub fn at(&self, uri: &str) -> SourceList {
        let (uri, has_secret) = address(uri);
        SourceList { uri, has_secret, ..self.clone() }
    }

    /// As apt reads it on a system of this architecture: `$(ARCH)` in address and suite stands for its name.
    #[must_use]
    pub fn on(&self, architecture: &str) -> SourceList {
        let named = |text: &str| text.replace("$(ARCH)", architecture);
        SourceList { uri: named(&self.uri), suite: named(&self.suite), ..self.clone() }
    }

    /// Where the list of its mirrors is, as an absolute path of the system, if it has one (apt-transport-mirror(1)).
    pub fn mirror_list(&self) -> Option<String> {
        let path = self.uri.strip_prefix("mirror+file:")?;
        Some(format!("/{}", path.trim_start_matches('/')))
    }

    /// Whether it is a directory with an index, without a suite's structure.
    pub fn is_flat(&self) -> bool {
        self.suite.ends_with('/')
    }

    /// Where the suite's `InRelease` and `Release` lie, below the URI; with a slash at its end.
    pub fn directory(&self) -> String {
        if self.is_flat() {
            let suite = self.suite.trim_start_matches("./");
            return suite.trim_start_matches('/').to_owned();
        }
        format!("dists/{}/", self.suite)
    }

    /// Whether it has anything for an architecture.
    pub fn has(&self, architecture: &str) -> bool {
        let named = |all: &[String]| all.iter().any(|it| it == architecture);
        (self.architectures.is_empty() || named(&self.architectures)) && !named(&self.without)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// URI, suite and components of each.
    fn shown(sources: &[SourceList]) -> Vec<String> {
        sources.iter().map(|it| format!("{} {} {}", it.uri, it.suite, it.components.join(","))).collect()
    }

    #[test]
    fn an_address_with_a_password_is_known_without_telling_it() {
        for (text, wanted) in [
            ("deb http://me:secret@a/debian s main\n", ("http://a/debian", true)),
            ("deb [trusted=no] https://se@cret@a s main\n", ("https://a", true)),
            ("deb http://a/@/debian s main\n", ("http://a/@/debian", false)),
        ] {
            let sources = one_line(text).unwrap();
            assert_eq!((&*sources[0].uri, sources[0].has_secret), wanted);
        }
    }

    #[test]
    fn mirrors_and_architectures() {
        let source = &one_line("deb mirror+file:///etc/apt/mirrors/debian.list $(ARCH)/stable main").unwrap()[0];
        assert_eq!(source.mirror_list().as_deref(), Some("/etc/apt/mirrors/debian.list"));
        let there = source.at("http://a:b@example.org/$(ARCH)/").on("arm64");
        assert_eq!((&*there.uri, &*there.suite), ("http://example.org/arm64", "arm64/stable"));
        assert!(there.has_secret && !source.has_secret && there.mirror_list().is_none());
        for (list, wanted) in [
            ("# none\n\n", None),
            ("http://a/\nhttp://b/\n", Some("http://a/")),
            ("http://a/\tpriority:2\n http://b/\ttype:index priority:1\nhttp://c/\tpriority:1\n", Some("http://b/")),
        ] {
            assert_eq!(first_mirror(list), wanted);
        }
    }

    #[test]
    fn lines_are_read() {
        let text = "# a comment\n\ndeb-src http://a b c\n\
                    deb [arch=arm64,armhf signed-by=/k.gpg] http://a.example/debian/ trixie main contrib # x\n\
                    deb\thttp://b ./\ndeb cdrom:[Debian GNU/Linux 13]/ trixie main\n\
                    deb [ arch-=armhf trusted=yes lang=en ] http://c stable/updates main\n";
        let sources = one_line(text).unwrap();
        assert_eq!(
            shown(&sources),
            ["http://a.example/debian trixie main,contrib", "http://b ./ ", "http://c stable/updates main"]
        );
        assert_eq!(sources[0].signed_by, SignedBy::Files(vec!["/k.gpg".into()]));
        let has = |number: usize| ["arm64", "armhf", "amd64"].map(|it| sources[number].has(it));
        assert_eq!((has(0), has(1), has(2)), ([true, true, false], [true; 3], [true, false, true]));
        assert_eq!(sources.iter().map(|it| it.trusted).collect::<Vec<_>>(), [false, false, true]);
        let directories: Vec<_> = sources.iter().map(SourceList::directory).collect();
        assert_eq!(directories, ["dists/trixie/", "", "dists/stable/updates/"]);
        for (suite, directory) in [("./", ""), ("/", ""), ("a/b/", "a/b/"), ("./a/", "a/"), ("/a/", "a/")] {
            assert_eq!(one_line(&format!("deb http://b {suite}")).unwrap()[0].directory(), directory, "{suite}");
        }
    }

    #[test]
    fn what_is_no_line() {
        for (text, line) in [
            ("deb", 1),
            ("\ndeb http://a", 2),
            ("rpm a b", 1),
            ("deb [a=b http://a b", 1),
            ("deb [a] http://a b c", 1),
            ("deb http://a b", 1),
            ("# x\ndeb http://a b/ main", 2),
            ("deb [signed-by=0123456789ABCDEF] http://a b main", 1),
        ] {
            assert_eq!(one_line(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn paragraphs_are_read() {
        let text = "# Ubuntu\nTypes: deb deb-src\nURIs: http://ports.example/ubuntu-ports/\nSuites: noble noble-updates\nComponents: main\n universe\nSigned-By: /usr/share/keyrings/a.gpg\n\nTypes: deb\nURIs: http://b\nSuites: x\nEnabled: no\n\nTypes: deb\nURIs: http://c\nSuites: x/\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n";
        let sources = deb822(text).unwrap();
        assert_eq!(
            shown(&sources),
            [
                "http://ports.example/ubuntu-ports noble main,universe",
                "http://ports.example/ubuntu-ports noble-updates main,universe",
                "http://c x/ "
            ]
        );
        let SignedBy::Keys(keys) = &sources[2].signed_by else { panic!("{:?}", sources[2]) };
        assert_eq!(keys, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n");
    }

    #[test]
    fn fields_of_paragraphs() {
        const GOOD: &str = "Types: deb\nURIs: http://a\nSuites: s\nComponents: c\n";
        let one = ["http://a s c"];
        let cases: &[(&str, &[&str])] = &[
            (GOOD, &one),
            ("types: deb\nuris: http://a/\nsuites: s\ncomponents: c\n", &one),
            ("Types: deb-src\nURIs: http://a\nSuites: s\nComponents: c\n", &[]),
            (
                "Types: deb\nURIs: http://a http://b\nSuites: s t\nComponents: c d\n",
                &["http://a s c,d", "http://a t c,d", "http://b s c,d", "http://b t c,d"],
            ),
            // Comments stand anywhere, also where a field goes on.
            (
                "# x\nTypes: deb\n# x: y\nURIs: http://a\nSuites: s\n#\nComponents:\n# z\n c\n#\n d\n",
                &["http://a s c,d"],
            ),
            ("#Types: deb\n#URIs: http://a\n\n", &[]),
            ("Types: deb\nURIs: cdrom:[Debian]/\nSuites: s\nComponents: c\n", &[]),
        ];
        for (text, wanted) in cases {
            assert_eq!(shown(&deb822(text).unwrap()), *wanted, "{text}");
        }
        for (more, wanted) in [
            ("Enabled: no", 0),
            ("Enabled: False", 0),
            ("Enabled: 0", 0),
            ("Enabled: yes", 1),
            ("Enabled: perhaps", 1),
            ("#Enabled: no", 1),
        ] {
            assert_eq!(deb822(&format!("{GOOD}{more}\n")).unwrap().len(), wanted, "{more}");
        }
        for (more, wanted) in [
            ("Architectures: arm64 armhf", [true, true, false]),
            ("Architectures-Remove: armhf", [true, false, true]),
            ("Architectures-Add: armhf", [true; 3]),
            ("Description: x", [true; 3]),
        ] {
            let sources = deb822(&format!("{GOOD}{more}\n")).unwrap();
            assert_eq!(["arm64", "armhf", "amd64"].map(|it| sources[0].has(it)), wanted, "{more}");
        }
    }

    #[test]
    fn what_is_no_paragraph() {
        for (text, line) in [
            ("\nTypes: deb\nURIs: http://a\n", 2),
            ("# one\n\n# two\nTypes: deb\n", 4),
            ("URIs: http://a\nSuites: s\nComponents: c\n", 1),
            ("Types: rpm\n", 1),
            ("Types: deb\nURIs: http://a\nSuites: s\n", 1),
            ("Types: deb\nURIs: http://a\nSuites: s/\nComponents: c\n", 1),
            ("Types: deb\nURIs: http://a\nSuites: s/\nSigned-By: 6ED0E7B8\n", 1),
        ] {
            assert_eq!(deb822(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn keys_are_named_by_whole_fingerprints() {
        let (primary, subkey, other) = ("A".repeat(40), "b".repeat(40), "C".repeat(64));
        for (value, signer, wanted) in [
            (primary.clone(), &primary, true),
            (primary.clone(), &subkey, true),
            (subkey.clone(), &subkey, true),
            (subkey.clone(), &primary, false),
            (format!("{primary}!"), &primary, true),
            (format!("{primary}!"), &subkey, false),
            (format!("{subkey}!"), &subkey, true),
            (format!("{other}, {}", subkey.to_uppercase()), &subkey, true),
            (format!("{other}\n {primary}"), &subkey, true),
            (other.clone(), &subkey, false),
        ] {
            let SignedBy::Fingerprints(all) = SignedBy::parse(&value).unwrap() else { panic!("{value}") };
            assert_eq!(all.iter().any(|it| it.means(signer, &primary)), wanted, "{value} of {signer}");
        }
        for value in
            ["AAAA", &primary[1..], &format!("{primary}A"), &format!("0x{primary}"), &format!("/k.gpg {primary}")]
        {
            assert!(SignedBy::parse(value).unwrap_err().contains("fingerprint"), "{value}");
        }
    }

    #[test]
    fn more_sources_than_any_system_has() {
        let line = "deb http://a/ b c\n";
        assert_eq!(one_line(&line.repeat(SOURCES_MAX)).unwrap().len(), SOURCES_MAX);
        assert_eq!(one_line(&line.repeat(SOURCES_MAX + 1)).unwrap_err().line, SOURCES_MAX + 1);
        let of = |uris: usize, suites: usize, more: &str| {
            let (uris, suites) = ("http://a/ ".repeat(uris), "b ".repeat(suites));
            deb822(&format!("Types: deb\nURIs: {uris}\nSuites: {suites}\nComponents: c{more}\n"))
        };
        assert_eq!(of(25, 40, "").unwrap().len(), SOURCES_MAX);
        assert_eq!(of(1000, 1000, "").unwrap_err().line, 1);
        assert_eq!(of(25, 40, &"c".repeat(1 << 20)).unwrap_err().line, 1);
        // Of many paragraphs, the one that is wrong.
        let many = format!("{}Types: no\n", "Types: deb\nURIs: http://a/\nSuites: b/\n\n".repeat(500));
        assert_eq!(deb822(&many).unwrap_err().line, 2001);
    }
}
