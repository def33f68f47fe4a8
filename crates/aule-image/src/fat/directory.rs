//! Directory records: short names with Windows NT's case flags, long names, dates.

use super::{boot_sector::trimmed, codepage};
use crate::bytes::{array, u8_at, u16_at, u32_at};
use aule_tree::Timestamp;

const RECORD: usize = 32;
const ATTRIBUTE_VOLUME: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;
/// A long name has up to 20 records of 13 units.
const MAX_LONG_RECORDS: u8 = 20;
const UNITS: usize = 13;

/// 1980-01-01, where DOS dates begin.
pub(super) const EPOCH: Timestamp = Timestamp::from_seconds(315_532_800);

/// A file or directory, without `.` and `..`.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) is_directory: bool,
    pub(super) cluster: u32,
    pub(super) size: u32,
    pub(super) mtime: Timestamp,
}

/// The parts of a long name, which come last part first.
struct LongName {
    units: Vec<[u16; UNITS]>,
    /// How many parts are still to come.
    missing: u8,
    checksum: u8,
}

/// All records of a directory, and the volume label if one is among them.
pub(super) fn records(bytes: &[u8], is_32: bool) -> Result<(Vec<Record>, Option<Vec<u8>>), String> {
    let mut found = Vec::new();
    let mut label = None;
    let mut long: Option<LongName> = None;
    for raw in bytes.chunks_exact(RECORD) {
        let first = u8_at(raw, 0);
        let attributes = u8_at(raw, 11);
        if first == 0 {
            break;
        }
        if first == 0xe5 {
            long = None;
        } else if attributes & 0x3f == ATTRIBUTE_LONG_NAME {
            long = long_part(long, raw);
        } else if attributes & ATTRIBUTE_VOLUME != 0 {
            long = None;
            label.get_or_insert_with(|| trimmed(raw.get(..11).unwrap_or_default()));
        } else {
            let short: [u8; 11] = array(raw, 0);
            let complete = long.take().filter(|long| long.missing == 0 && long.checksum == checksum(&short));
            let name = match complete {
                Some(long) => long.text()?,
                None => short_name(&short, u8_at(raw, 12)),
            };
            if name == "." || name == ".." {
                continue;
            }
            if name.is_empty() || name.contains('\0') {
                return Err("a name is empty or holds NUL".into());
            }
            let high = if is_32 { u32::from(u16_at(raw, 20)) << 16 } else { 0 };
            found.push(Record {
                name,
                is_directory: attributes & ATTRIBUTE_DIRECTORY != 0,
                cluster: high | u32::from(u16_at(raw, 26)),
                size: u32_at(raw, 28),
                mtime: timestamp(u16_at(raw, 24), u16_at(raw, 22)),
            });
        }
    }
    Ok((found, label))
}

/// Takes in one part. Parts that do not fit together are dropped, as the short name still counts (section "Long Names").
fn long_part(long: Option<LongName>, raw: &[u8]) -> Option<LongName> {
    let order = u8_at(raw, 0);
    let (number, is_last) = (order & 0x3f, order & 0x40 != 0);
    let mut units = [0; UNITS];
    let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
    for (unit, place) in units.iter_mut().zip(places) {
        *unit = u16_at(raw, place);
    }
    if is_last {
        let is_possible = (1..=MAX_LONG_RECORDS).contains(&number);
        return is_possible.then(|| LongName { units: vec![units], missing: number - 1, checksum: u8_at(raw, 13) });
    }
    let mut long = long.filter(|long| long.missing == number && number > 0 && long.checksum == u8_at(raw, 13))?;
    long.units.push(units);
    long.missing -= 1;
    Some(long)
}

impl LongName {
    fn text(&self) -> Result<String, String> {
        let units: Vec<u16> = self.units.iter().rev().flatten().copied().take_while(|&unit| unit != 0).collect();
        let text = String::from_utf16(&units);
        text.map_err(|_| format!("the name `{}` is not UTF-16", String::from_utf16_lossy(&units)))
    }
}

/// What ties a long name to its short one (section "Long Name Checksum").
pub(crate) fn checksum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0, |sum: u8, &byte| sum.rotate_right(1).wrapping_add(byte))
}

/// `NAME.EXT` from its 11 bytes; bits 3 and 4 of the case flags say that name and extension are in lower case.
fn short_name(short: &[u8; 11], case: u8) -> String {
    let (base, extension) = short.split_at(8);
    let part = |bytes: &[u8], lower: bool| {
        let text: String = bytes.iter().map(|&byte| codepage::decode(byte)).collect();
        let text = text.trim_end_matches(' ');
        if lower { text.to_lowercase() } else { text.to_owned() }
    };
    let mut base = base.to_vec();
    // 0xE5 marks deleted records, so a name that begins with it has 0x05 there.
    if let Some(first) = base.first_mut().filter(|first| **first == 0x05) {
        *first = 0xe5;
    }
    let (base, extension) = (part(&base, case & 0x08 != 0), part(extension, case & 0x10 != 0));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

/// A DOS date and time, taken as UTC. Impossible parts are brought into range, as Linux does (`fat_time_fat2unix`).
fn timestamp(date: u16, time: u16) -> Timestamp {
    let (year, month, day) = (i64::from(date >> 9) + 1980, i64::from((date >> 5) & 15).clamp(1, 12), date & 31);
    let seconds = i64::from(time >> 11) * 3600 + i64::from((time >> 5) & 63) * 60 + i64::from(time & 31) * 2;
    Timestamp::from_seconds(days(year, month, i64::from(day.max(1))) * 86400 + seconds)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
pub(crate) fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before_year = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    before_year + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 2, 29), 11016);
        assert_eq!(timestamp(0, 0), EPOCH);
        // 2026-11-22 18:26:42
        assert_eq!(timestamp(46 << 9 | 11 << 5 | 22, 18 << 11 | 26 << 5 | 21), Timestamp::from_seconds(1_795_372_002));
    }

    #[test]
    fn short_names() {
        for (bytes, case, wanted) in [
            (b"KERNEL8 IMG", 0, "KERNEL8.IMG"),
            (b"KERNEL8 IMG", 0x18, "kernel8.img"),
            (b"CONFIG  TXT", 0x10, "CONFIG.txt"),
            (b"A          ", 0x08, "a"),
            (b"\x05BC        ", 0, "σBC"),
            (b"\x81         B", 0, "ü.  B"),
        ] {
            assert_eq!(short_name(bytes, case), wanted);
        }
    }
}
