//! The merged recipe as text: a recipe again, in one file, with the place that each value came from beside it.

use crate::load::Merged;
use crate::recipe::{Base, Boot, CloudInit, Document, FileEntry, FileKind, Recipe, Root, RootOver, Writes};
use crate::source::{SourceMap, Span};
use crate::value::Principal;
use crate::yaml::{Entry, Key, KeyRule, Map, Node, Style, Value, emit, parse, scalar_for};

/// Prints one variant as a recipe without `extends` and `variants`. Local paths are relative to the main recipe's
/// directory: saved there, the text is read as the same recipe.
///
/// `with_origin` adds `# file:line` after every value that a recipe file gave; what has no such comment is a default.
pub fn show(merged: &Merged, with_origin: bool) -> String {
    let node = to_node(&merged.recipe);
    let place = |path: &str| {
        let location = merged.origins.exact(path)?;
        let file: String =
            location.file.display().to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Some(format!("{file}:{}", location.line))
    };
    emit(&node, with_origin.then_some(&place))
}

/// The recipe as the tree that a file with its text would give.
pub(crate) fn to_node(recipe: &Recipe) -> Node {
    let mut map = Builder::default();
    map.string("name", &recipe.name);
    map.put("base", base(&recipe.base));
    if let Some(date) = recipe.date {
        map.string("date", &date.to_string());
    }
    let mut packages = Builder::default();
    packages.strings("install", &recipe.packages.install);
    packages.strings("remove", &recipe.packages.remove);
    let repositories = recipe.packages.repositories.iter().map(|it| {
        let mut map = Builder::default();
        map.string("uri", it.uri.as_str());
        map.string("suite", &it.suite);
        map.strings("components", &it.components);
        map.string("key", it.key.name());
        node(Value::Map(map.0))
    });
    let repositories: Vec<Node> = repositories.collect();
    if !repositories.is_empty() {
        packages.put("repositories", node(Value::List(repositories)));
    }
    if let Some(snapshot) = recipe.packages.snapshot {
        packages.string("snapshot", &snapshot.to_string());
    }
    let mut snapshots = Builder::default();
    recipe.packages.snapshots.iter().for_each(|(archive, service)| snapshots.string(archive, service));
    packages.put_map("snapshots", snapshots);
    if recipe.packages.accept_expired {
        packages.plain("accept_expired", "true");
    }
    map.put_map("packages", packages);
    let overlays: Vec<&str> = recipe.overlays.iter().map(|overlay| overlay.name()).collect();
    map.strings("overlays", &overlays);
    let mut files = Builder::default();
    for (path, entry) in &recipe.files {
        files.put(path.as_str(), file(entry));
    }
    map.put_map("files", files);
    let mut services = Builder::default();
    services.strings("enable", &recipe.services.enable);
    services.strings("disable", &recipe.services.disable);
    services.strings("mask", &recipe.services.mask);
    map.put_map("services", services);
    map.put_map("boot", boot(&recipe.boot));
    map.put_map("cloud_init", cloud_init(&recipe.cloud_init));
    if let Some(recipe_root) = &recipe.root {
        map.put_map("root", root(recipe_root));
    }
    let outputs: Vec<&str> = recipe.outputs.iter().map(|output| output.name()).collect();
    map.strings("outputs", &outputs);
    node(Value::Map(map.0))
}

fn base(base: &Base) -> Node {
    let mut map = Builder::default();
    let base = match base {
        Base::Image(image) => image,
        Base::Packages { packages } => {
            let mut inner = Builder::default();
            if let Some(uri) = &packages.uri {
                inner.string("uri", uri.as_str());
            }
            inner.string("suite", &packages.suite);
            inner.strings("components", &packages.components);
            inner.string("key", packages.key.name());
            inner.string("architecture", &packages.architecture);
            inner.strings("include", &packages.include);
            map.put_map("packages", inner);
            return node(Value::Map(map.0));
        }
    };
    map.string("image", base.image.name());
    if let Some(sha256) = &base.sha256 {
        map.string("sha256", &sha256.to_string());
    }
    for (key, input) in [("checksums", &base.checksums), ("signature", &base.signature)] {
        if let Some(input) = input {
            map.string(key, input.name());
        }
    }
    if let Some(keyring) = &base.keyring {
        map.string("keyring", keyring.name());
    }
    node(Value::Map(map.0))
}

fn file(entry: &FileEntry) -> Node {
    let mut map = Builder::default();
    match &entry.kind {
        FileKind::Content(text) => map.string("content", text),
        FileKind::Source(local) => map.string("source", local.name()),
        FileKind::Url { url, sha256 } => {
            map.string("url", url.as_str());
            if let Some(sha256) = sha256 {
                map.string("sha256", &sha256.to_string());
            }
        }
        FileKind::Symlink(target) => map.string("symlink", target),
        FileKind::Remove => map.plain("remove", "true"),
        FileKind::Directory => map.plain("directory", "true"),
    }
    if let Some(mode) = entry.mode {
        map.string("mode", &mode.to_string());
    }
    for (key, principal) in [("owner", &entry.owner), ("group", &entry.group)] {
        match principal {
            None => {}
            Some(Principal::Id(id)) => map.plain(key, &id.to_string()),
            Some(Principal::Name(name)) => map.string(key, name),
        }
    }
    if entry.template {
        map.plain("template", "true");
    }
    node(Value::Map(map.0))
}

fn boot(boot: &Boot) -> Builder {
    let mut set = Builder::default();
    for (key, value) in &boot.cmdline.set {
        set.string(key, value);
    }
    let mut cmdline = Builder::default();
    cmdline.put_map("set", set);
    cmdline.strings("add", &boot.cmdline.add);
    cmdline.strings("remove", &boot.cmdline.remove);
    let mut config = Builder::default();
    for (filter, lines) in &boot.config {
        // A filter without lines is still a filter.
        config.put(filter, list(lines));
    }
    let mut map = Builder::default();
    map.put_map("cmdline", cmdline);
    map.put_map("config", config);
    if let Some(size) = boot.size {
        map.plain("size", &size.to_string());
    }
    map
}

fn cloud_init(seed: &CloudInit) -> Builder {
    let documents = |documents: &[Document]| node(Value::List(documents.iter().map(document).collect()));
    let mut map = Builder::default();
    if !seed.user_data.is_empty() {
        map.put("user_data", documents(&seed.user_data));
    }
    if let Some(meta_data) = &seed.meta_data {
        map.put("meta_data", document(meta_data));
    }
    if !seed.vendor_data.is_empty() {
        map.put("vendor_data", documents(&seed.vendor_data));
    }
    if let Some(network_config) = &seed.network_config {
        map.put("network_config", document(network_config));
    }
    map
}

fn document(document: &Document) -> Node {
    match document {
        Document::File(local) => string(local.name()),
        Document::Inline(text) => {
            // The text is our own emission; if it ever is not, it shows as the string that it is.
            let mut sources = SourceMap::default();
            let file = sources.add("inline".into(), String::new(), text.clone());
            match parse(&sources, file, KeyRule::Text) {
                Ok(Some(node)) => node,
                _ => string(text),
            }
        }
    }
}

fn root(root: &Root) -> Builder {
    let mut map = Builder::default();
    map.string(
        "over",
        match root.over {
            RootOver::Nfs => "nfs",
            RootOver::Disk => "disk",
        },
    );
    if let Some(Writes::Tmpfs) = root.writes {
        map.string("writes", "tmpfs");
    }
    if let Some(server) = root.server {
        map.string("server", &server.to_string());
    }
    if let Some(path) = &root.path {
        map.string("path", path);
    }
    if let Some(seed) = &root.seed {
        map.string("seed", seed.as_str());
    }
    map
}

/// A map under construction, in the order of the calls.
#[derive(Default)]
pub(crate) struct Builder(pub(crate) Map);

impl Builder {
    pub(crate) fn put(&mut self, key: &str, value: Node) {
        self.0.insert(Key::text(key), Entry { key: string(key), value });
    }

    /// An empty map is left out.
    fn put_map(&mut self, key: &str, map: Builder) {
        if !map.0.is_empty() {
            self.put(key, node(Value::Map(map.0)));
        }
    }

    pub(crate) fn string(&mut self, key: &str, text: &str) {
        self.put(key, string(text));
    }

    /// A number or a boolean.
    pub(crate) fn plain(&mut self, key: &str, text: &str) {
        self.put(key, node(Value::Scalar { text: text.to_owned(), style: Style::Plain }));
    }

    /// An empty list is left out.
    pub(crate) fn strings<T: AsRef<str>>(&mut self, key: &str, items: &[T]) {
        if !items.is_empty() {
            self.put(key, list(items));
        }
    }
}

fn list<T: AsRef<str>>(items: &[T]) -> Node {
    node(Value::List(items.iter().map(|item| string(item.as_ref())).collect()))
}

fn string(text: &str) -> Node {
    let (text, style) = scalar_for(text);
    node(Value::Scalar { text, style })
}

/// A node that nobody wrote.
pub(crate) fn node(value: Value) -> Node {
    Node { value, tag: None, span: Span::NOWHERE }
}
