//! Mints a client token: every asked-for value is proved a subset of the key's present rights, or refused by name.

use std::borrow::Cow;

use crate::credential::{Claims, TokenError, hex};
use crate::json::Json;
use crate::number::Number;
use crate::policy::{Asked, Field, Form, MintRule, Policy, SizedList, TextBound, TextField};
use crate::reason::Reason;

use super::Moment;
use super::bounds::{read_number, shown};
use super::rights::{Demands, Rights};
use super::verdict::Denial;

/// What a mint request asks for, its form checked and nothing granted.
#[derive(Debug, Default)]
pub struct MintRequest {
    /// Caller IDs.
    pub from: Option<Vec<Number>>,
    /// Destinations.
    pub to: Option<Vec<Number>>,
    /// Scopes.
    pub scopes: Option<Vec<String>>,
    /// Lifetime in seconds.
    pub ttl: Option<u64>,
    /// Longest session in seconds.
    pub session: Option<u64>,
    /// What the token is to carry along.
    pub metadata: Option<Json<'static>>,
    /// The values of text bounds, by place in the rule.
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
        let session = match &rule.session {
            None => None,
            Some(session) => {
                let seconds = seconds(&session.field, body, Reason::MintSession)?;
                if seconds.is_some_and(|seconds| !(session.min..=session.max).contains(&seconds)) {
                    return Err(session.field.denial(Reason::MintSession));
                }
                seconds
            }
        };
        let texts = rule.texts.iter().enumerate().filter_map(|(index, text)| {
            asked_texts(text, body).map(|values| values.map(|values| (index, values))).transpose()
        });
        Ok(Self {
            from: numbers(rule.from.as_ref(), body)?,
            to: numbers(rule.to.as_ref(), body)?,
            scopes: rule.scopes.as_ref().map(|list| strings(list, body)).transpose()?.flatten(),
            ttl: rule.ttl.as_ref().map(|field| seconds(field, body, Reason::MintTtl)).transpose()?.flatten(),
            session,
            metadata: metadata(rule, body)?,
            texts: texts.collect::<Result<_, _>>()?,
        })
    }
}

impl Field {
    fn denial(&self, reason: Reason) -> Denial {
        Denial::of(reason, self.pointer.dotted())
    }

    fn denial_at(&self, reason: Reason, index: usize) -> Denial {
        Denial::of(reason, format!("{}[{index}]", self.pointer.dotted()))
    }

    /// Finds the member; an object on the way that is `null` leaves out all below it, where `null` is allowed.
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

/// A misspelt bound would be an absent bound, and absence is wider: only what the rule reads may be there.
fn check_names(rule: &MintRule, object: &Json<'_>, at: &mut Vec<String>) -> Result<(), Denial> {
    for (name, value) in object.members().unwrap_or_default() {
        let leads = |field: &&Field| field.pointer.next(at) == Some(name);
        let Some(field) = rule.fields().find(leads) else {
            let path =
                at.iter().map(String::as_str).chain([shown(name).as_str()]).collect::<Vec<_>>().join(".");
            return Err(Denial::of(Reason::MemberUnknown, path));
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

/// The values asked of a text bound: a list, or the one string the request takes.
fn asked_texts(text: &TextField, body: &Json<'_>) -> Result<Option<Vec<String>>, Denial> {
    let Asked::Member { field, max, empty_is_absent } = &text.asked else { return Ok(None) };
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

fn seconds(field: &Field, body: &Json<'_>, out_of_range: Reason) -> Result<Option<u64>, Denial> {
    match field.find(body)? {
        None => Ok(None),
        Some(Json::Unsigned(seconds)) => Ok(Some(*seconds)),
        // Whole seconds only: 900.5 and 9e2 are two readers' numbers.
        Some(Json::OtherNumber(_)) => Err(field.denial(out_of_range)),
        Some(_) => Err(field.denial(Reason::MemberType)),
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

/// A new token and what its answer says.
pub struct Minted {
    /// The token; the one place it exists outside the client.
    pub token: String,
    /// The same without its prefix, where the family has such tokens.
    pub jwt: Option<String>,
    /// Its `jti`.
    pub token_id: String,
    /// The id of the key it was minted from.
    pub key_id: String,
    /// Its lifetime in seconds.
    pub ttl: u64,
    /// Unix seconds.
    pub issued_at: u64,
    /// Unix seconds.
    pub expires_at: u64,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// Its caller IDs, as asked for.
    pub from: Vec<Number>,
    /// Its destinations, as asked for.
    pub to: Vec<Number>,
    /// The longest session it opens, in seconds.
    pub session: Option<u64>,
    /// What it carries along.
    pub metadata: Option<Json<'static>>,
    /// Its text bounds, as asked for.
    pub bounds: Vec<BoundText>,
}

/// A text bound of a new token.
pub struct BoundText {
    /// Its name.
    pub name: String,
    /// The values it allows.
    pub values: Vec<String>,
    /// Whether the answer shows one string instead of a list.
    pub is_single: bool,
}

/// Mints a token.
///
/// # Errors
///
/// A [`Denial`] naming the member that asks for more than the key has at present; [`Reason::MintUnavailable`] when
/// there is no randomness or no signing key.
pub fn mint(
    policy: &Policy,
    rule: &MintRule,
    rights: &Rights<'_>,
    asked: &MintRequest,
    moment: &Moment<'_>,
) -> Result<Minted, Denial> {
    if rights.is_token() {
        return Err(Reason::CredentialNotAccepted.into());
    }
    let family = policy.families.get(rule.family).ok_or(Reason::MintUnavailable)?;
    let scopes = granted_scopes(policy, rule, rights, asked.scopes.as_deref())?;
    let demands = Demands { features: &rule.features, scopes: &scopes };
    check_numbers(rule.from.as_ref(), asked.from.as_deref(), |number| rights.check_from(number, &demands))?;
    check_numbers(rule.to.as_ref(), asked.to.as_deref(), |number| rights.check_to(number))?;
    let bounds = granted_bounds(policy, rule, rights, asked, moment)?;
    if let (Some(rule), Some(asked)) = (&rule.session, asked.session)
        && rights.session_ceiling().is_some_and(|ceiling| asked > ceiling)
    {
        return Err(rule.field.denial(Reason::BoundCeiling));
    }
    let ttl = asked.ttl.unwrap_or(family.ttl.default);
    if !(family.ttl.min..=family.ttl.max).contains(&ttl) {
        return Err(rule.ttl.as_ref().map_or(Reason::MintTtl.into(), |field| field.denial(Reason::MintTtl)));
    }
    let minted = Minted {
        token: String::new(),
        jwt: None,
        token_id: hex(&random(moment)?),
        key_id: rights.key().id.clone(),
        ttl,
        issued_at: moment.now,
        expires_at: moment.now.saturating_add(ttl),
        scopes,
        from: asked.from.clone().unwrap_or_default(),
        to: asked.to.clone().unwrap_or_default(),
        session: asked.session,
        metadata: asked.metadata.clone(),
        bounds,
    };
    let token =
        family.sign(&minted.claims(&family.issuer, family.audience.as_deref(), rights)).map_err(|error| {
            match error {
                TokenError::TooLong => Denial::from(Reason::MintTooLong),
                _ => Denial::from(Reason::MintUnavailable),
            }
        })?;
    let jwt = token.strip_prefix(family.prefix.as_str()).filter(|_| family.is_bare).map(str::to_owned);
    Ok(Minted { token, jwt, ..minted })
}

fn random(moment: &Moment<'_>) -> Result<[u8; 16], Denial> {
    let mut bytes = [0; 16];
    if !(moment.random)(&mut bytes) || bytes == [0; 16] {
        return Err(Reason::MintUnavailable.into());
    }
    Ok(bytes)
}

fn check_numbers(
    rule: Option<&SizedList>,
    numbers: Option<&[Number]>,
    check: impl Fn(Number) -> Result<(), Reason>,
) -> Result<(), Denial> {
    let Some(rule) = rule else { return Ok(()) };
    for (index, number) in numbers.unwrap_or_default().iter().enumerate() {
        check(*number).map_err(|reason| rule.field.denial_at(reason, index))?;
    }
    Ok(())
}

fn granted_scopes(
    policy: &Policy,
    rule: &MintRule,
    rights: &Rights<'_>,
    asked: Option<&[String]>,
) -> Result<Vec<String>, Denial> {
    let denial = |reason| {
        rule.scopes.as_ref().map_or_else(|| Denial::of(reason, "scopes"), |list| list.field.denial(reason))
    };
    // A token that could mint would outlive every bound: what opens a mint route, itself or by what it implies, is
    // never given away.
    let mints = |scope: &String| {
        let held = std::slice::from_ref(scope);
        let mint_scopes =
            policy.routes.iter().filter(|route| route.mint().is_some()).flat_map(|route| &route.scopes);
        mint_scopes.into_iter().any(|needed| policy.platform.holds(held, needed))
    };
    let mut granted: Vec<String> = Vec::new();
    for scope in asked.unwrap_or(&rule.default_scopes) {
        let is_mintable = rule.mintable_scopes.as_ref().is_none_or(|list| list.contains(scope));
        if !is_mintable || mints(scope) {
            return Err(denial(Reason::MintScopeRefused));
        }
        if !rights.has_scope(scope) {
            return Err(denial(Reason::MintScopeNotHeld));
        }
        if !granted.contains(scope) {
            granted.push(scope.clone());
        }
    }
    Ok(granted)
}

/// The text bounds of the new token: what was asked for, each value proved to be within the key's own.
fn granted_bounds(
    policy: &Policy,
    rule: &MintRule,
    rights: &Rights<'_>,
    asked: &MintRequest,
    moment: &Moment<'_>,
) -> Result<Vec<BoundText>, Denial> {
    let mut granted = Vec::new();
    for (index, text) in rule.texts.iter().enumerate() {
        let Some(bound) = policy.bounds.get(text.bound) else { return Err(Reason::MintUnavailable.into()) };
        let (values, is_single) = match &text.asked {
            Asked::Generated => (vec![uuid(random(moment)?)], true),
            Asked::Member { field, max, .. } => {
                let values = asked.texts.iter().find_map(|(at, values)| (*at == index).then_some(values));
                let Some(values) = values else { continue };
                for (index, value) in values.iter().enumerate() {
                    let refuse = |reason| match max {
                        Some(_) => field.denial_at(reason, index),
                        None => field.denial(reason),
                    };
                    check_value(rule, text, bound, rights, value).map_err(refuse)?;
                }
                (values.clone(), max.is_none())
            }
        };
        granted.push(BoundText { name: bound.name.clone(), values, is_single });
    }
    Ok(granted)
}

fn check_value(
    rule: &MintRule,
    text: &TextField,
    bound: &TextBound,
    rights: &Rights<'_>,
    value: &str,
) -> Result<(), Reason> {
    let canonical = bound.canonical(value);
    if bound.form == Form::Endpoint {
        let demands = Demands { features: &rule.features, scopes: &[] };
        rights.check_endpoint(canonical, text.capable.as_deref(), &demands)?;
    } else if !bound.fits(value) {
        return Err(Reason::MintValue);
    } else if !bound.has(canonical) {
        return Err(Reason::BoundUnknown);
    }
    rights.check_text(text.bound, canonical)
}

/// A random UUID (RFC 9562 section 5.4).
fn uuid(mut bytes: [u8; 16]) -> String {
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    let digits = hex(&bytes);
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].into_iter().filter_map(|range| digits.get(range));
    groups.collect::<Vec<_>>().join("-")
}

impl Minted {
    fn claims<'a>(&'a self, issuer: &'a str, audience: Option<&'a str>, rights: &Rights<'a>) -> Claims<'a> {
        let (team, user) = rights.party_claims();
        let list = |numbers: &[Number]| {
            let mut numbers = numbers.to_vec();
            numbers.sort_unstable();
            numbers.dedup();
            (!numbers.is_empty())
                .then(|| numbers.iter().map(|number| Cow::Owned(number.to_string())).collect())
        };
        let mut claims = Claims {
            iss: issuer.into(),
            aud: audience.map(Cow::Borrowed),
            sub: self.key_id.as_str().into(),
            team: team.map(Cow::Borrowed),
            user: user.map(Cow::Borrowed),
            jti: self.token_id.as_str().into(),
            iat: self.issued_at,
            nbf: None,
            exp: self.expires_at,
            scopes: self.scopes.iter().map(|scope| Cow::Borrowed(scope.as_str())).collect(),
            from: list(&self.from),
            to: list(&self.to),
            models: None,
            origins: None,
            endpoint: None,
            sid: None,
            bounds: None,
            session: self.session,
            metadata: self.metadata.clone(),
        };
        for bound in &self.bounds {
            claims.bind(&bound.name, &bound.values);
        }
        claims
    }

    /// Writes the answer of a mint route.
    pub fn render(&self, rule: &MintRule) -> Vec<u8> {
        rule.body.render(&|name| match name {
            "token" => Some(text(&self.token)),
            "jwt" => self.jwt.as_deref().map(text),
            "token_id" => Some(text(&self.token_id)),
            "key_id" => Some(text(&self.key_id)),
            "ttl" => Some(Json::from(self.ttl)),
            "issued_at" => Some(Json::from(self.issued_at)),
            "issued_at_iso" => iso8601(self.issued_at),
            "expires_at" => Some(Json::from(self.expires_at)),
            "expires_at_iso" => iso8601(self.expires_at),
            "scopes" => Some(texts(&self.scopes)),
            "from" => Some(number_texts(&self.from)),
            "to" => Some(number_texts(&self.to)),
            "session" => self.session.map(Json::from),
            "metadata" => self.metadata.clone(),
            name => self.bounds.iter().find(|bound| bound.name == name).map(|bound| {
                match bound.values.as_slice() {
                    [one] if bound.is_single => text(one),
                    values => texts(values),
                }
            }),
        })
    }
}

pub(super) fn text(text: &str) -> Json<'static> {
    Json::String(Cow::Owned(text.to_owned()))
}

pub(super) fn texts(list: &[String]) -> Json<'static> {
    Json::Array(list.iter().map(|item| text(item)).collect())
}

pub(super) fn number_texts(list: &[Number]) -> Json<'static> {
    Json::Array(list.iter().map(|number| text(&number.to_string())).collect())
}

/// Unix seconds as `2026-11-22T15:04:05Z` (RFC 3339).
pub(super) fn iso8601(seconds: u64) -> Option<Json<'static>> {
    let seconds = i64::try_from(seconds).ok()?;
    let date = chrono::DateTime::from_timestamp(seconds, 0)?;
    Some(Json::String(Cow::Owned(date.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))))
}
