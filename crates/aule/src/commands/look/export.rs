//! `aule export`: the files of a build for other servers.

use super::{content, directory::Directory, failed, open, text};
use crate::{
    failure::Failure,
    output::{self, Format},
    progress::Story,
};
use aule_build::{TEMPLATES, types};
use aule_store::{
    Build, Store, StoreError,
    layer::Contents,
    oci::{Descriptor, Manifest, TITLE},
};
use aule_tree::{Digest, Hasher, Inode, Kind, Tree, TreePath};
use std::{collections::BTreeSet, io::Read, path::Path};

/// The largest template that is looked into, in bytes.
const TEMPLATE_MAX: u64 = 1 << 20;

#[derive(serde::Serialize)]
struct Exported<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    digest: Digest,
    output: String,
    files: Vec<File>,
    templates: Vec<Template>,
}

#[derive(serde::Serialize)]
struct File {
    /// Below the output directory.
    path: String,
    size: u64,
    digest: Digest,
}

/// A file that somebody has to fill in.
#[derive(serde::Serialize)]
struct Template {
    path: String,
    /// The names between `{{` and `}}`.
    values: BTreeSet<String>,
}

/// Writes what the build has of boot.img, boot/, root.tar.zst and seed/ to `output`.
pub(super) fn run(store: &Store, reference: &str, output: &Path, format: Format) -> Result<(), Failure> {
    let build = open(store, reference)?;
    let story = Story::new();
    let manifest = |name: &str| build.artifact_manifest(store, name);
    let (boot, root, seed) = (manifest("boot")?, manifest("nfs-root")?, manifest("seed")?);
    if boot.is_none() && root.is_none() {
        return Err(Failure::new(format!("{reference} has neither a `boot` nor an `nfs-root` artifact to export"))
            .hint("add `outputs: [boot, nfs-root, oci]` to the recipe and build again"));
    }
    let mut export = Export { store, story: &story, files: Vec::new(), templates: Vec::new() };
    let directory = Directory::create(output)?;
    match &boot {
        Some(boot) => export.boot(&directory, boot)?,
        None => story.say("     note the build has no `boot` artifact: boot.img and boot/ are left out"),
    }
    match &root {
        Some(root) => export.blob(&directory, "", "root.tar.zst", file(&build, root, types::ROOT_ARCHIVE)?)?,
        None => story.say("     note the build has no `nfs-root` artifact: root.tar.zst is left out"),
    }
    for template in root.iter().flat_map(|it| it.annotations.get(TEMPLATES)).flat_map(|it| it.lines()) {
        let path = text::escape(template.as_bytes());
        story.say(&format!("     note /{path} in root.tar.zst is a template, which no file server fills in"));
    }
    if let Some(seed) = &seed {
        export.seed(&directory, seed)?;
    }
    let Export { files, templates, .. } = export;
    story.end();
    for template in &templates {
        let values: Vec<String> = template.values.iter().map(|value| format!("{{{{ {value} }}}}")).collect();
        story.say(&format!(
            "     note {} is a template: fill in {} for your network before a node boots from it (also in boot.img)",
            template.path,
            if values.is_empty() { "what it asks for".into() } else { values.join(", ") }
        ));
    }
    if !templates.is_empty() {
        story.say(
            "     note or bake the addresses in and build again: `root: {over: nfs, server: 192.0.2.1, path: /srv/root, \
             seed: http://192.0.2.1/seed/}` in the recipe",
        );
    }
    let exported =
        Exported { reference, digest: build.descriptor.digest, output: output.display().to_string(), files, templates };
    match format {
        Format::Json => output::json(&exported),
        Format::Text => show(&exported, output),
    }
}

fn show(exported: &Exported<'_>, output: &Path) -> Result<(), Failure> {
    let mut columns = text::Columns::new("", [text::Side::Right, text::Side::Left]);
    let boot: Vec<&File> = exported.files.iter().filter(|it| it.path.starts_with("boot/")).collect();
    for file in exported.files.iter().filter(|it| !it.path.starts_with("boot/")) {
        columns.row([output::size(file.size), output.join(&file.path).display().to_string()]);
    }
    if !boot.is_empty() {
        let size = output::size(boot.iter().map(|file| file.size).sum());
        let files = text::count(boot.len() as u64, "file");
        columns.row([size, format!("{} ({files})", output.join("boot/").display())]);
    }
    output::write(columns.render().as_bytes())
}

/// The file of an artifact that has this type.
fn file<'a>(build: &Build, manifest: &'a Manifest, media_type: &str) -> Result<&'a Descriptor, Failure> {
    manifest.layers.iter().find(|it| it.media_type == media_type).ok_or_else(|| {
        Failure::new(format!("an artifact of {} has no file of type {media_type}", build.descriptor.digest))
            .hint("the build was made by another version of aule; build it again")
    })
}

struct Export<'a> {
    store: &'a Store,
    story: &'a Story,
    files: Vec<File>,
    templates: Vec<Template>,
}

impl Export<'_> {
    /// Writes a blob as the file `name`, and checks it while it is copied. `prefix` is the directory's name.
    fn blob(&mut self, directory: &Directory, prefix: &str, name: &str, blob: &Descriptor) -> Result<(), Failure> {
        let digest = blob.digest;
        let path = self.store.blob_path(digest);
        let mut from = self.store.open_blob(digest)?;
        let mut size = 0;
        directory.write(name.as_bytes(), |sink| {
            let mut hasher = Hasher::new();
            let mut buffer = vec![0; 1 << 20];
            loop {
                let read = from.read(&mut buffer).map_err(|error| failed("read", &path, &error))?;
                let part = buffer.get(..read).unwrap_or_default();
                if part.is_empty() {
                    break;
                }
                hasher.update(part);
                size += part.len() as u64;
                sink(part)?;
            }
            match hasher.finish() {
                found if found == digest => Ok(()),
                found => Err(StoreError::DamagedBlob { digest, found }.into()),
            }
        })?;
        self.done(format!("{prefix}{name}"), size, digest);
        Ok(())
    }

    fn done(&mut self, path: String, size: u64, digest: Digest) {
        self.files.push(File { path, size, digest });
    }

    /// The image of the boot partition, and its files.
    fn boot(&mut self, directory: &Directory, manifest: &Manifest) -> Result<(), Failure> {
        for descriptor in &manifest.layers {
            match descriptor.media_type.as_str() {
                types::FAT_IMAGE => self.blob(directory, "", "boot.img", descriptor)?,
                types::BOOT_ARCHIVE => self.boot_files(directory, manifest, descriptor.digest)?,
                other => self.story.say(&format!("     note a boot file of the unknown type {other} is left out")),
            }
        }
        Ok(())
    }

    fn boot_files(&mut self, directory: &Directory, manifest: &Manifest, archive: Digest) -> Result<(), Failure> {
        // The archive's table gives names without `..` and without slashes at their start.
        let (tree, contents) = Contents::open(self.store, &[archive])?;
        let boot = directory.subdirectory(b"boot")?;
        self.unpack(&boot, &tree, &contents, &TreePath::root())?;
        let templates = manifest.annotations.get(TEMPLATES).map(|it| it.lines().collect::<Vec<_>>());
        for template in templates.unwrap_or_default() {
            // It is told as a path in the root, and the archive's root is the boot partition's.
            let Some((path, inode)) = below_mount(&tree, template) else {
                self.story
                    .say(&format!("     note the template /{} is not in boot/", text::escape(template.as_bytes())));
                continue;
            };
            let text = match inode.content() {
                Some(content) if content.size <= TEMPLATE_MAX => contents.read(content, TEMPLATE_MAX)?,
                _ => Vec::new(),
            };
            let values = placeholders(&String::from_utf8_lossy(&text));
            self.templates.push(Template { path: format!("boot{}", text::path(&path)), values });
        }
        Ok(())
    }

    fn unpack(&mut self, to: &Directory, tree: &Tree, contents: &Contents, at: &TreePath) -> Result<(), Failure> {
        for (path, inode) in tree.children(at) {
            match &inode.kind {
                Kind::Directory => {
                    // As deep as the archive: at most some 2000 directories, as a path has at most 4095 bytes.
                    self.unpack(&to.subdirectory(path.name())?, tree, contents, path)?;
                }
                Kind::File(file) => {
                    to.write(path.name(), |sink| content::copy(contents, file, sink))?;
                    self.done(format!("boot{}", text::path(path)), file.size, file.digest);
                }
                other => {
                    let what = other.word();
                    return Err(Failure::new(format!("the boot archive has a {what} at {}", text::path(path)))
                        .hint("only files and directories can be exported; build it again"));
                }
            }
        }
        Ok(())
    }

    /// The documents of the NoCloud seed.
    fn seed(&mut self, directory: &Directory, manifest: &Manifest) -> Result<(), Failure> {
        let seed = directory.subdirectory(b"seed")?;
        for document in &manifest.layers {
            let name = document.annotations.get(TITLE).map(String::as_str).unwrap_or_default();
            if ["meta-data", "user-data", "vendor-data", "network-config"].contains(&name) {
                self.blob(&seed, "seed/", name, document)?;
            } else {
                self.story.say(&format!(
                    "     note the seed's unknown document `{}` is left out",
                    text::escape(name.as_bytes())
                ));
            }
        }
        Ok(())
    }
}

/// The file of the boot partition's tree that a path in the root names: what is left of the path below the mount point.
fn below_mount<'a>(tree: &'a Tree, path: &str) -> Option<(TreePath, &'a Inode)> {
    let path = TreePath::new(path).ok()?;
    let names: Vec<&[u8]> = path.components().collect();
    (0..names.len()).find_map(|from| {
        let path = TreePath::new(names.get(from..)?.join(&b'/')).ok()?;
        let inode = tree.get(&path).filter(|inode| inode.content().is_some())?;
        Some((path, inode))
    })
}

/// The names between `{{` and `}}`.
fn placeholders(text: &str) -> BTreeSet<String> {
    let ends = text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
    ends.map(|(name, _)| name.trim().to_owned()).filter(|name| !name.is_empty() && name.len() <= 100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_found() {
        let found = placeholders(
            "root=/dev/nfs nfsroot={{ server }}:{{export}},vers=3 ds=nocloud;s={{ seed }} {{ server }} {{",
        );
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["export", "seed", "server"]);
        assert!(placeholders("nothing } here {").is_empty());
    }
}
