//! What is kept over a restart: the nodes with their boots, a small file for each. All of it may be lost, but for what says
//! that secrets were given out: that is written, and synced, before they are.

use crate::{
    images::Images,
    nodes::{Boot, Event, Identity, Known, PAUSE, Stage},
    server::now,
};
use aule_tree::Digest;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::{Hash, Hasher},
    io::{self, Read, Write},
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// The largest file that is read: far more than a node with all its events takes.
const SAVED_MAX: u64 = 1 << 20;

/// How the names of files begin that are being written.
const UNFINISHED: &str = ".node-";

/// A node as it is written down, with what its rule said when its boot began.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    address: IpAddr,
    identity: Identity,
    name: String,
    vars: BTreeMap<String, serde_json::Value>,
    named: bool,
    number: u64,
    image: String,
    digest: Digest,
    events: Vec<Event>,
    stage: Stage,
    since: u64,
    began: bool,
    released: BTreeSet<String>,
    last: u64,
}

/// The directory of a site's state.
#[derive(Debug)]
pub struct State {
    root: PathBuf,
    /// Held while a node is written down, so that what is written last is what was so last. By address.
    writing: [Mutex<()>; 32],
}

impl State {
    /// The state below this directory, which is made where it is missing. Only its owner may read it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> io::Result<State> {
        let nodes = root.join("nodes");
        fs::create_dir_all(&nodes)?;
        fs::set_permissions(&nodes, fs::Permissions::from_mode(0o700))?;
        Ok(State { root: root.into(), writing: Default::default() })
    }

    /// Whether it could be opened and written, as far as that can be seen without making anything.
    ///
    /// # Errors
    /// When not, why.
    pub fn is_writable(root: &Path) -> io::Result<()> {
        // Made are the directory and those above it: what counts is the first that is there.
        let there = root.ancestors().find(|it| it.as_os_str().is_empty() || it.symlink_metadata().is_ok());
        let there = there.filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A file without a name, or one that is gone at once.
        tempfile::tempfile_in(there).map(drop)
    }

    fn path(&self, address: IpAddr) -> PathBuf {
        self.root.join("nodes").join(format!("{}.json", address.to_string().replace(':', "-")))
    }

    /// Writes down what `node` gives at that moment, or that there is none: the old file or the new one is there, whatever
    /// happens. With `sync` it is on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, address: IpAddr, sync: bool, node: impl FnOnce() -> Option<Known>) -> io::Result<()> {
        let mut hasher = std::hash::DefaultHasher::new();
        address.hash(&mut hasher);
        // Without the name of the file, which is another one each time: the same failure is told once.
        let plain = |error: io::Error| io::Error::from(error.kind());
        let place = self.writing.get(hasher.finish() as usize % self.writing.len());
        let _writing = place.map(|it| it.lock().unwrap_or_else(PoisonError::into_inner));
        match node() {
            Some(node) => self.write(&node, sync).map_err(plain),
            None => match fs::remove_file(self.path(address)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    fn write(&self, node: &Known, sync: bool) -> io::Result<()> {
        let Known { address, identity, name, vars, boot, last, named, heard: _, read: _ } = node.clone();
        let Boot { number, image, build, events, stage, since, began, released, missing: _ } = boot;
        let digest = build.digest;
        let saved = Saved {
            address,
            identity,
            name,
            vars,
            named,
            number,
            image,
            digest,
            events,
            stage,
            since,
            began,
            released,
            last,
        };
        let path = self.path(address);
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.root)?;
        file.write_all(&serde_json::to_vec(&saved)?)?;
        if sync {
            file.as_file().sync_all()?;
        }
        file.persist(&path).map_err(|error| error.error)?;
        if sync && let Some(directory) = path.parent() {
            fs::File::open(directory)?.sync_all()?;
        }
        Ok(())
    }

    /// Every node that was written down and whose build is still there. A file that cannot be understood is given to
    /// `wrong`, with the reason.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn load(&self, images: &Images, mut wrong: impl FnMut(&Path, String)) -> io::Result<Vec<Known>> {
        self.sweep()?;
        let mut nodes = Vec::new();
        for entry in fs::read_dir(self.root.join("nodes"))? {
            let path = entry?.path();
            match read(&path) {
                Ok(saved) => nodes.extend(revive(saved, images)),
                Err(reason) => wrong(&path, reason),
            }
        }
        nodes.sort_by_key(|it| it.last);
        Ok(nodes)
    }
}

impl State {
    /// Removes what a kill in the middle of writing left.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Saved, String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(SAVED_MAX).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

fn revive(saved: Saved, images: &Images) -> Option<Known> {
    let Saved { address, identity, name, vars, named, number, image, digest, .. } = saved;
    let Saved { events, stage, since, began, released, last, .. } = saved;
    let build = images.by_digest(digest)?;
    let boot = Boot { number, image, build, events, stage, since, began, released, missing: None };
    let recent = now().abs_diff(last) <= PAUSE.as_secs();
    let heard = recent.then(Instant::now);
    Some(Known { address, identity, name, vars, boot, last, heard, read: None, named })
}
