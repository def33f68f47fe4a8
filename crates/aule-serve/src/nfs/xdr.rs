//! XDR (RFC 4506): bounded reading from bytes, writing to bytes. Everything is a multiple of four bytes, big-endian.

/// Bytes that are not what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the arguments cannot be understood")]
pub(crate) struct Garbage;

/// Reads values one after the other. Nothing is allocated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader of these bytes.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Garbage> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Garbage)?;
        self.0 = rest;
        Ok(taken)
    }

    /// An unsigned integer of 32 bits.
    pub(crate) fn u32(&mut self) -> Result<u32, Garbage> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().map_err(|_| Garbage)?))
    }

    /// An unsigned hyper integer.
    pub(crate) fn u64(&mut self) -> Result<u64, Garbage> {
        Ok(u64::from_be_bytes(self.take(8)?.try_into().map_err(|_| Garbage)?))
    }

    /// Opaque data of at most `limit` bytes. Its padding must be there; that it be zeros (RFC 4506, 4.10) is not asked for,
    /// as klibc sends what lay in its memory.
    pub(crate) fn opaque(&mut self, limit: usize) -> Result<&'a [u8], Garbage> {
        let length = self.u32()? as usize;
        if length > limit {
            return Err(Garbage);
        }
        let bytes = self.take(length)?;
        self.take(length.next_multiple_of(4) - length)?;
        Ok(bytes)
    }
}

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    /// How many bytes were written.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// An unsigned integer of 32 bits.
    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// An unsigned hyper integer.
    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// A boolean.
    pub(crate) fn bool(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    /// Opaque data with its length before and its padding behind it. (Lengths here come from files and names that fit.)
    pub(crate) fn opaque(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len() + padding(bytes.len()), 0);
    }

    /// Puts another value in the place of one that was written at `at`.
    pub(crate) fn set_u32(&mut self, at: usize, value: u32) {
        if let Some(place) = self.0.get_mut(at..at + 4) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }
}

/// How many zeros follow opaque data of this length.
pub(crate) fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut writer = Writer::default();
        writer.u32(7);
        writer.u64(1 << 40);
        writer.opaque(b"hello");
        writer.bool(true);
        assert_eq!(writer.len() % 4, 0);
        let mut reader = Reader::new(&writer.0);
        assert_eq!((reader.u32(), reader.u64(), reader.opaque(5)), (Ok(7), Ok(1 << 40), Ok(b"hello".as_slice())));
        assert_eq!((reader.u32(), reader.u32()), (Ok(1), Err(Garbage)));
    }

    #[test]
    fn opaque_data_is_bounded() {
        for (bytes, wanted) in [
            (&b"\0\0\0\x03abc\0"[..], Ok(&b"abc"[..])),
            (b"\0\0\0\x03abcd", Ok(b"abc")),
            (b"\0\0\0\x03abc", Err(Garbage)),
            (b"\0\0\0\x05abcde\0\0\0", Err(Garbage)),
            (b"\xff\xff\xff\xff", Err(Garbage)),
            (b"\0\0", Err(Garbage)),
        ] {
            assert_eq!(Reader::new(bytes).opaque(4), wanted, "{bytes:?}");
        }
    }
}
