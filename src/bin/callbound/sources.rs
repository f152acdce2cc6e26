//! Policy files: one text of several, and the place of a problem in the right one.

use std::fs;
use std::path::{Path, PathBuf};

use callbound::json::Json;
use callbound::json::locate::line_column;
use callbound::policy::{ConfigError, Policy, Problem, Secrets, compile, merge};
use serde_json::Value;

/// The files of one policy, in the order in which they are merged.
pub struct Sources {
    files: Vec<Source>,
    merged: String,
}

/// One file of a policy.
pub struct Source {
    /// Name as it was given; `-` is standard input.
    pub name: String,
    /// Content of the file.
    pub text: String,
}

/// Bytes at fault in one file.
pub struct Place<'s> {
    /// File at fault.
    pub source: &'s Source,
    /// Position of the first byte.
    pub start: usize,
    /// Position after the last byte.
    pub end: usize,
}

impl Place<'_> {
    /// Returns line and column, counted from 1.
    pub fn position(&self) -> (usize, usize) {
        line_column(self.source.text.as_bytes(), self.start)
    }
}

impl Sources {
    /// Reads the files and merges them (JSON merge patch, RFC 7396). A single file stays as it is, byte for byte.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or one of several that is not JSON.
    pub fn read(paths: &[PathBuf]) -> Result<Self, String> {
        let files: Vec<Source> = paths.iter().map(|path| Source::read(path)).collect::<Result<_, _>>()?;
        if let [only] = files.as_slice() {
            let merged = only.text.clone();
            return Ok(Self { files, merged });
        }
        let mut merged = Value::Null;
        for source in &files {
            merge(&mut merged, source.patch()?);
        }
        let merged = serde_json::to_string_pretty(&merged).map_err(|error| error.to_string())?;
        Ok(Self { files, merged })
    }

    /// Returns the text that the module would get.
    pub fn text(&self) -> &str {
        &self.merged
    }

    /// Sets a member of the policy.
    ///
    /// # Errors
    ///
    /// A policy that is not JSON.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let mut policy: Value = serde_json::from_str(&self.merged).map_err(|error| error.to_string())?;
        merge(&mut policy, serde_json::json!({name: value}));
        self.merged = policy.to_string();
        Ok(())
    }

    /// Compiles the policy.
    ///
    /// # Errors
    ///
    /// Every problem, one a line, each with its place.
    pub fn compile(&self, secrets: &Secrets<'_>) -> Result<Policy, String> {
        compile(self.merged.as_bytes(), secrets).map_err(|error| self.list(&error))
    }

    fn list(&self, error: &ConfigError) -> String {
        let lines: Vec<String> =
            error.problems.iter().map(|problem| format!("  {}", self.line(problem))).collect();
        format!("the policy is refused:\n{}", lines.join("\n"))
    }

    /// Writes a problem on one line: file, line, column, path and message.
    fn line(&self, problem: &Problem) -> String {
        let Some(place) = self.locate(problem) else { return problem.to_string() };
        let (line, column) = place.position();
        format!("{}:{line}:{column}: {problem}", place.source.name)
    }

    /// Returns the place of a problem in the order of files and lines.
    pub fn order(&self, problem: &Problem) -> (usize, usize) {
        let Some(place) = self.locate(problem) else { return (0, 0) };
        let index = self.files.iter().position(|source| std::ptr::eq(source, place.source));
        (index.unwrap_or_default(), place.start)
    }

    /// Finds the bytes at fault: in the last file that has the value, else in the last that has the object around it.
    pub fn locate(&self, problem: &Problem) -> Option<Place<'_>> {
        if let ([source], Some((start, end))) = (self.files.as_slice(), problem.span)
            && source.text == self.merged
        {
            return Some(Place { source, start, end });
        }
        let has_value = |source: &&Source| problem.path.locate(source.text.as_bytes()).is_some();
        let of_value = self.files.iter().rev().find(has_value);
        let mut files = of_value.into_iter().chain(self.files.iter().rev());
        files.find_map(|source| {
            let (start, end) = problem.locate(source.text.as_bytes())?;
            Some(Place { source, start, end })
        })
    }
}

impl Source {
    fn read(path: &Path) -> Result<Self, String> {
        Ok(Self { name: path.display().to_string(), text: read(path)? })
    }

    /// Parses a file that is merged with others. Merging would keep the last of two members with one name; the module
    /// refuses both, and so does this.
    fn patch(&self) -> Result<Value, String> {
        if Json::parse(self.text.as_bytes()).is_err()
            && let Err(error) = compile(self.text.as_bytes(), &Secrets::Unchecked)
        {
            let alone = Self { name: self.name.clone(), text: self.text.clone() };
            return Err(Sources { files: vec![alone], merged: String::new() }.list(&error));
        }
        serde_json::from_str(&self.text).map_err(|error| format!("{}: {error}", self.name))
    }
}

/// Reads a file, or standard input for `-`.
pub fn read(path: &Path) -> Result<String, String> {
    if path == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).map_err(|error| format!("standard input: {error}"));
    }
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
