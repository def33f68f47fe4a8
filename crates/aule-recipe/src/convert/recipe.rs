//! The recipe's own keys. A fragment (one file, or one variant) is checked by itself, so that every mistake is found
//! even where a merge would hide it; what only the merged recipe can break is checked there.

use std::collections::BTreeMap;

use super::base::{BaseFields, base, whole_base};
use super::{Context, boot, files, keys, names};
use crate::recipe::{
    CloudInit, Document, Input, Output, Packages, Recipe, Repository, Root, RootOver, Services, Writes,
};
use crate::source::Span;
use crate::value::Url;
use crate::yaml::{Node, Value, emit};

/// Which keys a fragment may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fragment {
    /// A recipe file.
    Recipe,
    /// An entry of `variants:`.
    Variant,
}

/// The sections of a fragment as far as they are given.
struct Sections {
    name: Option<String>,
    base: BaseFields,
    recipe: Partial,
    root: Option<RootFields>,
}

struct Partial {
    date: Option<crate::value::Timestamp>,
    packages: Packages,
    overlays: Vec<crate::path::LocalPath>,
    files: std::collections::BTreeMap<crate::path::ImagePath, crate::recipe::FileEntry>,
    services: Services,
    boot: crate::recipe::Boot,
    cloud_init: CloudInit,
    outputs: Vec<Output>,
}

#[derive(Default)]
struct RootFields {
    over: Option<RootOver>,
    writes: Option<Writes>,
    server: Option<std::net::Ipv4Addr>,
    path: Option<String>,
    seed: Option<Url>,
}

/// Checks a fragment by itself.
pub(crate) fn fragment(cx: &mut Context<'_>, node: &Node, kind: Fragment) {
    sections(cx, node, kind);
    if kind == Fragment::Recipe
        && let Some(map) = node.get("variants").and_then(|node| cx.map(node, "`variants`"))
    {
        for (name, entry) in map {
            if let Err(expected) = names::reference(&name.text) {
                cx.report(entry.key.span, format!("`{}` cannot be the name of a variant", name.text), expected);
            }
            fragment(cx, &entry.value, Fragment::Variant);
        }
    }
}

/// Converts a merged recipe. `None` where something was reported.
pub(crate) fn whole(cx: &mut Context<'_>, node: &Node) -> Option<Recipe> {
    let Sections { name, base, recipe, root } = sections(cx, node, Fragment::Recipe);
    let before = cx.gathered.is_empty();
    let name = name.or_else(|| missing(cx, node.span, "name", "the recipe has no name", "`name: …`"));
    let base = whole_base(cx, node, base);
    let root = root.map(|root| whole_root(cx, node, root));
    check_contradictions(cx, node);
    if !before || !cx.gathered.is_empty() {
        return None;
    }
    let Partial { date, packages, overlays, files, services, boot, cloud_init, mut outputs } = recipe;
    if outputs.is_empty() {
        outputs.push(Output::Oci);
    }
    let root = match root {
        Some(root) => Some(root?),
        None => None,
    };
    Some(Recipe {
        name: name?,
        base: base?,
        date,
        packages,
        overlays,
        files,
        services,
        boot,
        cloud_init,
        root,
        outputs,
    })
}

pub(super) fn missing<T>(cx: &mut Context<'_>, span: Span, key: &str, message: &str, expected: &str) -> Option<T> {
    let diagnostic = cx
        .sources
        .diagnostic(Span { length: 1, ..span }, message)
        .label(format!("expected {expected} in this recipe or in one that it extends"))
        .help(format!("add the key `{key}`"));
    cx.push(diagnostic);
    None
}

fn sections(cx: &mut Context<'_>, node: &Node, kind: Fragment) -> Sections {
    let (what, known) = match kind {
        Fragment::Recipe => ("the recipe", keys::RECIPE),
        Fragment::Variant => ("the variant", keys::VARIANT),
    };
    cx.fields(node, what, known);
    let name = match kind {
        Fragment::Recipe => node.get("name").and_then(|node| name(cx, node)),
        Fragment::Variant => None,
    };
    let overlays = node.get("overlays").map(|node| {
        let items = cx.list(node, "`overlays`");
        items.iter().filter_map(|item| cx.local(item, "an overlay", false)).collect()
    });
    let recipe = Partial {
        date: node.get("date").and_then(|node| {
            let text = cx.letters(node, "`date`");
            cx.parsed(node, "the date", text, str::parse)
        }),
        packages: node.get("packages").map(|node| packages(cx, node)).unwrap_or_default(),
        overlays: overlays.unwrap_or_default(),
        files: node.get("files").map(|node| files::files(cx, node)).unwrap_or_default(),
        services: node.get("services").map(|node| services(cx, node)).unwrap_or_default(),
        boot: node.get("boot").map(|node| boot::boot(cx, node)).unwrap_or_default(),
        cloud_init: node.get("cloud_init").map(|node| cloud_init(cx, node)).unwrap_or_default(),
        outputs: node.get("outputs").map(|node| outputs(cx, node)).unwrap_or_default(),
    };
    Sections {
        name,
        base: node.get("base").map(|node| base(cx, node)).unwrap_or_default(),
        recipe,
        root: node.get("root").map(|node| root(cx, node)),
    }
}

fn name(cx: &mut Context<'_>, node: &Node) -> Option<String> {
    let text = cx.string(node, "`name`")?;
    match names::reference(text) {
        Ok(()) => Some(text.to_owned()),
        Err(expected) => {
            cx.report(node.span, format!("`{text}` cannot be the name of a recipe"), expected);
            None
        }
    }
}

pub(super) fn suite(cx: &mut Context<'_>, node: &Node) -> Option<String> {
    let suite = cx.string(node, "`suite`")?.to_owned();
    match names::suite(&suite) {
        Ok(()) => Some(suite),
        Err(expected) => {
            cx.report(node.span, format!("`{suite}` cannot be a suite"), expected);
            None
        }
    }
}

pub(super) fn input(cx: &mut Context<'_>, node: &Node, what: &str) -> Option<Input> {
    let text = cx.string(node, what)?;
    if Url::looks_like(text) {
        cx.parsed(node, what, Some(text), str::parse).map(Input::Url)
    } else {
        cx.local(node, what, true).map(Input::Local)
    }
}

fn packages(cx: &mut Context<'_>, node: &Node) -> Packages {
    if cx.fields(node, "`packages`", keys::PACKAGES).is_none() {
        return Packages::default();
    }
    let mut list = |key: &str, check| {
        node.get(key).map(|node| cx.strings(node, &format!("`packages.{key}`"), check)).unwrap_or_default()
    };
    let (install, remove) = (list("install", names::package), list("remove", names::package_name));
    let what = "`packages.repositories`";
    let nodes = node.get("repositories").map(|node| cx.list(node, what)).unwrap_or_default();
    let repositories = nodes.iter().filter_map(|node| repository(cx, node)).collect();
    let snapshot = node.get("snapshot").and_then(|node| {
        let text = cx.letters(node, "`packages.snapshot`");
        cx.parsed(node, "the time of the snapshot", text, str::parse)
    });
    let mut snapshots = BTreeMap::new();
    if let Some(map) = node.get("snapshots").and_then(|node| cx.map(node, "`packages.snapshots`")) {
        for (archive, entry) in map {
            let node = &entry.value;
            let Some(service) = cx.string(node, "a snapshot service") else { continue };
            let is_address = service.replace(SNAPSHOT_ID, "20250101T000000Z").parse::<Url>().is_ok();
            if is_address && service.contains(SNAPSHOT_ID) {
                snapshots.insert(archive.text.trim_end_matches('/').to_owned(), service.to_owned());
            } else {
                let expected = format!("expected an address with `{SNAPSHOT_ID}` where the time belongs");
                cx.report(node.span, format!("`{service}` cannot be a snapshot service"), expected);
            }
        }
    }
    let accept_expired = node.get("accept_expired").and_then(|node| cx.boolean(node, "`packages.accept_expired`"));
    let accept_expired = accept_expired.unwrap_or_default();
    Packages { install, remove, repositories, snapshot, snapshots, accept_expired }
}

/// What stands for the time in the address of a snapshot service, as in `Snapshots` of a `Release` file.
const SNAPSHOT_ID: &str = "@SNAPSHOTID@";

fn repository(cx: &mut Context<'_>, node: &Node) -> Option<Repository> {
    let what = "a repository";
    cx.fields(node, what, keys::REPOSITORY)?;
    let mut part = |key: &str| {
        let found = node.get(key);
        if found.is_none() {
            cx.report(
                node.span,
                format!("the repository has no `{key}`"),
                "expected `uri`, `suite`, `components`, `key`",
            );
        }
        found
    };
    let (uri, suite, components, key) = (part("uri"), part("suite"), part("components"), part("key"));
    let uri = uri.and_then(|node| {
        let text = cx.string(node, "`uri`");
        cx.parsed(node, "the address of the repository", text, str::parse)
    });
    let suite = suite.and_then(|node| self::suite(cx, node));
    let components = components.map(|node| cx.strings(node, "`components`", names::suite));
    let key = key.and_then(|node| cx.local(node, "the key of the repository", true));
    Some(Repository { uri: uri?, suite: suite?, components: components?, key: key? })
}

fn services(cx: &mut Context<'_>, node: &Node) -> Services {
    if cx.fields(node, "`services`", keys::SERVICES).is_none() {
        return Services::default();
    }
    let mut list = |key: &str| {
        node.get(key).map(|node| cx.strings(node, &format!("`services.{key}`"), names::unit)).unwrap_or_default()
    };
    Services { enable: list("enable"), disable: list("disable"), mask: list("mask") }
}

fn cloud_init(cx: &mut Context<'_>, node: &Node) -> CloudInit {
    let mut out = CloudInit::default();
    if cx.fields(node, "`cloud_init`", keys::CLOUD_INIT).is_none() {
        return out;
    }
    for (key, documents) in [("user_data", &mut out.user_data), ("vendor_data", &mut out.vendor_data)] {
        let what = format!("`cloud_init.{key}`");
        if let Some(node) = node.get(key) {
            let items = cx.list(node, &what);
            documents.extend(items.iter().filter_map(|item| document(cx, item, &what, "#cloud-config\n", false)));
        }
    }
    for (key, slot) in [("meta_data", &mut out.meta_data), ("network_config", &mut out.network_config)] {
        let what = format!("`cloud_init.{key}`");
        *slot = node.get(key).and_then(|node| document(cx, node, &what, "", true));
    }
    out
}

/// A path, or a document written in place; `merged` is one whose inner `!replace` a merge has used up.
fn document(cx: &mut Context<'_>, node: &Node, what: &str, header: &str, merged: bool) -> Option<Document> {
    match &node.value {
        Value::Scalar { .. } => cx.local(node, &format!("a file of {what}"), false).map(Document::File),
        Value::Map(_) => {
            if !merged {
                check_no_replace(cx, node);
            }
            Some(Document::Inline(format!("{header}{}", emit(node, None))))
        }
        Value::List(_) => {
            cx.report(node.span, format!("{what} holds a list"), "expected a path, or a document written as a map");
            None
        }
    }
}

fn check_no_replace(cx: &mut Context<'_>, node: &Node) {
    if node.tag == Some(crate::yaml::Tag::Replace) {
        cx.report(node.span, "`!replace` has no meaning here", "documents are merged when all of them are known");
    }
    match &node.value {
        Value::Scalar { .. } => {}
        Value::List(list) => list.iter().for_each(|item| check_no_replace(cx, item)),
        Value::Map(map) => map.values().for_each(|entry| check_no_replace(cx, &entry.value)),
    }
}

fn outputs(cx: &mut Context<'_>, node: &Node) -> Vec<Output> {
    const KNOWN: [(&str, Output); 4] =
        [("boot", Output::Boot), ("nfs-root", Output::NfsRoot), ("oci", Output::Oci), ("disk", Output::Disk)];
    let items = cx.list(node, "`outputs`");
    items.iter().filter_map(|item| cx.word(item, "output", &KNOWN)).collect()
}

fn root(cx: &mut Context<'_>, node: &Node) -> RootFields {
    let mut root = RootFields::default();
    if cx.fields(node, "`root`", keys::ROOT).is_none() {
        return root;
    }
    let over = [("nfs", RootOver::Nfs), ("disk", RootOver::Disk)];
    root.over = node.get("over").and_then(|node| cx.word(node, "transport", &over));
    let writes = [("tmpfs", Writes::Tmpfs)];
    root.writes = node.get("writes").and_then(|node| cx.word(node, "place for writes", &writes));
    root.server = node.get("server").and_then(|node| {
        let text = cx.string(node, "`root.server`")?;
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let message = format!("`{text}` is no address of an NFS server");
                cx.report(node.span, message, "expected an IPv4 address: names cannot be resolved that early");
                None
            }
        }
    });
    root.path = node.get("path").and_then(|node| {
        let text = cx.string(node, "`root.path`")?;
        let word = !text.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, ',' | ':' | '"'));
        if word && text.starts_with('/') && !text.split('/').any(|part| part == "..") {
            return Some(text.to_owned());
        }
        cx.report(node.span, format!("`{text}` is no exported directory"), "expected an absolute path without blanks");
        None
    });
    root.seed = node.get("seed").and_then(|node| {
        let text = cx.string(node, "`root.seed`");
        let url: Url = cx.parsed(node, "the seed's URL", text, str::parse)?;
        if url.as_str().contains([';', '?']) || !url.as_str().ends_with('/') {
            let message = "cloud-init puts file names right after the seed's URL";
            cx.report(node.span, message, "expected a URL that ends with `/`, without `?` and `;`");
            return None;
        }
        Some(url)
    });
    root
}

fn whole_root(cx: &mut Context<'_>, node: &Node, root: RootFields) -> Option<Root> {
    let root_node = node.get("root");
    let span = root_node.map_or(node.span, |node| node.span);
    let Some(over) = root.over else {
        return missing(
            cx,
            span,
            "root.over",
            "`root` does not say where it comes from",
            "`over: nfs` or `over: disk`",
        );
    };
    let at = |key: &str| root_node.and_then(|node| node.get(key)).map_or(span, |node| node.span);
    if over == RootOver::Disk {
        let given = ["writes", "server", "path", "seed"].into_iter();
        for key in given.filter(|key| root_node.is_some_and(|node| node.get(key).is_some())) {
            cx.report(at(key), format!("`{key}` has no meaning for a root on disk"), "expected `over: nfs` beside it");
        }
        return Some(Root { over, writes: None, server: None, path: None, seed: None });
    }
    match (root.server.is_some(), root.path.is_some()) {
        (true, false) => {
            cx.report(at("server"), "a server needs the directory it exports", "expected `path` beside it")
        }
        (false, true) => {
            cx.report(at("path"), "a path needs the server that exports it", "expected `server` beside it")
        }
        _ => {}
    }
    let RootFields { writes, server, path, seed, .. } = root;
    Some(Root { over, writes: writes.or(Some(Writes::Tmpfs)), server, path, seed })
}

/// Lists append, so a variant cannot silently undo what it inherits: what is asked for both ways is a mistake.
fn check_contradictions(cx: &mut Context<'_>, node: &Node) {
    for (section, wanted, unwanted) in
        [("services", "enable", "disable"), ("services", "enable", "mask"), ("packages", "install", "remove")]
    {
        let items = |key: &str| node.get(section).and_then(|n| n.get(key)).and_then(Node::as_list).unwrap_or_default();
        let refused: std::collections::HashMap<&str, Span> =
            items(unwanted).iter().filter_map(|item| Some((item.as_text()?, item.span))).collect();
        for item in items(wanted) {
            let Some(text) = item.as_text() else { continue };
            let Some(other) = refused.get(text) else { continue };
            let diagnostic = cx
                .sources
                .diagnostic(
                    item.span,
                    format!("`{text}` stands in both `{section}.{wanted}` and `{section}.{unwanted}`"),
                )
                .label("here")
                .related(cx.sources.snippet(*other), "and here")
                .help(format!(
                    "to drop what is inherited, write `{wanted}: !replace […]` or `{unwanted}: !replace […]`"
                ));
            cx.push(diagnostic);
        }
    }
}
