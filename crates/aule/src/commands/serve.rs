//! `aule serve`: one process that serves a site until it is told to stop.

use super::site::{lock_path, read, read_and_check};
use crate::failure::Failure;
use aule_serve::{
    HandleKey, Images,
    run::{RunError, run as serve},
    server::{Observer, Server},
    site::Site,
    state::State,
};
use aule_store::Store;
use std::{
    fs::{self, File, TryLockError},
    io::{Read, Write},
    path::Path,
    sync::Arc,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

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

/// Serves a site until it is told to stop.
pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let site = read(path)?;
    let failed = |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", site.state.display()));
    let state = State::open(&site.state).map_err(failed)?;
    let _lock = lock(&site)?;
    allow_many_files();
    let key = match &site.handle_key {
        Some(it) => fs::read(&it.file)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", it.file.display())))
            .and_then(|bytes| match bytes.len() {
                0..16 => Err(Failure::new(format!("{} has fewer than 16 bytes", it.file.display()))
                    .hint("head -c 32 /dev/urandom makes a good one")),
                _ => Ok(bytes),
            })?,
        None => kept(&site, "handle-key")?,
    };
    // Names this server among those that use the store.
    let lease: String = kept(&site, "server-id")?.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let store = Arc::new(Store::open_to_read(&site.store)?);
    let server = Server::new(site, Images::new(store, lease), HandleKey::new(&key), state, Arc::new(Log))?;
    let server = Arc::new(server);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let result = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (wait_for(SignalKind::terminate())?, wait_for(SignalKind::interrupt())?);
        let mut hangup = wait_for(SignalKind::hangup())?;
        let (reloaded, file) = (Arc::clone(&server), path.to_owned());
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                let (server, file) = (Arc::clone(&reloaded), file.clone());
                // What is wrong with it is told by the function itself.
                let _ = tokio::task::spawn_blocking(move || reload(&server, &file)).await;
            }
        });
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        serve(server, stop).await.map_err(|error| {
            let failure = Failure::new(error.to_string());
            let RunError::Listen { source, .. } = &error else { return failure };
            failure.hint(match source.kind() {
                std::io::ErrorKind::AddrInUse => {
                    "something else has the port (of 111 often rpcbind); each part can be moved or turned off in `listen:`"
                }
                _ => {
                    "a port below 1024 needs the right to bind it (CAP_NET_BIND_SERVICE); each part can be moved or \
                     turned off in `listen:`"
                }
            })
        })
    });
    // Transfers that clients do not take must not hold the end up.
    runtime.shutdown_background();
    result
}

fn wait_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(format!("cannot wait for signals: {error}")))
}

/// Takes the site file as it is now, unless something is wrong with it.
fn reload(server: &Server, path: &Path) {
    let result = read_and_check(path).and_then(|site| {
        server.reload(site).map_err(|(name, error)| Failure::new(format!("the image {name} cannot be opened: {error}")))
    });
    if let Err(failure) = result {
        Log.warn(&format!("the site file is left as it was: {failure}"));
    }
}

/// One server for one state: two would overwrite what the other writes.
fn lock(site: &Site) -> Result<File, Failure> {
    let path = lock_path(site);
    let failed = |error: std::io::Error| Failure::new(format!("cannot lock {}: {error}", path.display()));
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let failure = Failure::new(format!("another server has {}", site.state.display()));
            return Err(failure.hint("a replica needs a `state` of its own"));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

/// A connection is a file to the kernel, and the usual limit is made for programs with few.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With fewer the server serves fewer nodes at once; it waits where there are too many.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// How many random bytes are kept under each name.
const KEPT: usize = 32;

/// Random bytes that are made once and kept in the state.
fn kept(site: &Site, name: &str) -> Result<Vec<u8>, Failure> {
    let path = site.state.join(name);
    match fs::read(&path) {
        Ok(bytes) if bytes.len() >= KEPT => Ok(bytes),
        // Another key would leave every node that runs without its root, so none is made in its place.
        Ok(bytes) => {
            let failure = Failure::new(format!("{} has {} bytes instead of {KEPT}", path.display(), bytes.len()));
            Err(failure.hint("put the file back, or remove it: then every node that runs must boot again"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(site, &path),
        Err(error) => Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
    }
}

fn make(site: &Site, path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    let mut bytes = vec![0; KEPT];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(failed)?;
    // Readable by its owner alone, and there whole or not at all.
    let mut file = tempfile::NamedTempFile::new_in(&site.state).map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist_noclobber(path).map_err(|error| failed(error.error))?;
    File::open(&site.state).and_then(|it| it.sync_all()).map_err(failed)?;
    Ok(bytes)
}
