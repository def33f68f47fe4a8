//! The raw image on its way to disk: zeros become holes, limits are kept, readers are told how far it got.

use super::{DecodeError, Limits, Shared};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering},
};

/// What is written, or left a hole, at once.
const PIECE: usize = 64 << 10;
const BUFFER: usize = 16 * PIECE;
static ZEROS: [u8; PIECE] = [0; PIECE];
/// [`Limits::expansion`] counts from here on.
const EXPANSION_FROM: u64 = 1 << 30;

pub(super) struct Sink {
    file: Arc<File>,
    shared: Arc<Shared>,
    limits: Limits,
    buffer: Vec<u8>,
    filled: usize,
    /// Bytes before the buffer.
    written: u64,
    stored: u64,
    /// Size of the file so far, as holes at its end do not show by themselves.
    file_size: u64,
}

impl Sink {
    pub(super) fn new(file: Arc<File>, shared: Arc<Shared>, limits: Limits) -> Self {
        Sink { file, shared, limits, buffer: vec![0; BUFFER], filled: 0, written: 0, stored: 0, file_size: 0 }
    }

    /// Room for decoded bytes; never empty.
    pub(super) fn space(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// Takes the first `length` bytes of [`Sink::space`].
    pub(super) fn advance(&mut self, length: usize) -> Result<(), DecodeError> {
        self.filled = (self.filled + length).min(BUFFER);
        if self.filled == BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DecodeError> {
        self.shared.check_cancelled()?;
        let total = self.written + self.filled as u64;
        if total > self.limits.raw_size {
            return Err(DecodeError::TooLarge { limit: self.limits.raw_size });
        }
        let input = self.shared.consumed.load(Ordering::Relaxed);
        if total > EXPANSION_FROM && total > input.saturating_mul(self.limits.expansion) {
            let limit = self.limits.expansion;
            return Err(DecodeError::Expansion { raw_size: total, input_size: input, limit });
        }
        let failed = |position, error| DecodeError::Write { position, error: Arc::new(error) };
        let filled = self.buffer.get(..self.filled).unwrap_or_default();
        let mut run_start = 0;
        let mut offset = 0;
        // Runs of pieces that hold data are written at once.
        for piece in filled.chunks(PIECE).map(Some).chain([None]) {
            if piece.is_none_or(|bytes| ZEROS.get(..bytes.len()) == Some(bytes)) {
                let run = filled.get(run_start..offset).unwrap_or_default();
                if !run.is_empty() {
                    let position = self.written + run_start as u64;
                    self.file.write_all_at(run, position).map_err(|e| failed(position, e))?;
                    self.stored += run.len() as u64;
                    self.file_size = position + run.len() as u64;
                }
                run_start = offset + piece.map_or(0, <[u8]>::len);
            }
            offset += piece.map_or(0, <[u8]>::len);
        }
        if self.file_size < total {
            self.file.set_len(total).map_err(|e| failed(total, e))?;
            self.file_size = total;
        }
        self.written = total;
        self.filled = 0;
        self.shared.publish(total);
        Ok(())
    }

    /// Writes the rest; gives the size and how much of it is stored.
    pub(super) fn finish(mut self) -> Result<(u64, u64), DecodeError> {
        self.flush()?;
        Ok((self.written, self.stored))
    }

    /// Copies everything from `decoder`, a stream of decoded bytes.
    pub(super) fn copy_from(&mut self, decoder: &mut dyn io::Read) -> Result<io::Result<()>, DecodeError> {
        loop {
            match decoder.read(self.space()) {
                Ok(0) => return Ok(Ok(())),
                Ok(length) => self.advance(length)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.shared.check_cancelled()?,
                Err(error) => return Ok(Err(error)),
            }
        }
    }
}
