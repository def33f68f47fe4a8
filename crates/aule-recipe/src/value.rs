//! The small values that recipes and locks hold: modes, owners, digests, times, sizes, URLs. Each is parsed in one
//! place, by one rule, and says in words what it expects.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a value was refused: what was expected, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct ValueError {
    expected: &'static str,
}

fn refuse<T>(expected: &'static str) -> Result<T, ValueError> {
    Err(ValueError { expected })
}

/// Derives serde from `Display` and `FromStr`: one spelling everywhere.
macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Mode bits of a file: permissions, set-id and sticky bits; at most 0o7777.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mode(u16);

impl Mode {
    /// The bits.
    pub fn bits(self) -> u16 {
        self.0
    }
}

impl FromStr for Mode {
    type Err = ValueError;

    /// Three or four octal digits, with or without a leading `0`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits = text.strip_prefix('0').filter(|rest| rest.len() >= 3).unwrap_or(text);
        let is_octal = matches!(digits.len(), 3 | 4) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
        match u16::from_str_radix(digits, 8) {
            Ok(bits) if is_octal => Ok(Self(bits)),
            _ => refuse("an octal mode as a string, such as \"0644\" or \"4755\""),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

as_text!(Mode);

/// An owner or group: a number, or a name in the tree's own `/etc/passwd` or `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    /// A numeric id.
    Id(u32),
    /// A name.
    Name(String),
}

impl FromStr for Principal {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const EXPECTED: &str = "a user or group name, or a number from 0 to 4294967294";
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            // 2^32 - 1 is "no id" to the kernel.
            return match text.parse() {
                Ok(id) if id != u32::MAX => Ok(Self::Id(id)),
                _ => refuse(EXPECTED),
            };
        }
        // As shadow-utils: a letter or `_` first, at most 32 characters, `$` only last.
        let body = text.strip_suffix('$').unwrap_or(text);
        let valid = body.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.len() <= 32
            && body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if valid { Ok(Self::Name(text.to_owned())) } else { refuse(EXPECTED) }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A SHA-256 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl FromStr for Sha256 {
    type Err = ValueError;

    /// 64 hex digits, with or without `sha256:` before them.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut bytes = [0; 32];
        match hex::decode_to_slice(text.strip_prefix("sha256:").unwrap_or(text), &mut bytes) {
            Ok(()) => Ok(Self(bytes)),
            Err(_) => refuse("a SHA-256 digest: 64 hexadecimal digits"),
        }
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

as_text!(Sha256);

/// A moment in whole seconds since 1970-01-01T00:00:00Z, from 1980 to 2107: what a FAT directory can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

const EXPECTED_TIMESTAMP: &str = "a time from 1980 to 2107 such as 2025-11-01T00:00:00Z";

impl Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub fn seconds(self) -> i64 {
        self.0
    }
}

impl FromStr for Timestamp {
    type Err = ValueError;

    /// RFC 3339 with whole seconds.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        parse_timestamp(text).map_or_else(|| refuse(EXPECTED_TIMESTAMP), |seconds| Ok(Self(seconds)))
    }
}

fn parse_timestamp(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let has = |at: usize, letters: &str| text.get(at..=at).is_some_and(|c| letters.contains(c));
    if !(has(4, "-") && has(7, "-") && has(10, "Tt ") && has(13, ":") && has(16, ":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let offset = match text.get(19..)? {
        "Z" | "z" => 0,
        zone if zone.len() == 6 && has(22, ":") => {
            let (hours, minutes) = (number(20, 22)?, number(23, 25)?);
            let sign = if has(19, "+") { 1 } else { -1 };
            if !has(19, "+-") || hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 3600 + minutes * 60)
        }
        _ => return None,
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if !(1980..=2107).contains(&year) || !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    // Days since 1970-01-01 of the proleptic Gregorian calendar, years counted from March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    // An offset can carry the first and the last day over the edge.
    (315_532_800..4_354_819_200).contains(&seconds).then_some(seconds)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0.div_euclid(86_400), self.0.rem_euclid(86_400));
        let shifted = days + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let m = (5 * of_year + 2) / 153;
        let day = of_year - (153 * m + 2) / 5 + 1;
        let month = if m < 10 { m + 3 } else { m - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

as_text!(Timestamp);

/// An `http://` or `https://` URL without credentials.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Url(String);

/// Longest URL that is taken, in bytes.
const MAX_URL: usize = 2048;

impl Url {
    /// The URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text means to be a URL rather than a path: it has a scheme and `://`.
    pub(crate) fn looks_like(text: &str) -> bool {
        text.split_once("://").is_some_and(|(scheme, _)| {
            !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        })
    }
}

impl FromStr for Url {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
            return refuse("a URL that begins with https:// or http://");
        };
        if text.len() > MAX_URL
            || text.chars().any(|c| c.is_whitespace() || c.is_control() || "\"<>\\^`{|}".contains(c))
        {
            return refuse("a URL without blanks, quotes and the like (write them as %20), at most 2048 bytes long");
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return refuse("a URL without user name or password: recipes and locks are shared");
        }
        if authority.is_empty() || authority.starts_with(':') {
            return refuse("a URL with a host name");
        }
        if rest.contains('#') {
            return refuse("a URL without a `#` part");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A size in bytes: a number, or one with the unit K, M or G, also as KiB, MiB, GiB; all are powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, ValueError> {
    const EXPECTED: &str = "a size in whole sectors of 512 bytes from 1M to 64G, such as 512M";
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..) {
        Some("" | "B") => 1_u64,
        Some("K" | "KiB") => 1 << 10,
        Some("M" | "MiB") => 1 << 20,
        Some("G" | "GiB") => 1 << 30,
        _ => return refuse(EXPECTED),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)) {
        Some(bytes) if is_number && bytes % 512 == 0 && ((1 << 20)..=(64 << 30)).contains(&bytes) => Ok(bytes),
        _ => refuse(EXPECTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, bits) in
            [("0644", 0o644), ("644", 0o644), ("4755", 0o4755), ("04755", 0o4755), ("000", 0), ("7777", 0o7777)]
        {
            assert_eq!(text.parse(), Ok(Mode(bits)), "{text}");
        }
        for text in ["", "0", "64", "0o644", "0888", "12345", "007777", "rwx", "+644", "-644"] {
            assert!(text.parse::<Mode>().is_err(), "{text}");
        }
        assert_eq!(Mode(0o755).to_string(), "0755");
    }

    #[test]
    fn principals() {
        assert_eq!("0".parse(), Ok(Principal::Id(0)));
        assert_eq!("4294967294".parse(), Ok(Principal::Id(u32::MAX - 1)));
        assert_eq!("systemd-network".parse(), Ok(Principal::Name("systemd-network".into())));
        for text in ["", "4294967295", "99999999999", "root:root", "a b", "-x", "1a"] {
            assert!(text.parse::<Principal>().is_err(), "{text}");
        }
    }

    #[test]
    fn timestamps() {
        for (text, seconds) in [
            ("1980-01-01T00:00:00Z", 315_532_800),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2025-11-01T00:00:00Z", 1_761_955_200),
            ("2025-11-01T02:00:00+02:00", 1_761_955_200),
            ("2025-10-31t19:00:00-05:00", 1_761_955_200),
            ("2107-12-31T23:59:59Z", 4_354_819_199),
        ] {
            assert_eq!(text.parse(), Ok(Timestamp(seconds)), "{text}");
        }
        for text in [
            "",
            "2025-11-01",
            "2025-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-01-32T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:00:60Z",
            "2025-01-01T00:00:00",
            "2025-01-01T00:00:00.5Z",
            "1979-12-31T23:59:59Z",
            "1980-01-01T00:00:00+01:00",
            "2107-12-31T23:59:59-00:01",
            "2025-01-01T00:00:00*02:00",
            "２０25-01-01T00:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn timestamps_print_what_they_read() {
        for seconds in (315_532_800..4_354_819_200_i64).step_by(39_916_801) {
            let text = Timestamp(seconds).to_string();
            assert_eq!(text.parse(), Ok(Timestamp(seconds)), "{text}");
        }
    }

    #[test]
    fn urls() {
        for text in ["https://example.org/a%20b?x=1", "http://192.168.1.1:8080/", "https://h"] {
            assert!(text.parse::<Url>().is_ok(), "{text}");
        }
        for text in ["ftp://x/", "https://", "https://:80/", "https://u:p@h/", "https://h/a b", "https://h/#x", "x"] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
        assert!(Url::looks_like("ftp://x") && !Url::looks_like("a/b://c") && !Url::looks_like("../x"));
    }

    #[test]
    fn sizes_and_digests() {
        for (text, bytes) in [("512M", 512 << 20), ("1GiB", 1 << 30), ("1048576", 1 << 20), ("2048K", 2 << 20)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "1048577", "1MB", "-5M", "+5M", "99999999999999999999G", "1.5G", "512"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        let digest = "E3".repeat(32);
        assert_eq!(digest.parse::<Sha256>().unwrap().to_string(), "e3".repeat(32));
        assert!("e3".repeat(31).parse::<Sha256>().is_err());
    }
}
