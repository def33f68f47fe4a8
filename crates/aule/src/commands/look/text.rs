//! How things of a tree look as text: modes, paths, and columns.

use aule_tree::{Digest, Inode, Kind, TreePath};

/// Mode as `ls -l` writes it: `drwxr-xr-x`; a `+` follows when there are extended attributes.
pub(super) fn mode(inode: &Inode) -> String {
    let kind = match inode.kind {
        Kind::Directory => 'd',
        Kind::File(_) => '-',
        Kind::Symlink(_) => 'l',
        Kind::CharDevice { .. } => 'c',
        Kind::BlockDevice { .. } => 'b',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
    };
    let bits = inode.metadata.mode;
    let mut text = String::from(kind);
    // For owner, group and others: where their bits lie, the special bit, and its letter.
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        text.push(if bits >> shift & 4 != 0 { 'r' } else { '-' });
        text.push(if bits >> shift & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & special != 0, bits >> shift & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    if !inode.metadata.xattrs.is_empty() {
        text.push('+');
    }
    text
}

/// Bytes as text of one line: control characters and what is not UTF-8 as `\x1b`.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                let mut bytes = [0; 4];
                let encoded = character.encode_utf8(&mut bytes);
                encoded.bytes().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
            } else {
                text.push(character);
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// A path from `/`, escaped.
pub(super) fn path(path: &TreePath) -> String {
    format!("/{}", escape(path.as_bytes()))
}

/// Bytes for JSON: the text itself where it is UTF-8, else escaped, and then with the bytes in hex beside it.
pub(super) fn for_json(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (escape(bytes), Some(hex(bytes))),
    }
}

/// Bytes in hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A digest short enough for a column.
pub(super) fn short(digest: Digest) -> String {
    digest.to_string().chars().take("sha256:".len() + 12).collect()
}

/// `1 file`, `2 files`.
pub(super) fn count(number: u64, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// Which side of a column the cells lie on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Rows of cells, each column as wide as its widest cell.
pub(super) struct Columns {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
    indent: &'static str,
}

impl Columns {
    /// Columns on these sides.
    pub(super) fn new(indent: &'static str, sides: impl Into<Vec<Side>>) -> Self {
        Columns { sides: sides.into(), rows: Vec::new(), indent }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The lines, without blanks at their ends.
    pub(super) fn render(&self) -> String {
        let mut widths = vec![0; self.sides.len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::from(self.indent);
            for (number, ((cell, &width), side)) in row.iter().zip(&widths).zip(&self.sides).enumerate() {
                if number > 0 {
                    line.push_str("  ");
                }
                match side {
                    Side::Left => line.push_str(&format!("{cell:<width$}")),
                    Side::Right => line.push_str(&format!("{cell:>width$}")),
                }
            }
            text.push_str(line.trim_end_matches(' '));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aule_tree::{Metadata, Timestamp};

    #[test]
    fn modes_look_as_ls_writes_them() {
        for (bits, kind, wanted) in [
            (0o755, Kind::Directory, "drwxr-xr-x"),
            (0o1777, Kind::Directory, "drwxrwxrwt"),
            (0o4755, Kind::Fifo, "prwsr-xr-x"),
            (0o6644, Kind::Socket, "srwSr-Sr--"),
            (0o1000, Kind::CharDevice { major: 1, minor: 3 }, "c--------T"),
            (0o777, Kind::Symlink(b"x".to_vec()), "lrwxrwxrwx"),
        ] {
            let metadata = Metadata::root_owned(bits, Timestamp::default());
            assert_eq!(mode(&Inode { metadata, kind }), wanted);
        }
    }

    #[test]
    fn odd_names_stay_on_their_line() {
        assert_eq!(escape("Größe".as_bytes()), "Größe");
        assert_eq!(escape(b"a\nb\x1b[1m"), "a\\x0ab\\x1b[1m");
        assert_eq!(escape(b"n\xf6n"), "n\\xf6n");
        assert_eq!(for_json(b"a\nb"), ("a\nb".into(), None));
        assert_eq!(for_json(b"n\xf6n"), ("n\\xf6n".into(), Some("6ef66e".into())));
    }

    #[test]
    fn columns_are_aligned() {
        let mut columns = Columns::new("  ", [Side::Left, Side::Right, Side::Left]);
        columns.row(["a", "1", "x"]);
        columns.row(["Größe", "100", ""]);
        assert_eq!(columns.render(), "  a        1  x\n  Größe  100\n");
    }
}
