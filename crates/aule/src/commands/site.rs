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
    io::Read,
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
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let failure = Failure::new(lines.join("\nerror: "));
    mistakes.iter().filter_map(|it| it.hint.clone()).fold(failure, Failure::hint)
}

/// The file that a running server of the site has locked; its process number stands in it.
pub(super) fn lock_path(site: &Site) -> PathBuf {
    site.state.join("server.lock")
}

/// Reads a site and compares it with the store, its templates and its secrets.
pub(super) fn read_and_check(path: &Path) -> Result<Site, Failure> {
    let site = read(path)?;
    let store = Arc::new(Store::open_to_read(&site.store)?);
    match check_site(path, &site, &Images::new(store, "check")).as_slice() {
        [] => Ok(site),
        mistakes => Err(failure(mistakes)),
    }
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
    text.trim().parse().map_err(|_| Failure::new(format!("{} holds no process number", path.display())))
}
