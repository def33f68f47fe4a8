//! `aule.attrs`: modes and owners of an overlay's files, as git keeps only the executable bit.
//!
//! Each line names a path relative to the overlay and what differs from the rule (0644 or 0755, owner root):
//!
//! ```text
//! # comment
//! etc/sudoers.d/admin   mode=0440
//! var/lib/app           mode=0750 owner=app group=app
//! ```

use aule_recipe::{Mode, Principal};
use std::collections::BTreeMap;

/// The file's name in the overlay; it is not put into the image.
pub(crate) const FILE_NAME: &[u8] = b"aule.attrs";

/// What a line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: Option<u16>,
    pub(crate) owner: Option<Principal>,
    pub(crate) group: Option<Principal>,
}

/// Parses the file. An error names the line, from 1, and what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<Vec<u8>, Attributes>, (usize, String)> {
    let mut all = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(path) = words.next() else { continue };
        let wrong = |what: String| (number + 1, what);
        let mut attributes = Attributes::default();
        for word in words {
            let (key, value) =
                word.split_once('=').ok_or_else(|| wrong(format!("expected `key=value`, found `{word}`")))?;
            match key {
                "mode" => {
                    let mode: Mode = value.parse().map_err(|error| wrong(format!("{error}")))?;
                    attributes.mode = Some(mode.bits());
                }
                "owner" => attributes.owner = Some(value.parse().map_err(|error| wrong(format!("{error}")))?),
                "group" => attributes.group = Some(value.parse().map_err(|error| wrong(format!("{error}")))?),
                _ => return Err(wrong(format!("unknown key `{key}`; known are mode, owner, group"))),
            }
        }
        if attributes == Attributes::default() {
            return Err(wrong(format!("nothing is said of `{path}`; expected mode=, owner= or group=")));
        }
        let path = path.trim_matches('/').as_bytes().to_vec();
        if all.insert(path.clone(), attributes).is_some() {
            return Err(wrong(format!("`{}` is named twice", String::from_utf8_lossy(&path))));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_refuses() {
        let parsed = parse("# c\n\netc/x mode=0440\n/var/y/ mode=1777 owner=app group=7 # why\n").unwrap();
        assert_eq!(parsed[b"etc/x".as_slice()].mode, Some(0o440));
        let y = &parsed[b"var/y".as_slice()];
        assert_eq!((y.mode, &y.group), (Some(0o1777), &Some(Principal::Id(7))));
        for (text, line, wanted) in [
            ("a mode=9", 1, ""),
            ("\na moder=0644", 2, "unknown key `moder`"),
            ("a mode", 1, "expected `key=value`"),
            ("a", 1, "nothing is said"),
            ("a mode=0644\na mode=0600", 2, "named twice"),
        ] {
            let (at, what) = parse(text).unwrap_err();
            assert!(at == line && what.contains(wanted), "{text}: {at} {what}");
        }
    }
}
