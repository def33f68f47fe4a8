//! Reading files out of layers, with a bounded cache of decompressed frames that all nodes share.
//!
//! Nothing is given out that was not checked. A file of one frame is compared with its digest whenever its frame is read
//! anew. Of a larger file the first read compares all of it with its digest and remembers the digest of each frame, so that
//! later reads need only the frames that they are about.

use aule_store::{
    StoreError,
    layer::{ContentFrames, Contents, Frame},
};
use aule_tree::{Content, Digest, Hasher};
use quick_cache::{Weighter, sync::Cache};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A damaged file is not looked at again for so long.
const DAMAGED: Duration = Duration::from_secs(30);
/// What a frame takes beside its bytes, in the cache's own tables.
const OVERHEAD: u64 = 128;

/// A frame: the first half of its layer's digest, and where it lies there.
type Key = ([u8; 16], u64);

#[derive(Debug, Clone, Copy)]
struct ByBytes;

impl Weighter<Key, Arc<[u8]>> for ByBytes {
    fn weight(&self, _: &Key, frame: &Arc<[u8]>) -> u64 {
        frame.len() as u64 + OVERHEAD
    }
}

/// How many digests of frames are remembered: those of half a terabyte of files, in 16 MiB.
const CHECKED_MAX: u64 = 1 << 19;

#[derive(Debug, Clone, Copy)]
struct ByCount;

impl Weighter<Digest, Arc<[Digest]>> for ByCount {
    fn weight(&self, _: &Digest, digests: &Arc<[Digest]>) -> u64 {
        digests.len() as u64
    }
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bytes in the store are not those of the file.
    #[error("the content {content} is damaged in layer {layer}; `aule verify` says more")]
    Damaged {
        /// Of the file.
        content: Digest,
        /// Where it lies.
        layer: Digest,
    },
}

/// The cache.
#[derive(Debug)]
pub struct FrameCache {
    frames: Cache<Key, Arc<[u8]>, ByBytes>,
    /// Of each large content that was compared with its digest, the digests of its frames.
    checked: Cache<Digest, Arc<[Digest]>, ByCount>,
    /// Of each that is being compared, what others wait for.
    comparing: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
    /// How many bytes are held that were read on the way and wait to be known as right.
    held: AtomicU64,
    /// Those that are damaged, and when that was seen: who asks for one again and again must not cost much.
    failed: Mutex<HashMap<Digest, Instant>>,
}

impl FrameCache {
    /// A cache of at most `bytes`.
    pub fn new(bytes: u64) -> Self {
        // An estimate for the first size of its tables: frames are a megabyte at most, most are some kilobytes.
        let items = usize::try_from(bytes / (16 << 10)).unwrap_or(1 << 20);
        FrameCache {
            frames: Cache::with_weighter(items, bytes, ByBytes),
            checked: Cache::with_weighter(4096, CHECKED_MAX, ByCount),
            comparing: Mutex::default(),
            held: AtomicU64::new(0),
            failed: Mutex::default(),
        }
    }

    /// How many bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.frames.weight()
    }

    /// Whether a read could be answered without touching the disk.
    pub fn holds(&self, contents: &Contents, content: &Content, offset: u64, length: usize) -> bool {
        let Ok(place) = contents.frames(content) else { return false };
        if content.sparse.is_some() {
            return false;
        }
        let mut start = 0;
        place.frames().iter().all(|frame| {
            let range = start..start + frame.plain;
            start = range.end;
            let outside = range.end <= offset || range.start >= offset + length as u64;
            outside || self.frames.contains_key(&key(&place, frame))
        })
    }

    /// Appends up to `length` bytes of a file from `offset` to `out`, fewer only at its end.
    ///
    /// # Errors
    /// When the store cannot be read or its bytes are not those of the file; `out` may have some bytes more then.
    pub fn read(
        &self,
        contents: &Contents,
        content: &Content,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let end = content.size.min(offset.saturating_add(length as u64));
        if offset >= end {
            return Ok(());
        }
        let Some(map) = &content.sparse else {
            return self.stored(contents, content, offset, end, out);
        };
        let begin = out.len();
        out.resize(begin + (end - offset) as usize, 0);
        let mut stored = map.to_pax().len() as u64;
        let mut part = Vec::new();
        for extent in map.extents() {
            let (from, to) = (extent.offset.max(offset), (extent.offset + extent.length).min(end));
            if from < to {
                part.clear();
                let at = stored + (from - extent.offset);
                self.stored(contents, content, at, at + (to - from), &mut part)?;
                let place = out.get_mut(begin + (from - offset) as usize..begin + (to - offset) as usize);
                if let Some(place) = place.filter(|place| place.len() == part.len()) {
                    place.copy_from_slice(&part);
                }
            }
            stored += extent.length;
        }
        Ok(())
    }

    /// Appends stored bytes `offset..end` of a content.
    fn stored(
        &self,
        contents: &Contents,
        content: &Content,
        offset: u64,
        end: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let place = contents.frames(content)?;
        let mut start = 0;
        for (index, frame) in place.frames().iter().enumerate() {
            let next = start + frame.plain;
            if next > offset && start < end {
                let bytes =
                    self.frames.get_or_insert_with(&key(&place, frame), || self.load(&place, content, index, frame))?;
                let from = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
                let to = usize::try_from(end.min(next) - start).unwrap_or(usize::MAX);
                out.extend_from_slice(bytes.get(from..to).unwrap_or_default());
            }
            start = next;
        }
        Ok(())
    }

    /// Reads a frame from the disk and checks it.
    fn load(
        &self,
        place: &ContentFrames<'_>,
        content: &Content,
        index: usize,
        frame: &Frame,
    ) -> Result<Arc<[u8]>, ReadError> {
        let damaged = || ReadError::Damaged { content: content.digest, layer: place.layer() };
        let wanted = match place.frames() {
            [_] => content.digest,
            _ => match self.known(content) {
                Some(digests) => *digests.get(index).ok_or_else(damaged)?,
                None => match self.compare(place, content, index)? {
                    Compared::Now(bytes) => return Ok(bytes),
                    Compared::Before(digests) => *digests.get(index).ok_or_else(damaged)?,
                },
            },
        };
        let bytes: Arc<[u8]> = place.read(frame)?.into();
        if Digest::of(&bytes) == wanted { Ok(bytes) } else { Err(damaged()) }
    }

    /// The digests of the frames of a content that was compared with its own.
    fn known(&self, content: &Content) -> Option<Arc<[Digest]>> {
        self.checked.get(&content.digest)
    }

    /// Compares a content of several frames with its digest, unless somebody else just did. What is read on the way is kept,
    /// and the frame that is asked for is given.
    fn compare(&self, place: &ContentFrames<'_>, content: &Content, asked: usize) -> Result<Compared, ReadError> {
        let lock = {
            let mut comparing = self.comparing.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(comparing.entry(content.digest).or_default())
        };
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digests) = self.known(content) {
            return Ok(Compared::Before(digests));
        }
        {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.retain(|_, since| since.elapsed() < DAMAGED);
            if failed.contains_key(&content.digest) {
                return Err(ReadError::Damaged { content: content.digest, layer: place.layer() });
            }
        }
        let compared = self.compare_alone(place, content, asked);
        // A disk that fails for a moment says nothing of the file; one that ends too early does.
        let momentary = |error: &ReadError| match error {
            ReadError::Store(StoreError::Io { source, .. }) => source.kind() != std::io::ErrorKind::UnexpectedEof,
            _ => false,
        };
        if compared.as_ref().is_err_and(|error| !momentary(error)) {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.insert(content.digest, Instant::now());
        }
        self.comparing.lock().unwrap_or_else(PoisonError::into_inner).remove(&content.digest);
        compared
    }

    fn compare_alone(&self, place: &ContentFrames<'_>, content: &Content, asked: usize) -> Result<Compared, ReadError> {
        let damaged = || ReadError::Damaged { content: content.digest, layer: place.layer() };
        let mut hasher = Hasher::new();
        let mut digests = Vec::with_capacity(place.frames().len());
        let mut found: Option<Arc<[u8]>> = None;
        // Nothing is in the cache before all of it is known to be right.
        let mut kept = Kept { frames: Vec::new(), bytes: 0, held: &self.held };
        for (index, frame) in place.frames().iter().enumerate() {
            let bytes: Arc<[u8]> = place.read(frame)?.into();
            hasher.update(&bytes);
            digests.push(Digest::of(&bytes));
            if index == asked {
                found = Some(bytes);
            } else if index > asked {
                // All comparisons together; what is beyond would only push out the rest.
                kept.push(index, bytes, self.frames.capacity() / 8);
            }
        }
        if hasher.finish() != content.digest {
            return Err(damaged());
        }
        for (index, bytes) in std::mem::take(&mut kept.frames) {
            if let Some(frame) = place.frames().get(index) {
                self.frames.insert(key(place, frame), bytes);
            }
        }
        self.checked.insert(content.digest, digests.into());
        found.map(Compared::Now).ok_or_else(damaged)
    }
}

/// Frames that were read on the way to the one that is asked for, or after it.
struct Kept<'a> {
    frames: Vec<(usize, Arc<[u8]>)>,
    bytes: u64,
    held: &'a AtomicU64,
}

impl Kept<'_> {
    /// Keeps a frame where all that is kept together is not more than `most`.
    fn push(&mut self, index: usize, frame: Arc<[u8]>, most: u64) {
        let bytes = frame.len() as u64;
        if self.held.fetch_add(bytes, Ordering::Relaxed) + bytes > most {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            return;
        }
        self.bytes += bytes;
        self.frames.push((index, frame));
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What came of comparing a content with its digest.
enum Compared {
    /// It was done now: the bytes of the frame that was asked for.
    Now(Arc<[u8]>),
    /// Somebody else did it: the digests of all frames.
    Before(Arc<[Digest]>),
}

fn key(place: &ContentFrames<'_>, frame: &Frame) -> Key {
    (place.layer().as_bytes().first_chunk().copied().unwrap_or_default(), frame.offset)
}
