//! Problems of a policy document: the place, the fault and the likely fix; never a secret.

use std::cell::RefCell;
use std::fmt;

use crate::json::locate::{Span, Step, line_column, locate};

/// Path to a value of the document, as in `routes[3].bounds.to`; empty for the document itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(Vec<OwnedStep>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum OwnedStep {
    Member(String),
    Index(usize),
}

impl OwnedStep {
    fn borrow(&self) -> Step<'_> {
        match self {
            Self::Member(name) => Step::Member(name),
            Self::Index(index) => Step::Index(*index),
        }
    }
}

impl Path {
    /// Copies the steps, outermost first.
    pub fn new(steps: &[Step<'_>]) -> Self {
        let own = |step: &Step<'_>| match *step {
            Step::Member(name) => OwnedStep::Member(name.to_owned()),
            Step::Index(index) => OwnedStep::Index(index),
        };
        Self(steps.iter().map(own).collect())
    }

    /// Finds the value in the text it was read from.
    pub fn locate(&self, text: &[u8]) -> Option<Span> {
        let steps: Vec<Step<'_>> = self.0.iter().map(OwnedStep::borrow).collect();
        locate(text, &steps)
    }

    /// Returns the path of the value this one is directly in; `None` for the document.
    pub fn parent(&self) -> Option<Self> {
        self.0.split_last().map(|(_, above)| Self(above.to_vec()))
    }

    /// Returns whether this value is another one or inside it.
    fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                OwnedStep::Index(index) => write!(f, "[{index}]")?,
                OwnedStep::Member(name) if depth == 0 => f.write_str(name)?,
                OwnedStep::Member(name) => write!(f, ".{name}")?,
            }
        }
        Ok(())
    }
}

/// Effect of a problem on the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The policy is refused.
    Error,
    /// The policy is accepted; an operator should know.
    Warning,
}

/// One problem of a policy document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Effect on the policy.
    pub severity: Severity,
    /// The value at fault.
    pub path: Path,
    /// True when the member's name is at fault rather than its value.
    pub is_name: bool,
    /// First and last byte at fault in the compiled text, the last exclusive.
    pub span: Option<(usize, usize)>,
    /// Line and column of the first byte, counted from 1.
    pub position: Option<(usize, usize)>,
    /// The fault, and the value that is expected.
    pub message: String,
    /// The likely fix.
    pub help: Option<String>,
}

impl Problem {
    fn new(severity: Severity, path: Path, message: String, help: Option<String>) -> Self {
        Self { severity, path, is_name: false, span: None, position: None, message, help }
    }

    /// Finds the bytes at fault in a text: the value, the member's name, or, where a member is missing, the object.
    pub fn locate(&self, text: &[u8]) -> Option<(usize, usize)> {
        let Some(span) = self.path.locate(text) else {
            let around = self.path.parent()?.locate(text)?;
            return Some((around.start, around.start.saturating_add(1)));
        };
        let name = span.name.filter(|_| self.is_name);
        Some(name.unwrap_or((span.start, span.end)))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.to_string();
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)?;
        self.help.iter().try_for_each(|help| write!(f, "; {help}"))
    }
}

/// Every problem of a refused policy document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The errors, in the order they were found; at least one.
    pub problems: Vec<Problem>,
    /// Warnings of the same document.
    pub warnings: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str(" | ")?;
            }
            if let Some((line, column)) = problem.position {
                write!(f, "line {line} column {column}: ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Collects the problems of one document, so that an author sees all of them at once and each fault once.
#[derive(Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    /// Values that could not be read: faults that follow from them are left out.
    unread: RefCell<Vec<Path>>,
}

impl Report {
    /// Adds a problem that keeps a value from being read.
    pub(super) fn unread(&self, path: Path, message: String, help: Option<String>) {
        self.unread.borrow_mut().push(path.clone());
        self.push(Problem::new(Severity::Error, path, message, help));
    }

    /// Marks a value as unread without a problem of its own.
    pub(super) fn hide(&self, path: Path) {
        self.unread.borrow_mut().push(path);
    }

    /// Adds a member whose name has no meaning.
    pub(super) fn unknown_member(&self, path: Path, message: String, help: Option<String>) {
        self.unread.borrow_mut().push(path.clone());
        self.push(Problem { is_name: true, ..Problem::new(Severity::Error, path, message, help) });
    }

    /// Adds a problem, unless the value, one around it or a direct part of it could not be read.
    pub(super) fn add(&self, severity: Severity, path: Path, message: String, help: Option<String>) {
        if !self.follows(&path) {
            self.push(Problem::new(severity, path, message, help));
        }
    }

    /// Adds a fault of the text itself: the bytes at fault are known, and no value can be read.
    pub(super) fn malformed(&self, path: &str, span: (usize, usize), message: String) {
        let path = Path(path.split_terminator('.').map(|name| OwnedStep::Member(name.to_owned())).collect());
        self.push(Problem { span: Some(span), ..Problem::new(Severity::Error, path, message, None) });
    }

    fn push(&self, problem: Problem) {
        let mut problems = self.problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    fn follows(&self, path: &Path) -> bool {
        let is_cause = |unread: &Path| path.is_within(unread) || unread.parent().as_ref() == Some(path);
        self.unread.borrow().iter().any(is_cause)
    }

    /// Returns whether a value and everything around it could be read.
    pub(super) fn was_read(&self, path: &Path) -> bool {
        !self.unread.borrow().iter().any(|unread| path.is_within(unread))
    }

    /// Returns whether an error was reported for a value or a part of it.
    pub(super) fn has_error(&self, path: &Path) -> bool {
        let is_inside =
            |problem: &Problem| problem.severity == Severity::Error && problem.path.is_within(path);
        self.problems.borrow().iter().any(is_inside)
    }

    /// Returns whether every name that a section defines is known: an entry or id with a fault may be any name.
    pub(super) fn defines_all(&self, section: &Path) -> bool {
        let depth = |path: &Path| path.0.len().saturating_sub(section.0.len());
        let is_id = |path: &Path| matches!(path.0.last(), Some(OwnedStep::Member(name)) if name == "id");
        let hides_name = |path: &Path| path.is_within(section) && depth(path) == 2 && is_id(path);
        // Entries of a nested section are the names themselves.
        let is_entry = |path: &Path| path.is_within(section) && depth(path) == 1 && section.0.len() > 1;
        let hides_entry =
            |path: &Path| section.is_within(path) || (path.is_within(section) && depth(path) <= 1);
        let problems = self.problems.borrow();
        let mut errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
        !errors.any(|problem| hides_name(&problem.path) || is_entry(&problem.path))
            && !self.unread.borrow().iter().any(hides_entry)
    }

    /// Returns a value and the warnings, or all problems where one is an error; positions are those in `text`.
    pub(super) fn into_value<T>(
        self,
        value: Option<T>,
        text: &[u8],
    ) -> Result<(T, Vec<Problem>), ConfigError> {
        let mut problems = self.problems.into_inner();
        for problem in &mut problems {
            problem.span = problem.span.or_else(|| problem.locate(text));
            problem.position = problem.span.map(|(start, _)| line_column(text, start));
        }
        let is_error = |problem: &Problem| problem.severity == Severity::Error;
        let (problems, warnings): (Vec<Problem>, Vec<Problem>) = problems.into_iter().partition(is_error);
        match value {
            Some(value) if problems.is_empty() => Ok((value, warnings)),
            _ => Err(ConfigError { problems, warnings }),
        }
    }
}
