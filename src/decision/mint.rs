//! Mints a client token: every asked-for value is proved a subset of the key's present rights, or refused by name.

use std::borrow::Cow;

use crate::credential::{Claims, TokenError, hex};
use crate::json::Json;
use crate::number::Number;
use crate::policy::{MintRule, Policy, SizedList};
use crate::reason::Reason;

use super::Moment;
use super::bounds::{read_number, shown};
use super::rights::{Demands, Rights};
use super::verdict::Denial;

/// What a mint request asks for, its form checked and nothing granted.
#[derive(Debug, Default)]
pub struct MintRequest {
    /// Caller IDs, with the member that asked.
    pub from: Option<Vec<Number>>,
    /// Destinations.
    pub to: Option<Vec<Number>>,
    /// Scopes.
    pub scopes: Option<Vec<String>>,
    /// Lifetime in seconds.
    pub ttl: Option<u64>,
}

impl MintRequest {
    /// Reads the body of a mint request.
    ///
    /// # Errors
    ///
    /// A [`Denial`] naming the member that is unknown, missing, mistyped or of the wrong size.
    pub fn read(rule: &MintRule, body: &Json<'_>) -> Result<Self, Denial> {
        let lists = [&rule.from, &rule.to, &rule.scopes];
        let known = |name: &str| {
            lists.iter().filter_map(|list| list.as_ref()).any(|list| list.member == name)
                || rule.ttl.as_deref() == Some(name)
        };
        // A misspelt bound would be an absent bound, and absence is wider.
        if let Some((name, _)) = body.members().unwrap_or_default().iter().find(|(name, _)| !known(name)) {
            return Err(Denial::of(Reason::MemberUnknown, shown(name)));
        }
        Ok(Self {
            from: numbers(rule.from.as_ref(), body)?,
            to: numbers(rule.to.as_ref(), body)?,
            scopes: scopes(rule.scopes.as_ref(), body)?,
            ttl: ttl(rule.ttl.as_deref(), body)?,
        })
    }
}

fn list<'j, 'a>(rule: Option<&SizedList>, body: &'j Json<'a>) -> Result<Option<&'j [Json<'a>]>, Denial> {
    let Some(rule) = rule else { return Ok(None) };
    let items = match body.get(&rule.member) {
        None if rule.required => return Err(Denial::of(Reason::MemberMissing, &rule.member)),
        None => return Ok(None),
        Some(Json::Array(items)) => items,
        Some(_) => return Err(Denial::of(Reason::MemberType, &rule.member)),
    };
    if items.is_empty() && rule.empty_is_absent {
        return Ok(None);
    }
    if items.is_empty() || items.len() > rule.max {
        return Err(Denial::of(Reason::MintListSize, &rule.member));
    }
    Ok(Some(items))
}

fn numbers(rule: Option<&SizedList>, body: &Json<'_>) -> Result<Option<Vec<Number>>, Denial> {
    let (Some(items), Some(rule)) = (list(rule, body)?, rule) else { return Ok(None) };
    let numbers = items.iter().enumerate();
    let numbers = numbers.map(|(index, item)| read_number(item, &format!("{}[{index}]", rule.member)));
    numbers.collect::<Result<Vec<_>, _>>().map(Some)
}

fn scopes(rule: Option<&SizedList>, body: &Json<'_>) -> Result<Option<Vec<String>>, Denial> {
    let (Some(items), Some(rule)) = (list(rule, body)?, rule) else { return Ok(None) };
    let scopes = items.iter().map(|item| {
        item.as_str().map(str::to_owned).ok_or_else(|| Denial::of(Reason::MemberType, &rule.member))
    });
    scopes.collect::<Result<Vec<_>, _>>().map(Some)
}

fn ttl(member: Option<&str>, body: &Json<'_>) -> Result<Option<u64>, Denial> {
    let Some(member) = member else { return Ok(None) };
    match body.get(member) {
        None => Ok(None),
        Some(Json::Unsigned(seconds)) => Ok(Some(*seconds)),
        // Whole seconds only: 900.5 and 9e2 are two readers' numbers.
        Some(Json::OtherNumber) => Err(Denial::of(Reason::MintTtl, member)),
        Some(_) => Err(Denial::of(Reason::MemberType, member)),
    }
}

/// A new token and what its answer says.
pub struct Minted {
    /// The token; the one place it exists outside the client.
    pub token: String,
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
    let demands = Demands { feature: rule.feature.as_deref(), scopes: &scopes };
    check_numbers(rule.from.as_ref(), asked.from.as_deref(), |number| rights.check_from(number, &demands))?;
    check_numbers(rule.to.as_ref(), asked.to.as_deref(), |number| rights.check_to(number))?;
    let ttl = asked.ttl.unwrap_or(family.ttl.default);
    if !(family.ttl.min..=family.ttl.max).contains(&ttl) {
        return Err(Denial::of(Reason::MintTtl, rule.ttl.as_deref().unwrap_or("ttl")));
    }
    let mut id = [0; 16];
    if !(moment.random)(&mut id) || id == [0; 16] {
        return Err(Reason::MintUnavailable.into());
    }
    let minted = Minted {
        token: String::new(),
        token_id: hex(&id),
        key_id: rights.key().id.clone(),
        ttl,
        issued_at: moment.now,
        expires_at: moment.now.saturating_add(ttl),
        scopes,
        from: asked.from.clone().unwrap_or_default(),
        to: asked.to.clone().unwrap_or_default(),
    };
    let token =
        family.sign(&minted.claims(&family.issuer, family.audience.as_deref(), rights)).map_err(|error| {
            match error {
                TokenError::TooLong => Denial::from(Reason::MintTooLong),
                _ => Denial::from(Reason::MintUnavailable),
            }
        })?;
    Ok(Minted { token, ..minted })
}

fn check_numbers(
    rule: Option<&SizedList>,
    numbers: Option<&[Number]>,
    check: impl Fn(Number) -> Result<(), Reason>,
) -> Result<(), Denial> {
    let member = rule.map_or("", |rule| rule.member.as_str());
    for (index, number) in numbers.unwrap_or_default().iter().enumerate() {
        check(*number).map_err(|reason| Denial::of(reason, format!("{member}[{index}]")))?;
    }
    Ok(())
}

fn granted_scopes(
    policy: &Policy,
    rule: &MintRule,
    rights: &Rights<'_>,
    asked: Option<&[String]>,
) -> Result<Vec<String>, Denial> {
    let member = rule.scopes.as_ref().map_or("scopes", |list| list.member.as_str());
    // A token that could mint would outlive every bound: what opens a mint route is never given away.
    let mints = |scope: &String| {
        policy.routes.iter().any(|route| route.mint.is_some() && route.scopes.contains(scope))
    };
    let mut granted: Vec<String> = Vec::new();
    for scope in asked.unwrap_or(&rule.default_scopes) {
        let is_mintable = rule.mintable_scopes.as_ref().is_none_or(|list| list.contains(scope));
        if !is_mintable || mints(scope) {
            return Err(Denial::of(Reason::MintScopeRefused, member));
        }
        if !rights.has_scope(scope) {
            return Err(Denial::of(Reason::MintScopeNotHeld, member));
        }
        if !granted.contains(scope) {
            granted.push(scope.clone());
        }
    }
    Ok(granted)
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
        Claims {
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
        }
    }

    /// Writes the answer of a mint route.
    pub fn render(&self, rule: &MintRule) -> Vec<u8> {
        fn numbers<'a>(numbers: &[Number]) -> Json<'a> {
            Json::Array(numbers.iter().map(|number| Json::String(Cow::Owned(number.to_string()))).collect())
        }
        rule.body.render(&|name| {
            Some(match name {
                "token" => Json::String(Cow::Owned(self.token.clone())),
                "token_id" => Json::String(Cow::Owned(self.token_id.clone())),
                "key_id" => Json::String(Cow::Owned(self.key_id.clone())),
                "ttl" => Json::from(self.ttl),
                "issued_at" => Json::from(self.issued_at),
                "expires_at" => Json::from(self.expires_at),
                "scopes" => {
                    Json::Array(self.scopes.iter().map(|s| Json::String(Cow::Owned(s.clone()))).collect())
                }
                "from" => numbers(&self.from),
                "to" => numbers(&self.to),
                _ => return None,
            })
        })
    }
}
