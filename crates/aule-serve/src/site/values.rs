//! Values of a site file that have a form of their own: serial numbers, Ethernet addresses, networks.

use serde::Deserialize;
use std::{fmt, net::IpAddr, str::FromStr};

/// The last 32 bits of a Pi's serial number, as its firmware writes them: eight lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(pub u32);

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// A network of addresses, such as `192.168.1.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

/// A value that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{given}` is no {what}; expected {expected}")]
pub struct ValueError {
    given: String,
    what: &'static str,
    expected: &'static str,
}

impl FromStr for Serial {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError {
            given: text.chars().take(40).collect(),
            what: "serial number",
            expected: "8 or 16 hex digits",
        };
        // /proc/cpuinfo shows sixteen digits; the firmware asks with the last eight.
        let last = match text.len() {
            8 => text,
            16 => text.get(8..).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        };
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        u32::from_str_radix(last, 16).map(Serial).map_err(|_| wrong())
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for Mac {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError {
            given: text.chars().take(40).collect(),
            what: "Ethernet address",
            expected: "six pairs of hex digits: `dc:a6:32:00:00:01`",
        };
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            if !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Mac(bytes)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Network {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError {
            given: text.chars().take(60).collect(),
            what: "network",
            expected: "an address and how many of its bits count: `192.168.1.0/24`",
        };
        let (address, length) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            "" if !text.contains('/') => most,
            digits => digits.parse().ok().filter(|length| *length <= most).ok_or_else(wrong)?,
        };
        Ok(Network { address, length })
    }
}

impl Network {
    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, true),
            IpAddr::V6(address) => (u128::from(address), false),
        };
        let ((ours, ours_v4), (theirs, theirs_v4)) = (bits(self.address), bits(address));
        let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
        ours_v4 == theirs_v4 && (ours ^ theirs) & mask == 0
    }
}

macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}
as_text!(Serial, Mac);

macro_rules! from_text {
    ($($kind:ty),*) => {$(
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
from_text!(Serial, Mac, Network);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_every_form() {
        assert_eq!("10000000abcdef01".parse(), Ok(Serial(0xabcd_ef01)));
        assert_eq!(Serial(0xabcd).to_string(), "0000abcd");
        assert_eq!("dc:a6:32:0a:0B:0c".parse::<Mac>().unwrap().to_string(), "dc:a6:32:0a:0b:0c");
        for wrong in ["dc:a6:32:0a:0b", "dc:a6:32:0a:0b:0c:0d", "dc:a6:32:0a:0b:+c", "", "é:a6:32:0a:0b:0c"] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
        for wrong in ["", "1.2.3.4/", "1.2.3.4/-1", "x/8", "1.2.3/8"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!(!"0.0.0.0/0".parse::<Network>().unwrap().contains("::8".parse().unwrap()));
    }
}
