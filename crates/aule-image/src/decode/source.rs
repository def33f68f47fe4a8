//! The compressed bytes: buffered, counted and hashed on their way to the decoder.

use super::{DecodeError, Shared};
use aule_tree::{Digest, Hasher};
use std::{
    io::{self, BufRead, Read},
    sync::{Arc, atomic::Ordering},
};

const BUFFER: usize = 1 << 20;

pub(super) struct Source {
    inner: Box<dyn Read + Send>,
    hasher: Hasher,
    buffer: Vec<u8>,
    /// `buffer[start..end]` was read and not yet consumed.
    start: usize,
    end: usize,
    /// Bytes read from `inner`.
    read: u64,
    shared: Arc<Shared>,
    /// An error of `inner` (or a cancellation), so that it is told apart from errors of a decoder on top.
    failure: Option<DecodeError>,
}

impl Source {
    pub(super) fn new(inner: Box<dyn Read + Send>, shared: Arc<Shared>) -> Self {
        let buffer = vec![0; BUFFER];
        Source { inner, hasher: Hasher::new(), buffer, start: 0, end: 0, read: 0, shared, failure: None }
    }

    /// How many bytes were consumed.
    pub(super) fn position(&self) -> u64 {
        self.read - (self.end - self.start) as u64
    }

    /// The unread bytes at hand, more from the input when there are none; empty at the end.
    pub(super) fn fill(&mut self) -> Result<&[u8], DecodeError> {
        if self.start == self.end {
            self.shared.check_cancelled()?;
            self.start = 0;
            self.end = loop {
                match self.inner.read(&mut self.buffer) {
                    Ok(length) => break length.min(self.buffer.len()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => self.shared.check_cancelled()?,
                    Err(error) => {
                        self.end = 0;
                        return Err(DecodeError::Read { position: self.read, error: Arc::new(error) });
                    }
                }
            };
            self.hasher.update(self.buffer.get(..self.end).unwrap_or_default());
            self.read += self.end as u64;
            self.shared.consumed.store(self.read, Ordering::Relaxed);
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    /// Marks `length` of the bytes at hand as consumed.
    pub(super) fn advance(&mut self, length: usize) {
        self.start = (self.start + length).min(self.end);
    }

    /// Reads what is left, for the digest.
    pub(super) fn drain(&mut self) -> Result<(), DecodeError> {
        loop {
            match self.fill()?.len() {
                0 => return Ok(()),
                length => self.advance(length),
            }
        }
    }

    /// The error that [`Read`] or [`BufRead`] had to pass on as an [`io::Error`].
    pub(super) fn take_failure(&mut self) -> Option<DecodeError> {
        self.failure.take()
    }

    /// Digest and number of all bytes.
    pub(super) fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.read)
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Err(error) = self.fill() {
            self.failure = Some(error.clone());
            return Err(error.into());
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, length: usize) {
        self.advance(length);
    }
}

impl Read for Source {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(target.len());
        if let (Some(to), Some(from)) = (target.get_mut(..length), bytes.get(..length)) {
            to.copy_from_slice(from);
        }
        self.consume(length);
        Ok(length)
    }
}
