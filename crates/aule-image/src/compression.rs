//! What a file is compressed with, told by its first bytes.

/// The forms in which an image comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// The .xz format, one or several streams.
    Xz,
    /// Zstandard frames (RFC 8878).
    Zstd,
    /// gzip members (RFC 1952).
    Gzip,
    /// A ZIP archive with the image as its member.
    Zip,
    /// Not compressed, or not in a form known here.
    Raw,
}

impl Compression {
    /// The word that messages use.
    pub fn word(self) -> &'static str {
        match self {
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
            Compression::Gzip => "gzip",
            Compression::Zip => "zip",
            Compression::Raw => "raw",
        }
    }
}

/// How many bytes [`detect`] looks at.
pub const DETECT_LENGTH: usize = 6;

/// Tells the compression from the first [`DETECT_LENGTH`] bytes (fewer when the file has fewer).
pub fn detect(head: &[u8]) -> Compression {
    match head {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame may come first (RFC 8878, section 3.1.2).
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0x1f, 0x8b, 8, ..] => Compression::Gzip,
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Compression::Zip,
        _ => Compression::Raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_formats_by_magic() {
        let cases: [(&[u8], Compression); 8] = [
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x28\xb5\x2f\xfd\x04\0", Compression::Zstd),
            (b"\x5a\x2a\x4d\x18\x04\0", Compression::Zstd),
            (b"\x1f\x8b\x08\0\0\0", Compression::Gzip),
            (b"PK\x03\x04\x14\0", Compression::Zip),
            (b"\xfd7zXZ", Compression::Raw),
            (b"", Compression::Raw),
            (b"\0\0\0\0\0\0", Compression::Raw),
        ];
        for (head, wanted) in cases {
            assert_eq!(detect(head), wanted, "{head:?}");
        }
    }
}
