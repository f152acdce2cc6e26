//! Tokens whose signature and claims were verified.

use std::borrow::Cow;

use crate::json::Json;
use crate::number::Number;

use super::claims::{Claims, TextBounds, is_id};
use super::error::TokenError;

/// A token whose signature, source and claims were verified; its time is checked at each use.
#[derive(Debug, Clone, Default)]
pub struct VerifiedToken {
    /// Key that signed the token; with `jti` the token's identity, since one token may have several spellings.
    pub kid: String,
    /// Id of the token.
    pub jti: String,
    /// Id of the API key the token was minted from or acts as.
    pub key_id: String,
    /// Team the token speaks for.
    pub team: Option<String>,
    /// User the token speaks for.
    pub user: Option<String>,
    /// Time of issue, in Unix seconds.
    pub iat: u64,
    /// Start of validity, in Unix seconds.
    pub nbf: Option<u64>,
    /// End of validity, in Unix seconds.
    pub exp: u64,
    /// Scopes of the token; those its key lacks at present are not effective.
    pub scopes: Vec<String>,
    /// Caller IDs the token is bound to, sorted.
    pub from: Option<Vec<Number>>,
    /// Destinations the token is bound to, sorted.
    pub to: Option<Vec<Number>>,
    /// Text bounds of the token.
    pub bounds: TextBounds,
    /// Longest session the token may open, in seconds.
    pub session: Option<u64>,
    /// Number of uses.
    pub uses: Option<u64>,
    /// Seconds all sessions may last together.
    pub total: Option<u64>,
    /// Object attached by the minter.
    pub metadata: Option<Json<'static>>,
}

impl VerifiedToken {
    /// Returns the allowed values of a text bound; `None` when the token does not carry it.
    pub fn bound(&self, name: &str) -> Option<&[String]> {
        self.bounds.iter().find_map(|(known, values)| (known == name).then_some(values.as_slice()))
    }

    /// Converts the claims of a family's token, refusing values that are never minted.
    pub(super) fn from_claims(kid: &str, mut claims: Claims<'_>) -> Result<Self, TokenError> {
        check_claims(&claims)?;
        let bounds = claims.take_bounds()?;
        Ok(Self {
            kid: kid.to_owned(),
            jti: claims.jti.into_owned(),
            key_id: claims.sub.into_owned(),
            team: claims.team.map(Cow::into_owned),
            user: claims.user.map(Cow::into_owned),
            iat: claims.iat,
            nbf: claims.nbf,
            exp: claims.exp,
            scopes: claims.scopes.into_iter().map(Cow::into_owned).collect(),
            from: claims.from.map(numbers).transpose()?,
            to: claims.to.filter(|list| !list.is_empty()).map(numbers).transpose()?,
            bounds,
            session: claims.session,
            uses: claims.uses,
            total: claims.total,
            metadata: claims.metadata,
        })
    }
}

fn check_claims(claims: &Claims<'_>) -> Result<(), TokenError> {
    let ids = [Some(&claims.sub), Some(&claims.jti), claims.team.as_ref(), claims.user.as_ref()];
    let has_ids = ids.into_iter().flatten().all(|id| is_id(id));
    let has_one_owner = claims.team.is_some() != claims.user.is_some();
    // Zero uses or seconds, or an empty list, might be read as "unlimited".
    let has_empty_bound = claims.uses == Some(0) || claims.total == Some(0);
    let has_empty_from = claims.from.as_ref().is_some_and(Vec::is_empty);
    if has_ids && has_one_owner && claims.exp > claims.iat && !has_empty_bound && !has_empty_from {
        Ok(())
    } else {
        Err(TokenError::Claims)
    }
}

/// Reads telephone numbers and sorts them.
pub(super) fn numbers<T: AsRef<str>>(list: Vec<T>) -> Result<Vec<Number>, TokenError> {
    let numbers = list.iter().map(|text| Number::parse(text.as_ref()));
    let mut numbers: Vec<Number> = numbers.collect::<Option<_>>().ok_or(TokenError::Claims)?;
    numbers.sort_unstable();
    Ok(numbers)
}
