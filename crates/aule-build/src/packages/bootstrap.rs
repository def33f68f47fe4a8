//! A base without an image: a root made of packages alone.
//!
//! The essential packages and what they need are unpacked first, without any of their scripts, as there is nothing yet that
//! could run them; then dpkg of that tree installs all packages properly, these included, as in every other tree. What comes
//! out is one layer, like that of an image.

use super::{
    Deb, Plan, Question, answer, debs,
    install::install,
    system::{System, Trusted, keys},
};
use crate::{
    BuildError, BuildRequest, Result,
    base::ImportedBase,
    import::BaseInfo,
    key::step_key,
    outputs::source::SourceBase,
    stage::{LayerRecord, Stage, flatten},
};
use aule_deb::{
    archive::{DebError, Entry, What},
    index::{Package, Packages},
    resolve::{Request, Source, Universe},
    sources::SourceList,
};
use aule_recipe::{BasePackages, Diagnostics, LockedPackage, Merged};
use aule_store::{StepKey, layer::ArchiveOptions};
use aule_tree::{Hasher, Inode, Kind, Metadata, Timestamp, Tree, TreePath};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, io::Read, sync::Arc};

/// The recipe key of a base of packages.
const KEY: &str = "base.packages";
/// Brings the links of the merged `/usr` (Debian) in which all others are unpacked.
const FIRST: &str = "base-files";
/// dpkg's database, which dpkg does not begin itself.
const STATUS: &str = "var/lib/dpkg/status";
/// Where raspi-firmware puts together the boot partition (its kernel hook), and what it has there then.
const BOOT: &str = "boot/firmware";
const BOOT_CONFIG: &str = "boot/firmware/config.txt";
const COMMAND_LINE: &str = "boot/firmware/cmdline.txt";
/// Labels of the filesystems, as Ubuntu's images have them.
const BOOT_LABEL: &str = "system-boot";
const ROOT_LABEL: &str = "writable";
/// The hook writes the root that it finds mounted, which here is none that a machine has. These are Ubuntu's words.
const COMMAND_LINE_TEXT: &str =
    "console=serial0,115200 console=tty1 root=LABEL=writable rootfstype=ext4 rootwait fixrtc\n";
const FSTAB_TEXT: &str =
    "LABEL=writable\t/\text4\tdefaults\t0\t1\nLABEL=system-boot\t/boot/firmware\tvfat\tdefaults\t0\t1\n";

/// What is remembered of a base.
#[derive(Serialize, Deserialize)]
struct Bootstrapped {
    layer: LayerRecord,
    info: BaseInfo,
}

/// A base of packages before it is made.
pub(crate) struct Wanted {
    /// All its packages.
    pub(crate) plan: Plan,
    /// What decides it.
    pub(crate) key: StepKey,
    /// The base itself, where it was made before.
    pub(crate) made: Option<ImportedBase>,
    /// The keys of the archive that it has as its own source.
    keys: Option<Vec<u8>>,
}

/// Finds out what the base is made of, and whether it was made before.
pub(crate) fn find(request: &BuildRequest<'_>, merged: &Merged, wanted: &BasePackages) -> Result<Wanted> {
    let plan = plan(request, merged, wanted)?;
    // An archive that the recipe names is the image's own source, too.
    let uri = wanted.uri.as_ref().map(|uri| uri.as_str());
    let keys = uri.map(|_| keys(merged, request.inputs, &wanted.key, "base.packages.key")).transpose()?;
    let key = step_key(
        "base packages",
        &(&plan, uri.map(|uri| (uri, wanted.suite_line(), &keys)), [COMMAND_LINE_TEXT, FSTAB_TEXT]),
    )?;
    let found: Option<Bootstrapped> = request.store.step_result(key)?;
    let made = found.map(|found| found.imported(key, true));
    Ok(Wanted { plan, key, made, keys })
}

/// The base of a recipe that has no image, with the packages that it is made of.
pub(crate) fn import(
    request: &BuildRequest<'_>,
    merged: &Merged,
    wanted: &BasePackages,
) -> Result<(ImportedBase, Vec<LockedPackage>)> {
    let Wanted { plan, key, made, keys } = find(request, merged, wanted)?;
    let imported = match made {
        Some(imported) => imported,
        None => {
            let uri = wanted.uri.as_ref().map(|uri| uri.as_str());
            let made = bootstrap(request, merged, wanted, &plan, uri.zip(keys))?;
            request.store.set_step_result(key, &[made.layer.descriptor.digest], &made)?;
            made.imported(key, false)
        }
    };
    Ok((imported, plan.pins()))
}

impl Bootstrapped {
    fn imported(self, key: StepKey, cached: bool) -> ImportedBase {
        ImportedBase { base: SourceBase { layer: self.layer, info: self.info }, key, cached, lock: None }
    }
}

/// The archive that the packages come from.
pub(super) fn source(request: &BuildRequest<'_>, merged: &Merged, wanted: &BasePackages) -> Result<Trusted> {
    let uri = wanted.uri.as_ref().map(|uri| uri.as_str()).or(request.network.mirror.as_deref()).ok_or_else(|| {
        let message = "nothing says where the archive of the packages is";
        let diagnostic = merged.origins.diagnostic(KEY, message);
        let help = "this machine's apt has no such source either: give a mirror with `--mirror URL`, or write `uri`";
        BuildError::Recipe(Diagnostics::from(diagnostic.help(help)))
    })?;
    let key = keys(merged, request.inputs, &wanted.key, "base.packages.key")?;
    let list = SourceList {
        uri: uri.trim_end_matches('/').to_owned(),
        suite: wanted.suite.clone(),
        components: wanted.components.clone(),
        ..SourceList::default()
    };
    Ok(Trusted { list, keys: Arc::new(vec![key]), fingerprints: Vec::new() })
}

/// All packages of the base.
fn plan(request: &BuildRequest<'_>, merged: &Merged, wanted: &BasePackages) -> Result<Plan> {
    let system = System {
        architecture: wanted.architecture.clone(),
        installed: Packages::default(),
        automatic: Default::default(),
    };
    // What is locked of another suite is no answer.
    let is_locked = request.lock.suite.as_ref() == Some(&wanted.suite_line());
    let question = Question {
        merged,
        key: "base.packages.include",
        install: &wanted.include,
        remove: &[],
        essential: true,
        system: &system,
        locked: if is_locked { &request.lock.base_packages } else { &[] },
        // There is no base that could have anything.
        kept: &[],
    };
    answer(request, &question, || Ok(vec![source(request, merged, wanted)?]))
}

/// Makes the root.
fn bootstrap(
    request: &BuildRequest<'_>,
    merged: &Merged,
    wanted: &BasePackages,
    plan: &Plan,
    source: Option<(&str, Vec<u8>)>,
) -> Result<Bootstrapped> {
    let locked: Vec<&LockedPackage> = plan.install.iter().map(|it| &it.locked).collect();
    debs::fetch(request, locked.iter().copied())?;
    let newest = debs::inspect(request, locked)?;
    let empty = Tree::new(Metadata::root_owned(0o755, newest));
    let mut stage = Stage::begin(empty, newest);
    request.observer.note("unpacking the essential packages");
    for deb in essential(request, plan)? {
        unpack(request, &mut stage, deb)?;
    }
    stage.put_text(&TreePath::new(STATUS)?, b"", 0o644, KEY)?;
    let first = stage.commit(request.store, request.jobs)?;
    let first = first.ok_or_else(|| BuildError::Packages("the suite has nothing essential".into()))?;
    install(request, merged, &mut stage, plan, None, &|_| Ok(vec![self::source(request, merged, wanted)?]))?;
    let boot = finish(&mut stage, merged, wanted, source)?;
    let second = stage.commit(request.store, request.jobs)?;
    // One layer, without what the second one writes over the first.
    let layers: Vec<LayerRecord> = [Some(first), second].into_iter().flatten().collect();
    let stage = Stage::open(request.store, &layers, newest)?;
    let options = ArchiveOptions { jobs: request.jobs, table: true, diff_id: true };
    let archive = flatten(request.store, &stage.tree, stage.contents(), options)?;
    let mut hasher = Hasher::new();
    hasher.field(b"base of packages");
    for deb in &plan.install {
        [&deb.name, &deb.architecture, &deb.version, &deb.sha256].iter().for_each(|it| hasher.field(it.as_bytes()));
    }
    let info = BaseInfo {
        image: hasher.finish(),
        boot_mount: boot.then(|| BOOT.to_owned()),
        boot_size: None,
        boot_label: boot.then(|| BOOT_LABEL.to_owned()),
        root_label: ROOT_LABEL.into(),
        newest,
    };
    Ok(Bootstrapped { layer: LayerRecord::of(&archive)?, info })
}

/// Those of the plan that are essential, with all that they need; the one that brings the links of `/usr` is the first.
fn essential<'a>(request: &BuildRequest<'_>, plan: &'a Plan) -> Result<Vec<&'a Deb>> {
    let index = debs::index(request, &plan.architecture, &plan.pins())?;
    let wrong = |error: &dyn std::fmt::Display| BuildError::Packages(error.to_string());
    let names: Vec<String> = index.iter().filter(Package::is_essential).map(|it| it.name.to_owned()).collect();
    let installed = Packages::default();
    let sources = [Source { packages: &index, priority: super::solve::LOCKED, is_pinned: true }];
    let universe = Universe::new(&plan.architecture, &installed, &sources, &names).map_err(|error| wrong(&error))?;
    let solution = universe.resolve(&Request { install: names, remove: Vec::new() }).map_err(|error| wrong(&error))?;
    let by_name: HashMap<&str, &Deb> = plan.install.iter().map(|deb| (deb.name.as_str(), deb)).collect();
    let mut found: Vec<&Deb> =
        solution.install.iter().filter_map(|(_, package)| by_name.get(package.name).copied()).collect();
    found.sort_by_key(|deb| (deb.name != FIRST, &deb.name));
    Ok(found)
}

/// Puts the files of a package into the tree, below the directories that its links lead to.
fn unpack(request: &BuildRequest<'_>, stage: &mut Stage, deb: &Deb) -> Result<()> {
    let wrong = |error: DebError| BuildError::Packages(format!("{}: {error}", deb.locked.url));
    let mut failure = None;
    let read = debs::open(request, &deb.locked)?.entries(|entry, bytes| {
        put(request, stage, entry, bytes).map_err(|error| {
            let said = error.to_string();
            failure = Some(error);
            DebError::Form(said)
        })
    });
    match (read, failure) {
        (Err(_), Some(error)) => Err(error),
        (read, _) => read.map_err(wrong),
    }
}

fn put(request: &BuildRequest<'_>, stage: &mut Stage, entry: &Entry, bytes: &mut dyn Read) -> Result<()> {
    let path = TreePath::new(&entry.path)?;
    if path.is_root() {
        return Ok(());
    }
    let number =
        |id: u64| u32::try_from(id).map_err(|_| BuildError::Packages(format!("{path} has no owner that could be")));
    let metadata = Metadata {
        mode: u16::try_from(entry.mode & 0o7777).unwrap_or(0o644),
        uid: number(entry.owner.0)?,
        gid: number(entry.owner.1)?,
        mtime: Timestamp::from_seconds(i64::try_from(entry.mtime).unwrap_or(i64::MAX)).min(stage.date),
        xattrs: Default::default(),
    };
    let place = stage.place(&path)?;
    match &entry.what {
        What::Directory => {
            // A link to a directory that is there stays: `/lib` of a merged `/usr`.
            let there = stage.tree.resolve(&path, true)?;
            if !stage.tree.get(&there).is_some_and(Inode::is_directory) {
                stage.put(&place, Inode { metadata, kind: Kind::Directory }, KEY)?;
            }
        }
        What::File(size) => {
            let (content, bytes) = stage.keep(request.store, &place, *size, bytes)?;
            stage.bring(content.digest, bytes);
            stage.tree.insert(&place, Inode { metadata, kind: Kind::File(content) });
        }
        What::Symlink(target) => {
            let metadata = Metadata { mode: 0o777, ..metadata };
            stage.put(&place, Inode { metadata, kind: Kind::Symlink(target.clone()) }, KEY)?;
        }
        What::Link(target) => {
            let target = stage.place(&TreePath::new(target)?)?;
            let id = stage.tree.id(&target);
            let id =
                id.ok_or_else(|| BuildError::Packages(format!("{path} is a name of {target}, which is not there")))?;
            stage.tree.link(&place, id);
        }
        What::Special => {
            return Err(BuildError::Packages(format!("{path} is a device or a pipe, which no package may bring")));
        }
    }
    Ok(())
}

/// What an image has and no package brings. Says whether there is a boot partition.
fn finish(stage: &mut Stage, merged: &Merged, wanted: &BasePackages, source: Option<(&str, Vec<u8>)>) -> Result<bool> {
    let path = TreePath::new;
    if let Some((uri, keys)) = source {
        let components = wanted.components.join(" ");
        let is_text = keys.starts_with(b"-----BEGIN");
        let name = if is_text { "etc/apt/keyrings/base.asc" } else { "etc/apt/keyrings/base.gpg" };
        let text = format!(
            "Types: deb\nURIs: {uri}\nSuites: {}\nComponents: {components}\nSigned-By: /{name}\n",
            wanted.suite
        );
        stage.put_text(&path(name)?, &keys, 0o644, KEY)?;
        stage.put_text(&path("etc/apt/sources.list.d/base.sources")?, text.as_bytes(), 0o644, KEY)?;
    }
    // Empty: systemd draws one when it starts first (machine-id(5)).
    if stage.exists(&path("usr/lib/systemd/systemd")?)? && !stage.exists(&path("etc/machine-id")?)? {
        stage.put_text(&path("etc/machine-id")?, b"", 0o444, KEY)?;
    }
    let boot = stage.exists(&path(BOOT_CONFIG)?)?;
    if boot {
        let origin = merged.origins.get(KEY).map_or("base", |_| KEY);
        stage.put_text(&path(COMMAND_LINE)?, COMMAND_LINE_TEXT.as_bytes(), 0o644, origin)?;
        stage.put_text(&path("etc/fstab")?, FSTAB_TEXT.as_bytes(), 0o644, origin)?;
    }
    Ok(boot)
}
