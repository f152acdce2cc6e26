//! Findings of a check, each with its place.

use super::syntax::{Directive, Place};

/// Weight of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A problem that fails the check.
    Error,
    /// Advice, or a problem of a location that serves only in some cases.
    Warning,
    /// A fact that is reported, not judged.
    Note,
}

/// Problem, advice or fact with its place.
#[derive(Debug)]
pub struct Finding {
    /// Weight of the finding.
    pub severity: Severity,
    /// File as the configuration names it.
    pub file: String,
    /// Line, counted from 1; absent where the finding is about the whole file.
    pub line: Option<usize>,
    /// Directive at fault, without secrets.
    pub directive: Option<String>,
    /// Problem with the likely fix.
    pub message: String,
}

/// Findings so far, each once.
#[derive(Default)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
}

impl Report {
    /// Adds a finding about a directive. One that applies to several locations is added once.
    pub(super) fn add(&mut self, severity: Severity, directive: &Directive, message: impl Into<String>) {
        self.push(severity, &directive.place, Some(directive.title()), message.into());
    }

    /// Adds a problem.
    pub(super) fn error(&mut self, directive: &Directive, message: impl Into<String>) {
        self.add(Severity::Error, directive, message);
    }

    /// Adds advice, which is no error.
    pub(super) fn warn(&mut self, directive: &Directive, message: impl Into<String>) {
        self.add(Severity::Warning, directive, message);
    }

    /// Adds a finding about a whole file.
    pub(super) fn whole(&mut self, severity: Severity, file: &str, message: impl Into<String>) {
        let message = message.into();
        self.findings.push(Finding { severity, file: file.to_owned(), line: None, directive: None, message });
    }

    fn push(&mut self, severity: Severity, place: &Place, directive: Option<String>, message: String) {
        let is_same = |other: &Finding| {
            other.line == Some(place.line) && other.file == *place.file && other.message == message
        };
        if !self.findings.iter().any(is_same) {
            let (file, line) = (place.file.to_string(), Some(place.line));
            self.findings.push(Finding { severity, file, line, directive, message });
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let prefix = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
            Severity::Note => "note: ",
        };
        write!(out, "{prefix}{}", self.file)?;
        self.line.map_or(Ok(()), |line| write!(out, ":{line}"))?;
        self.directive.iter().try_for_each(|directive| write!(out, ": {directive}"))?;
        write!(out, ": {}", self.message)
    }
}
