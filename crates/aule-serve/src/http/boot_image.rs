//! Boot images for firmware that boots over HTTP: a FAT filesystem with the node's own boot files, made while it is sent,
//! and its signature (rpi-eeprom, `rpi-eeprom-digest`: SHA-256, time, RSA-2048 in hexadecimal).

use super::{Ends, Shared, blob, files::Unread};
use crate::{
    boot_files,
    limits::Places,
    nodes::{Identity, Known, Stage},
    published::{BootFiles, Published},
    server::Server,
    site::{Mac, Serial},
};
use aule_image::{FatContent, FatEntry, FatOptions, OpenContent, write_fat};
use aule_tree::{Content, Digest, Hasher, Timestamp, TreePath};
use axum::{
    body::Bytes,
    extract::{ConnectInfo, Path, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use rsa::{RsaPrivateKey, pkcs1::DecodeRsaPrivateKey, pkcs8::DecodePrivateKey};
use std::{
    collections::HashMap,
    io::{self, Read, Seek, SeekFrom, Write},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{runtime::Handle, sync::mpsc};

/// How many are made at once, in all and for one address.
const AT_ONCE: (usize, usize) = (16, 2);
/// How many measured images are remembered.
const MEASURED_MAX: usize = 4096;
/// How much is sent at once.
const PIECE: usize = 256 << 10;

/// The boot images of all nodes: none is kept, only how large it is and what its digest is.
pub(super) struct BootImages {
    measured: Mutex<HashMap<Digest, (u64, Digest)>>,
    at_once: Places,
}

impl Default for BootImages {
    fn default() -> Self {
        BootImages { measured: Mutex::default(), at_once: Places::new(AT_ONCE.0, AT_ONCE.1) }
    }
}

/// What goes into an image.
struct Plan {
    build: Arc<Published>,
    files: Vec<(TreePath, Timestamp, File)>,
    options: FatOptions,
    /// Names the image: equal plans give equal bytes.
    key: Digest,
    newest: i64,
}

enum File {
    Made(Vec<u8>),
    Stored(Content),
}

/// `/boot/<node>/boot.img`
pub(super) async fn image(
    State(shared): State<Shared>,
    ConnectInfo(Ends { peer, own }): ConnectInfo<Ends>,
    Path(name): Path<String>,
    method: Method,
) -> Response {
    let Some(place) = shared.images.at_once.enter(peer.ip().to_canonical()).await else { return blob::later() };
    let planned = planned(&shared, (peer, own), name, "boot.img").await;
    let (plan, size, digest) = match planned {
        Ok(planned) => planned,
        Err(response) => return *response,
    };
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::ETAG, format!("\"{digest}\"")),
    ];
    if method == Method::HEAD {
        return headers.into_response();
    }
    let (pieces, body) = blob::channel(size);
    tokio::task::spawn_blocking(move || {
        let out = Forward { sink: Sink::Client(pieces.clone()), piece: Vec::with_capacity(PIECE), at: 0 };
        if let Err(error) = write(&shared.server, &plan, out) {
            // The client may be gone.
            let _ = pieces.try_send(Err(error));
        }
        drop(place);
    });
    (headers, body).into_response()
}

/// `/boot/<node>/boot.sig`
pub(super) async fn signature(
    State(shared): State<Shared>,
    ConnectInfo(Ends { peer, own }): ConnectInfo<Ends>,
    Path(name): Path<String>,
) -> Response {
    let site = shared.server.site();
    let Some(key) = site.signing_key.as_ref().map(|it| it.file.clone()) else {
        return (StatusCode::NOT_FOUND, "the site names no signing_key\n").into_response();
    };
    let Some(_place) = shared.images.at_once.enter(peer.ip().to_canonical()).await else { return blob::later() };
    let (plan, _, digest) = match planned(&shared, (peer, own), name, "boot.sig").await {
        Ok(planned) => planned,
        Err(response) => return *response,
    };
    let signed = tokio::task::spawn_blocking(move || {
        let key = read_key(&key)?;
        sign(&key, digest).map(|signature| format!("{}\nts: {}\nrsa2048: {signature}\n", digest.hex(), plan.newest))
    });
    match signed.await.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(text) => text.into_response(),
        Err(error) => {
            shared.server.warn(format!("boot.sig cannot be made: {error}"));
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Reads a private key, in either of the forms that OpenSSL writes.
///
/// # Errors
/// When it cannot be read, or is none of RSA with 2048 bits, which is all that the firmware takes.
pub(crate) fn read_key(path: &std::path::Path) -> Result<RsaPrivateKey, String> {
    use rsa::traits::PublicKeyParts;
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown} cannot be read ({})", error.kind()))?;
    let key = RsaPrivateKey::from_pkcs8_pem(&text).or_else(|_| RsaPrivateKey::from_pkcs1_pem(&text));
    let key = key.map_err(|_| format!("{shown} is no private RSA key in PEM"))?;
    match key.size() {
        256 => Ok(key),
        other => Err(format!("{shown} has {} bits; the firmware takes 2048", other * 8)),
    }
}

fn sign(key: &RsaPrivateKey, digest: Digest) -> Result<String, String> {
    let signature = key.sign(rsa::Pkcs1v15Sign::new::<rsa::sha2::Sha256>(), digest.as_bytes());
    signature.map(hex::encode).map_err(|error| error.to_string())
}

async fn planned(
    shared: &Shared,
    (peer, reached): (SocketAddr, IpAddr),
    name: String,
    what: &'static str,
) -> Result<(Plan, u64, Digest), Box<Response>> {
    let shared = shared.clone();
    let planned = tokio::task::spawn_blocking(move || {
        let server = &shared.server;
        let nothing = |text: String| Box::new((StatusCode::NOT_FOUND, text + "\n").into_response());
        let identity = identity(&name);
        // Who asks by another's name, or for what is not there, begins no boot.
        let by_name = identity == Identity::default();
        let node = server.see_if(peer.ip(), identity, None, Stage::BootFiles, what, |node| {
            (!by_name || node.name == name).then_some(node).filter(|it| it.boot.build.boot.is_some()).cloned()
        });
        let node = node.map_err(|error| nothing(error.to_string()))?;
        let failed = || Box::new(StatusCode::INTERNAL_SERVER_ERROR.into_response());
        let plan = plan(&shared, &node, reached).map_err(|error| {
            server.warn(format!("boot.img for {}: {error}", node.name));
            failed()
        })?;
        let known = shared.images.measured.lock().unwrap_or_else(PoisonError::into_inner).get(&plan.key).copied();
        let (size, digest) = match known {
            Some(known) => known,
            None => {
                let mut hasher = Hasher::new();
                let out = Forward { sink: Sink::Hasher(&mut hasher), piece: Vec::with_capacity(PIECE), at: 0 };
                let size = write(server, &plan, out).map_err(|error| {
                    server.warn(format!("boot.img for {}: {error}", node.name));
                    failed()
                })?;
                let measured = (size, hasher.finish());
                let mut all = shared.images.measured.lock().unwrap_or_else(PoisonError::into_inner);
                if all.len() >= MEASURED_MAX {
                    all.clear();
                }
                all.insert(plan.key, measured);
                measured
            }
        };
        Ok((plan, size, digest))
    });
    planned.await.unwrap_or_else(|_| Err(Box::new(StatusCode::INTERNAL_SERVER_ERROR.into_response())))
}

/// Whom a path names: a serial number or an Ethernet address. (A name is for anybody to know; who asks by it must be known.)
fn identity(name: &str) -> Identity {
    let serial = name.parse::<Serial>().ok().filter(|_| name.len() == 8);
    let mac = name.parse::<Mac>().ok();
    Identity { serial, mac, model: None }
}

fn plan(shared: &Shared, node: &Known, reached: IpAddr) -> Result<Plan, String> {
    let build = Arc::clone(&node.boot.build);
    let boot = build.boot.as_ref().ok_or("its image has no boot files")?;
    let mut key = Hasher::new();
    key.field(build.digest.as_bytes());
    let mut files = Vec::new();
    let mut newest = 0;
    for file in boot.sorted() {
        newest = newest.max(file.mtime.seconds);
        let what = if boot_files::is_own(file) {
            let text = boot_files::rendered(&shared.server, &build, file, node, reached);
            let text = text.ok_or_else(|| format!("{} cannot be made", file.path))?.into_bytes();
            key.field(file.path.as_bytes());
            key.field(&text);
            File::Made(text)
        } else {
            File::Stored(file.content.clone())
        };
        files.push((file.path.clone(), file.mtime, what));
    }
    let (volume_id, label) = volume(shared, boot)?;
    let options = FatOptions { size: None, max_size: None, label, volume_id };
    Ok(Plan { files, options, key: key.finish(), newest, build: Arc::clone(&build) })
}

/// Number and label of the build's own FAT image (Microsoft's specification, FAT32: offsets 67 and 71).
fn volume(shared: &Shared, boot: &BootFiles) -> Result<(u32, String), String> {
    let image = boot.image.as_ref().ok_or("its build has no FAT image")?;
    let opened = Handle::current().block_on(shared.files.open(&shared.server, image.digest));
    let file = opened.map_err(|unread| match unread {
        Unread::Damaged => format!("blob {} is damaged", image.digest),
        Unread::Store(error) => error.to_string(),
    })?;
    let mut first = Vec::new();
    file.read(0, &mut first).map_err(|error| format!("blob {}: {error}", image.digest))?;
    let read = first.get(67..71).and_then(|id| id.try_into().ok()).zip(first.get(71..82));
    let (id, label) = read.ok_or_else(|| format!("blob {} is no FAT image", image.digest))?;
    Ok((u32::from_le_bytes(id), String::from_utf8_lossy(label).trim_end().to_owned()))
}

fn write(server: &Server, plan: &Plan, mut out: Forward<'_>) -> io::Result<u64> {
    let boot = plan.build.boot.as_ref().ok_or(io::ErrorKind::NotFound)?;
    let directories = boot.directories().iter();
    let directories =
        directories.map(|(path, mtime)| FatEntry { path: path.clone(), mtime: *mtime, what: FatContent::Directory });
    let files = plan.files.iter().map(|(path, mtime, file)| {
        let (size, open): (u64, OpenContent<'_>) = match file {
            File::Made(bytes) => {
                (bytes.len() as u64, Box::new(move || Ok(Box::new(bytes.as_slice()) as Box<dyn Read>)))
            }
            File::Stored(content) => {
                let reader = Stored { server, boot, content, at: 0 };
                (content.size, Box::new(move || Ok(Box::new(reader) as Box<dyn Read>)))
            }
        };
        FatEntry { path: path.clone(), mtime: *mtime, what: FatContent::File { size, open } }
    });
    let written = write_fat(&mut out, directories.chain(files).collect(), &plan.options).map_err(io::Error::other)?;
    out.fill(written.size)?;
    out.flush()?;
    Ok(written.size)
}

/// Reads a file of the build through the cache, which compares it with its digest.
struct Stored<'a> {
    server: &'a Server,
    boot: &'a BootFiles,
    content: &'a Content,
    at: u64,
}

impl Read for Stored<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = Vec::with_capacity(buffer.len());
        let contents = self.boot.contents();
        let read = self.server.cache.read(contents, self.content, self.at, buffer.len(), &mut bytes);
        read.map_err(io::Error::other)?;
        buffer.get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidData)?.copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

/// Takes what is written, from the first byte to the last; what is skipped is zeros.
struct Forward<'a> {
    sink: Sink<'a>,
    piece: Vec<u8>,
    at: u64,
}

enum Sink<'a> {
    Hasher(&'a mut Hasher),
    Client(mpsc::Sender<io::Result<Bytes>>),
}

impl Forward<'_> {
    fn fill(&mut self, to: u64) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.at < to {
            let length = ZEROS.len().min((to - self.at) as usize);
            self.write_all(ZEROS.get(..length).unwrap_or_default())?;
        }
        Ok(())
    }
}

impl Write for Forward<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        self.at += bytes.len() as u64;
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        match &mut self.sink {
            Sink::Hasher(hasher) => hasher.update(&piece),
            Sink::Client(_) if piece.is_empty() => {}
            Sink::Client(pieces) => {
                let sending = tokio::time::timeout(blob::STALLED, pieces.send(Ok(piece.into())));
                let sent = Handle::current().block_on(sending);
                sent?.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            }
        }
        Ok(())
    }
}

impl Seek for Forward<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(to) => to,
            SeekFrom::Current(by) => self.at.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?,
            SeekFrom::End(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        if to < self.at {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.fill(to)?;
        Ok(self.at)
    }
}
