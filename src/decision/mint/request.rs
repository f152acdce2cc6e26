//! Reads the body of a mint request: its form is checked, nothing is granted.
//!
//! Strict, because a member that is misspelt, mistyped or cut off would ask for fewer bounds than its author meant.

use crate::json::Json;
use crate::number::Number;
use crate::policy::{Field, MintRule, RangeField, SizedList, TextField, ValueSource};
use crate::reason::Reason;

use super::super::denial::{Denial, printable};
use super::super::fields::read_number;

/// A mint request whose form was checked. An absent member is `None`.
#[derive(Debug, Default)]
pub struct MintRequest {
    /// Requested caller IDs.
    pub from: Option<Vec<Number>>,
    /// Requested destination numbers.
    pub to: Option<Vec<Number>>,
    /// Scopes the client requests.
    pub scopes: Option<Vec<String>>,
    /// Lifetime in seconds.
    pub ttl: Option<u64>,
    /// Longest session in seconds.
    pub session: Option<u64>,
    /// Number of uses.
    pub uses: Option<u64>,
    /// Seconds of all sessions together.
    pub total: Option<u64>,
    /// Data the token carries for the upstream.
    pub metadata: Option<Json<'static>>,
    /// Values of text bounds, each list with the index of its bound in the rule.
    pub texts: Vec<(usize, Vec<String>)>,
}

impl MintRequest {
    /// Reads the body of a mint request.
    ///
    /// # Errors
    ///
    /// A [`Denial`] naming the member that is unknown, missing, mistyped or of the wrong size.
    pub fn read(rule: &MintRule, body: &Json<'_>) -> Result<Self, Denial> {
        check_names(rule, body, &mut Vec::new())?;
        let texts = rule.texts.iter().enumerate().filter_map(|(index, text)| {
            requested_texts(text, body).map(|values| values.map(|values| (index, values))).transpose()
        });
        Ok(Self {
            from: numbers(rule.from.as_ref(), body)?,
            to: numbers(rule.to.as_ref(), body)?,
            scopes: rule.scopes.as_ref().map(|list| strings(list, body)).transpose()?.flatten(),
            ttl: rule.ttl.as_ref().map(|field| whole(field, body, Reason::MintTtl)).transpose()?.flatten(),
            session: in_range(rule.session.as_ref(), body, Reason::MintSession)?,
            uses: in_range(rule.uses.requested.as_ref(), body, Reason::MemberRange)?,
            total: in_range(rule.total.requested.as_ref(), body, Reason::MemberRange)?,
            metadata: metadata(rule, body)?,
            texts: texts.collect::<Result<_, _>>()?,
        })
    }
}

impl Field {
    pub(in super::super) fn denial(&self, reason: Reason) -> Denial {
        Denial::of(reason, self.pointer.dotted())
    }

    pub(in super::super) fn denial_at(&self, reason: Reason, index: usize) -> Denial {
        Denial::of(reason, format!("{}[{index}]", self.pointer.dotted()))
    }

    /// Finds the member. Where `null` is allowed, an object of its path that is `null` makes it absent.
    fn find<'j, 'a>(&self, body: &'j Json<'a>) -> Result<Option<&'j Json<'a>>, Denial> {
        let mut at = Some(body);
        for name in self.pointer.names() {
            at = match at {
                Some(Json::Null) if self.nullable => None,
                Some(object) if object.members().is_some() => object.get(name),
                Some(_) => return Err(self.denial(Reason::MemberType)),
                None => None,
            };
        }
        match at.filter(|value| !(self.nullable && **value == Json::Null)) {
            None if self.required => Err(self.denial(Reason::MemberMissing)),
            found => Ok(found),
        }
    }
}

/// Refuses every member that the rule does not read: a misspelt bound would be an absent one.
fn check_names(rule: &MintRule, object: &Json<'_>, at: &mut Vec<String>) -> Result<(), Denial> {
    for (name, value) in object.members().unwrap_or_default() {
        let is_next = |field: &&Field| field.pointer.next(at) == Some(name);
        let Some(field) = rule.fields().find(is_next) else {
            at.push(printable(name));
            return Err(Denial::of(Reason::MemberUnknown, at.join(".")));
        };
        if field.pointer.names().len() > at.len() + 1 {
            at.push(name.clone().into_owned());
            check_names(rule, value, at)?;
            at.pop();
        }
    }
    Ok(())
}

fn list<'j, 'a>(rule: &SizedList, body: &'j Json<'a>) -> Result<Option<&'j [Json<'a>]>, Denial> {
    sized(rule.field.find(body)?, &rule.field, rule.max, rule.empty_is_absent)
}

fn sized<'j, 'a>(
    value: Option<&'j Json<'a>>,
    field: &Field,
    max: usize,
    empty_is_absent: bool,
) -> Result<Option<&'j [Json<'a>]>, Denial> {
    let items = match value {
        None => return Ok(None),
        Some(Json::Array(items)) => items,
        Some(_) => return Err(field.denial(Reason::MemberType)),
    };
    if items.is_empty() && empty_is_absent {
        return Ok(None);
    }
    if items.is_empty() || items.len() > max {
        return Err(field.denial(Reason::MintListSize));
    }
    Ok(Some(items))
}

fn numbers(rule: Option<&SizedList>, body: &Json<'_>) -> Result<Option<Vec<Number>>, Denial> {
    let Some(rule) = rule else { return Ok(None) };
    let Some(items) = list(rule, body)? else { return Ok(None) };
    let numbers = items.iter().enumerate().map(|(index, item)| {
        let number = item.as_str().ok_or(Reason::MemberType).and_then(read_number);
        number.map_err(|reason| rule.field.denial_at(reason, index))
    });
    numbers.collect::<Result<Vec<_>, _>>().map(Some)
}

fn strings(rule: &SizedList, body: &Json<'_>) -> Result<Option<Vec<String>>, Denial> {
    list(rule, body)?.map(|items| texts_of(items, &rule.field)).transpose()
}

fn texts_of(items: &[Json<'_>], field: &Field) -> Result<Vec<String>, Denial> {
    let texts = items.iter().enumerate().map(|(index, item)| {
        item.as_str().map(str::to_owned).ok_or_else(|| field.denial_at(Reason::MemberType, index))
    });
    texts.collect()
}

/// Reads the values of a text bound: a list, or one string where the rule has no maximum.
fn requested_texts(text: &TextField, body: &Json<'_>) -> Result<Option<Vec<String>>, Denial> {
    let ValueSource::FieldRef { field, max, empty_is_absent } = &text.source else { return Ok(None) };
    let value = field.find(body)?;
    match max {
        Some(max) => {
            sized(value, field, *max, *empty_is_absent)?.map(|items| texts_of(items, field)).transpose()
        }
        None => match value {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(vec![text.clone().into_owned()])),
            Some(_) => Err(field.denial(Reason::MemberType)),
        },
    }
}

fn whole(field: &Field, body: &Json<'_>, out_of_range: Reason) -> Result<Option<u64>, Denial> {
    match field.find(body)? {
        None => Ok(None),
        Some(Json::Unsigned(number)) => Ok(Some(*number)),
        // Readers disagree about 900.5 and 9e2.
        Some(Json::OtherNumber(_)) => Err(field.denial(out_of_range)),
        Some(_) => Err(field.denial(Reason::MemberType)),
    }
}

fn in_range(rule: Option<&RangeField>, body: &Json<'_>, out_of_range: Reason) -> Result<Option<u64>, Denial> {
    let Some(rule) = rule else { return Ok(None) };
    let number = whole(&rule.field, body, out_of_range)?;
    match number.is_none_or(|number| (rule.min..=rule.max).contains(&number)) {
        true => Ok(number),
        false => Err(rule.field.denial(out_of_range)),
    }
}

fn metadata(rule: &MintRule, body: &Json<'_>) -> Result<Option<Json<'static>>, Denial> {
    let Some(metadata) = &rule.metadata else { return Ok(None) };
    let Some(value) = metadata.field.find(body)? else { return Ok(None) };
    if value.members().is_none() {
        return Err(metadata.field.denial(Reason::MemberType));
    }
    let size = serde_json::to_vec(value).map_or(usize::MAX, |text| text.len());
    if size > metadata.max_bytes {
        return Err(metadata.field.denial(Reason::MintMetadata));
    }
    Ok(Some(value.clone().into_owned()))
}
