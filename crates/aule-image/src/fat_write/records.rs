//! Directory records of 32 bytes (specification, sections "FAT Directory Structure" and "Long Names").

use crate::fat::{checksum, days};
use aule_tree::Timestamp;

pub(super) const LENGTH: usize = 32;
const ATTRIBUTE_VOLUME: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTE_ARCHIVE: u8 = 0x20;
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;
/// UTF-16 units in one record of a long name.
pub(super) const UNITS: usize = 13;

/// The record of a file or directory.
pub(super) fn short(name: &[u8; 11], is_directory: bool, mtime: Timestamp, cluster: u32, size: u32) -> [u8; LENGTH] {
    let attribute = if is_directory { ATTRIBUTE_DIRECTORY } else { ATTRIBUTE_ARCHIVE };
    record(name, attribute, mtime, cluster, size)
}

/// The record in the root directory that Linux takes the label from.
pub(super) fn volume_label(label: &[u8; 11]) -> [u8; LENGTH] {
    record(label, ATTRIBUTE_VOLUME, Timestamp::default(), 0, 0)
}

fn record(name: &[u8; 11], attribute: u8, mtime: Timestamp, cluster: u32, size: u32) -> [u8; LENGTH] {
    let (date, time) = dos_time(mtime);
    let ([d0, d1], [t0, t1]) = (date.to_le_bytes(), time.to_le_bytes());
    let [c0, c1, c2, c3] = cluster.to_le_bytes();
    let [s0, s1, s2, s3] = size.to_le_bytes();
    let [n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10] = *name;
    [
        n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, attribute, //
        0, 0, // Case flags, tenths of a second.
        t0, t1, d0, d1, // Creation.
        d0, d1, // Last access.
        c2, c3, //
        t0, t1, d0, d1, // Last modification.
        c0, c1, s0, s1, s2, s3,
    ]
}

/// The records of a long name, which come before the short one and begin with the name's end.
pub(super) fn long(units: &[u16], short: &[u8; 11]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let parts: Vec<_> = units.chunks(UNITS).collect();
    for (index, part) in parts.iter().enumerate().rev() {
        let last = if index + 1 == parts.len() { 0x40 } else { 0 };
        // A NUL ends the name where there is room, then 0xFFFF fills it.
        let padded = part.iter().copied().chain([0]).chain([0xffff; UNITS]).take(UNITS);
        let mut text = padded.flat_map(u16::to_le_bytes);
        bytes.push(last | (index + 1) as u8);
        bytes.extend(text.by_ref().take(10));
        bytes.extend([ATTRIBUTE_LONG_NAME, 0, checksum(short)]);
        bytes.extend(text.by_ref().take(12));
        bytes.extend([0, 0]);
        bytes.extend(text);
    }
    bytes
}

/// Date and time as DOS keeps them, brought into the range that they have.
fn dos_time(time: Timestamp) -> (u16, u16) {
    let first = days(1980, 1, 1) * 86400;
    let last = days(2108, 1, 1) * 86400 - 2;
    let seconds = time.seconds.clamp(first, last);
    let (day, second) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    let (year, month, day_of_month) = civil(day);
    let date = (year - 1980) << 9 | month << 5 | day_of_month;
    let time = (second / 3600) << 11 | (second / 60 % 60) << 5 | (second % 60 / 2);
    (date as u16, time as u16)
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01; only for 1980 to 2107.
fn civil(day: i64) -> (i64, i64, i64) {
    let mut year = 1970 + day / 366;
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days(year, month + 1, 1) <= day {
        month += 1;
    }
    (year, month, day - days(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_to_the_range_of_dos() {
        let date = |year: u16, month: u16, day: u16| (year - 1980) << 9 | month << 5 | day;
        let time = |hour: u16, minute: u16, second: u16| hour << 11 | minute << 5 | (second / 2);
        for (seconds, wanted) in [
            (i64::MIN, (date(1980, 1, 1), 0)),
            (0, (date(1980, 1, 1), 0)),
            (951_868_799, (date(2000, 2, 29), time(23, 59, 58))),
            (951_868_800, (date(2000, 3, 1), 0)),
            (1_795_372_003, (date(2026, 11, 22), time(18, 26, 42))),
            (i64::MAX, (date(2107, 12, 31), time(23, 59, 58))),
        ] {
            assert_eq!(dos_time(Timestamp::from_seconds(seconds)), wanted, "{seconds}");
        }
    }

    #[test]
    fn long_names_are_in_reverse() {
        let units: Vec<u16> = "bcm2711-rpi-4-b.dtb".encode_utf16().collect();
        let bytes = long(&units, b"BCM271~1DTB");
        assert_eq!(bytes.len(), 2 * LENGTH);
        assert_eq!((bytes[0], bytes[LENGTH]), (0x42, 0x01));
        assert_eq!(bytes[1..11], *b"-\x00b\0.\0d\0t\0");
        assert_eq!(bytes[14..26], *b"b\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(bytes[LENGTH + 1], b'b');
        assert_eq!(long(&[97; 13], b"AAAAAA~1   ").len(), LENGTH);
    }
}
