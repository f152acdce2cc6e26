//! A new token: its claims, its signature and the answer that carries it.

use std::borrow::Cow;

use crate::credential::{Claims, Family, TokenError};
use crate::json::Json;
use crate::number::Number;
use crate::policy::MintRule;
use crate::reason::Reason;

use super::super::answer::{iso8601, number_texts, text, texts};
use super::super::denial::Denial;
use super::super::rights::Rights;

/// A new token and the values of its answer.
pub struct Minted {
    /// The token. It is stored nowhere here.
    pub token: String,
    /// The token without its prefix, where the family allows that.
    pub jwt: Option<String>,
    /// The token's `jti`.
    pub token_id: String,
    /// Id of the key it was minted from.
    pub key_id: String,
    /// Lifetime in seconds.
    pub ttl: u64,
    /// Time of issue in Unix seconds.
    pub issued_at: u64,
    /// Expiry in Unix seconds.
    pub expires_at: u64,
    /// Scopes it holds.
    pub scopes: Vec<String>,
    /// Caller IDs, as requested.
    pub from: Vec<Number>,
    /// Destinations, as requested.
    pub to: Vec<Number>,
    /// Longest session in seconds; `None` = unlimited.
    pub session: Option<u64>,
    /// Number of uses; `None` = unlimited.
    pub uses: Option<u64>,
    /// Seconds of all sessions together; `None` = unlimited.
    pub total: Option<u64>,
    /// Data the token carries for the upstream.
    pub metadata: Option<Json<'static>>,
    /// Text bounds, as requested.
    pub bounds: Vec<BoundText>,
}

/// A text bound of a new token.
pub struct BoundText {
    /// Name of the bound.
    pub name: String,
    /// Values it allows.
    pub values: Vec<String>,
    /// True when the answer shows one string instead of a list.
    pub is_single: bool,
}

impl Minted {
    /// Signs the token.
    pub(super) fn sign(self, family: &Family, rights: &Rights<'_>) -> Result<Self, Denial> {
        let token = family.sign(&self.claims(family, rights)).map_err(|error| match error {
            TokenError::TooLong => Reason::MintTooLong,
            _ => Reason::MintUnavailable,
        })?;
        let jwt = token.strip_prefix(family.prefix.as_str()).filter(|_| family.is_bare).map(str::to_owned);
        Ok(Self { token, jwt, ..self })
    }

    fn claims<'a>(&'a self, family: &'a Family, rights: &Rights<'a>) -> Claims<'a> {
        let (team, user) = rights.party_claims();
        let mut claims = Claims {
            iss: family.issuer.as_str().into(),
            aud: family.audience.as_deref().map(Cow::Borrowed),
            sub: self.key_id.as_str().into(),
            team: team.map(Cow::Borrowed),
            user: user.map(Cow::Borrowed),
            jti: self.token_id.as_str().into(),
            iat: self.issued_at,
            exp: self.expires_at,
            scopes: self.scopes.iter().map(|scope| Cow::Borrowed(scope.as_str())).collect(),
            from: number_claim(&self.from),
            to: number_claim(&self.to),
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
        rule.body.render(&|name| self.value(name))
    }

    /// Returns a value of the answer; `None` when the token has no such value.
    fn value(&self, name: &str) -> Option<Json<'_>> {
        match name {
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
            name => self.bounds.iter().find(|bound| bound.name == name).map(BoundText::value),
        }
    }
}

impl BoundText {
    fn value(&self) -> Json<'static> {
        match self.values.as_slice() {
            [one] if self.is_single => text(one),
            values => texts(values),
        }
    }
}

/// Writes numbers as a claim, sorted and without duplicates; `None` when there are none.
fn number_claim(numbers: &[Number]) -> Option<Vec<Cow<'static, str>>> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    let list = || numbers.iter().map(|number| Cow::Owned(number.to_string())).collect();
    (!numbers.is_empty()).then(list)
}
