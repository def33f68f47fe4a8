//! TFTP packets (RFC 1350) with the options of RFC 2347, 2348, 2349 and 7440. Bytes in, values out: no I/O.

/// The longest request that is read: names and options far beyond what any client sends.
const REQUEST_MAX: usize = 512;
/// What a block has without the option.
pub(crate) const BLOCK_DEFAULT: u16 = 512;
/// What a block may have at most (RFC 2348).
const BLOCK_MAX: u64 = 65_464;
/// The most blocks that are sent without waiting.
const WINDOW_MAX: u64 = 64;
/// The longest timeout that is granted, in seconds: a client that is gone keeps its place for some of them.
const TIMEOUT_MAX: u8 = 30;

/// A packet of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    /// It wants to read.
    Read(Request),
    /// It wants to write, which nobody may here.
    Write,
    /// It has all blocks up to this one.
    Acknowledge(u16),
    /// It gives up, and says why.
    Error {
        /// RFC 1350, appendix; 8 is: options refused.
        code: u16,
    },
}

/// A request to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The file.
    pub(crate) name: Vec<u8>,
    /// Whether its bytes are wanted as they are.
    pub(crate) octet: bool,
    /// What it asks for.
    pub(crate) options: Options,
}

/// What a client asks for; what cannot be granted is left out of the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Bytes of a block: 8 to 65464.
    pub(crate) block: Option<u16>,
    /// It wants to know the size of the file.
    pub(crate) size: bool,
    /// Seconds before a packet is sent again: 1 to 30, of the 255 that one may ask for.
    pub(crate) timeout: Option<u8>,
    /// Blocks that are sent without waiting: 1 and more.
    pub(crate) window: Option<u16>,
}

impl Options {
    /// Whether there is nothing to answer.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Options::default()
    }
}

impl Packet {
    /// Reads a packet; `None` when it is none that a client sends.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Packet> {
        let (kind, rest) = bytes.split_first_chunk::<2>()?;
        match u16::from_be_bytes(*kind) {
            1 if rest.len() <= REQUEST_MAX => Some(Packet::Read(request(rest)?)),
            2 => Some(Packet::Write),
            4 => Some(Packet::Acknowledge(u16::from_be_bytes(*rest.first_chunk()?))),
            5 => Some(Packet::Error { code: u16::from_be_bytes(*rest.first_chunk()?) }),
            _ => None,
        }
    }
}

fn request(bytes: &[u8]) -> Option<Request> {
    // Every text ends with a NUL; some clients forget the last one.
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    let mut texts = bytes.split(|&byte| byte == 0);
    let name = texts.next().filter(|name| !name.is_empty())?.to_vec();
    let octet = texts.next()?.eq_ignore_ascii_case(b"octet");
    let mut options = Options::default();
    while let (Some(option), Some(value)) = (texts.next(), texts.next()) {
        let number = std::str::from_utf8(value).ok().filter(|it| it.bytes().all(|b| b.is_ascii_digit()));
        let Some(number) = number.and_then(|it| it.parse::<u64>().ok()) else { continue };
        match option.to_ascii_lowercase().as_slice() {
            b"blksize" if number >= 8 => options.block = u16::try_from(number.min(BLOCK_MAX)).ok(),
            b"tsize" => options.size = true,
            b"timeout" if number >= 1 => options.timeout = u8::try_from(number).ok().filter(|it| *it <= TIMEOUT_MAX),
            b"windowsize" if number >= 1 => options.window = u16::try_from(number.min(WINDOW_MAX)).ok(),
            _ => {}
        }
    }
    Some(Request { name, octet, options })
}

/// The answer to options: those that are granted.
pub(crate) fn options(granted: &Options, size: u64) -> Vec<u8> {
    let mut packet = vec![0, 6];
    let mut add = |name: &str, value: u64| {
        packet.extend_from_slice(name.as_bytes());
        packet.push(0);
        packet.extend_from_slice(value.to_string().as_bytes());
        packet.push(0);
    };
    if granted.size {
        add("tsize", size);
    }
    if let Some(block) = granted.block {
        add("blksize", block.into());
    }
    if let Some(timeout) = granted.timeout {
        add("timeout", timeout.into());
    }
    if let Some(window) = granted.window {
        add("windowsize", window.into());
    }
    packet
}

/// The head of a block; its bytes follow.
pub(crate) fn data(block: u16) -> [u8; 4] {
    let [high, low] = block.to_be_bytes();
    [0, 3, high, low]
}

/// An error (RFC 1350, appendix).
pub(crate) fn error(code: u16, message: &str) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    [&[0, 5, high, low], message.as_bytes(), b"\0"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Request {
        match Packet::parse(bytes) {
            Some(Packet::Read(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_of_real_clients() {
        // Raspberry Pi 4.
        let request = read(b"\0\x015a1d3c2b/start4.elf\0octet\0tsize\x000\0blksize\x001468\0");
        assert_eq!(request.name, b"5a1d3c2b/start4.elf");
        assert_eq!(request.options, Options { block: Some(1468), size: true, ..Options::default() });
        // atftp; U-Boot; a client that forgets the last NUL.
        let request = read(b"\0\x01a\0OCTET\0timeout\x005\0windowsize\x0016\0BLKSIZE\x0065464");
        let wanted = Options { block: Some(65464), timeout: Some(5), window: Some(16), size: false };
        assert_eq!((request.options, request.octet), (wanted, true));
        assert!(!read(b"\0\x01a\0netascii\0").octet);
        assert!(read(b"\0\x01a\0octet\0").options.is_empty());
    }

    #[test]
    fn what_cannot_be_granted_is_left_out_or_lowered() {
        for (option, wanted) in [
            (&b"blksize\x007"[..], Options::default()),
            (b"blksize\x00999999", Options { block: Some(65464), ..Options::default() }),
            (b"blksize\x00-5", Options::default()),
            (b"blksize\0\xff", Options::default()),
            (b"timeout\x000", Options::default()),
            (b"timeout\x0031", Options::default()),
            (b"timeout\x00256", Options::default()),
            (b"windowsize\x0065535", Options { window: Some(64), ..Options::default() }),
            (b"windowsize\x0099999999999999999999", Options::default()),
            (b"multicast\0", Options::default()),
        ] {
            let packet = [b"\0\x01a\0octet\0", option, b"\0"].concat();
            assert_eq!(read(&packet).options, wanted, "{}", option.escape_ascii());
        }
    }

    #[test]
    fn odd_packets_are_nothing() {
        for bytes in
            [&b""[..], b"\0", b"\0\x01", b"\0\x01\0octet\0", b"\0\x01a", b"\0\x03\0\x01abc", b"\0\x04\0", b"\0\x09xx"]
        {
            assert_eq!(Packet::parse(bytes), None, "{}", bytes.escape_ascii());
        }
        assert_eq!(Packet::parse(&[b"\0\x01".as_slice(), &[b'a'; 600]].concat()), None);
        assert_eq!(Packet::parse(b"\0\x04\x12\x34"), Some(Packet::Acknowledge(0x1234)));
        assert_eq!(Packet::parse(b"\0\x05\0\x08\0"), Some(Packet::Error { code: 8 }));
        assert_eq!(Packet::parse(b"\0\x02a\0octet\0"), Some(Packet::Write));
    }

    #[test]
    fn answers_are_as_the_rfcs_write_them() {
        let granted = Options { block: Some(1468), size: true, timeout: None, window: Some(16) };
        assert_eq!(options(&granted, 77), b"\0\x06tsize\x0077\0blksize\x001468\0windowsize\x0016\0");
        assert_eq!(error(1, "no"), b"\0\x05\0\x01no\0");
        assert_eq!(data(0x102), [0, 3, 1, 2]);
    }
}
