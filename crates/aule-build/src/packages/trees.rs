//! What the sandbox keeps in the store between builds: unpacked trees, which whoever is root inside has to remove, as their
//! owners are others outside.

use super::install::SandboxTools;
use crate::{BuildError, Result};
use aule_sandbox::{Host, Sandbox, SandboxError};
use aule_store::Store;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

/// Held by the build whose packages are installed now.
const LOCK: &str = "lock";
/// Stands in the name of a tree before whose it is.
const OF_MAP: &str = "-for-";

/// The sandbox's side of this machine, with its directory in the store.
pub(super) fn host(store: &Store, tools: &SandboxTools) -> Result<Host> {
    let directory = directory(store);
    // Nobody else may go in: programs of the image that are setuid root would be so here.
    let closed = fs::create_dir_all(&directory)
        .and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)));
    closed.map_err(failed)?;
    Ok(Host { program: tools.program.clone(), search: tools.search.clone(), directory })
}

/// The lock of the sandbox's directory: one build at a time has it. `wait` is called when another one has it now.
pub(super) fn lock(host: &Host, wait: impl FnOnce()) -> Result<File> {
    let lock = File::create(host.directory.join(LOCK)).map_err(failed)?;
    if lock.try_lock().is_err() {
        wait();
        lock.lock().map_err(failed)?;
    }
    Ok(lock)
}

/// The end of the names of trees that this user's sandbox has unpacked: in that of another the owners are others.
pub(super) fn suffix() -> String {
    format!("{OF_MAP}{}", aule_sandbox::name_of_map())
}

/// What became of the trees that the sandbox keeps in the store for later builds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How many were removed, or would be.
    pub removed: u64,
    /// How many are another user's, in whose sandbox their files have other owners: only theirs can remove them.
    pub of_others: u64,
}

/// Removes all that the sandbox keeps in the store for later builds; with `dry_run` it only counts.
///
/// # Errors
/// When they cannot be removed.
pub fn forget_trees(store: &Store, tools: &SandboxTools, dry_run: bool) -> Result<Forgotten> {
    let entries = match fs::read_dir(directory(store)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Forgotten::default()),
        other => other.map_err(failed)?,
    };
    let (mut names, mut of_others) = (Vec::new(), 0);
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type().map_err(failed)?.is_dir() {
            continue;
        }
        match is_of_others(&name) {
            true => of_others += 1,
            false => names.push(name),
        }
    }
    let forgotten = Forgotten { removed: names.len() as u64, of_others };
    if dry_run || names.is_empty() {
        return Ok(forgotten);
    }
    let host = host(store, tools)?;
    let lock = lock(&host, || {})?;
    let mut sandbox = Sandbox::start(&host)?;
    for name in &names {
        sandbox.remove(name)?;
    }
    drop(lock);
    Ok(forgotten)
}

/// Whether a tree was unpacked in the sandbox of another user.
fn is_of_others(name: &str) -> bool {
    let name = name.strip_suffix(".part").unwrap_or(name);
    name.contains(OF_MAP) && !name.ends_with(&suffix())
}

fn directory(store: &Store) -> PathBuf {
    store.root().join("sandbox")
}

fn failed(source: io::Error) -> BuildError {
    BuildError::Sandbox(SandboxError::Start(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_others_are_known_by_their_names() {
        for (name, wanted) in [
            (format!("tree-00{}", suffix()), false),
            (format!("tree-00{}.part", suffix()), false),
            ("tree-00-for-somebody-else".into(), true),
            ("native-00-for-somebody-else.part".into(), true),
            ("changes".into(), false),
            // Before names had it.
            ("tree-00".into(), false),
        ] {
            assert_eq!(is_of_others(&name), wanted, "{name}");
        }
    }
}
