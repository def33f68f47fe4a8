//! The base step: which upstream image, is it the right one, and its import into the store.

use crate::{
    BuildError, BuildRequest, Network, Result,
    import::{BaseInfo, import},
    inputs::{Bytes, InputKind},
    key::step_key,
    outputs::source::SourceBase,
    stage::LayerRecord,
};
use aule_image::{
    Checksums, DETECT_LENGTH, DecodedImage, Input as DecodeInput, Limits, ReadAt, Signature, detect, verify_signature,
};
use aule_recipe::{BaseImage, Diagnostics, Input, LockedBase, Merged};
use aule_store::{
    StepKey, Store,
    download::{Request, download, fetch_small},
};
use aule_tree::{Digest, Hasher};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The largest image file that is fetched, in bytes.
pub(crate) const IMAGE_MAX: u64 = 64 << 30;
/// The largest file of checksums or signatures.
const SMALL_MAX: u32 = 4 << 20;

/// Which image is wanted, and how it is known to be the right one.
pub(crate) struct WantedBase {
    /// As the recipe or the user names it.
    pub(crate) name: String,
    location: Location,
    /// The digest that it must have, and who says so.
    expected: Option<(Digest, String)>,
    /// How it is verified, for lock and provenance.
    pub(crate) verified: String,
    /// Whether `--base` put it in the place of the recipe's.
    pub(crate) replaced: bool,
}

enum Location {
    Local(PathBuf),
    Url(String),
}

/// The imported base.
pub(crate) struct ImportedBase {
    pub(crate) base: SourceBase,
    pub(crate) key: StepKey,
    pub(crate) cached: bool,
    /// What the lock says of it from now on; `None` for a local image.
    pub(crate) lock: Option<LockedBase>,
}

#[derive(Serialize, Deserialize)]
struct BaseResult {
    layer: LayerRecord,
    info: BaseInfo,
    size: u64,
}

impl WantedBase {
    /// Finds out which image is wanted. Signatures are judged here; where the lock has the image, its digest decides.
    pub(crate) fn find(request: &BuildRequest<'_>, merged: &Merged) -> Result<WantedBase> {
        if let Some(path) = &request.base {
            return Ok(WantedBase {
                name: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
                location: Location::Local(path.clone()),
                expected: None,
                verified: "not verified: given with --base".into(),
                replaced: true,
            });
        }
        let base = image(merged)?;
        let (location, name) = match &base.image {
            Input::Url(url) => (Location::Url(url.as_str().into()), url.as_str().to_owned()),
            Input::Local(local) => (Location::Local(local.path().into()), local.name().to_owned()),
        };
        let wanted = |expected, verified: String| WantedBase {
            name: name.clone(),
            location,
            expected,
            verified,
            replaced: false,
        };
        let stated = base.sha256.as_ref().map(|sha256| Digest::from_bytes(sha256.0));
        if let (Input::Url(url), Some(locked)) = (&base.image, &request.lock.base)
            && locked.url.as_str() == url.as_str()
            && stated.is_none_or(|digest| digest == Digest::from_bytes(locked.sha256.0))
        {
            let digest = Digest::from_bytes(locked.sha256.0);
            return Ok(wanted(Some((digest, "the lock".into())), locked.verified.clone()));
        }
        if let Some(digest) = stated {
            return Ok(wanted(Some((digest, "`base.sha256`".into())), "sha256 in the recipe".into()));
        }
        if let Some(checksums) = &base.checksums {
            let (digest, verified) = judge(request, merged, checksums)?;
            return Ok(wanted(Some((digest, format!("`{}`", checksums.name()))), verified));
        }
        Ok(wanted(None, "not verified".into()))
    }

    /// The image's digest, as far as it is known without fetching or reading the image, and the image's layer where it
    /// was imported before.
    fn known(&self, store: &Store) -> Result<(Option<Digest>, Option<ImportedBase>)> {
        let known = match (&self.expected, &self.location) {
            (Some((digest, _)), _) => Some(*digest),
            (None, Location::Local(path)) => remembered_digest(store, path)?,
            (None, Location::Url(_)) => None,
        };
        let imported = known.map(|digest| self.remembered(store, digest)).transpose()?;
        Ok((known, imported.flatten()))
    }

    fn remembered(&self, store: &Store, digest: Digest) -> Result<Option<ImportedBase>> {
        let key = key_of(digest)?;
        Ok(store.step_result::<BaseResult>(key)?.map(|result| self.imported(key, result, true)))
    }

    /// The image's digest, and its layer where it was imported before. A local image is read where it must be, nothing is
    /// fetched, and nothing is remembered.
    pub(crate) fn look(&self, request: &BuildRequest<'_>) -> Result<(Option<Digest>, Option<ImportedBase>)> {
        let (known, imported) = self.known(request.store)?;
        let Location::Local(path) = &self.location else { return Ok((known, imported)) };
        if imported.is_some() {
            return Ok((known, imported));
        }
        let failed = |source| BuildError::OpenImage { path: path.clone(), source };
        let mut file = File::open(path).map_err(failed)?;
        if known.is_some() {
            return Ok((known, None));
        }
        request.observer.note(&format!("reading {}", self.name));
        let mut hasher = Hasher::new();
        std::io::copy(&mut file, &mut hasher).map_err(failed)?;
        let digest = hasher.finish();
        Ok((Some(digest), self.remembered(request.store, digest)?))
    }

    /// Where the image is fetched from; `None` for a local one.
    pub(crate) fn url(&self) -> Option<&str> {
        match &self.location {
            Location::Url(url) => Some(url),
            Location::Local(_) => None,
        }
    }

    /// The image's layer: from the cache, or imported now.
    pub(crate) fn import(&self, request: &BuildRequest<'_>) -> Result<ImportedBase> {
        let store = request.store;
        let (known, imported) = self.known(store)?;
        if let Some(imported) = imported {
            return Ok(imported);
        }
        let (path, downloaded) = match &self.location {
            Location::Local(path) => (path.clone(), None),
            Location::Url(url) => {
                request.observer.note(&format!("fetching {}", self.name));
                let mut wanted = request.network.request(url, IMAGE_MAX);
                wanted.expected_digest = known;
                let progress = |progress: aule_store::download::Progress| {
                    request.observer.progress("fetch", progress.received, progress.total);
                };
                let done = download(&wanted, &store.downloads(), &progress)
                    .map_err(|error| BuildError::Download(error.into()))?;
                (done.path.clone(), Some(done))
            }
        };
        let before = Seen::of(&path);
        let result = self.decode_and_import(request, &path)?;
        let key = key_of(result.info.image)?;
        store.set_step_result(key, &[result.layer.descriptor.digest], &result)?;
        match downloaded {
            // The layer holds everything; the file would only take room.
            Some(done) => done.remove().map_err(|error| BuildError::Download(error.into()))?,
            None => remember_digest(store, &path, before, result.info.image)?,
        }
        Ok(self.imported(key, result, false))
    }

    fn imported(&self, key: StepKey, result: BaseResult, cached: bool) -> ImportedBase {
        let BaseResult { layer, info, size } = result;
        let lock = self.locked(info.image, size);
        ImportedBase { base: SourceBase { layer, info }, key, cached, lock }
    }

    /// What the lock says of an image with this digest and size from now on.
    pub(crate) fn locked(&self, image: Digest, size: u64) -> Option<LockedBase> {
        match &self.location {
            Location::Url(url) if !self.replaced => Some(LockedBase {
                url: url.clone(),
                size,
                sha256: aule_recipe::Sha256(*image.as_bytes()),
                verified: self.verified.clone(),
            }),
            _ => None,
        }
    }

    fn decode_and_import(&self, request: &BuildRequest<'_>, path: &Path) -> Result<BaseResult> {
        let store = request.store;
        let open_failed = |source| BuildError::OpenImage { path: path.into(), source };
        let file = File::open(path).map_err(open_failed)?;
        let size = file.metadata().map_err(open_failed)?.len();
        let file: Arc<dyn ReadAt> = Arc::new(file);
        let mut head = vec![0; DETECT_LENGTH.min(usize::try_from(size).unwrap_or(DETECT_LENGTH))];
        file.read_at(0, &mut head).map_err(open_failed)?;
        let compression = detect(&head);
        request.observer.note(&format!("importing {} ({})", self.name, compression.word()));
        let image = if compression == aule_image::Compression::Raw {
            DecodedImage::in_place(file).map_err(open_failed)?
        } else {
            let raw = store.temporary_file()?;
            // Without a name already: whatever happens, the raw image does not outlive this process.
            let raw = raw.into_file();
            let input = DecodeInput::Seekable(file);
            DecodedImage::start(input, compression, raw, request.jobs, Limits::default()).map_err(open_failed)?
        };
        let image = Arc::new(image);
        let check = |found: Digest| match &self.expected {
            Some((expected, by)) if *expected != found => {
                Err(BuildError::WrongImage { image: self.name.clone(), by: by.clone(), expected: *expected, found })
            }
            _ => Ok(()),
        };
        let progress = || request.observer.progress("import", image.input_position(), Some(size));
        let (archive, info) = import(store, &self.name, &image, request.jobs, check, &progress)?;
        Ok(BaseResult { layer: LayerRecord::of(&archive)?, info, size })
    }
}

/// The image that the recipe names.
fn image(merged: &Merged) -> Result<&BaseImage> {
    merged.recipe.base.image().ok_or(BuildError::Internal("a base of packages is taken for an image"))
}

/// The key of the step that imports the image with this digest.
pub(crate) fn key_of(image: Digest) -> Result<StepKey> {
    step_key("base", &image)
}

/// Finds the image's digest in the checksums, and judges their signature where the recipe names a keyring.
fn judge(request: &BuildRequest<'_>, merged: &Merged, checksums: &Input) -> Result<(Digest, String)> {
    let base = image(merged)?;
    let listed = read_small(request, merged, checksums, "base.checksums")?;
    let unverified = |source: Box<dyn std::error::Error + Send + Sync>| BuildError::Unverified {
        what: checksums.name().to_owned(),
        source,
    };
    let (text, verified) = match &base.keyring {
        None => (listed, "checksums without a signature".to_owned()),
        Some(keyring) => {
            let keyring = read_small(request, merged, &Input::Local(keyring.clone()), "base.keyring")?;
            let detached = match &base.signature {
                Some(signature) => Some(read_small(request, merged, signature, "base.signature")?),
                None => None,
            };
            let signature = detached.as_deref().map_or(Signature::Clearsigned, Signature::Detached);
            let verified = verify_signature(&listed, signature, &keyring, request.now)
                .map_err(|error| unverified(error.into()))?;
            let by = format!("checksums signed by {} ({})", verified.fingerprint, verified.user_id);
            (verified.text, by)
        }
    };
    let sums = Checksums::parse(&text).map_err(|error| unverified(error.into()))?;
    let name = base.image.name().rsplit('/').next().unwrap_or_default();
    match sums.digest_for(name) {
        Some(digest) => Ok((digest, verified)),
        None => {
            let message = format!("`{}` does not list `{name}`", checksums.name());
            Err(BuildError::Recipe(Diagnostics::from(merged.origins.diagnostic("base.checksums", message))))
        }
    }
}

fn read_small(request: &BuildRequest<'_>, merged: &Merged, input: &Input, key: &str) -> Result<Vec<u8>> {
    match input {
        Input::Url(url) => fetch_small(&request.network.request(url.as_str(), SMALL_MAX.into()), SMALL_MAX as usize)
            .map_err(|error| BuildError::Download(error.into())),
        Input::Local(local) => {
            let read = request.inputs.file(local).and_then(|kind| match kind {
                InputKind::File { bytes, .. } => bytes.read(SMALL_MAX.into()),
                _ => Err(std::io::ErrorKind::InvalidInput.into()),
            });
            read.map_err(|error| {
                let message = format!("cannot read `{local}`: {error}");
                BuildError::Recipe(Diagnostics::from(merged.origins.diagnostic(key, message)))
            })
        }
    }
}

impl Network {
    /// A request with these settings.
    pub(crate) fn request(&self, url: &str, max_size: u64) -> Request {
        let mut request = Request::new(url, max_size);
        request.proxies.clone_from(&self.proxies);
        request.extra_roots.clone_from(&self.extra_roots);
        request
    }
}

/// What was seen of a local image when its digest was taken: as long as all of it is the same, so is the digest.
///
/// Content is what counts, never a time: this only spares reading gigabytes again. The change time cannot be set by
/// programs, and an image that changed within two seconds of being read is not remembered, as git does it for its index.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(path: &Path) -> Option<Seen> {
        let path = path.canonicalize().ok()?;
        let it = path.metadata().ok()?;
        let (modified, changed) = ((it.mtime(), it.mtime_nsec()), (it.ctime(), it.ctime_nsec()));
        Some(Seen { device: it.dev(), inode: it.ino(), size: it.size(), modified, changed, path })
    }

    fn key(&self) -> Result<StepKey> {
        let mut hasher = Hasher::new();
        hasher.field(self.path.as_os_str().as_encoded_bytes());
        step_key("seen local image", &hasher.finish())
    }
}

fn remembered_digest(store: &Store, path: &Path) -> Result<Option<Digest>> {
    let Some(seen) = Seen::of(path) else { return Ok(None) };
    let remembered = store.step_result::<(Seen, Digest)>(seen.key()?)?;
    Ok(remembered.filter(|(then, _)| *then == seen).map(|(_, digest)| digest))
}

/// Remembers the digest of an image that was seen as `before` when reading it began; not of one that changed meanwhile.
fn remember_digest(store: &Store, path: &Path, before: Option<Seen>, digest: Digest) -> Result<()> {
    let Some(seen) = Seen::of(path).filter(|seen| before.as_ref() == Some(seen)) else { return Ok(()) };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |it| it.as_secs());
    let settled = u64::try_from(seen.changed.0).is_ok_and(|changed| changed + 2 < now);
    if settled {
        store.set_step_result(seen.key()?, &[], &(seen, digest))?;
    }
    Ok(())
}

/// The files that `url:` entries name, by URL: from the store, or fetched now.
pub(crate) fn fetch_files(
    request: &BuildRequest<'_>,
    merged: &Merged,
    pins: &std::collections::BTreeMap<String, Digest>,
) -> Result<std::collections::BTreeMap<String, Bytes>> {
    let mut files = std::collections::BTreeMap::new();
    for (_, url, _) in merged.recipe.fetched_files() {
        let Some(digest) = pins.get(url.as_str()) else { continue };
        // A damaged one is fetched again: nobody else would notice.
        if !request.store.has_intact_blob(*digest) {
            fetch_into_store(request, url.as_str(), Some(*digest), None)?;
        }
        files.insert(url.as_str().to_owned(), Bytes::of_file(request.store.blob_path(*digest)));
    }
    Ok(files)
}

/// Fetches a URL and keeps it as a blob; gives digest and size.
pub(crate) fn fetch_into_store(
    request: &BuildRequest<'_>,
    url: &str,
    expected: Option<Digest>,
    size: Option<u64>,
) -> Result<(Digest, u64)> {
    request.observer.note(&format!("fetching {url}"));
    let mut wanted = request.network.request(url, size.unwrap_or(IMAGE_MAX));
    (wanted.expected_digest, wanted.expected_size) = (expected, size);
    let progress = |progress: aule_store::download::Progress| {
        request.observer.progress("fetch", progress.received, progress.total);
    };
    let done =
        download(&wanted, &request.store.downloads(), &progress).map_err(|error| BuildError::Download(error.into()))?;
    let failed = |source| BuildError::OpenImage { path: done.path.clone(), source };
    let mut writer = request.store.blob_writer()?;
    std::io::copy(&mut File::open(&done.path).map_err(failed)?, &mut writer).map_err(failed)?;
    let kept = writer.commit(request.store)?;
    done.remove().map_err(|error| BuildError::Download(error.into()))?;
    Ok(kept)
}
