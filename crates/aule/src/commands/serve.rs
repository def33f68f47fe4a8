//! `aule serve` and `aule site check`.

use crate::{
    failure::Failure,
    output::{self, Format},
};
use aule_serve::{
    HandleKey, Images, check as check_site,
    run::run as serve,
    server::{Observer, Server},
    site::{Mistake, SITE_MAX, Site},
};
use aule_store::Store;
use std::{
    fs,
    io::{Read, Write},
    path::Path,
    sync::Arc,
};

/// Tells what happens on stderr, a line each.
struct Log;

impl Observer for Log {
    fn note(&self, message: &str) {
        // A closed stderr must not end a server.
        let _ = writeln!(std::io::stderr(), "{message}");
    }

    fn warn(&self, message: &str) {
        let _ = writeln!(std::io::stderr(), "warning: {message}");
    }
}

fn read(path: &Path) -> Result<Site, Failure> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(SITE_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    Site::parse(path, &bytes).map_err(|mistakes| failure(&mistakes))
}

fn failure(mistakes: &[Mistake]) -> Failure {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let failure = Failure::new(lines.join("\nerror: "));
    mistakes.iter().filter_map(|it| it.hint.clone()).fold(failure, Failure::hint)
}

/// Serves a site until it is told to stop.
pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let site = read(path)?;
    let key = handle_key(&site)?;
    let store = Arc::new(Store::open(&site.store)?);
    let server = Arc::new(Server::new(site, Images::new(store), key, Arc::new(Log))?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let mut signals = Vec::new();
        for kind in [tokio::signal::unix::SignalKind::terminate(), tokio::signal::unix::SignalKind::interrupt()] {
            let signal = tokio::signal::unix::signal(kind);
            signals.push(signal.map_err(|error| Failure::new(format!("cannot wait for signals: {error}")))?);
        }
        let stop = async {
            if let [terminate, interrupt] = signals.as_mut_slice() {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
        };
        serve(server, stop).await.map_err(|error| {
            let hint = "a port below 1024 needs the right to bind it (CAP_NET_BIND_SERVICE); each part can be moved or \
                        turned off in `listen:`";
            Failure::new(error.to_string()).hint(hint)
        })
    })
}

/// The key of NFS handles: from its file, or one that is made on the first start.
fn handle_key(site: &Site) -> Result<HandleKey, Failure> {
    let failed = |path: &Path, error: std::io::Error| Failure::new(format!("cannot read {}: {error}", path.display()));
    if let Some(it) = &site.handle_key {
        return fs::read(&it.file).map(|bytes| HandleKey::new(&bytes)).map_err(|error| failed(&it.file, error));
    }
    let path = site.state.join("handle-key");
    match fs::read(&path) {
        Ok(bytes) => Ok(HandleKey::new(&bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make_key(site, &path),
        Err(error) => Err(failed(&path, error)),
    }
}

fn make_key(site: &Site, path: &Path) -> Result<HandleKey, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(failed)?;
    fs::create_dir_all(&site.state).map_err(failed)?;
    // Readable by its owner alone, and there whole or not at all.
    let mut file = tempfile::NamedTempFile::new_in(&site.state).map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(HandleKey::new(&bytes)),
        // Another server was faster.
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            fs::read(path).map(|bytes| HandleKey::new(&bytes)).map_err(failed)
        }
        Err(error) => Err(failed(error.error)),
    }
}

/// Checks a site file against the store, its templates and its secrets.
pub(super) fn check(path: &Path, format: Format) -> Result<(), Failure> {
    let site = read(path)?;
    let store = Arc::new(Store::open(&site.store)?);
    let mistakes = check_site(path, &site, &Images::new(store));
    if !mistakes.is_empty() {
        return Err(failure(&mistakes));
    }
    match format {
        Format::Json => output::json(&serde_json::json!({ "site": path, "mistakes": [] })),
        Format::Text => output::line("nothing to complain about"),
    }
}
