//! Paths and queries as text: escapes, parameters, and names that a lenient reader confuses.
//!
//! Nothing is repaired for the upstream: a query is split only to be read, and written back as the client's own bytes,
//! with whole parameters removed or added.

use std::borrow::Cow;

/// Decodes percent-escapes (RFC 3986 section 2.1); malformed ones are kept as they are.
pub fn decode_escapes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let byte = escaped_byte(after);
        bytes.push(byte.unwrap_or(b'%'));
        rest = byte.and_then(|_| after.get(2..)).unwrap_or(after);
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Returns whether a value passes a test as it is, or with its percent-escapes decoded.
pub fn holds_decoded(value: &[u8], test: &dyn Fn(&[u8]) -> bool) -> bool {
    test(value) || (value.contains(&b'%') && test(&decode_escapes(&String::from_utf8_lossy(value))))
}

/// Reads the two hex digits after a `%`; `None` when there are not two.
pub fn escaped_byte(after: &str) -> Option<u8> {
    let hex = after.get(..2).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(hex, 16).ok()
}

/// Folds a name as a lenient reader might: to lower case, and to ASCII letters and digits only.
///
/// `To_Number`, `to-number`, `toNumber` and `to[]number` are one name. Unicode case folding maps two characters to ASCII:
/// long s and the Kelvin sign.
pub fn fold(name: &str) -> String {
    name.chars()
        .filter_map(|c| match c {
            'ſ' => Some('s'),
            '\u{212a}' => Some('k'),
            _ => c.is_ascii_alphanumeric().then_some(c.to_ascii_lowercase()),
        })
        .collect()
}

/// Returns whether some reader could take a name for one that `is_known`, a test of folded names: as a whole, or a part of
/// it between a zero byte, `[`, `]` and `.`. Readers take `a[0]` and `a[x]` for `a`, and others `x[a]` and `x.a` for a member
/// `a`.
pub fn may_be_read_as(name: &str, is_known: &dyn Fn(&str) -> bool) -> bool {
    let is_known = |part: &str| {
        let folded = fold(part);
        !folded.is_empty() && is_known(&folded)
    };
    let is_separator = |c: char| matches!(c, '\0' | '[' | ']' | '.');
    is_known(name) || name.split(is_separator).skip_while(|part| *part == name).any(is_known)
}

/// Parameters of a query, in the client's order.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    parameters: Vec<Cow<'a, str>>,
    is_changed: bool,
}

/// Reason for refusing to read a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryError {
    /// Two parameters have this name, or one that another reader would take for it.
    Ambiguous,
    /// Malformed escapes, no UTF-8, or a `;`, which some readers take for a separator.
    Malformed,
}

impl<'a> Query<'a> {
    /// Splits a query, given without its `?`.
    pub fn new(text: Option<&'a str>) -> Self {
        let parameters = text.map(|text| text.split('&').map(Cow::Borrowed).collect()).unwrap_or_default();
        Self { parameters, is_changed: false }
    }

    /// Returns the decoded value of a parameter: empty without a `=`, `None` when the parameter is absent.
    ///
    /// # Errors
    ///
    /// [`QueryError`] when readers could disagree about the value.
    pub fn value(&self, name: &str) -> Result<Option<String>, QueryError> {
        let folded = fold(name);
        let mut found = None;
        for parameter in &self.parameters {
            if parameter.contains(';') {
                return Err(QueryError::Malformed);
            }
            let (written, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let written = decode(written).ok_or(QueryError::Malformed)?;
            if !may_be_read_as(&written, &|reading| reading == folded) {
                continue;
            }
            if written != name || found.is_some() {
                return Err(QueryError::Ambiguous);
            }
            found = Some(decode(value).ok_or(QueryError::Malformed)?);
        }
        Ok(found)
    }

    /// Returns whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// Returns the parameters as the client wrote them.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(AsRef::as_ref)
    }

    /// Returns the parameters with their escapes decoded.
    pub fn texts(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let decoded = |text: &str| String::from_utf8_lossy(&decode_escapes(text)).into_owned();
        self.parameters().map(move |text| match text.contains('%') {
            true => Cow::Owned(decoded(text)),
            false => Cow::Borrowed(text),
        })
    }

    /// Returns the decoded names; malformed escapes are kept as they are.
    pub fn names(&self) -> impl Iterator<Item = String> {
        // Some readers take `;` for `&`.
        let parts =
            self.parameters().flat_map(|parameter| parameter.split(';')).filter(|part| !part.is_empty());
        parts.map(|part| {
            let name = part.split_once('=').map_or(part, |(name, _)| name);
            String::from_utf8_lossy(&decode_escapes(name)).into_owned()
        })
    }

    /// Returns whether some reader would take a parameter, as written, for one named `name`.
    pub fn is_called(parameter: &str, name: &str) -> bool {
        is_called(parameter, &fold(name))
    }

    /// Removes every parameter that some reader would take for one named `name`.
    pub fn remove(&mut self, name: &str) {
        let folded = fold(name);
        let before = self.parameters.len();
        self.parameters.retain(|parameter| !is_called(parameter, &folded));
        self.is_changed = self.is_changed || self.parameters.len() < before;
    }

    /// Replaces the value of a parameter in its position, or adds the parameter at the end.
    pub fn set(&mut self, name: &str, value: &str) {
        let text = Cow::Owned(format!("{}={}", encode(name), encode(value)));
        let folded = fold(name);
        match self.parameters.iter_mut().find(|parameter| is_called(parameter, &folded)) {
            Some(parameter) => *parameter = text,
            None => self.parameters.push(text),
        }
        self.is_changed = true;
    }

    /// Returns whether the query differs from the client's.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Returns a path with this query appended.
    pub fn write(&self, path: &str) -> String {
        let mut text = path.to_owned();
        for (index, parameter) in self.parameters.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.push_str(parameter);
        }
        text
    }
}

fn is_called(parameter: &str, folded: &str) -> bool {
    let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
    may_be_read_as(&String::from_utf8_lossy(&decode_escapes(name)), &|reading| reading == folded)
}

/// Decodes a name or value of a form, where `+` is a blank; `None` for malformed escapes and for other than UTF-8.
fn decode(text: &str) -> Option<String> {
    if text.split('%').skip(1).any(|after| escaped_byte(after).is_none()) {
        return None;
    }
    String::from_utf8(decode_escapes(&text.replace('+', " "))).ok()
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_returned_decoded() {
        let query = Query::new(Some("model=m%2D2.1&to=%2B1555&note=a+b&flag"));
        assert_eq!(query.value("model"), Ok(Some("m-2.1".into())));
        assert_eq!(query.value("to"), Ok(Some("+1555".into())));
        assert_eq!(query.value("note"), Ok(Some("a b".into())));
        assert_eq!(query.value("flag"), Ok(Some(String::new())));
        assert_eq!(query.value("absent"), Ok(None));
    }

    #[test]
    fn repeated_or_similar_name_is_ambiguous() {
        for text in [
            "model=a&model[0]=b",
            "model[x]=a",
            "model=a&model%00x=b",
            "model=a&model=a",
            "model=a&Model=b",
            "model=a&model[]=b",
            "m%6Fdel=a&model=b",
            "MODEL=a",
            "x[model]=a&model=b",
            "x.model=a",
            "model.x=a",
            "x]model=b",
        ] {
            assert_eq!(Query::new(Some(text)).value("model"), Err(QueryError::Ambiguous), "{text}");
        }
    }

    #[test]
    fn value_that_readers_decode_differently_is_malformed() {
        for text in ["model=%zz", "model=%ff", "model=a;model=b", "x=1;y&model=a", "%f=1&model=a"] {
            assert_eq!(Query::new(Some(text)).value("model"), Err(QueryError::Malformed), "{text}");
        }
    }

    #[test]
    fn names_are_decoded_and_split_at_semicolons() {
        let query = Query::new(Some("to=1&t%6F_number=2;%zz&x"));
        assert_eq!(query.names().collect::<Vec<_>>(), ["to", "to_number", "%zz", "x"]);
    }

    #[test]
    fn removed_and_set_parameters_leave_the_others_as_written() {
        let mut query = Query::new(Some("a=%7e&api_key=x&&b=+&apiKey=y"));
        query.remove("other");
        assert!(!query.is_changed());
        query.remove("api_key");
        assert_eq!(query.write("/p"), "/p?a=%7e&&b=+");
        assert!(query.is_changed());
        query.set("a", "é/");
        query.set("c", "1");
        assert_eq!(query.write("/p"), "/p?a=%C3%A9%2F&&b=+&c=1");
        assert_eq!(Query::new(None).write("/p"), "/p");
    }
}
