//! The JSON Schema of recipe files, for editors: completion, and a first check while typing.
//!
//! The types here are the shape of a file; [`crate::Recipe`] is what is left after merging and checking. A test holds the
//! keys of both together. The schema knows no merge and no `!replace`, so nothing is required by it.

#![allow(dead_code, reason = "the types exist for their derived schema; nobody makes a value of them")]

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::recipe::{Output, RootOver, Writes};

/// The schema as text: JSON, indented, with a line break at the end. Committed as `docs/recipe.schema.json`.
///
/// JSON Schema draft 7, which the YAML language server of most editors knows best.
pub fn json_schema() -> String {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<RecipeFile>();
    let mut value = Schema::to_value(schema);
    drop_nulls(&mut value);
    // The order of keys must not depend on the features that other crates ask of serde_json.
    value.sort_all_objects();
    let mut text = format!("{value:#}");
    text.push('\n');
    text
}

/// An optional key may be absent; it may not be null, as the derived schema has it.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [single] = types.as_slice() {
                    let single = single.clone();
                    map.insert(String::from("type"), single);
                }
            }
            if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
            }
            map.values_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

/// A recipe of Aulë: an upstream image and the changes that make a netboot image of it.
#[derive(JsonSchema)]
#[schemars(rename = "Recipe", deny_unknown_fields)]
struct RecipeFile {
    /// The name under which builds are stored; part of references such as `name:variant`.
    name: Option<Name>,
    /// Another recipe that this one changes; a path relative to this file.
    extends: Option<LocalFile>,
    base: Option<BaseKeys>,
    #[schemars(flatten)]
    fragment: Fragment,
    /// Recipe fragments by name, each merged over what is common.
    variants: Option<BTreeMap<Name, Variant>>,
}

/// A variant: a recipe fragment that is merged over what is common to all.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Variant {
    #[schemars(flatten)]
    fragment: Fragment,
}

#[derive(JsonSchema)]
struct Fragment {
    /// The newest timestamp allowed in any output, such as 2025-11-01T00:00:00Z. Default: the newest one in the base.
    date: Option<Date>,
    packages: Option<PackagesKeys>,
    /// Directories laid over the tree, in order; the last one wins. Paths relative to this file.
    overlays: Option<Vec<LocalFile>>,
    /// Single files, by path in the image.
    files: Option<BTreeMap<PathInImage, File>>,
    services: Option<ServicesKeys>,
    boot: Option<BootKeys>,
    cloud_init: Option<CloudInitKeys>,
    root: Option<RootKeys>,
    /// What the build makes.
    outputs: Option<Vec<Output>>,
}

/// Lower-case letters and digits, with single `-`, `_` or `.` between.
#[derive(JsonSchema)]
struct Name(#[schemars(regex(pattern = r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$"), length(max = 64))] String);

/// A path on this machine, relative to the file that writes it.
#[derive(JsonSchema)]
struct LocalFile(#[schemars(length(min = 1))] String);

/// An absolute path in the image.
#[derive(JsonSchema)]
struct PathInImage(#[schemars(regex(pattern = r"^(/[^/]+)+$"))] String);

#[derive(JsonSchema)]
struct Date(#[schemars(regex(pattern = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d([Zz]|[+-]\d\d:\d\d)$"))] String);

#[derive(JsonSchema)]
struct Digest(#[schemars(regex(pattern = r"^(sha256:)?[0-9a-fA-F]{64}$"))] String);

#[derive(JsonSchema)]
struct HttpUrl(
    #[schemars(regex(pattern = r"^https?://[^\s]+$"))]
    String,
);

/// What the build begins with: an upstream image and how it is verified, or packages alone.
#[derive(JsonSchema)]
#[schemars(rename = "Base", deny_unknown_fields)]
struct BaseKeys {
    /// The image, raw or compressed: a URL or a local path.
    image: Option<String>,
    /// SHA-256 of the image as it is fetched; in place of `checksums`.
    sha256: Option<Digest>,
    /// A file in the form of sha256sum that lists the image: a URL or a local path. Clear-signed where there is a
    /// keyring and no signature.
    checksums: Option<String>,
    /// Detached OpenPGP signature of the checksums: a URL or a local path.
    signature: Option<String>,
    /// OpenPGP public keys that may sign, binary or armored: a local path.
    keyring: Option<String>,
    /// A root made of Debian packages, in place of an image.
    packages: Option<BasePackagesKeys>,
}

/// A root made of Debian packages: all essential ones of a suite, `include`, and what they need.
#[derive(JsonSchema)]
#[schemars(rename = "BasePackages", deny_unknown_fields)]
struct BasePackagesKeys {
    /// Where the archive is; `dists` lies below it. Without it the mirror of `--mirror`, or of the building machine's apt.
    uri: Option<String>,
    /// The suite, such as `trixie`.
    suite: Option<String>,
    /// Such as `main`, which is the default.
    components: Option<Vec<String>>,
    /// OpenPGP public keys that may sign the suite, binary or armored: a local path.
    key: Option<String>,
    /// Debian's name of the architecture; `arm64` by default.
    architecture: Option<String>,
    /// Packages beside the essential ones, each with an optional `=version`.
    include: Option<Vec<String>>,
}

/// Debian packages.
#[derive(JsonSchema)]
#[schemars(rename = "Packages", deny_unknown_fields)]
struct PackagesKeys {
    /// Packages to install, each with an optional `:architecture` and `=version`.
    install: Option<Vec<String>>,
    /// Packages to remove.
    remove: Option<Vec<String>>,
    /// Where packages come from beside the sources that the image has itself.
    repositories: Option<Vec<RepositoryKeys>>,
    /// All archives as they were at this time.
    snapshot: Option<Date>,
    /// Where the archive of a URI can be had as it was, in place of what it says itself: a URL with `@SNAPSHOTID@` in it.
    snapshots: Option<BTreeMap<String, String>>,
    /// Take an archive after its own `Valid-Until`, too: one that is kept as it was. Its signature must be right all the same.
    accept_expired: Option<bool>,
}

/// An archive of Debian packages.
#[derive(JsonSchema)]
#[schemars(rename = "Repository", deny_unknown_fields)]
struct RepositoryKeys {
    /// Where it is; `dists` lies below it.
    uri: String,
    /// The suite, such as `trixie`.
    suite: String,
    /// Such as `main`.
    components: Vec<String>,
    /// OpenPGP public keys that may sign it, binary or armored: a local path.
    key: String,
}

/// One file, link or directory of the image, or the removal of one.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum File {
    Content(ContentFile),
    Source(SourceFile),
    Url(UrlFile),
    Symlink(SymlinkFile),
    Remove(RemoveFile),
    Directory(DirectoryFile),
}

/// Mode bits as an octal string, such as "0644".
#[derive(JsonSchema)]
struct FileMode(#[schemars(regex(pattern = r"^0?[0-7]{3,4}$"))] String);

/// A name in the image's own passwd or group file, or a number.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Owner {
    Id(u32),
    Name(String),
}

/// A file with the text that stands here.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ContentFile {
    /// The text.
    content: String,
    mode: Option<FileMode>,
    owner: Option<Owner>,
    group: Option<Owner>,
    /// Rendered for each node when it is served.
    template: Option<bool>,
}

/// A file with the bytes of a local file.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SourceFile {
    /// The local file.
    source: LocalFile,
    mode: Option<FileMode>,
    owner: Option<Owner>,
    group: Option<Owner>,
    /// Rendered for each node when it is served.
    template: Option<bool>,
}

/// A file with the bytes of a URL; the lock pins its digest.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct UrlFile {
    /// Where it is fetched.
    url: HttpUrl,
    /// The digest that the bytes must have.
    sha256: Option<Digest>,
    mode: Option<FileMode>,
    owner: Option<Owner>,
    group: Option<Owner>,
}

/// A symbolic link.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SymlinkFile {
    /// Its target.
    #[schemars(length(min = 1))]
    symlink: String,
    owner: Option<Owner>,
    group: Option<Owner>,
}

/// The removal of what the tree has there, with all that is below it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RemoveFile {
    #[schemars(extend("const" = true))]
    remove: bool,
}

/// A directory; what it holds stays.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct DirectoryFile {
    #[schemars(extend("const" = true))]
    directory: bool,
    mode: Option<FileMode>,
    owner: Option<Owner>,
    group: Option<Owner>,
}

/// systemd units, by their full names; every one must exist in the tree.
#[derive(JsonSchema)]
#[schemars(rename = "Services", deny_unknown_fields)]
struct ServicesKeys {
    /// Units to enable, as their [Install] sections say.
    enable: Option<Vec<String>>,
    /// Units to disable.
    disable: Option<Vec<String>>,
    /// Units to mask.
    mask: Option<Vec<String>>,
}

/// The Pi's boot partition.
#[derive(JsonSchema)]
#[schemars(rename = "Boot", deny_unknown_fields)]
struct BootKeys {
    cmdline: Option<CmdlineKeys>,
    /// Lines for config.txt by filter, such as all, pi4 or pi5; order and repeats are kept.
    config: Option<BTreeMap<String, Vec<String>>>,
    /// Size of the boot partition, such as 512M; default: the base's.
    size: Option<Word>,
}

/// Changes to the kernel command line: first remove, then set, then add.
#[derive(JsonSchema)]
#[schemars(rename = "Cmdline", deny_unknown_fields)]
struct CmdlineKeys {
    /// key=value arguments, each in place of all with that key.
    set: Option<BTreeMap<String, Word>>,
    /// Arguments put at the end.
    add: Option<Vec<String>>,
    /// Keys or whole arguments to drop.
    remove: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Word {
    Text(String),
    Number(f64),
    Boolean(bool),
}

/// Documents for cloud-init.
#[derive(JsonSchema)]
#[schemars(rename = "CloudInit", deny_unknown_fields)]
struct CloudInitKeys {
    /// Documents that begin with #cloud-config, merged in order: files, or maps written here.
    user_data: Option<Vec<DocumentOrPath>>,
    /// NoCloud's meta-data: a file, or a map written here.
    meta_data: Option<DocumentOrPath>,
    /// As user_data.
    vendor_data: Option<Vec<DocumentOrPath>>,
    /// NoCloud's network-config: a file, or a map written here.
    network_config: Option<DocumentOrPath>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum DocumentOrPath {
    Path(LocalFile),
    Document(BTreeMap<String, Value>),
}

/// Where the root file system comes from when the machine boots.
#[derive(JsonSchema)]
#[schemars(rename = "Root", deny_unknown_fields)]
struct RootKeys {
    over: Option<RootOver>,
    writes: Option<Writes>,
    /// IPv4 address of the NFS server, baked in; default: rendered when served.
    server: Option<String>,
    /// Directory that this server exports.
    #[schemars(regex(pattern = r"^/[^\s,:]*$"))]
    path: Option<String>,
    /// URL of the NoCloud seed, baked in; ends with a slash.
    #[schemars(regex(pattern = r"^https?://[^\s;?#]+/$"))]
    seed: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::convert::keys;
    use crate::source::SourceMap;
    use crate::yaml::{Core, KeyRule, Node, Value as Yaml, core, parse};

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    fn to_json(node: &Node) -> Value {
        match &node.value {
            Yaml::List(list) => list.iter().map(to_json).collect(),
            Yaml::Map(map) => map.iter().map(|(key, entry)| (key.text.clone(), to_json(&entry.value))).collect(),
            Yaml::Scalar { text, style } => match core(text, *style, node.tag.as_ref()) {
                Core::Null => Value::Null,
                Core::Bool(value) => value.into(),
                Core::Integer => text.parse::<u64>().map_or_else(|_| text.as_str().into(), Value::from),
                Core::Float => text.parse::<f64>().map_or_else(|_| text.as_str().into(), Value::from),
                Core::String => text.as_str().into(),
            },
        }
    }

    fn read(text: &str) -> Value {
        let mut sources = SourceMap::default();
        let file = sources.add("t.yaml".into(), String::new(), text.to_owned());
        to_json(&parse(&sources, file, KeyRule::Text).unwrap().unwrap())
    }

    fn schema() -> Value {
        serde_json::from_str(&json_schema()).unwrap()
    }

    #[test]
    fn committed_schema_is_current() {
        let path = root().join("docs/recipe.schema.json");
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        if std::env::var_os("AULE_WRITE_SCHEMA").is_some() {
            std::fs::write(&path, json_schema()).unwrap();
        } else {
            assert!(committed == json_schema(), "run this test once with AULE_WRITE_SCHEMA=1");
        }
    }

    #[test]
    fn schema_and_reader_know_the_same_keys() {
        let schema = schema();
        let of = |object: &Value| -> BTreeSet<String> {
            assert_eq!(object["additionalProperties"], false, "{object}");
            object["properties"].as_object().unwrap().keys().cloned().collect()
        };
        let named = |name: &str| of(&schema["definitions"][name]);
        let set = |keys: &[&str]| -> BTreeSet<String> { keys.iter().map(|key| (*key).to_owned()).collect() };
        assert_eq!(of(&schema), set(keys::RECIPE));
        for (name, keys) in [
            ("Variant", keys::VARIANT),
            ("Base", keys::BASE),
            ("Packages", keys::PACKAGES),
            ("Services", keys::SERVICES),
            ("Boot", keys::BOOT),
            ("Cmdline", keys::CMDLINE),
            ("CloudInit", keys::CLOUD_INIT),
            ("Root", keys::ROOT),
        ] {
            assert_eq!(named(name), set(keys), "{name}");
        }
        let files = ["ContentFile", "SourceFile", "UrlFile", "SymlinkFile", "RemoveFile", "DirectoryFile"];
        let union: BTreeSet<String> = files.iter().flat_map(|name| named(name)).collect();
        assert_eq!(union, set(keys::FILE));
    }

    #[test]
    fn shipped_recipes_fit_the_schema() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let mut count = 0;
        for entry in std::fs::read_dir(root().join("recipes")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let recipe = read(&std::fs::read_to_string(&path).unwrap());
                let errors: Vec<String> = validator.iter_errors(&recipe).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{}: {errors:?}", path.display());
                count += 1;
            }
        }
        assert!(count >= 3);
    }

    #[test]
    fn the_schema_refuses_what_the_reader_refuses() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let good = [
            "files: {/a: {content: x, mode: \"0644\", owner: 5, group: adm, template: true}}",
            "files: {/a/b: {url: \"https://x/y\"}, /c: {remove: true}, /d: {directory: true}, /e: {symlink: x}}",
            "boot: {cmdline: {set: {a: 1, b: x, c: true}}, size: 512M, config: {all: [a=1]}}",
            "cloud_init: {user_data: [a.yaml, {runcmd: [[a, 1]]}], meta_data: {a: b}, network_config: n.yaml}",
            "root: {over: nfs, writes: tmpfs, server: 10.0.0.1, path: /srv, seed: \"http://x/\"}",
            "variants: {v: {outputs: [oci]}}",
            "overlays: !replace [a]",
        ];
        for text in good {
            assert!(validator.is_valid(&read(text)), "{text}");
        }
        let bad = [
            "overlay: [a]",
            "overlays: a",
            "overlays:",
            "name: A",
            "date: yesterday",
            "files: {a: {content: x}}",
            "files: {/a/: {content: x}}",
            "files: {/a: {content: x, mode: 0644}}",
            "files: {/a: {content: x, mode: \"0999\"}}",
            "files: {/a: {content: x, source: y}}",
            "files: {/a: {remove: false}}",
            "files: {/a: {remove: true, mode: \"0644\"}}",
            "files: {/a: {url: \"ftp://x\"}}",
            "files: {/a: {}}",
            "boot: {cmdline: {set: {quiet: }}}",
            "boot: {config: {all: a=1}}",
            "root: {over: usb}",
            "root: {over: nfs, seed: \"http://x\"}",
            "outputs: [iso]",
            "variants: {v: {base: {image: x}}}",
            "variants: {V: {}}",
            "base: {image: x, sha256: abc}",
        ];
        for text in bad {
            assert!(!validator.is_valid(&read(text)), "{text}");
            let recipe = if text.starts_with("base:") {
                format!("name: t\n{text}\n")
            } else {
                format!("base: {{image: b}}\n{text}\n")
            };
            let recipe = if text.starts_with("name:") || text.starts_with("base:") {
                recipe
            } else {
                format!("name: t\n{recipe}")
            };
            let sources = |_: &Path| -> std::io::Result<Vec<u8>> { Ok(recipe.clone().into_bytes()) };
            assert!(crate::load(&sources, Path::new("t.yaml")).is_err(), "{recipe}");
        }
    }
}
