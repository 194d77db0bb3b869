//! What the checker says: findings with a place, the line itself and a hint. Decides nothing about colour.

use crate::source::{Source, Span};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};
use serde::Serialize;
use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing runs while it stands.
    Error,
    /// Worth a look.
    Warning,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable word for it, e.g. `unknown-field`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// The file, or `command line`.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// How many characters are meant, for the caret.
    pub length: usize,
    /// The line itself.
    pub source_line: String,
    /// What to do about it.
    pub hint: Option<String>,
    #[serde(skip)]
    source: NamedSource<String>,
    #[serde(skip)]
    span: Span,
}

impl Finding {
    /// An error at a place.
    #[must_use]
    pub fn error(code: &'static str, source: &Source, span: Span, message: impl Into<String>) -> Self {
        let span = source.first_line(span);
        let (line, column) = source.position(span.start);
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            file: source.name().to_owned(),
            line,
            column,
            length: source.slice(span).chars().count().max(1),
            source_line: source.line_at(span.start).to_owned(),
            hint: None,
            source: NamedSource::new(source.name(), source.text().to_owned()),
            span,
        }
    }

    /// A warning at a place.
    #[must_use]
    pub fn warning(code: &'static str, source: &Source, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, source, span, message) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        if !hint.is_empty() {
            self.hint = Some(hint);
        }
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Finding {}

impl Diagnostic for Finding {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let length = self.span.end.saturating_sub(self.span.start);
        Some(Box::new(std::iter::once(LabeledSpan::new(None, self.span.start, length))))
    }
}

/// Everything that was found, in the order of files and places.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct Findings {
    /// The findings.
    pub list: Vec<Finding>,
}

impl Findings {
    /// Adds one.
    pub fn push(&mut self, finding: Finding) {
        self.list.push(finding);
    }

    /// True when one of them stops everything.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Sorted by place, each once.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.list.sort_by(|a, b| {
            (&a.file, a.line, a.column, a.code, &a.message).cmp(&(&b.file, b.line, b.column, b.code, &b.message))
        });
        self.list.dedup_by(|a, b| {
            (&a.file, a.line, a.column, a.code, &a.message) == (&b.file, b.line, b.column, b.code, &b.message)
        });
        self
    }

    /// The fancy report: each finding with its line, a caret and its hint.
    #[must_use]
    pub fn render(&self, color: bool, width: usize) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width.max(40)).with_context_lines(1);
        let mut text = String::new();
        for finding in &self.list {
            if handler.render_report(&mut text, finding).is_err() {
                text.push_str(&finding.message);
            }
        }
        text
    }

    /// One line per finding: `file:line:column: error[code]: message (hint)`.
    #[must_use]
    pub fn plain(&self) -> String {
        let mut text = String::new();
        for finding in &self.list {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            text.push_str(&format!(
                "{}:{}:{}: {severity}[{}]: {}\n  | {}\n  | {}{}\n",
                finding.file,
                finding.line,
                finding.column,
                finding.code,
                finding.message,
                finding.source_line,
                " ".repeat(finding.column.saturating_sub(1)),
                "^".repeat(finding.length),
            ));
            if let Some(hint) = &finding.hint {
                text.push_str(&format!("  = {hint}\n"));
            }
        }
        text
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.plain())
    }
}

impl std::error::Error for Findings {}

/// The near matches of a name among candidates, as a hint: `did you mean 'vpc'?`, or what there is.
#[must_use]
pub(crate) fn near<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = candidates.into_iter().collect();
    all.sort_unstable();
    all.dedup();
    let mut close: Vec<(f64, &str)> = all
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), *candidate))
        .filter(|(score, candidate)| *score > 0.82 || slips(name, candidate))
        .collect();
    close.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    if let Some((best, _)) = close.first().copied() {
        close.retain(|(score, candidate)| *score > best - 0.1 || slips(name, candidate));
    }
    let quoted = |names: &[&str]| names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    if close.is_empty() {
        return match all.as_slice() {
            [only] => format!("there is only '{only}'"),
            [_, ..] if all.len() <= 12 => format!("there are {}", quoted(&all)),
            _ => String::new(),
        };
    }
    let names: Vec<&str> = close.iter().take(3).map(|(_, name)| *name).collect();
    format!("did you mean {}?", quoted(&names))
}

/// True when one or two slips of the keyboard lie between the names.
fn slips(name: &str, candidate: &str) -> bool {
    let allowed = match name.chars().count() {
        0..=2 => 0,
        3..=4 => 1,
        _ => 2,
    };
    strsim::osa_distance(name, candidate) <= allowed
}
