//! Mints a client token: every asked-for value is proved a subset of the key's present rights, or refused by name.

use std::borrow::Cow;

use crate::credential::{Claims, TokenError, Ttl, hex};
use crate::json::Json;
use crate::number::Number;
use crate::policy::{Asked, Form, MintRule, Policy, SizedList, TextBound, TextField};
use crate::reason::Reason;

use super::DecisionContext;
use super::answer::{iso8601, number_texts, text, texts};
use super::asked::MintRequest;
use super::rights::{Demands, Rights};
use super::verdict::Denial;

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
    /// How often it may be used.
    pub uses: Option<u64>,
    /// How many seconds all its sessions may last together.
    pub total: Option<u64>,
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
    moment: &DecisionContext<'_>,
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
    let ttl = granted_times(rule, &family.ttl, rights, asked)?;
    let (uses, total) = (asked.uses.or(rule.uses.default), asked.total.or(rule.total.default));
    check_age(uses.or(total).is_some(), moment)?;
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
        uses,
        total,
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

/// The lifetime, once it and the longest session are within their ranges.
fn granted_times(
    rule: &MintRule,
    ttl: &Ttl,
    rights: &Rights<'_>,
    asked: &MintRequest,
) -> Result<u64, Denial> {
    if let (Some(rule), Some(asked)) = (&rule.session, asked.session)
        && rights.session_ceiling().is_some_and(|ceiling| asked > ceiling)
    {
        return Err(rule.field.denial(Reason::BoundCeiling));
    }
    let granted = asked.ttl.unwrap_or(ttl.default);
    match (ttl.min..=ttl.max).contains(&granted) {
        true => Ok(granted),
        false => Err(rule.ttl.as_ref().map_or(Reason::MintTtl.into(), |field| field.denial(Reason::MintTtl))),
    }
}

/// A token with uses or seconds must be younger than the store's memory, or it would be refused as one that may have been used.
fn check_age(is_counted: bool, moment: &DecisionContext<'_>) -> Result<(), Denial> {
    let is_young = moment.epoch.is_some_and(|epoch| moment.now > epoch);
    if is_counted && !is_young { Err(Reason::StoreUnavailable.into()) } else { Ok(()) }
}

fn random(moment: &DecisionContext<'_>) -> Result<[u8; 16], Denial> {
    moment.random().map_err(|_| Reason::MintUnavailable.into())
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
    moment: &DecisionContext<'_>,
) -> Result<Vec<BoundText>, Denial> {
    let mut granted = Vec::new();
    for (index, text) in rule.texts.iter().enumerate() {
        let Some(bound) = policy.bounds.get(text.bound) else { return Err(Reason::MintUnavailable.into()) };
        let (values, is_single) = match &text.asked {
            Asked::Generated => (vec![uuid(random(moment)?)], true),
            Asked::FieldRef { field, max, .. } => {
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
            exp: self.expires_at,
            scopes: self.scopes.iter().map(|scope| Cow::Borrowed(scope.as_str())).collect(),
            from: list(&self.from),
            to: list(&self.to),
            session: self.session,
            uses: self.uses,
            total: self.total,
            metadata: self.metadata.clone(),
            ..Claims::default()
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
            "ttl_seconds" => Some(Json::from(self.ttl)),
            "issued_at" => Some(Json::from(self.issued_at)),
            "issued_at_iso" => iso8601(self.issued_at),
            "expires_at" => Some(Json::from(self.expires_at)),
            "expires_at_iso" => iso8601(self.expires_at),
            "scopes" => Some(texts(&self.scopes)),
            "from" => Some(number_texts(&self.from)),
            "to" => Some(number_texts(&self.to)),
            "session_seconds" => self.session.map(Json::from),
            "uses" => self.uses.map(Json::from),
            "total_seconds" => self.total.map(Json::from),
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
