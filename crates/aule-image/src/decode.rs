//! Decoding a compressed image into a sparse raw file that others read while it grows.
//!
//! One thread of its own drives the decoder (for xz this one feeds further worker threads); readers that are ahead of
//! it wait. The digest is taken over all bytes of the input, whatever the decoder makes of them.

mod formats;
mod source;
mod sparse;

use crate::{Compression, ReadAt, read_at::past_the_end};
use aule_tree::Digest;
use source::Source;
use sparse::Sink;
use std::{
    fs::File,
    io::{self, Read},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

/// Where the compressed bytes come from.
pub enum Input {
    /// A stream, such as a download. A ZIP archive cannot be read from one: its table of contents is at the end.
    Stream(Box<dyn Read + Send>),
    /// Something that can be read anywhere, such as a local file.
    Seekable(Arc<dyn ReadAt>),
}

/// What decoding may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest raw image in bytes.
    pub raw_size: u64,
    /// The largest number of raw bytes for each input byte; looked at only once there is more than 1 GiB, as nearly
    /// empty small images are normal.
    pub expansion: u64,
    /// Memory in bytes that worker threads may take together. Where more is needed, one thread decodes.
    pub threading_memory: u64,
    /// Memory in bytes that a decoder may take at all, a dictionary or window above all.
    pub memory: u64,
}

impl Default for Limits {
    /// 64 GiB raw, 10,000 times the input, 192 MiB for threads, 256 MiB at all.
    fn default() -> Self {
        Limits { raw_size: 64 << 30, expansion: 10_000, threading_memory: 192 << 20, memory: 256 << 20 }
    }
}

/// What decoding found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Size of the raw image in bytes.
    pub raw_size: u64,
    /// How many of them are stored; the others are holes. For an image that is read in place, all.
    pub stored_size: u64,
    /// SHA-256 of all input bytes, padding and trailing data included.
    pub input_digest: Digest,
    /// Number of input bytes.
    pub input_size: u64,
}

/// Why an image could not be decoded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DecodeError {
    /// Reading the input failed.
    #[error("reading the image failed at byte {position}: {error}")]
    Read {
        /// Bytes of input read before.
        position: u64,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// Writing the raw image failed.
    #[error("writing the decoded image failed at byte {position}: {error}")]
    Write {
        /// Offset in the raw image.
        position: u64,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// The input ends too early.
    #[error("the {format} data ends too early, at byte {position}: the file is truncated; fetch it again")]
    Truncated {
        /// The word for the compression.
        format: &'static str,
        /// Size of the input in bytes.
        position: u64,
    },
    /// The input is not what its format says.
    #[error("the {format} data is corrupt at or before byte {position}: {reason}; fetch it again")]
    Corrupt {
        /// The word for the compression.
        format: &'static str,
        /// Offset in the input.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// A valid file that this decoder does not take.
    #[error("the {format} data cannot be decoded (byte {position}): {reason}")]
    Unsupported {
        /// The word for the compression.
        format: &'static str,
        /// Offset in the input.
        position: u64,
        /// What is not supported.
        reason: String,
    },
    /// The raw image is larger than allowed.
    #[error("the decoded image is larger than {limit} bytes, the most that is allowed")]
    TooLarge {
        /// [`Limits::raw_size`].
        limit: u64,
    },
    /// The raw image is too large for its input.
    #[error("{raw_size} bytes came out of {input_size} bytes: more than {limit} times as many, which no image needs")]
    Expansion {
        /// Raw bytes so far.
        raw_size: u64,
        /// Input bytes so far.
        input_size: u64,
        /// [`Limits::expansion`].
        limit: u64,
    },
    /// The [`DecodedImage`] was dropped.
    #[error("decoding was stopped")]
    Cancelled,
    /// The decoder died; a defect of the program.
    #[error("the decoder stopped without a result, which is a defect of this program")]
    Died,
}

impl From<DecodeError> for io::Error {
    fn from(error: DecodeError) -> Self {
        let kind = match &error {
            DecodeError::Read { error, .. } | DecodeError::Write { error, .. } => error.kind(),
            DecodeError::Cancelled => io::ErrorKind::Interrupted,
            DecodeError::Unsupported { .. } => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

/// What the decoding thread and the readers share.
#[derive(Default)]
struct Shared {
    /// Raw bytes below this offset can be read.
    watermark: AtomicU64,
    /// Input bytes read so far.
    consumed: AtomicU64,
    cancelled: AtomicBool,
    /// Set once, at the end.
    end: Mutex<Option<Result<Summary, DecodeError>>>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Result<Summary, DecodeError>>> {
        // The value is replaced as a whole, so a panic elsewhere cannot have left it half done.
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        guard: MutexGuard<'a, Option<Result<Summary, DecodeError>>>,
    ) -> MutexGuard<'a, Option<Result<Summary, DecodeError>>> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, watermark: u64) {
        self.watermark.store(watermark, Ordering::Release);
        // The lock orders this against a reader that has just looked and is about to wait.
        drop(self.lock());
        self.changed.notify_all();
    }

    fn finish(&self, result: Result<Summary, DecodeError>) {
        self.lock().get_or_insert(result);
        self.changed.notify_all();
    }

    fn check_cancelled(&self) -> Result<(), DecodeError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(DecodeError::Cancelled) } else { Ok(()) }
    }
}

/// Ends the decoding for the readers also when the thread panics.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.finish(Err(DecodeError::Died));
    }
}

/// A raw image that is being decoded, or is read in place. Dropping it stops the decoding and waits for that.
pub struct DecodedImage {
    shared: Arc<Shared>,
    raw: Arc<dyn ReadAt>,
    in_place: bool,
    thread: Option<JoinHandle<()>>,
}

impl DecodedImage {
    /// Starts to decode `input` into `output`, an empty file open for reading and writing, with `threads` workers at
    /// most (xz only, and only where the file has several blocks with their sizes). Runs of 64 KiB of zeros become holes.
    ///
    /// # Errors
    /// When no thread can be started. Errors of decoding come from [`DecodedImage::join`] and from reads.
    pub fn start(
        input: Input,
        compression: Compression,
        output: File,
        threads: usize,
        limits: Limits,
    ) -> io::Result<Self> {
        let output = Arc::new(output);
        let raw: Arc<dyn ReadAt> = output.clone();
        Self::spawn(raw, false, move |shared| {
            let mut sink = Sink::new(output, shared.clone(), limits);
            let (input_digest, input_size) = match input {
                Input::Seekable(archive) if compression == Compression::Zip => {
                    formats::zip(archive, &mut sink, &shared)?
                }
                Input::Seekable(bytes) => {
                    let stream = crate::Cursor::new(bytes);
                    decode_stream(Box::new(stream), compression, &mut sink, threads, limits, &shared)?
                }
                Input::Stream(stream) => decode_stream(stream, compression, &mut sink, threads, limits, &shared)?,
            };
            let (raw_size, stored_size) = sink.finish()?;
            Ok(Summary { raw_size, stored_size, input_digest, input_size })
        })
    }

    /// An image that needs no decoding: reads go to `raw` itself, while a thread takes its digest.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn in_place(raw: Arc<dyn ReadAt>) -> io::Result<Self> {
        let bytes = raw.clone();
        Self::spawn(raw, true, move |shared| {
            let mut source = Source::new(Box::new(crate::Cursor::new(bytes)), shared);
            source.drain()?;
            let (input_digest, size) = source.finish();
            Ok(Summary { raw_size: size, stored_size: size, input_digest, input_size: size })
        })
    }

    fn spawn(
        raw: Arc<dyn ReadAt>,
        in_place: bool,
        work: impl FnOnce(Arc<Shared>) -> Result<Summary, DecodeError> + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        let thread = std::thread::Builder::new().name("decode".into()).spawn(move || {
            let ending = Ending(for_thread.clone());
            for_thread.finish(work(for_thread.clone()));
            drop(ending);
        })?;
        Ok(DecodedImage { shared, raw, in_place, thread: Some(thread) })
    }

    /// Waits for the end, and tells what was decoded. May be called several times.
    ///
    /// # Errors
    /// Whatever stopped the decoding.
    pub fn join(&self) -> Result<Summary, DecodeError> {
        let mut end = self.shared.lock();
        loop {
            match &*end {
                Some(result) => return result.clone(),
                None => end = self.shared.wait(end),
            }
        }
    }

    /// How many input bytes were read so far, for showing progress.
    pub fn input_position(&self) -> u64 {
        self.shared.consumed.load(Ordering::Relaxed)
    }

    /// How many raw bytes can be read without waiting.
    pub fn available(&self) -> u64 {
        self.shared.watermark.load(Ordering::Acquire)
    }
}

fn decode_stream(
    stream: Box<dyn Read + Send>,
    compression: Compression,
    sink: &mut Sink,
    threads: usize,
    limits: Limits,
    shared: &Arc<Shared>,
) -> Result<(Digest, u64), DecodeError> {
    let mut source = Source::new(stream, shared.clone());
    match compression {
        Compression::Xz => formats::xz(&mut source, sink, threads, limits)?,
        Compression::Zstd => formats::zstd(&mut source, sink, limits)?,
        Compression::Gzip => formats::gzip(&mut source, sink)?,
        Compression::Raw => formats::raw(&mut source, sink)?,
        Compression::Zip => {
            let reason = "a zip archive can only be read from a local file; download it first".into();
            return Err(DecodeError::Unsupported { format: "zip", position: 0, reason });
        }
    }
    source.drain()?;
    Ok(source.finish())
}

impl ReadAt for DecodedImage {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        let wanted = end.ok_or_else(|| past_the_end(offset, buffer.len(), u64::MAX))?;
        if !self.in_place && self.available() < wanted {
            let mut end = self.shared.lock();
            while self.available() < wanted {
                match &*end {
                    Some(Err(error)) => return Err(error.clone().into()),
                    Some(Ok(summary)) => return Err(past_the_end(offset, buffer.len(), summary.raw_size)),
                    None => end = self.shared.wait(end),
                }
            }
        }
        self.raw.read_at(offset, buffer)
    }

    fn size(&self) -> io::Result<u64> {
        if self.in_place {
            return self.raw.size();
        }
        Ok(self.join()?.raw_size)
    }

    fn known_size(&self) -> io::Result<Option<u64>> {
        if self.in_place {
            return self.raw.known_size();
        }
        match &*self.shared.lock() {
            Some(result) => Ok(Some(result.clone()?.raw_size)),
            None => Ok(None),
        }
    }
}

impl Drop for DecodedImage {
    fn drop(&mut self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was already told to readers as `DecodeError::Died`.
            let _ = thread.join();
        }
    }
}
