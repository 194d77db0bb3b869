//! The text of a runbook, module or parameter file, and places in it. Reads nothing from disk.

use std::sync::Arc;

/// A half-open byte range in a [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// A span of `length` bytes.
    #[must_use]
    pub fn of(start: usize, length: usize) -> Self {
        Self { start, end: start.saturating_add(length) }
    }
}

/// A named text that findings point into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
}

impl Source {
    /// Makes a source; `name` is what messages call it: a path, or `command line`.
    #[must_use]
    pub fn new(name: impl AsRef<str>, text: impl AsRef<str>) -> Self {
        Self { name: Arc::from(name.as_ref()), text: Arc::from(text.as_ref()) }
    }

    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a span; empty where the span does not fit.
    #[must_use]
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or("")
    }

    /// Line and column of a byte, both from 1, the column in characters.
    #[must_use]
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let before = self.text.get(..self.clamp(byte)).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }

    /// The line that holds a byte, without its end.
    #[must_use]
    pub fn line_at(&self, byte: usize) -> &str {
        let byte = self.clamp(byte);
        let start = self.text.get(..byte).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let rest = self.text.get(start..).unwrap_or("");
        rest.split('\n').next().unwrap_or("").trim_end_matches('\r')
    }

    /// A span cut to the text, to character boundaries and to its first line.
    #[must_use]
    pub fn first_line(&self, span: Span) -> Span {
        let start = self.clamp(span.start);
        let end = self.clamp(span.end.max(start));
        let text = self.text.get(start..end).unwrap_or("");
        let length = text.split('\n').next().unwrap_or("").trim_end().len();
        Span::of(start, length)
    }

    fn clamp(&self, byte: usize) -> usize {
        let mut byte = byte.min(self.text.len());
        while !self.text.is_char_boundary(byte) {
            byte -= 1;
        }
        byte
    }
}
