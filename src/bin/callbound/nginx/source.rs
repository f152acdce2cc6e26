//! Text of a configuration: one file, or all files as `nginx -T` prints them, with includes in their place.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use super::syntax::{Block, Directive, SyntaxError, parse};

/// Most files that include each other.
const MAX_INCLUDES: usize = 16;
/// Blocks whose lines are no directives.
const TABLES: [&str; 5] = ["charset_map", "geo", "map", "split_clients", "types"];

/// A configuration with the directives of included files in their place.
pub(super) struct Configuration {
    /// Name of the main file.
    pub(super) name: Rc<str>,
    /// Number of files that `nginx -T` printed; `None` for one file.
    pub(super) dumped: Option<usize>,
    pub(super) directives: Vec<Directive>,
    /// Includes whose files cannot be seen.
    pub(super) unseen: Vec<Directive>,
}

impl Configuration {
    /// Reads a configuration. Files that the output of `nginx -T` does not have, or that are not next to one file, are
    /// not seen.
    pub(super) fn read(name: &str, text: &str) -> Result<Self, SyntaxError> {
        let sections = sections(text);
        let (main, content) = sections.first().copied().unwrap_or((name, text));
        let main: Rc<str> = Rc::from(main);
        let mut includes = Includes { sections: &sections, main: &main, unseen: Vec::new() };
        let directives = includes.put(parse(&main, content)?, 0)?;
        let unseen = includes.unseen;
        let dumped = (!sections.is_empty()).then_some(sections.len());
        Ok(Self { name: Rc::clone(&main), dumped, directives, unseen })
    }

    /// Returns the directives of a name in the first level.
    pub(super) fn top(&self, name: &str) -> impl Iterator<Item = &Directive> {
        self.directives.iter().filter(move |directive| directive.name == name)
    }

    /// Returns the directives of a name in the block `wasm`.
    pub(super) fn wasm(&self, name: &str) -> impl Iterator<Item = &Directive> {
        self.top("wasm").flat_map(Directive::inner).filter(move |directive| directive.name == name)
    }
}

/// Splits the output of `nginx -T` into files: name and content. Empty for any other text.
fn sections(text: &str) -> Vec<(&str, &str)> {
    const MARK: &str = "# configuration file ";
    let mark = |(start, line): (usize, &'_ str)| {
        let name = line.strip_prefix(MARK)?.trim_end().strip_suffix(':')?.len();
        let begin = start + MARK.len();
        Some((start, start + line.len(), begin..begin + name))
    };
    let marks: Vec<_> = lines(text).filter_map(mark).collect();
    let ends = marks.iter().skip(1).map(|(start, ..)| *start).chain([text.len()]);
    let part = |range| text.get(range).unwrap_or_default();
    marks.iter().zip(ends).map(|((_, begin, name), end)| (part(name.clone()), part(*begin..end))).collect()
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    text.split_inclusive('\n').map(move |line| {
        let begin = start;
        start += line.len();
        (begin, line)
    })
}

struct Includes<'t> {
    sections: &'t [(&'t str, &'t str)],
    main: &'t str,
    unseen: Vec<Directive>,
}

impl Includes<'_> {
    /// Puts the content of included files in the place of each `include`.
    fn put(&mut self, directives: Vec<Directive>, depth: usize) -> Result<Vec<Directive>, SyntaxError> {
        let mut out = Vec::new();
        for mut directive in directives {
            if directive.name == "include" && directive.block.is_none() {
                out.extend(self.included(directive, depth)?);
                continue;
            }
            if let Some(Block::Directives(inner)) = &mut directive.block
                && !TABLES.contains(&directive.name.as_str())
            {
                *inner = self.put(std::mem::take(inner), depth)?;
            }
            out.push(directive);
        }
        Ok(out)
    }

    fn included(&mut self, include: Directive, depth: usize) -> Result<Vec<Directive>, SyntaxError> {
        let pattern = include.arg(0);
        let files = if depth < MAX_INCLUDES { self.find(pattern) } else { Vec::new() };
        // A pattern that matches nothing is right in nginx, and its output then has no such file.
        if files.is_empty() && (depth >= MAX_INCLUDES || !pattern.contains(['*', '?'])) {
            self.unseen.push(include);
            return Ok(Vec::new());
        }
        let mut out = Vec::new();
        for (name, text) in files {
            let parsed = parse(&Rc::from(name.as_str()), &text)?;
            out.extend(self.put(parsed, depth + 1)?);
        }
        Ok(out)
    }

    /// Returns name and text of the files that a pattern matches. Relative ones are next to the main file.
    fn find(&self, pattern: &str) -> Vec<(String, String)> {
        let folder = Path::new(self.main).parent().unwrap_or(Path::new(""));
        let full = folder.join(pattern).to_string_lossy().into_owned();
        if self.sections.is_empty() {
            return on_disk(&full);
        }
        let sections = self.sections.iter().filter(|(name, _)| matches(&full, name));
        sections.map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }
}

/// Reads the files that a pattern matches, sorted by name as nginx reads them.
fn on_disk(pattern: &str) -> Vec<(String, String)> {
    let read = |name: String| fs::read_to_string(&name).ok().map(|text| (name, text));
    if !pattern.contains(['*', '?']) {
        return read(pattern.to_owned()).into_iter().collect();
    }
    let folder = Path::new(pattern).parent().unwrap_or(Path::new(""));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.path().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| matches(pattern, name)).collect();
    names.sort();
    names.into_iter().filter_map(read).collect()
}

/// Returns whether a pattern matches a path; `*` and `?` match neither `/` nor a dot at the beginning of a name.
fn matches(pattern: &str, path: &str) -> bool {
    let (patterns, names) = (pattern.split('/'), path.split('/'));
    patterns.clone().count() == names.clone().count()
        && patterns.zip(names).all(|(pattern, name)| {
            (!name.starts_with('.') || pattern.starts_with('.'))
                && matches_name(pattern.as_bytes(), name.as_bytes())
        })
}

fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], _) => name.is_empty(),
        ([b'*', rest @ ..], _) => {
            (0..=name.len()).any(|skipped| name.get(skipped..).is_some_and(|name| matches_name(rest, name)))
        }
        ([b'?', rest @ ..], [_, name @ ..]) => matches_name(rest, name),
        ([first, rest @ ..], [other, name @ ..]) => first == other && matches_name(rest, name),
        (_, []) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "nginx: configuration file /etc/nginx/nginx.conf test is successful
# configuration file /etc/nginx/nginx.conf:
events {}
http {
    include mime.types;
    include conf.d/*.conf;
    include none.d/*.conf;
    include gone.conf;
    map $a $b { include map.conf; }
}

# configuration file /etc/nginx/mime.types:
types { text/html html; }

# configuration file /etc/nginx/conf.d/a.conf:
server { listen 80; }
";

    #[test]
    fn output_of_nginx_is_read_with_its_includes() {
        let read = Configuration::read("-", DUMP).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!((&*read.name, read.dumped), ("/etc/nginx/nginx.conf", Some(3)));
        let http = read.top("http").next().unwrap().inner();
        let names: Vec<&str> = http.iter().map(|directive| directive.name.as_str()).collect();
        assert_eq!(names, ["types", "server", "map"]);
        assert_eq!((&*http[1].place.file, http[1].place.line), ("/etc/nginx/conf.d/a.conf", 1));
        let unseen: Vec<(&str, usize)> =
            read.unseen.iter().map(|include| (include.arg(0), include.place.line)).collect();
        assert_eq!(unseen, [("gone.conf", 6)]);
    }

    #[test]
    fn file_that_includes_itself_ends() {
        let text = "# configuration file /a:\ninclude a;\n";
        let read = Configuration::read("-", text).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(read.unseen.len(), 1);
    }

    #[test]
    fn pattern_matches_as_a_shell_does() {
        for (pattern, path, is_match) in [
            ("/a/*.conf", "/a/b.conf", true),
            ("/a/*.conf", "/a/b/c.conf", false),
            ("/a/*", "/a/.hidden", false),
            ("/?/b", "/a/b", true),
            ("/a/b", "/a/bc", false),
        ] {
            assert_eq!(matches(pattern, path), is_match, "{pattern} {path}");
        }
    }
}
