//! Random access to bytes: files, memory, and windows into either.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

/// Random access to an image's bytes, from several threads at once.
pub trait ReadAt: Send + Sync {
    /// Fills all of `buffer` with the bytes from `offset` (bytes from the start).
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the range passes the end; nothing may then be assumed about `buffer`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The size in bytes. For an image that is still being decoded this waits for the end.
    ///
    /// # Errors
    /// When the size cannot be found out, or decoding failed.
    fn size(&self) -> io::Result<u64>;

    /// The size if it is known without waiting.
    ///
    /// # Errors
    /// As [`ReadAt::size`].
    fn known_size(&self) -> io::Result<Option<u64>> {
        self.size().map(Some)
    }
}

/// The error for a range past the end.
pub(crate) fn past_the_end(offset: u64, length: usize, size: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{length} bytes at byte {offset} pass the end of the image ({size} bytes): it is truncated or corrupt"),
    )
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self.read_exact_at(buffer, offset) {
            // An offset that pread(2) cannot take at all is EINVAL.
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) => {
                Err(past_the_end(offset, buffer.len(), self.size()?))
            }
            result => result,
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = usize::try_from(offset).ok().and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        let bytes = range.ok_or_else(|| past_the_end(offset, buffer.len(), self.len() as u64))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, buffer)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buffer)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }

    fn known_size(&self) -> io::Result<Option<u64>> {
        (**self).known_size()
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buffer)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }

    fn known_size(&self) -> io::Result<Option<u64>> {
        (**self).known_size()
    }
}

/// A part of another image, such as a partition.
#[derive(Clone)]
pub struct Window {
    inner: Arc<dyn ReadAt>,
    offset: u64,
    length: u64,
}

impl Window {
    /// The `length` bytes of `inner` from `offset`. Whether `inner` is that long shows when it is read.
    pub fn new(inner: Arc<dyn ReadAt>, offset: u64, length: u64) -> Self {
        Window { inner, offset, length }
    }
}

impl ReadAt for Window {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= self.length);
        let start = self.offset.checked_add(offset);
        match (end, start) {
            (Some(_), Some(start)) => self.inner.read_at(start, buffer),
            _ => Err(past_the_end(offset, buffer.len(), self.length)),
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.length)
    }
}

/// [`ReadAt`] as a stream with a position, for code that wants `Read + Seek`.
pub struct Cursor<R> {
    inner: R,
    position: u64,
}

impl<R: ReadAt> Cursor<R> {
    /// A stream that starts at byte 0 of `inner`.
    pub fn new(inner: R) -> Self {
        Cursor { inner, position: 0 }
    }
}

impl<R: ReadAt> io::Read for Cursor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.inner.size()?.saturating_sub(self.position);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let target = buffer.get_mut(..length).unwrap_or_default();
        self.inner.read_at(self.position, target)?;
        self.position += length as u64;
        Ok(length)
    }
}

impl<R: ReadAt> io::Seek for Cursor<R> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let position = match to {
            io::SeekFrom::Start(position) => Some(position),
            io::SeekFrom::Current(by) => self.position.checked_add_signed(by),
            io::SeekFrom::End(by) => self.inner.size()?.checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a seek before byte 0"))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn every_source_reads_alike_and_stops_at_its_end() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let mut padded = vec![9; 7];
        padded.extend(&bytes);
        padded.extend([9; 3]);
        let window = Window::new(Arc::new(padded), 7, 100);
        let sources: [&dyn ReadAt; 4] = [&file, &bytes, &bytes.as_slice(), &window];
        for source in sources {
            let mut buffer = [0; 10];
            source.read_at(90, &mut buffer).unwrap();
            assert_eq!(buffer, bytes[90..]);
            source.read_at(100, &mut []).unwrap();
            for offset in [91, 101, u64::MAX] {
                assert_eq!(source.read_at(offset, &mut buffer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            }
            assert_eq!(source.size().unwrap(), 100);
        }
    }

    #[test]
    fn a_cursor_reads_and_seeks() {
        let mut cursor = Cursor::new(b"0123456789".as_slice());
        cursor.seek(io::SeekFrom::End(-4)).unwrap();
        let mut rest = String::new();
        cursor.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "6789");
        assert!(cursor.seek(io::SeekFrom::Current(-11)).is_err());
    }
}
