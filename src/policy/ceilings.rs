//! Ceilings: the bounds of a key or a team.

use std::rc::Rc;

use super::counting::MAX_SESSION_SECONDS;
use super::reader::{List, Reader, document};
use super::text_bounds::{TextBound, find};
use crate::number::Number;

document! {
    /// The most a key, or any key below a team, may do; text bounds by name. Absent is unbounded.
    pub struct CeilingDocument {
        /// Caller IDs, in E.164.
        from: Option<List<String>>,
        /// Destinations, in E.164.
        to: Option<List<String>>,
        /// The longest a session may last, in seconds.
        session_seconds: Option<u64>,
        ..texts: List<String>,
    }
}

/// The bounds of a key or a team; `None` leaves it to the next wider level. The lists are sorted.
#[derive(Debug, Default)]
pub struct Ceiling {
    /// Caller IDs that may be presented, out of those that are owned.
    pub from: Option<Vec<Number>>,
    /// Destinations that may be reached.
    pub to: Option<Vec<Number>>,
    /// The longest session, in seconds.
    pub session: Option<u64>,
    /// Canonical values allowed of text bounds.
    pub texts: Vec<(Rc<TextBound>, Vec<String>)>,
}

impl Ceiling {
    /// Returns the values allowed of one text bound.
    pub fn text(&self, bound: &TextBound) -> Option<&[String]> {
        self.texts.iter().find_map(|(known, values)| (**known == *bound).then_some(values.as_slice()))
    }
}

impl CeilingDocument {
    pub(super) fn compile(&self, bounds: &[Rc<TextBound>], at: &Reader<'_>) -> Ceiling {
        let mut texts = Vec::new();
        for (name, values) in self.texts.iter() {
            let at = at.member(name);
            match find(bounds, name) {
                Some(bound) => texts.push((Rc::clone(bound), bound.read_values(values, &at))),
                None => {
                    let names = bounds.iter().map(|bound| bound.name.as_str());
                    at.check_named(
                        name,
                        "one of `platform.bounds`",
                        names,
                        &["from", "to", "session_seconds"],
                    );
                }
            }
        }
        if let Some(seconds) = self.session_seconds {
            at.member("session_seconds").check_range(seconds, 1..=MAX_SESSION_SECONDS, "seconds");
        }
        Ceiling {
            from: self.from.as_ref().map(|list| read_numbers(list, &at.member("from"))),
            to: self.to.as_ref().map(|list| read_numbers(list, &at.member("to"))),
            session: self.session_seconds,
            texts,
        }
    }
}

fn read_numbers(list: &List<String>, at: &Reader<'_>) -> Vec<Number> {
    let mut numbers: Vec<Number> = list.each(at).filter_map(|(at, text)| read_number(text, &at)).collect();
    numbers.sort_unstable();
    numbers
}

/// Reads a number that may be called, or presented as a caller.
pub(super) fn read_number(text: &str, at: &Reader<'_>) -> Option<Number> {
    let number = Number::parse(text);
    match number {
        None => at.refuse("not a number in E.164, as in `+15551234567`"),
        Some(number) if number.is_emergency() => {
            at.refuse("an emergency number can neither be allowed nor owned");
        }
        Some(_) => {}
    }
    number.filter(|number| !number.is_emergency())
}
