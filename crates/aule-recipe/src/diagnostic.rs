//! What people read when a recipe is wrong: what happened, where (file, line, column, the line itself), what was
//! expected and what to do. Rendered as plain text by `Display` and as JSON by serde.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::limits::MAX_DIAGNOSTICS;

/// A place in a file that a person wrote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Location {
    /// The file, named as the caller or the recipe named it.
    pub file: PathBuf,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A location together with the line of text that stands there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snippet {
    /// Where the text begins.
    #[serde(flatten)]
    pub location: Location,
    /// The whole line, without its line break.
    pub text: String,
    /// How many characters of the line are meant, from the column on; at least 1.
    pub length: u32,
    /// What to say under the marked characters, such as what was expected there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// What is wrong, in one line, without the place.
    pub message: String,
    /// Where; absent where the mistake has no place, such as a file that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Snippet>,
    /// Other places that matter, such as the first of two duplicates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Snippet>,
    /// More about it, a line an entry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What to do about it, one hint an entry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub help: Vec<String>,
}

impl Diagnostic {
    /// A mistake without a place yet.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), at: None, related: Vec::new(), notes: Vec::new(), help: Vec::new() }
    }

    /// Says where it is.
    #[must_use]
    pub fn at(mut self, snippet: Snippet) -> Self {
        self.at = Some(snippet);
        self
    }

    /// Says what stands, or should stand, at the marked place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        if let Some(at) = &mut self.at {
            at.label = Some(label.into());
        }
        self
    }

    /// Adds another place, with what to say about it.
    #[must_use]
    pub fn related(mut self, mut snippet: Snippet, label: impl Into<String>) -> Self {
        snippet.label = Some(label.into());
        self.related.push(snippet);
        self
    }

    /// Adds a line that says more.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// The place, if there is one.
    pub fn location(&self) -> Option<&Location> {
        self.at.as_ref().map(|snippet| &snippet.location)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", printable(&self.message))?;
        let snippets = self.at.iter().chain(&self.related);
        let width = snippets.clone().map(|s| s.location.line.to_string().len()).max().unwrap_or(0);
        for (index, snippet) in snippets.enumerate() {
            let arrow = if index == 0 { "-->" } else { ":::" };
            write!(f, "\n{:width$}{arrow} {}", "", printable(&snippet.location.to_string()))?;
            write_snippet(f, snippet, width)?;
        }
        for note in &self.notes {
            write!(f, "\n{:width$} = note: {}", "", printable(note))?;
        }
        for help in &self.help {
            write!(f, "\n{:width$} = help: {}", "", printable(help))?;
        }
        Ok(())
    }
}

/// Characters of a line that are shown at most, so that a one-line megabyte does not fill the terminal.
const SHOWN_CHARACTERS: usize = 120;

fn write_snippet(f: &mut fmt::Formatter<'_>, snippet: &Snippet, width: usize) -> fmt::Result {
    let characters: Vec<char> = snippet.text.chars().collect();
    let column = (snippet.location.column.max(1) as usize - 1).min(characters.len());
    // A long line is shown from a little before the marked place.
    let start = if characters.len() > SHOWN_CHARACTERS { column.saturating_sub(30) } else { 0 };
    let end = characters.len().min(start + SHOWN_CHARACTERS);
    let shown: String = characters.get(start..end).unwrap_or_default().iter().collect();
    let before = if start > 0 { "…" } else { "" };
    let after = if end < characters.len() { "…" } else { "" };
    let indent = column - start + before.chars().count();
    let marked = (snippet.length as usize).clamp(1, (end.saturating_sub(column)).max(1));
    write!(f, "\n{:width$} |", "")?;
    write!(f, "\n{:>width$} | {before}{}{after}", snippet.location.line, printable(&shown).trim_end())?;
    write!(f, "\n{:width$} | {:indent$}{}", "", "", "^".repeat(marked))?;
    if let Some(label) = &snippet.label {
        write!(f, " {}", printable(label))?;
    }
    Ok(())
}

/// A terminal must not be steered by what a recipe holds: control characters and those that change the direction of
/// text are replaced, one for one so that the markers stay in place.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// One or more mistakes; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// The mistakes, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// Adds the same hint to each.
    pub(crate) fn with_help(mut self, help: &str) -> Self {
        self.0.iter_mut().for_each(|diagnostic| diagnostic.help.push(help.to_owned()));
        self
    }

    /// The first mistake.
    pub fn first(&self) -> Option<&Diagnostic> {
        self.0.first()
    }
}

/// Mistakes while they are being gathered: repeats are dropped, and beyond [`MAX_DIAGNOSTICS`] they are only counted,
/// so that a hostile file cannot fill the memory with its own mistakes.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    kept: Vec<Diagnostic>,
    dropped: usize,
}

impl Gathered {
    /// Adds one mistake.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if self.kept.len() >= MAX_DIAGNOSTICS {
            self.dropped += 1;
        } else if !self.kept.contains(&diagnostic) {
            self.kept.push(diagnostic);
        }
    }

    /// Adds all mistakes of another check.
    pub(crate) fn extend(&mut self, diagnostics: Diagnostics) {
        for diagnostic in diagnostics.0 {
            self.push(diagnostic);
        }
    }

    /// The mistake that was gathered last.
    pub(crate) fn last_mut(&mut self) -> Option<&mut Diagnostic> {
        self.kept.last_mut()
    }

    /// Nothing was gathered.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// `Err` with what was gathered, or `Ok` where nothing was.
    pub(crate) fn check(mut self) -> Result<(), Diagnostics> {
        if self.dropped > 0 {
            self.kept.push(Diagnostic::new(format!("{} more errors are not shown", self.dropped)));
        }
        if self.kept.is_empty() { Ok(()) } else { Err(Diagnostics(self.kept)) }
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
