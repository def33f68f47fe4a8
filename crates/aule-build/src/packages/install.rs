//! Installing packages: dpkg runs in a sandbox on the image's own tree, and what it changes becomes the layer.

use super::{
    Plan,
    changes::Changes,
    debs, native,
    normal::{PRESETS, Preset},
    order::rounds,
    system::{EXTENDED, Trusted},
    trees,
};
use crate::{BuildError, BuildRequest, Result, stage::Stage};
use aule_deb::{control::paragraphs, index::Packages};
use aule_recipe::Merged;
use aule_sandbox::{Entry, Exit, Program, Sandbox, SandboxError, Unpacker, View, What};
use aule_store::layer::Contents;
use aule_tree::{Kind, Metadata, Timestamp, Tree, TreePath};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What is installed where.
pub(super) const STATUS: &str = "var/lib/dpkg/status";
/// Names of the directories that a build makes beside the trees; they are removed by the next one, if not by itself.
const PASSING: [&str; 4] = ["changes", "tools.part", "packages", "tools"];
/// How many trees are kept for the next build.
const TREES_KEPT: usize = 3;
/// How long dpkg may take: this, and so much for each package. Emulation makes scripts some thirty times slower.
const SECONDS: u64 = 900;
const SECONDS_EACH: u64 = 120;
/// How much of dpkg's last words an error shows, in lines.
const LAST_WORDS: usize = 30;
/// No service is started or stopped while packages are installed (invoke-rc.d(8)).
const POLICY: &[u8] = b"#!/bin/sh\nexit 101\n";
const POLICY_PATH: &str = "usr/sbin/policy-rc.d";

/// Does what the plan says to the tree. `sources` are those of the tree.
pub(super) fn install(
    request: &BuildRequest<'_>,
    merged: &Merged,
    stage: &mut Stage,
    plan: &Plan,
    boot_mount: Option<&TreePath>,
    sources: &dyn Fn(&Stage) -> Result<Vec<Trusted>>,
) -> Result<()> {
    if plan.install.is_empty() && plan.remove.is_empty() {
        return mark(stage, plan);
    }
    let tools = request.sandbox.as_ref().ok_or(BuildError::Internal("packages are installed without a sandbox"))?;
    let host = trees::host(request.store, tools)?;
    debs::fetch(request, plan.install.iter().map(|it| &it.locked))?;
    let newest = debs::inspect(request, plan.install.iter().map(|it| &it.locked))?;
    // What is made now must be told from what packages bring.
    if let Some(now) = request.now.filter(|now| *now < newest) {
        let (now, newest) = (now.seconds, newest.seconds);
        let message = format!(
            "this machine's clock ({now} seconds since 1970) is before the newest file of the packages ({newest}): set it"
        );
        return Err(BuildError::Packages(message));
    }
    let native = native::find(request, merged, stage, plan, sources)?;
    let _lock = trees::lock(&host, || request.observer.note("waiting for another build that installs packages"))?;
    let mut sandbox = Sandbox::start(&host)?;
    for name in PASSING {
        sandbox.remove(name)?;
    }
    let tree = tree(request, &mut sandbox, stage)?;
    forget_old(&host.directory, &mut sandbox, "tree-", &tree)?;
    let presets = presets(stage, plan)?;
    sandbox.unpack("tools", |unpacker| put_tools(unpacker, stage, &presets))?;
    if let Some(native) = &native {
        native.unpack(request, &mut sandbox, &plan.architecture)?;
        forget_old(&host.directory, &mut sandbox, "native-", &native.directory)?;
    }
    let shown = show(request, &host.directory, plan)?;
    sandbox.open(&View {
        trees: &["tools", &tree],
        changes: "changes",
        shown: Some(&shown),
        architecture: &plan.architecture,
        native: native.as_ref().map(|it| it.directory.as_str()),
    })?;

    let installed = installed(stage)?;
    let mut dpkg = Dpkg { request, sandbox: &mut sandbox, plan, installed, date: stage.date };
    dpkg.run_all()?;

    request.observer.note("collecting what the packages changed");
    let mut changes = Changes::new(stage, request, "packages", boot_mount);
    let policy = TreePath::new(POLICY_PATH)?;
    // Ours may have been touched; a package may bring one of its own.
    let is_ours = |entry: &Entry| {
        entry.path == policy && matches!(entry.what, What::File { size, .. } if size == POLICY.len() as u64)
    };
    sandbox.capture(|entry, bytes| if is_ours(&entry) { Ok(()) } else { changes.take(entry, bytes) })?;
    let keys = changes.finish()?;
    if !keys.is_empty() {
        let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let names = super::some_of(&names.iter().map(String::as_str).collect::<Vec<_>>());
        request.observer.note(&format!(
            "keys that scripts drew are left out, as no two machines may have one: {names}; draw them when a machine starts first"
        ));
    }
    for (path, preset) in &presets {
        if stage.tree.get(path).is_none() {
            stage.put_text(path, preset.bytes, preset.mode, "packages")?;
        }
    }
    mark(stage, plan)?;
    sandbox.close()?;
    for name in PASSING {
        sandbox.remove(name)?;
    }
    check(stage, plan)
}

/// The tree as directories and files: from an earlier build, or made now.
fn tree(request: &BuildRequest<'_>, sandbox: &mut Sandbox, stage: &Stage) -> Result<String> {
    let name = format!("tree-{}{}", stage.tree.digest().hex(), trees::suffix());
    if sandbox.has(&name)? {
        return Ok(name);
    }
    request.observer.note("unpacking the tree for the packages");
    let contents = stage.contents();
    contents.check_all(request.store, stage.tree.contents().into_iter())?;
    sandbox.unpack(&name, |unpacker| fill(unpacker, &stage.tree, contents))?;
    Ok(name)
}

/// Gives a tree to the sandbox; what it has no form for (device nodes) is left out, and stays in the tree.
fn fill(unpacker: &mut Unpacker<'_>, tree: &Tree, contents: &Contents) -> Result<()> {
    let links = tree.hardlinks();
    let mut buffer = vec![0; 1 << 20];
    for (path, id, inode) in tree.iter() {
        let first = links.get(&id).and_then(|names| names.first()).filter(|first| **first != path);
        let metadata = inode.metadata.clone();
        let what = match (first, &inode.kind) {
            (_, Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Socket) => continue,
            (Some(first), _) => What::Link((*first).clone()),
            (None, Kind::Directory) => What::Directory { metadata, opaque: false },
            (None, Kind::Symlink(target)) => What::Symlink { metadata, target: target.clone() },
            (None, Kind::Fifo) => What::Fifo { metadata },
            (None, Kind::File(content)) => {
                unpacker.entry(Entry { path: path.clone(), what: What::File { metadata, size: content.size } })?;
                let mut offset = 0;
                while offset < content.size {
                    let length =
                        usize::try_from(content.size - offset).map_or(buffer.len(), |left| left.min(buffer.len()));
                    let Some(piece) = buffer.get_mut(..length) else { break };
                    contents.read_at(content, offset, piece)?;
                    unpacker.bytes(piece)?;
                    offset += length as u64;
                }
                continue;
            }
        };
        unpacker.entry(Entry { path: path.clone(), what })?;
    }
    Ok(())
}

/// What lies over the tree while dpkg runs.
fn put_tools(unpacker: &mut Unpacker<'_>, stage: &Stage, presets: &[(TreePath, &Preset)]) -> Result<()> {
    let policy = (TreePath::new(POLICY_PATH)?, 0o755, POLICY);
    let files: BTreeMap<TreePath, (u16, &[u8])> = presets
        .iter()
        .map(|(path, preset)| (path.clone(), (preset.mode, preset.bytes)))
        .chain([(policy.0, (policy.1, policy.2))])
        .collect();
    let mut directories = BTreeSet::from([TreePath::root()]);
    for path in files.keys() {
        let above = std::iter::successors(path.parent(), TreePath::parent);
        directories.extend(above);
    }
    for directory in directories {
        // As the tree has it: of merged directories the highest one is seen.
        let metadata = stage.tree.get(&directory).filter(|it| it.is_directory()).map(|inode| inode.metadata.clone());
        let metadata = metadata.unwrap_or_else(|| Metadata::root_owned(0o755, stage.date));
        unpacker.entry(Entry { path: directory, what: What::Directory { metadata, opaque: false } })?;
    }
    for (path, (mode, bytes)) in files {
        let what = What::File { metadata: Metadata::root_owned(mode, stage.date), size: bytes.len() as u64 };
        unpacker.entry(Entry { path, what })?;
        unpacker.bytes(bytes)?;
    }
    Ok(())
}

/// The files that are to be there before these packages are configured.
fn presets(stage: &Stage, plan: &Plan) -> Result<Vec<(TreePath, &'static Preset)>> {
    let mut presets = Vec::new();
    for preset in PRESETS.iter().filter(|preset| plan.install.iter().any(|deb| deb.name == preset.package)) {
        let path = TreePath::new(preset.path)?;
        if stage.tree.get(&path).is_none() {
            presets.push((path, preset));
        }
    }
    Ok(presets)
}

/// A directory with the packages, each by its number.
fn show(request: &BuildRequest<'_>, directory: &Path, plan: &Plan) -> Result<String> {
    let failed = |source| BuildError::Sandbox(SandboxError::Input(source));
    let name = "packages";
    let place = directory.join(name);
    fs::create_dir(&place).map_err(failed)?;
    for (number, deb) in plan.install.iter().enumerate() {
        let blob = request.store.blob_path(debs::digest(&deb.locked));
        let file = place.join(format!("{number}.deb"));
        fs::hard_link(&blob, &file).or_else(|_| fs::copy(&blob, &file).map(drop)).map_err(failed)?;
    }
    Ok(name.into())
}

/// Removes all trees of a kind but this one and those that were made last. Those of other maps are left to whoever made them.
fn forget_old(directory: &Path, sandbox: &mut Sandbox, kind: &str, used: &str) -> Result<()> {
    let failed = |source| BuildError::Sandbox(SandboxError::Input(source));
    let mut trees = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_own = name.strip_suffix(".part").unwrap_or(&name).ends_with(&trees::suffix());
        if name.starts_with(kind) && is_own && name != used {
            let modified = entry.metadata().and_then(|it| it.modified()).map_err(failed)?;
            trees.push((name.ends_with(".part"), modified, name));
        }
    }
    // Half-made ones go first, then the oldest.
    trees.sort();
    trees.reverse();
    let whole = trees.iter().filter(|(is_part, ..)| !is_part);
    let kept: Vec<String> = whole.take(TREES_KEPT - 1).map(|(_, _, name)| name.clone()).collect();
    for (_, _, name) in &trees {
        if !kept.contains(name) {
            sandbox.remove(name)?;
        }
    }
    Ok(())
}

/// dpkg in the sandbox.
struct Dpkg<'a, 'b> {
    request: &'a BuildRequest<'b>,
    sandbox: &'a mut Sandbox,
    plan: &'a Plan,
    /// What was there before.
    installed: Packages,
    date: Timestamp,
}

impl Dpkg<'_, '_> {
    fn run_all(&mut self) -> Result<()> {
        let plan = self.plan;
        // What goes is only marked now, as apt does it: what needs it may be there still, and be met by what comes. dpkg takes
        // it away itself where something new refuses it.
        if !plan.remove.is_empty() {
            self.select("purge", &plan.remove)?;
        }
        let locked: Vec<_> = plan.install.iter().map(|it| it.locked.clone()).collect();
        let index = debs::index(self.request, &plan.architecture, &locked)?;
        let rounds = rounds(&index, &self.installed).map_err(|error| BuildError::Packages(error.to_string()))?;
        for round in &rounds {
            let mut arguments = vec!["--no-triggers".to_owned(), "--auto-deconfigure".into(), "--unpack".into()];
            arguments.extend(round.unpack.iter().filter_map(|number| self.file_of(&index, *number)));
            self.dpkg("unpacking", &arguments)?;
            if !round.configure.is_empty() {
                let mut arguments = vec!["--no-triggers".to_owned(), "--configure".into()];
                arguments.extend(round.configure.iter().cloned());
                self.dpkg("configuring", &arguments)?;
            }
        }
        if !plan.remove.is_empty() {
            let mut arguments = vec!["--no-triggers".to_owned(), "--purge".into()];
            arguments.extend(plan.remove.iter().cloned());
            self.dpkg("removing", &arguments)?;
        }
        self.dpkg("configuring", &["--configure".into(), "--pending".into()])
    }

    /// Says what is to become of packages (dpkg(1), `--set-selections`).
    fn select(&mut self, selection: &str, names: &[String]) -> Result<()> {
        let script =
            "selection=$1; shift; for name; do echo \"$name $selection\"; done | /usr/bin/dpkg --set-selections";
        let mut arguments = ["/bin/sh", "-c", script, "sh", selection].map(str::to_owned).to_vec();
        arguments.extend(names.iter().cloned());
        self.run("marking", arguments)
    }

    /// The file of a package of the index, as it is shown in the sandbox.
    fn file_of(&self, index: &Packages, number: usize) -> Option<String> {
        let package = index.get(number)?;
        let same = |it: &super::Deb| it.name == package.name && it.version == package.version;
        let number = self.plan.install.iter().position(same)?;
        Some(format!("/run/aule/{number}.deb"))
    }

    fn dpkg(&mut self, what: &str, arguments: &[String]) -> Result<()> {
        let count = arguments.iter().filter(|it| !it.starts_with("--")).count();
        self.request.observer.note(&match count {
            0 => format!("{what} packages"),
            1 => format!("{what} 1 package"),
            count => format!("{what} {count} packages"),
        });
        let fixed = ["/usr/bin/dpkg", "--force-unsafe-io", "--force-confdef", "--force-confold"].map(str::to_owned);
        self.run(what, fixed.into_iter().chain(arguments.iter().cloned()).collect())
    }

    fn run(&mut self, what: &str, arguments: Vec<String>) -> Result<()> {
        let program = Program {
            arguments,
            environment: self.environment(),
            limit: SECONDS + SECONDS_EACH * self.plan.install.len() as u64,
        };
        let mut printed = Printed::default();
        let exit = self.sandbox.run(&program, &mut |bytes| printed.take(bytes))?;
        if !exit.left.is_empty() {
            let names = exit.left.join(", ");
            self.request.observer.note(&format!("a package left processes running, which were ended: {names}"));
        }
        if exit.success() {
            return Ok(());
        }
        Err(BuildError::Install {
            what: format!("{what} packages"),
            how: how(&exit, program.limit),
            output: printed.last_words(),
        })
    }

    /// All that scripts see of the world.
    fn environment(&self) -> BTreeMap<String, String> {
        let fixed = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
            ("DEBCONF_NOWARNINGS", "yes"),
            ("SYSTEMD_OFFLINE", "1"),
            // Hash tables of interpreters in the same order each time.
            ("PERL_HASH_SEED", "0"),
            ("PYTHONHASHSEED", "0"),
            // What is compiled is compiled by a package's script, not because a program happened to run.
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ];
        let mut environment: BTreeMap<String, String> =
            fixed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        environment.insert("SOURCE_DATE_EPOCH".into(), self.date.seconds.to_string());
        if let Some(triplet) = aule_sandbox::triplet(&self.plan.architecture) {
            environment.extend(machine(triplet));
        }
        environment
    }
}

/// What bash tells of the machine, which it takes from here where it stands here: that of the tree, also where the bash that runs is
/// this machine's.
fn machine(triplet: &str) -> [(String, String); 3] {
    let (processor, system) = triplet.split_once('-').unwrap_or((triplet, ""));
    let vendor = if processor == "x86_64" { "pc" } else { "unknown" };
    [
        ("HOSTTYPE".into(), processor.into()),
        ("MACHTYPE".into(), format!("{processor}-{vendor}-{system}")),
        ("OSTYPE".into(), system.into()),
    ]
}

fn how(exit: &Exit, limit: u64) -> String {
    match (exit.timed_out, exit.code, exit.signal) {
        (true, ..) => format!("it was not done after {limit} seconds and was ended"),
        (_, Some(code), _) => format!("it failed with code {code}"),
        (_, _, Some(signal)) => format!("signal {signal} ended it"),
        _ => "it failed".into(),
    }
}

/// What a program printed: its last lines.
#[derive(Default)]
struct Printed {
    bytes: Vec<u8>,
}

impl Printed {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let over = self.bytes.len().saturating_sub(64 << 10);
        self.bytes.drain(..over);
    }

    fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let text: String =
            text.chars().map(|it| if it.is_control() && it != '\n' && it != '\t' { '\u{fffd}' } else { it }).collect();
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(LAST_WORDS)).map(|line| format!("  {line}\n")).collect()
    }
}

/// Marks what came without being asked for, as apt does, in the order of the names; what is asked for now is not marked any more.
fn mark(stage: &mut Stage, plan: &Plan) -> Result<()> {
    let path = TreePath::new(EXTENDED)?;
    // An image that apt never ran in has no such file, and apt is not missed in it.
    if plan.automatic.is_empty() && plan.manual.is_empty() || !stage.exists(&TreePath::new("var/lib/apt")?)? {
        return Ok(());
    }
    let before = stage.read_text(&path)?.unwrap_or_default();
    let text = marked(&before, plan);
    stage.put_text(&path, text.as_bytes(), 0o644, "packages")?;
    Ok(())
}

fn marked(before: &str, plan: &Plan) -> String {
    let mut text = String::new();
    for paragraph in paragraphs(before) {
        let is_asked = paragraph.get("Package").is_some_and(|name| plan.manual.iter().any(|it| it == name));
        if !is_asked {
            text.push_str(paragraph.text().trim_end_matches('\n'));
            text.push_str("\n\n");
        }
    }
    for name in &plan.automatic {
        let architecture = &plan.architecture;
        text.push_str(&format!("Package: {name}\nArchitecture: {architecture}\nAuto-Installed: 1\n\n"));
    }
    text
}

/// dpkg's database of the tree.
fn installed(stage: &Stage) -> Result<Packages> {
    let status = stage.read_text(&TreePath::new(STATUS)?)?.unwrap_or_default();
    Packages::parse(status).map_err(|error| BuildError::Packages(format!("/{STATUS}: {error}")))
}

/// Sees in dpkg's database that everything is as it was planned.
fn check(stage: &Stage, plan: &Plan) -> Result<()> {
    let installed = installed(stage)?;
    let states: BTreeMap<(&str, &str), Option<&str>> =
        installed.iter().map(|it| ((it.name, it.version), it.state())).collect();
    for deb in &plan.install {
        match states.get(&(deb.name.as_str(), deb.version.as_str())) {
            Some(Some("installed")) => {}
            other => {
                let state = other.copied().flatten().unwrap_or("not there");
                let message = format!("{} {} is `{state}` after all was configured", deb.name, deb.version);
                return Err(BuildError::Packages(message));
            }
        }
    }
    Ok(())
}

/// What a build needs of the machine to install packages.
#[derive(Debug, Clone)]
pub struct SandboxTools {
    /// The program that is started as the helper: its `main` calls `aule_sandbox::helper`.
    pub program: PathBuf,
    /// Where `newuidmap` and QEMU are looked for.
    pub search: Vec<PathBuf>,
    /// Whether no program of this machine's architecture stands in for one of the image's: slower, with the same result.
    pub emulate_all: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_what_is_asked_for_go() {
        let one = |name: &str| format!("Package: {name}\nArchitecture: arm64\nAuto-Installed: 1\n\n");
        let plan = Plan {
            automatic: vec!["new".into()],
            manual: vec!["b".into()],
            architecture: "arm64".into(),
            ..Plan::default()
        };
        assert_eq!(marked(&[one("a"), one("b"), one("c")].concat(), &plan), [one("a"), one("c"), one("new")].concat());
        assert_eq!(marked("", &plan), one("new"));
    }

    #[test]
    fn what_bash_tells_of_the_machine() {
        let values = |triplet| machine(triplet).map(|(_, value)| value);
        assert_eq!(values("aarch64-linux-gnu"), ["aarch64", "aarch64-unknown-linux-gnu", "linux-gnu"]);
        assert_eq!(values("x86_64-linux-gnu")[1], "x86_64-pc-linux-gnu");
    }
}
