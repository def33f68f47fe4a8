//! Site files: reading them, `aule site check`, `aule site reload`.

use crate::{
    failure::Failure,
    output::{self, Format},
};
use aule_serve::{
    Images, check as check_site,
    site::{Mistake, SITE_MAX, Site},
};
use aule_store::Store;
use std::{
    fs::{self, File, TryLockError},
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Reads a site file.
pub(super) fn read(path: &Path) -> Result<Site, Failure> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SITE_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    Site::parse(path, &bytes).map_err(|mistakes| failure(&mistakes))
}

fn failure(mistakes: &[Mistake]) -> Failure {
    Failure::new(mistakes.iter().map(told).collect::<Vec<_>>().join("\nerror: "))
}

/// A mistake with what to do about it.
fn told(mistake: &Mistake) -> String {
    let hint = mistake.hint.as_ref().map(|hint| format!("\nhint: {hint}"));
    format!("{mistake}{}", hint.unwrap_or_default())
}

/// The file that a running server of the site has locked; its process number stands in it.
pub(super) fn lock_path(site: &Site) -> PathBuf {
    site.state.join("server.lock")
}

/// Reads a site and compares it with the store, its templates and its secrets.
pub(super) fn read_and_check(path: &Path) -> Result<Site, Failure> {
    let site = read(path)?;
    let store = Arc::new(Store::open_to_read(&site.store)?);
    let (warnings, mistakes): (Vec<_>, Vec<_>) =
        check_site(path, &site, &Images::new(store, "check")).into_iter().partition(|it| it.is_warning);
    for warning in &warnings {
        // A closed stderr is no reason not to check.
        let _ = writeln!(std::io::stderr(), "warning: {}", told(warning));
    }
    if mistakes.is_empty() { Ok(site) } else { Err(failure(&mistakes)) }
}

/// `aule site check`
pub(super) fn check(path: &Path, format: Format) -> Result<(), Failure> {
    read_and_check(path)?;
    match format {
        Format::Json => output::json(&serde_json::json!({ "site": path, "mistakes": [] })),
        Format::Text => output::line("nothing to complain about"),
    }
}

/// `aule site reload`: what is wrong with the file is told here, so that the server is not bothered with it.
pub(super) fn reload(path: &Path, format: Format) -> Result<(), Failure> {
    let site = read_and_check(path)?;
    let process = running(&site)?;
    let number = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    let number = number.ok_or_else(|| Failure::new(format!("{process} is no process number")))?;
    rustix::process::kill_process(number, rustix::process::Signal::HUP)
        .map_err(|error| Failure::new(format!("cannot tell process {process} to read the file: {error}")))?;
    match format {
        Format::Json => output::json(&serde_json::json!({ "site": path, "process": process })),
        Format::Text => output::line(format!("process {process} reads it now; its log says what came of it")),
    }
}

/// The process that serves this site.
fn running(site: &Site) -> Result<u32, Failure> {
    let path = lock_path(site);
    let nobody = || {
        let failure = Failure::new(format!("no server of this site runs on this machine ({} is free)", path.display()));
        failure.hint("`aule serve` starts one")
    };
    let failed = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", path.display()));
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(nobody()),
        opened => opened.map_err(failed)?,
    };
    match file.try_lock_shared() {
        Ok(()) => return Err(nobody()),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let text = fs::read_to_string(&path).map_err(failed)?;
    let process = text.trim().parse();
    let process = process.map_err(|_| Failure::new(format!("{} holds no process number", path.display())))?;
    // A server in a container has a number of its own there; here another program may have it.
    if !has_open(process, &path) {
        let message = format!("process {process} of this machine is not the server that has {}", path.display());
        return Err(
            Failure::new(message).hint("the server runs in a container or as another user: send SIGHUP to it there")
        );
    }
    Ok(process)
}

/// Whether a process has this file open (proc(5), `/proc/PID/fd`). Of a program that has a capability by its file the kernel
/// does not say so, not even to its own user; then its name must do.
fn has_open(process: u32, path: &Path) -> bool {
    let Ok(wanted) = fs::metadata(path) else { return false };
    match fs::read_dir(format!("/proc/{process}/fd")) {
        Ok(files) => {
            let mut files = files.flatten().filter_map(|file| fs::metadata(file.path()).ok());
            files.any(|it| (it.dev(), it.ino()) == (wanted.dev(), wanted.ino()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name.trim_end() == "aule")
        }
        Err(_) => false,
    }
}
