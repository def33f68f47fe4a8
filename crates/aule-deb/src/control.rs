//! Paragraphs of fields, the form of control files, indices and of dpkg's database (deb822(5)).

/// A paragraph: the lines of its fields, as they stand in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paragraph<'a> {
    text: &'a str,
}

impl<'a> Paragraph<'a> {
    /// The first paragraph of a text.
    pub fn first(text: &'a str) -> Option<Paragraph<'a>> {
        paragraphs(text).next()
    }

    /// A text that is one paragraph.
    pub(crate) fn of(text: &'a str) -> Paragraph<'a> {
        Paragraph { text }
    }

    /// The fields in their order: the name, and the value without the white space around it. A value of several lines has them
    /// all, each following one with the space that it begins with.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut rest = self.text;
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let mut end = 0;
                // A field ends before the first line that does not go on.
                loop {
                    end += line(rest.get(end..)?);
                    if !rest.get(end..)?.starts_with([' ', '\t']) {
                        break;
                    }
                }
                let (field, after) = rest.split_at(end);
                rest = after;
                if let Some((name, value)) = field.split_once(':').filter(|(name, _)| !name.starts_with('#')) {
                    return Some((name.trim_end(), value.trim()));
                }
            }
            None
        })
    }

    /// The value of a field, whatever the case of its name.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The text, with the line feed after its last line where there is one.
    pub fn text(&self) -> &'a str {
        self.text
    }
}

/// The paragraphs of a text; lines that are empty or only white space are between them. Comments at the beginning of a
/// paragraph belong to it and are no fields.
pub fn paragraphs(text: &str) -> impl Iterator<Item = Paragraph<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        // Empty lines before it.
        while !rest.is_empty() && is_blank(rest.get(..line(rest))?) {
            rest = rest.get(line(rest)..)?;
        }
        if rest.is_empty() {
            return None;
        }
        let mut end = 0;
        while end < rest.len() {
            let next = rest.get(end..)?;
            let length = line(next);
            if is_blank(next.get(..length)?) {
                break;
            }
            end += length;
        }
        let (paragraph, after) = rest.split_at(end);
        rest = after;
        Some(Paragraph { text: paragraph })
    })
}

/// How long the first line is, with its line feed. (An index has a million lines: `memchr` looks at many bytes at a time.)
fn line(text: &str) -> usize {
    memchr::memchr(b'\n', text.as_bytes()).map_or(text.len(), |at| at + 1)
}

/// Whether a line is empty or only white space.
fn is_blank(line: &str) -> bool {
    // Nearly all begin with a letter.
    !line.starts_with(|it: char| it.is_ascii_graphic()) && line.trim().is_empty()
}

/// The lines of a value, without the white space around them and without those that are empty.
pub fn lines(value: &str) -> impl Iterator<Item = &str> {
    value.lines().map(str::trim).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_and_fields() {
        let text = "\n# a comment\nPackage: one\nVersion:1\nDescription: short\n long\n .\n: no\n\n \t\nPackage: two\nEmpty:\nOdd line\n\n\n";
        let all: Vec<_> = paragraphs(text).collect();
        assert_eq!(all.len(), 2);
        let fields: Vec<_> = all[0].fields().collect();
        assert_eq!(fields[..3], [("Package", "one"), ("Version", "1"), ("Description", "short\n long\n .")]);
        assert_eq!((all[0].get("VERSION"), all[0].get("Nothing")), (Some("1"), None));
        assert_eq!(all[1].fields().collect::<Vec<_>>(), [("Package", "two"), ("Empty", "")]);
        assert_eq!(lines("short\n long\n\n  more ").collect::<Vec<_>>(), ["short", "long", "more"]);
    }

    #[test]
    fn odd_texts_end() {
        for text in ["", "\n", "\n\n \n", "x", ":", "a:b", "a:b\n c", " a", "\n a:b", "a:\n\n\n", "#\n#", "ä:ö\n ü"]
        {
            for paragraph in paragraphs(text) {
                assert!(paragraph.fields().count() <= 1, "{text:?}");
            }
        }
    }
}
