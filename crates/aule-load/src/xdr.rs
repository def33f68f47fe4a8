//! XDR (RFC 4506): values from the bytes of a reply, and onto the bytes of a call.

use crate::failure::{Result, failure};

/// Reads values one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.0.split_at_checked(length) else { return failure("a reply is too short") };
        self.0 = rest;
        Ok(taken)
    }

    /// An unsigned integer of 32 bits.
    pub(crate) fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes(bytes.first_chunk().copied().unwrap_or_default()))
    }

    /// An unsigned hyper integer.
    pub(crate) fn u64(&mut self) -> Result<u64> {
        let bytes = self.take(8)?;
        Ok(u64::from_be_bytes(bytes.first_chunk().copied().unwrap_or_default()))
    }

    /// A boolean.
    pub(crate) fn bool(&mut self) -> Result<bool> {
        Ok(self.u32()? != 0)
    }

    /// Opaque data, its padding left out.
    pub(crate) fn opaque(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()? as usize;
        let bytes = self.take(length)?;
        self.take(padding(length))?;
        Ok(bytes)
    }

    /// Skips what is not looked at.
    pub(crate) fn skip(&mut self, length: usize) -> Result<()> {
        self.take(length).map(drop)
    }
}

/// How many zeros follow opaque data of this length.
fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

/// Appends an unsigned integer of 32 bits.
pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends an unsigned hyper integer.
pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends opaque data with its length before and its padding behind it.
pub(crate) fn put_opaque(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(bytes);
    out.resize(out.len() + padding(bytes.len()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_can_be_read() {
        let mut bytes = Vec::new();
        put_u32(&mut bytes, 7);
        put_opaque(&mut bytes, b"hello");
        put_u64(&mut bytes, 1 << 40);
        let mut reader = Reader(&bytes);
        assert_eq!((reader.u32(), reader.opaque(), reader.u64()), (Ok(7), Ok(b"hello".as_slice()), Ok(1 << 40)));
        assert!(reader.bool().is_err());
        assert!(Reader(b"\0\0\0\x09abc").opaque().is_err());
    }
}
