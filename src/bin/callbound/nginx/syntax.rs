//! nginx's configuration syntax (`ngx_conf_file.c`): directives, blocks, quotes, escapes and comments.

use std::rc::Rc;
use std::str::Chars;

use super::lua::split_block;

/// Deepest nesting of blocks that is read.
const MAX_DEPTH: usize = 64;
/// Longest argument in a title.
const MAX_SHOWN: usize = 60;

/// One directive, such as `listen 80;` or `server { ... }`.
#[derive(Debug, Clone)]
pub(super) struct Directive {
    pub(super) name: String,
    /// Arguments without their quotes and escapes.
    pub(super) args: Vec<String>,
    /// Content in braces; `None` for a directive that ends with `;`.
    pub(super) block: Option<Block>,
    pub(super) place: Place,
}

/// Content of a directive in braces.
#[derive(Debug, Clone)]
pub(super) enum Block {
    /// Directives, or the lines of a `map` and its like.
    Directives(Vec<Directive>),
    /// Text of a `*_by_lua_block`.
    Lua(String),
}

/// File and line of a directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Rc<str>,
    /// Counted from 1.
    pub(super) line: usize,
}

/// Text that nginx would not read.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) place: Place,
    pub(super) message: String,
}

impl Directive {
    /// Returns an argument; an absent one is empty.
    pub(super) fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    /// Returns the directives in braces.
    pub(super) fn inner(&self) -> &[Self] {
        match &self.block {
            Some(Block::Directives(directives)) => directives,
            _ => &[],
        }
    }

    /// Returns the Lua code in braces, or the name of its file.
    pub(super) fn lua(&self) -> &str {
        match &self.block {
            Some(Block::Lua(code)) => code,
            _ => self.arg(0),
        }
    }

    /// Returns the directive for a message: whole where it has no secret, else its name and first argument.
    pub(super) fn title(&self) -> String {
        const WHOLE: [&str; 6] = ["access_log", "error_log", "error_page", "listen", "location", "shm_kv"];
        let count = if WHOLE.contains(&self.name.as_str()) { self.args.len() } else { 1 };
        let shown = self.args.iter().take(count).map(|arg| match self.name.as_str() {
            "env" => arg.split('=').next().unwrap_or_default(),
            _ => arg.lines().next().unwrap_or_default(),
        });
        let words = std::iter::once(self.name.as_str()).chain(shown);
        let words: Vec<String> = words.map(|word| word.chars().take(MAX_SHOWN).collect()).collect();
        words.join(" ").trim_end().to_owned()
    }
}

/// Reads the directives of one file.
pub(super) fn parse(file: &Rc<str>, text: &str) -> Result<Vec<Directive>, SyntaxError> {
    let mut parser = Parser { rest: text.chars(), line: 1, file: Rc::clone(file) };
    let parsed = parser.directives(0);
    parsed.map_err(|message| SyntaxError { place: parser.place(parser.line), message })
}

enum Token {
    Word(String),
    Semicolon,
    Open,
    Close,
    End,
}

struct Parser<'t> {
    rest: Chars<'t>,
    line: usize,
    file: Rc<str>,
}

impl Parser<'_> {
    fn place(&self, line: usize) -> Place {
        Place { file: Rc::clone(&self.file), line }
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    /// Reads directives up to the end of their block; at depth 0, of the file.
    fn directives(&mut self, depth: usize) -> Result<Vec<Directive>, String> {
        let mut directives = Vec::new();
        loop {
            self.skip_blanks();
            let line = self.line;
            match self.token()? {
                Token::Word(name) => directives.push(self.directive(name, line, depth)?),
                Token::Close if depth > 0 => return Ok(directives),
                Token::End if depth == 0 => return Ok(directives),
                Token::End => return Err("the file ends within a block; expected `}`".to_owned()),
                Token::Close => return Err("unexpected `}`".to_owned()),
                Token::Open => return Err("unexpected `{`".to_owned()),
                Token::Semicolon => return Err("unexpected `;`".to_owned()),
            }
        }
    }

    /// Reads the rest of a directive behind its name.
    fn directive(&mut self, name: String, line: usize, depth: usize) -> Result<Directive, String> {
        let mut args = Vec::new();
        let block = loop {
            match self.token()? {
                Token::Word(arg) => args.push(arg),
                Token::Semicolon => break None,
                Token::Open => break Some(self.block(&name, depth)?),
                Token::Close | Token::End => {
                    return Err(format!("`{name}` in line {line} does not end; expected `;` or `{{`"));
                }
            }
        };
        Ok(Directive { name, args, block, place: self.place(line) })
    }

    fn block(&mut self, name: &str, depth: usize) -> Result<Block, String> {
        if depth == MAX_DEPTH {
            return Err(format!("blocks are nested more than {MAX_DEPTH} deep"));
        }
        if !name.ends_with("_by_lua_block") {
            return self.directives(depth + 1).map(Block::Directives);
        }
        let (body, behind) = split_block(self.rest.as_str())
            .ok_or_else(|| format!("the Lua code of `{name}` does not end; expected `}}`"))?;
        self.line += body.matches('\n').count();
        self.rest = behind.chars();
        Ok(Block::Lua(body.to_owned()))
    }

    fn skip_blanks(&mut self) {
        while let Some(next) = self.peek() {
            match next {
                '#' => while self.next().is_some_and(|c| c != '\n') {},
                _ if is_blank(next) => _ = self.next(),
                _ => return,
            }
        }
    }

    fn token(&mut self) -> Result<Token, String> {
        self.skip_blanks();
        let token = match self.peek() {
            None => return Ok(Token::End),
            Some(';') => Token::Semicolon,
            Some('{') => Token::Open,
            Some('}') => Token::Close,
            Some(quote @ ('"' | '\'')) => return self.quoted(quote).map(Token::Word),
            Some(_) => return Ok(Token::Word(self.word())),
        };
        self.next();
        Ok(token)
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let line = self.line;
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(format!("a text that begins in line {line} has no closing {quote}")),
                Some('\\') => self.escape(&mut text),
                Some(c) if c == quote => break,
                Some(c) => text.push(c),
            }
        }
        match self.peek() {
            Some(c) if !is_blank(c) && !";{)".contains(c) => {
                Err(format!("unexpected `{c}` behind a closing quote"))
            }
            _ => Ok(text),
        }
    }

    /// Reads a word without quotes. A `{` behind `$` is part of a variable such as `${name}`.
    fn word(&mut self) -> String {
        let mut text = String::new();
        while let Some(next) = self.peek() {
            let is_variable = next == '{' && text.ends_with('$');
            if is_blank(next) || next == ';' || (next == '{' && !is_variable) {
                break;
            }
            self.next();
            if next == '\\' { self.escape(&mut text) } else { text.push(next) }
        }
        text
    }

    /// Reads the character behind a backslash, which stays before all but a few characters.
    fn escape(&mut self, text: &mut String) {
        match self.next() {
            Some(c @ ('"' | '\'' | '\\')) => text.push(c),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some('n') => text.push('\n'),
            other => text.extend(std::iter::once('\\').chain(other)),
        }
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Directive>, SyntaxError> {
        parse(&Rc::from("nginx.conf"), text)
    }

    fn args(text: &str) -> Vec<String> {
        read(text).unwrap().remove(0).args
    }

    #[test]
    fn quotes_escapes_and_comments_are_read_as_nginx_does() {
        assert_eq!(args("a b # c;\n d;"), ["b", "d"]);
        assert_eq!(args("a b#c;"), ["b#c"]);
        assert_eq!(args(r#"a "x; {y}" 'it\'s' "\t";"#), ["x; {y}", "it's", "\t"]);
        assert_eq!(args(r"a ~\.php$ \;b;"), [r"~\.php$", r"\;b"]);
        assert_eq!(args("a http://${host}/x$uri;"), ["http://${host}/x$uri"]);
        assert_eq!(args("a '';"), [""]);
        assert_eq!(args("if ($a = \"b\") { }"), ["($a", "=", "b", ")"]);
    }

    #[test]
    fn blocks_and_lua_keep_their_lines() {
        let text = "map $a $b {\n  default 1;\n}\naccess_by_lua_block {\n  x({}) -- }\n}\nserver { # s\n\n listen 80; }";
        let found = read(text).unwrap();
        let places: Vec<(&str, usize)> =
            found.iter().map(|found| (found.name.as_str(), found.place.line)).collect();
        assert_eq!(places, [("map", 1), ("access_by_lua_block", 4), ("server", 7)]);
        assert_eq!(found[1].lua().trim(), "x({}) -- }");
        assert_eq!((found[2].inner()[0].title().as_str(), found[2].inner()[0].place.line), ("listen 80", 9));
    }

    #[test]
    fn broken_text_is_refused_with_its_line() {
        for (text, line, message) in [
            ("a b", 1, "`a` in line 1 does not end"),
            ("a {\n b;\n", 3, "expected `}`"),
            ("a;\n}", 2, "unexpected `}`"),
            ("a;;", 1, "unexpected `;`"),
            ("a 'b\n", 2, "no closing '"),
            ("a 'b'c;", 1, "unexpected `c`"),
            ("x_by_lua_block { '}' ", 1, "the Lua code of `x_by_lua_block` does not end"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.place.line == line && error.message.contains(message), "{text}: {error:?}");
        }
        assert!(read(&"a {".repeat(100)).unwrap_err().message.contains("nested"));
    }

    #[test]
    fn title_has_no_secret() {
        let title = |text: &str| read(text).unwrap()[0].title();
        assert_eq!(title("env MASTER=secret;"), "env MASTER");
        assert_eq!(title("proxy_set_header Authorization \"Basic abc\";"), "proxy_set_header Authorization");
        assert_eq!(title("proxy_wasm callbound '{\"version\": 1}';"), "proxy_wasm callbound");
    }
}
