//! Names: what FAT allows, long names in UTF-16, and the short names beside them.

use super::{FatWriteError, Node, records};
use aule_tree::TreePath;
use std::collections::{HashMap, HashSet};

/// The longest name in UTF-16 units.
const MAX_UNITS: usize = 255;

/// The long and the short name of a file or directory.
#[derive(Debug, Default)]
pub(super) struct Names {
    text: String,
    /// Empty when the short name says all.
    long: Vec<u16>,
    short: [u8; 11],
}

impl Names {
    /// Checks the name of `path`. The short name comes later, as it depends on the neighbours.
    pub(super) fn new(path: &TreePath) -> Result<Self, FatWriteError> {
        let Ok(text) = std::str::from_utf8(path.name()) else {
            return Err(FatWriteError::NotUtf8 { path: path.clone() });
        };
        let is_forbidden =
            |character: &char| matches!(character, '\0'..='\x1f' | '\x7f') || "\"*/:<>?\\|".contains(*character);
        if let Some(character) = text.chars().find(is_forbidden) {
            return Err(FatWriteError::Character { path: path.clone(), character });
        }
        if text.ends_with(['.', ' ']) {
            return Err(FatWriteError::NameEnd { path: path.clone() });
        }
        let long: Vec<u16> = text.encode_utf16().collect();
        // A name in a tree has at most 255 bytes, so it has no more units.
        debug_assert!(long.len() <= MAX_UNITS);
        let is_short = plain_short(text).is_some() && !text.bytes().any(|byte| byte.is_ascii_lowercase());
        Ok(Names { text: text.into(), long: if is_short { Vec::new() } else { long }, short: [b' '; 11] })
    }

    pub(super) fn short(&self) -> &[u8; 11] {
        &self.short
    }

    /// How many records it takes.
    pub(super) fn records(&self) -> usize {
        1 + self.long.len().div_ceil(records::UNITS)
    }

    pub(super) fn long_records(&self) -> Vec<u8> {
        records::long(&self.long, &self.short)
    }
}

/// Gives every child of one directory its short name, in canonical order.
pub(super) fn assign_short_names(nodes: &mut [Node<'_>], children: &[usize]) -> Result<(), FatWriteError> {
    let mut by_case: HashMap<String, usize> = HashMap::new();
    let mut taken: HashSet<[u8; 11]> = HashSet::new();
    let mut waiting = Vec::new();
    for &child in children {
        let Some(node) = nodes.get(child) else { continue };
        if let Some(&other) = by_case.get(&node.names.text.to_uppercase()) {
            let second = node.path.clone();
            let first = nodes.get(other).map_or_else(|| second.clone(), |other| other.path.clone());
            return Err(FatWriteError::Case { first, second });
        }
        by_case.insert(node.names.text.to_uppercase(), child);
        // Names that are short already come first, so that a made-up name never takes one of them.
        match plain_short(&node.names.text) {
            Some(short) => {
                taken.insert(short);
                if let Some(node) = nodes.get_mut(child) {
                    node.names.short = short;
                }
            }
            None => waiting.push(child),
        }
    }
    // Where the search for a free number goes on, for each name before its number.
    let mut numbers: HashMap<Vec<u8>, u32> = HashMap::new();
    for child in waiting {
        let Some(node) = nodes.get_mut(child) else { continue };
        let (base, extension) = stem(&node.names.text);
        loop {
            let number = numbers.entry([base.as_slice(), b".", &extension].concat()).or_insert(0);
            *number += 1;
            let tail = format!("~{number}");
            let base = base.get(..base.len().min(8 - tail.len().min(8))).unwrap_or_default();
            let short = padded(&[base, tail.as_bytes()].concat(), &extension);
            if taken.insert(short) {
                node.names.short = short;
                break;
            }
        }
    }
    Ok(())
}

/// The name as 8.3 when that says all but its case.
fn plain_short(text: &str) -> Option<[u8; 11]> {
    let (base, extension) = text.split_once('.').unwrap_or((text, ""));
    let fits = (1..=8).contains(&base.len()) && extension.len() <= 3 && !(extension.is_empty() && text.contains('.'));
    let is_plain = base.bytes().chain(extension.bytes()).all(is_short_byte);
    (fits && is_plain).then(|| padded(base.to_ascii_uppercase().as_bytes(), extension.to_ascii_uppercase().as_bytes()))
}

/// What a short name may hold, but for other code pages.
fn is_short_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"$%'-_@~`!(){}^#&".contains(&byte)
}

/// The start of a made-up short name, and its extension (section "The Basis-Name Generation Algorithm").
fn stem(text: &str) -> (Vec<u8>, Vec<u8>) {
    let text = text.trim_start_matches(['.', ' ']);
    let (base, extension) = text.rsplit_once('.').unwrap_or((text, ""));
    let fold = |part: &str, length: usize| -> Vec<u8> {
        let kept = part.chars().filter(|character| !matches!(character, ' ' | '.'));
        let mapped = kept.map(|character| match u8::try_from(character) {
            Ok(byte) if is_short_byte(byte) => byte.to_ascii_uppercase(),
            _ => b'_',
        });
        mapped.take(length).collect()
    };
    (fold(base, 6), fold(extension, 3))
}

fn padded(base: &[u8], extension: &[u8]) -> [u8; 11] {
    let mut short = [b' '; 11];
    let (first, last) = short.split_at_mut(8);
    for (target, source) in [(first, base), (last, extension)] {
        for (to, from) in target.iter_mut().zip(source) {
            *to = *from;
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use aule_tree::Timestamp;

    fn shorts(names: &[&str]) -> Vec<String> {
        let mut nodes: Vec<Node<'_>> = names
            .iter()
            .map(|name| {
                let path = TreePath::new(name).unwrap();
                let names = Names::new(&path).unwrap();
                Node::directory(path, Timestamp::default(), 0, names)
            })
            .collect();
        let all: Vec<usize> = (0..names.len()).collect();
        assign_short_names(&mut nodes, &all).unwrap();
        nodes.iter().map(|node| String::from_utf8(node.names.short.to_vec()).unwrap()).collect()
    }

    #[test]
    fn short_names_are_made_and_differ() {
        let names = [
            "BCM271~1.DTB",
            "bcm2711-a.dtb",
            "bcm2711-b.dtb",
            "config.txt",
            "KERNEL",
            ".hidden",
            "a+b.c",
            "ä b.tar.gz",
            "x.",
        ];
        let wanted = [
            "BCM271~1DTB",
            "BCM271~2DTB",
            "BCM271~3DTB",
            "CONFIG  TXT",
            "KERNEL     ",
            "HIDDEN~1   ",
            "A_B~1   C  ",
            "_BTAR~1 GZ ",
        ];
        assert_eq!(shorts(&names[..8]), wanted);
        assert!(Names::new(&TreePath::new(names[8]).unwrap()).is_err());
        let many: Vec<String> = (0..1200).map(|index| format!("long name {index}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let made = shorts(&many);
        assert_eq!(made.iter().collect::<HashSet<_>>().len(), 1200);
        assert_eq!(made[1199], "LON~1200   ");
    }

    #[test]
    fn only_upper_case_short_names_stand_alone() {
        for (name, records) in [
            ("KERNEL8.IMG", 1),
            ("kernel8.img", 2),
            ("A.B.C", 2),
            ("cmdline.txt", 2),
            ("1234567890123", 2),
            ("12345678901234", 3),
        ] {
            assert_eq!(Names::new(&TreePath::new(name).unwrap()).unwrap().records(), records, "{name}");
        }
    }
}
