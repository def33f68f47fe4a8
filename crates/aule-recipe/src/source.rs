//! The files that a recipe is read from: who gives their bytes, and which line stands where.

use std::io;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Location, Snippet};

/// Gives the bytes of recipe files. The crate opens nothing itself, so that it can be tested, fuzzed and run over an
/// archive as well as over a directory.
pub trait Sources {
    /// Reads one whole file.
    ///
    /// # Errors
    /// Whatever the file system says; it is shown to people with the path.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

impl<F: Fn(&Path) -> io::Result<Vec<u8>>> Sources for F {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self(path)
    }
}

/// Which file of a [`SourceMap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(usize);

/// A place in a file of a [`SourceMap`]: line and column count from 1, column and length in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) file: FileId,
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) length: u32,
}

impl Span {
    /// The place of what nobody wrote.
    pub(crate) const NOWHERE: Self = Self { file: FileId(usize::MAX), line: 1, column: 1, length: 1 };
}

/// One file that was read.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// The path as it was opened.
    pub(crate) path: PathBuf,
    /// The directory, relative to the directory of the main recipe, `/`-separated; empty for that directory itself.
    pub(crate) directory_name: String,
    text: String,
    line_starts: Vec<usize>,
}

/// All files that were read, in order.
#[derive(Debug, Default)]
pub(crate) struct SourceMap {
    files: Vec<SourceFile>,
}

/// A longer line is not copied into diagnostics: a one-line megabyte must not be multiplied by its own mistakes.
const LONGEST_SHOWN_LINE: usize = 4096;

impl SourceMap {
    /// Adds a file.
    pub(crate) fn add(&mut self, path: PathBuf, directory_name: String, text: String) -> FileId {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        self.files.push(SourceFile { path, directory_name, text, line_starts });
        FileId(self.files.len() - 1)
    }

    /// One file.
    pub(crate) fn file(&self, id: FileId) -> Option<&SourceFile> {
        self.files.get(id.0)
    }

    /// All files, in the order of reading.
    pub(crate) fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The text of a file.
    pub(crate) fn text(&self, id: FileId) -> &str {
        self.file(id).map_or("", |file| file.text.as_str())
    }

    /// Where a span begins.
    pub(crate) fn location(&self, span: Span) -> Location {
        let file = self.file(span.file).map(|file| file.path.clone()).unwrap_or_default();
        Location { file, line: span.line, column: span.column }
    }

    /// The place with its line of text.
    pub(crate) fn snippet(&self, span: Span) -> Snippet {
        let text = self.file(span.file).map_or("", |file| file.line(span.line));
        let text = if text.len() > LONGEST_SHOWN_LINE { "" } else { text };
        Snippet { location: self.location(span), text: text.to_owned(), length: span.length.max(1), label: None }
    }

    /// A mistake at a place.
    pub(crate) fn diagnostic(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(message).at(self.snippet(span))
    }
}

impl SourceFile {
    fn line(&self, line: u32) -> &str {
        let index = (line as usize).saturating_sub(1);
        let start = self.line_starts.get(index).copied().unwrap_or(self.text.len());
        let end = self.line_starts.get(index + 1).map_or(self.text.len(), |next| next - 1);
        self.text.get(start..end).unwrap_or("").trim_end_matches('\r')
    }
}
