//! The worker threads that compress: batches go in, come out in order, and no thread count shows in the bytes.

use super::table::Frame;
use crate::{BlobWriter, Result, StoreError};
use aule_tree::{Digest, Hasher};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::{
    io::{self, Write},
    thread::{self, JoinHandle},
};

/// How many batches may be under way; with [`BATCH`] it bounds the memory.
const BATCHES: usize = 24;
/// A batch goes to a worker when it holds this many bytes.
const BATCH: usize = 512 << 10;
/// Or when it holds frames of this many bytes uncompressed: a worker may have to keep those, too.
const PLAIN: usize = 2 << 20;

/// A run of bytes within a batch.
enum Segment {
    /// This many bytes, which become one frame. With `digest`, their SHA-256 is wanted.
    Plain { length: usize, digest: bool },
    /// A frame that is compressed already, with its compressed and its plain length.
    Frame(usize, usize),
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// How many bytes they are uncompressed.
    plain: usize,
    segments: Vec<Segment>,
}

/// What a worker makes of a batch.
struct Compressed {
    /// Frames, one after the other.
    bytes: Vec<u8>,
    /// Compressed and plain length of each frame, and the digest where it was wanted.
    frames: Vec<(usize, usize, Option<Digest>)>,
    /// The uncompressed bytes, where the archive's digest is wanted.
    plain: Vec<u8>,
}

/// What was written in all.
pub(super) struct Written {
    pub(super) blob: BlobWriter,
    pub(super) length: u64,
    pub(super) frames: Vec<Frame>,
    /// By number of the frame; in ascending order.
    pub(super) digests: Vec<(usize, Digest)>,
    /// The digest of the uncompressed bytes.
    pub(super) diff_id: Option<Digest>,
}

type Reply = io::Result<Compressed>;

/// Takes bytes and frames in order, compresses on several threads, and writes in order.
pub(super) struct Compressor {
    work: Sender<(Batch, Sender<Reply>)>,
    order: Sender<Receiver<Reply>>,
    workers: Vec<JoinHandle<()>>,
    output: JoinHandle<Result<Written>>,
    batch: Batch,
    next_frame: usize,
}

impl Compressor {
    /// A compressor with `jobs` workers that writes into `blob`.
    pub(super) fn start(blob: BlobWriter, level: i32, jobs: usize, diff_id: bool) -> Result<Self> {
        let (work, inbox) = bounded::<(Batch, Sender<Reply>)>(BATCHES);
        let (order, replies) = bounded::<Receiver<Reply>>(BATCHES);
        let spawn = |source| StoreError::Io { action: "start a thread for", path: "a layer".into(), source };
        let mut workers = Vec::new();
        for number in 0..jobs.max(1) {
            let inbox = inbox.clone();
            let thread = thread::Builder::new().name(format!("compress-{number}"));
            workers.push(thread.spawn(move || work_off(&inbox, level, diff_id)).map_err(spawn)?);
        }
        let output = thread::Builder::new()
            .name("write-layer".into())
            .spawn(move || write_in_order(blob, &replies, diff_id))
            .map_err(spawn)?;
        Ok(Compressor { work, order, workers, output, batch: Batch::default(), next_frame: 0 })
    }

    /// Adds bytes as one frame; gives the frame's number.
    pub(super) fn plain(&mut self, bytes: &[u8], digest: bool) -> Result<usize> {
        self.batch.bytes.extend_from_slice(bytes);
        self.batch.plain += bytes.len();
        self.batch.segments.push(Segment::Plain { length: bytes.len(), digest });
        self.next_frame += 1;
        self.send_when_full()?;
        Ok(self.next_frame - 1)
    }

    /// Adds a frame that is compressed already and has `plain` bytes uncompressed; gives its number.
    pub(super) fn frame(&mut self, bytes: &[u8], plain: usize) -> Result<usize> {
        self.batch.bytes.extend_from_slice(bytes);
        self.batch.plain += plain;
        self.batch.segments.push(Segment::Frame(bytes.len(), plain));
        self.next_frame += 1;
        self.send_when_full()?;
        Ok(self.next_frame - 1)
    }

    fn send_when_full(&mut self) -> Result<()> {
        let Batch { bytes, plain, segments } = &self.batch;
        let full = bytes.len() >= BATCH || *plain >= PLAIN || segments.len() >= 4096;
        if full { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let (reply, result) = bounded(1);
        if self.order.send(result).is_err() || self.work.send((batch, reply)).is_err() {
            return Err(stopped("its writer stopped early"));
        }
        Ok(())
    }

    /// Waits for everything to be written. Also after a failed call: then the error is the cause of that failure.
    pub(super) fn finish(mut self) -> Result<Written> {
        let sent = if self.batch.segments.is_empty() { Ok(()) } else { self.send() };
        drop((self.work, self.order));
        for worker in self.workers {
            if worker.join().is_err() {
                return Err(stopped("a compression thread panicked"));
            }
        }
        let written = self.output.join().map_err(|_| stopped("the writing thread panicked"))??;
        sent.map(|()| written)
    }
}

fn stopped(reason: &str) -> StoreError {
    StoreError::Layer { layer: "that is being written".into(), reason: reason.into() }
}

fn work_off(inbox: &Receiver<(Batch, Sender<Reply>)>, level: i32, keep_plain: bool) {
    let mut compressor = zstd::bulk::Compressor::new(level);
    for (batch, reply) in inbox {
        let result = match &mut compressor {
            Ok(compressor) => compress(compressor, batch, keep_plain),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        // Nobody listens any more when the writer has failed; its error is the one that is reported.
        let _ = reply.send(result);
    }
}

fn compress(compressor: &mut zstd::bulk::Compressor<'_>, batch: Batch, keep_plain: bool) -> Reply {
    let Batch { bytes, segments, plain: _ } = batch;
    let mut out = Vec::with_capacity(bytes.len() / 2);
    let mut frames = Vec::with_capacity(segments.len());
    let mut plain = Vec::new();
    let copied = segments.iter().any(|segment| matches!(segment, Segment::Frame(..)));
    let mut rest = bytes.as_slice();
    let mut take = |length: usize| -> io::Result<&[u8]> {
        let (taken, left) = rest.split_at_checked(length).ok_or_else(|| io::Error::other("a batch is too short"))?;
        rest = left;
        Ok(taken)
    };
    for segment in segments {
        match segment {
            Segment::Plain { length, digest } => {
                let data = take(length)?;
                let frame = compressor.compress(data)?;
                frames.push((frame.len(), length, digest.then(|| Digest::of(data))));
                out.extend_from_slice(&frame);
                if keep_plain && copied {
                    plain.extend_from_slice(data);
                }
            }
            Segment::Frame(compressed, length) => {
                let frame = take(compressed)?;
                frames.push((compressed, length, None));
                out.extend_from_slice(frame);
                if keep_plain {
                    plain.extend_from_slice(&zstd::bulk::decompress(frame, length)?);
                }
            }
        }
    }
    if keep_plain && !copied {
        plain = bytes;
    }
    Ok(Compressed { bytes: out, frames, plain })
}

fn write_in_order(mut blob: BlobWriter, replies: &Receiver<Receiver<Reply>>, diff_id: bool) -> Result<Written> {
    let mut hasher = diff_id.then(Hasher::new);
    let (mut frames, mut digests) = (Vec::new(), Vec::new());
    let mut offset = 0;
    for reply in replies {
        let compressed = match reply.recv() {
            Ok(result) => {
                result.map_err(|source| StoreError::Io { action: "compress", path: "a layer".into(), source })?
            }
            Err(_) => return Err(stopped("a compression thread stopped early")),
        };
        if let Some(hasher) = &mut hasher {
            hasher.update(&compressed.plain);
        }
        for (length, plain, digest) in compressed.frames {
            if let Some(digest) = digest {
                digests.push((frames.len(), digest));
            }
            frames.push(Frame { offset, length: length as u64, plain: plain as u64 });
            offset += length as u64;
        }
        blob.write_all(&compressed.bytes).map_err(StoreError::io("write", "a layer in the store"))?;
    }
    Ok(Written { blob, length: offset, frames, digests, diff_id: hasher.map(Hasher::finish) })
}
