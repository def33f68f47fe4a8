//! The lock: the exact bytes that a recipe's URLs and package names stood for when somebody looked.
//!
//! It is YAML: people read it in diffs beside the recipe, one line a fact; the recipe's own reader gives its errors a
//! line and column; and no further format is needed. Entries are sorted, so that the same facts are the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use crate::convert::Context;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::recipe::{Base, Recipe};
use crate::show::{Builder, node};
use crate::source::SourceMap;
use crate::value::{Sha256, Url};
use crate::yaml::{KeyRule, Node, Value, emit, parse};

/// The version that this program writes and reads.
const VERSION: &str = "1";

const KEYS: &[&str] = &["version", "base", "suite", "base_packages", "packages", "kept", "files"];
const BASE_KEYS: &[&str] = &["url", "size", "sha256", "verified"];
const PACKAGE_KEYS: &[&str] = &["name", "version", "architecture", "url", "size", "sha256", "variants"];
const FILE_KEYS: &[&str] = &["url", "size", "sha256"];

/// A lock file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    /// The upstream image.
    pub base: Option<LockedBase>,
    /// Of which suite the packages of the base are, if it is made of packages ([`crate::BasePackages::suite_line`]).
    pub suite: Option<String>,
    /// Every package that such a base is made of, sorted likewise.
    pub base_packages: Vec<LockedPackage>,
    /// Every package that an installation on the base brings, sorted by name, architecture and version.
    pub packages: Vec<LockedPackage>,
    /// Every package that was asked for and that the base had already, sorted.
    pub kept: Vec<KeptPackage>,
    /// Every fetched file, sorted by URL.
    pub files: Vec<LockedFile>,
}

/// The upstream image as it was when it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedBase {
    /// URL.
    pub url: String,
    /// Bytes of the file as it was fetched, compressed or not.
    pub size: u64,
    /// Digest of the same bytes.
    pub sha256: Sha256,
    /// How it was verified, in words: the key that signed, a digest in the recipe, or nothing.
    pub verified: String,
}

/// One Debian package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedPackage {
    /// Package name.
    pub name: String,
    /// Architecture; `all` for most data.
    pub architecture: String,
    /// Version.
    pub version: String,
    /// Where the `.deb` was.
    pub url: String,
    /// Bytes of the `.deb`.
    pub size: u64,
    /// Digest of the `.deb`.
    pub sha256: Sha256,
    /// The variants of the recipe that use it, sorted; empty where all of them do.
    pub variants: Vec<String>,
}

impl LockedPackage {
    /// Whether a variant uses it.
    pub fn is_of(&self, variant: &str) -> bool {
        self.variants.is_empty() || self.variants.iter().any(|it| it == variant)
    }
}

/// A package that was asked for and that the base had, in the version that was right then: `nano 8.4`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptPackage {
    /// Package name.
    pub name: String,
    /// Version.
    pub version: String,
}

impl fmt::Display for KeptPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// One fetched file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedFile {
    /// Where it was.
    pub url: String,
    /// Bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Sha256,
}

impl Lock {
    /// Reads a lock that has no file name, such as one inside an artifact.
    ///
    /// # Errors
    /// As [`parse_file`](Self::parse_file).
    pub fn parse(bytes: &[u8]) -> Result<Self, Diagnostics> {
        Self::parse_file(Path::new("lock"), bytes)
    }

    /// Reads a lock file; `path` is its name in messages.
    ///
    /// # Errors
    /// Every mistake, with its place.
    pub fn parse_file(path: &Path, bytes: &[u8]) -> Result<Self, Diagnostics> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(Diagnostic::new(format!("the lock `{}` is not UTF-8 text", path.display())).into());
        };
        let mut sources = SourceMap::default();
        let file = sources.add(path.to_owned(), String::new(), text.to_owned());
        let Some(root) = parse(&sources, file, KeyRule::Text).map_err(|error| error.with_help(RENEW))? else {
            return Err(Diagnostic::new(format!("the lock `{}` is empty", path.display())).help(RENEW).into());
        };
        let mut cx = Context::new(&sources);
        let lock = read(&mut cx, &root);
        cx.gathered.check().map_err(|error| error.with_help(RENEW))?;
        Ok(lock)
    }

    /// The bytes of the file: the same for the same facts, whatever the order of the lists.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut map = Builder::default();
        map.plain("version", VERSION);
        if let Some(base) = &self.base {
            let mut entry = Builder::default();
            entry.string("url", &base.url);
            entry.plain("size", &base.size.to_string());
            entry.string("sha256", &base.sha256.to_string());
            entry.string("verified", &base.verified);
            map.put("base", node(Value::Map(entry.0)));
        }
        if let Some(suite) = &self.suite {
            map.string("suite", suite);
        }
        if !self.base_packages.is_empty() {
            map.put("base_packages", packages_node(&self.base_packages));
        }
        map.put("packages", packages_node(&self.packages));
        // Most locks have none, and say nothing of it.
        if !self.kept.is_empty() {
            let kept: BTreeSet<&KeptPackage> = self.kept.iter().collect();
            map.strings("kept", &kept.into_iter().map(ToString::to_string).collect::<Vec<_>>());
        }
        let files: BTreeSet<&LockedFile> = self.files.iter().collect();
        let files = files.into_iter().map(|file| {
            let mut entry = Builder::default();
            entry.string("url", &file.url);
            entry.plain("size", &file.size.to_string());
            entry.string("sha256", &file.sha256.to_string());
            node(Value::Map(entry.0))
        });
        map.put("files", node(Value::List(files.collect())));
        let header =
            "# Written by `aule lock`: what the recipe's URLs and packages stood for. Commit it; do not edit it.\n";
        format!("{header}{}", emit(&node(Value::Map(map.0)), None)).into_bytes()
    }

    /// All packages, those of the base and those that are installed on it, each once.
    pub fn all_packages(&self) -> BTreeSet<&LockedPackage> {
        self.base_packages.iter().chain(&self.packages).collect()
    }

    /// The entry of a fetched file.
    pub fn file(&self, url: &Url) -> Option<&LockedFile> {
        self.files.iter().find(|file| file.url == url.as_str())
    }

    /// What a recipe needs that the lock lacks, and the other way round. `recipes` are all variants of the recipe: the
    /// lock serves every one. With `--base FILE` the base entry is left alone: give [`BaseEntry::LeftAlone`].
    ///
    /// What packages a recipe needs depends on what its base has; the build finds out.
    pub fn compare(&self, recipes: &[&Recipe], base: BaseEntry) -> LockDifference {
        let mut difference = LockDifference::default();
        if base == BaseEntry::Compared {
            // A local image is an input like an overlay: nothing of it is locked.
            let base = recipes.first().map(|recipe| &recipe.base);
            let wanted = base.and_then(|base| base.image()).filter(|base| base.image.as_local().is_none());
            let name = wanted.map(|base| base.image.name());
            let locked = self.base.as_ref();
            match (name, locked) {
                (Some(name), Some(locked)) if locked.url == name => {
                    if wanted.and_then(|base| base.sha256).is_some_and(|sha256| sha256 != locked.sha256) {
                        difference.changed.push(LockItem::Base(name.to_owned()));
                    }
                }
                (name, locked) => {
                    difference.missing.extend(name.map(|name| LockItem::Base(name.to_owned())));
                    difference.unused.extend(locked.map(|locked| LockItem::Base(locked.url.clone())));
                }
            }
        }
        if base == BaseEntry::Compared {
            let wanted = recipes.first().and_then(|recipe| match &recipe.base {
                Base::Packages { packages } => Some(packages.suite_line()),
                Base::Image(_) => None,
            });
            if wanted != self.suite {
                difference.missing.extend(wanted.map(LockItem::Suite));
                difference.unused.extend(self.suite.clone().map(LockItem::Suite));
            }
        }
        let mut wanted: BTreeMap<&str, Vec<Option<&Sha256>>> = BTreeMap::new();
        for recipe in recipes {
            for (_, url, sha256) in recipe.fetched_files() {
                wanted.entry(url.as_str()).or_default().push(sha256);
            }
        }
        let locked: BTreeMap<&str, &LockedFile> = self.files.iter().map(|file| (file.url.as_str(), file)).collect();
        for (url, digests) in &wanted {
            match locked.get(url) {
                None => difference.missing.push(LockItem::File((*url).to_owned())),
                Some(file) if digests.iter().flatten().any(|sha256| **sha256 != file.sha256) => {
                    difference.changed.push(LockItem::File((*url).to_owned()));
                }
                Some(_) => {}
            }
        }
        difference.unused.extend(
            locked.keys().filter(|url| !wanted.contains_key(*url)).map(|url| LockItem::File((*url).to_owned())),
        );
        difference
    }

    /// Drops the entries that nothing uses and those that the recipe contradicts; they are then missing.
    pub fn drop_stale(&mut self, difference: &LockDifference) {
        for item in difference.unused.iter().chain(&difference.changed) {
            match item {
                LockItem::Base(url) => {
                    if self.base.as_ref().is_some_and(|base| base.url == *url) {
                        self.base = None;
                    }
                }
                // Its packages are those of another suite.
                LockItem::Suite(suite) => {
                    if self.suite.as_ref() == Some(suite) {
                        self.suite = None;
                        self.base_packages.clear();
                        self.packages.clear();
                        self.kept.clear();
                    }
                }
                LockItem::File(url) => self.files.retain(|file| file.url != *url),
            }
        }
    }
}

/// Whether a comparison looks at the lock's base entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseEntry {
    /// It must be the recipe's base.
    Compared,
    /// The build takes another base; the entry stays as it is.
    LeftAlone,
}

/// One thing that a lock can pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockItem {
    /// The base image, by URL or name.
    Base(String),
    /// The suite of a base of packages.
    Suite(String),
    /// A fetched file, by URL.
    File(String),
}

impl fmt::Display for LockItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base(url) => write!(f, "base image {url}"),
            Self::Suite(suite) => write!(f, "the packages of {suite}"),
            Self::File(url) => write!(f, "file {url}"),
        }
    }
}

/// How a lock and a recipe differ. `--locked` refuses any difference; a plain build adds what is missing, and drops
/// what is unused or changed ([`Lock::drop_stale`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockDifference {
    /// The recipe needs it, the lock does not have it.
    pub missing: Vec<LockItem>,
    /// The lock has it, nothing needs it.
    pub unused: Vec<LockItem>,
    /// The recipe itself demands another digest than the lock has.
    pub changed: Vec<LockItem>,
}

impl LockDifference {
    /// Lock and recipe agree.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty() && self.changed.is_empty()
    }
}

impl fmt::Display for LockDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [("not in the lock", &self.missing), ("no longer used", &self.unused), ("changed", &self.changed)];
        let lines: Vec<String> =
            kinds.iter().flat_map(|(what, items)| items.iter().map(move |item| format!("{what}: {item}"))).collect();
        f.write_str(&lines.join("\n"))
    }
}

fn packages_node(packages: &[LockedPackage]) -> Node {
    let packages: BTreeSet<&LockedPackage> = packages.iter().collect();
    let packages = packages.into_iter().map(|package| {
        let mut entry = Builder::default();
        entry.string("name", &package.name);
        entry.string("version", &package.version);
        entry.string("architecture", &package.architecture);
        entry.string("url", &package.url);
        entry.plain("size", &package.size.to_string());
        entry.string("sha256", &package.sha256.to_string());
        if !package.variants.is_empty() {
            entry.strings("variants", &package.variants);
        }
        node(Value::Map(entry.0))
    });
    node(Value::List(packages.collect()))
}

const RENEW: &str = "`aule lock` writes a new lock";

fn read(cx: &mut Context<'_>, root: &Node) -> Lock {
    let mut lock = Lock::default();
    if cx.fields(root, "the lock", KEYS).is_none() {
        return lock;
    }
    match root.get("version") {
        Some(node) => {
            if let Some(version) = cx.letters(node, "the lock's version")
                && version != VERSION
            {
                cx.report(node.span, format!("this lock has version {version}"), "this program knows version 1");
            }
        }
        None => cx.report(root.span, "this lock has no version", "expected `version: 1`"),
    }
    if let Some(node) = root.get("base") {
        lock.base = read_base(cx, node);
    }
    if let Some(node) = root.get("suite") {
        lock.suite = cx.string(node, "the suite").map(str::to_owned);
    }
    if let Some(node) = root.get("base_packages") {
        let items = cx.list(node, "`base_packages`");
        lock.base_packages = items.iter().filter_map(|item| read_package(cx, item)).collect();
    }
    if let Some(node) = root.get("packages") {
        let items = cx.list(node, "`packages`");
        lock.packages = items.iter().filter_map(|item| read_package(cx, item)).collect();
        // Locks once had all packages in one list; what was pinned stays so.
        if lock.suite.is_some() && root.get("base_packages").is_none() {
            lock.base_packages.clone_from(&lock.packages);
        }
    }
    if let Some(node) = root.get("kept") {
        let items = cx.list(node, "`kept`");
        lock.kept = items.iter().filter_map(|item| read_kept(cx, item)).collect();
    }
    if let Some(node) = root.get("files") {
        let mut seen = BTreeSet::new();
        for item in cx.list(node, "`files`") {
            if let Some(file) = read_file(cx, item) {
                if !seen.insert(file.url.clone()) {
                    cx.report(item.span, format!("`{}` is locked twice", file.url), "expected one entry for a URL");
                }
                lock.files.push(file);
            }
        }
    }
    lock.base_packages.sort_unstable();
    lock.packages.sort_unstable();
    lock.kept.sort_unstable();
    lock.files.sort_unstable();
    lock
}

/// A field that must be there, without control characters.
fn text<'n>(cx: &mut Context<'_>, entry: &'n Node, key: &str, what: &str) -> Option<(&'n Node, &'n str)> {
    let Some(node) = entry.get(key) else {
        cx.report(entry.span, format!("{what} has no `{key}`"), format!("expected `{key}: …` here"));
        return None;
    };
    let text = cx.letters(node, &format!("`{key}`"))?;
    if text.is_empty() || text.chars().any(char::is_control) {
        cx.report(node.span, format!("`{key}` is empty or holds control characters"), "expected one line of text");
        return None;
    }
    Some((node, text))
}

fn parsed<T: std::str::FromStr<Err = crate::value::ValueError>>(
    cx: &mut Context<'_>,
    entry: &Node,
    key: &str,
    what: &str,
) -> Option<T> {
    let (node, text) = text(cx, entry, key, what)?;
    cx.parsed(node, &format!("`{key}`"), Some(text), str::parse)
}

/// A URL, by the rules of recipes.
fn url(cx: &mut Context<'_>, entry: &Node, what: &str) -> Option<String> {
    parsed::<Url>(cx, entry, "url", what).map(|url| url.as_str().to_owned())
}

fn size(cx: &mut Context<'_>, entry: &Node, what: &str) -> Option<u64> {
    let (node, text) = text(cx, entry, "size", what)?;
    match text.parse() {
        Ok(size) => Some(size),
        Err(_) => {
            cx.report(node.span, format!("`size` is not valid: `{text}`"), "expected a number of bytes");
            None
        }
    }
}

fn read_base(cx: &mut Context<'_>, node: &Node) -> Option<LockedBase> {
    let what = "the base";
    cx.fields(node, what, BASE_KEYS)?;
    let url = text(cx, node, "url", what).map(|(_, text)| text.to_owned());
    let size = size(cx, node, what);
    let sha256 = parsed(cx, node, "sha256", what);
    let verified = text(cx, node, "verified", what).map(|(_, text)| text.to_owned());
    Some(LockedBase { url: url?, size: size?, sha256: sha256?, verified: verified? })
}

fn read_package(cx: &mut Context<'_>, node: &Node) -> Option<LockedPackage> {
    let what = "a package";
    cx.fields(node, what, PACKAGE_KEYS)?;
    let mut word = |key: &str| text(cx, node, key, what).map(|(_, text)| text.to_owned());
    let (name, version, architecture) = (word("name"), word("version"), word("architecture"));
    let (url, size) = (url(cx, node, what), size(cx, node, what));
    let sha256 = parsed(cx, node, "sha256", what);
    let mut variants = Vec::new();
    if let Some(node) = node.get("variants") {
        for item in cx.list(node, "`variants`") {
            variants.extend(cx.letters(item, "a variant").map(str::to_owned));
        }
        variants.sort_unstable();
    }
    let (name, architecture, version) = (name?, architecture?, version?);
    Some(LockedPackage { name, architecture, version, url: url?, size: size?, sha256: sha256?, variants })
}

fn read_kept(cx: &mut Context<'_>, node: &Node) -> Option<KeptPackage> {
    let text = cx.letters(node, "a kept package")?;
    let parts = text.split_once(' ').filter(|(name, version)| {
        !name.is_empty() && !version.is_empty() && !version.contains(|it: char| it == ' ' || it.is_control())
    });
    let Some((name, version)) = parts else {
        cx.report(node.span, format!("`{text}` is no package with its version"), "expected such as `nano 8.4`");
        return None;
    };
    Some(KeptPackage { name: name.to_owned(), version: version.to_owned() })
}

fn read_file(cx: &mut Context<'_>, node: &Node) -> Option<LockedFile> {
    let what = "a file";
    cx.fields(node, what, FILE_KEYS)?;
    let url = url(cx, node, what);
    let size = size(cx, node, what);
    let sha256 = parsed(cx, node, "sha256", what);
    Some(LockedFile { url: url?, size: size?, sha256: sha256? })
}
