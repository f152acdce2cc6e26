//! Meaning of an issuer's claims.

use crate::json::Json;
use crate::number::Number;

use super::claims::{TextBounds, is_bound_text};
use super::error::TokenError;
use super::verified::numbers;

/// Path to a claim, by the names of nested objects.
#[derive(Debug, Clone)]
pub struct ClaimPath {
    /// Member names from the outermost object inwards.
    pub names: Vec<String>,
    /// True when the claim may be absent.
    pub optional: bool,
}

/// Claims that carry an issuer's bounds and scopes.
#[derive(Debug, Default)]
pub struct ClaimRules {
    /// Claim with the team; the owner of the issuer's key when not mapped.
    pub team: Option<ClaimPath>,
    /// Claim with the scopes; [`ClaimRules::default_scopes`] when not mapped.
    pub scopes: Option<ClaimPath>,
    /// Claim with the caller IDs.
    pub from: Option<ClaimPath>,
    /// Claim with the destinations.
    pub to: Option<ClaimPath>,
    /// Claims with text bounds, by the bound's name.
    pub texts: Vec<(String, ClaimPath)>,
    /// The issuer's scopes and the policy's scopes for each; `None` = the names are the same.
    pub renamed: Option<Vec<(String, Vec<String>)>>,
    /// Scopes of every token when no claim is mapped.
    pub default_scopes: Vec<String>,
}

impl ClaimRules {
    /// Reads the team; `None` when it is not mapped or absent.
    pub(super) fn team(&self, claims: &Json<'_>) -> Result<Option<String>, TokenError> {
        let Some(mut teams) = texts(self.team.as_ref(), claims)? else { return Ok(None) };
        match (teams.pop(), teams.is_empty()) {
            (Some(team), true) => Ok(Some(team)),
            _ => Err(TokenError::Claims),
        }
    }

    /// Reads the caller IDs; `None` when they are not mapped or absent.
    pub(super) fn from(&self, claims: &Json<'_>) -> Result<Option<Vec<Number>>, TokenError> {
        texts(self.from.as_ref(), claims)?.map(numbers).transpose()
    }

    /// Reads the destinations; `None` when they are not mapped or absent.
    pub(super) fn to(&self, claims: &Json<'_>) -> Result<Option<Vec<Number>>, TokenError> {
        texts(self.to.as_ref(), claims)?.map(numbers).transpose()
    }

    /// Reads the text bounds that are present.
    pub(super) fn text_bounds(&self, claims: &Json<'_>) -> Result<TextBounds, TokenError> {
        let mut bounds = TextBounds::new();
        for (name, path) in &self.texts {
            let Some(values) = texts(Some(path), claims)? else { continue };
            if !values.iter().all(|value| is_bound_text(value)) {
                return Err(TokenError::Claims);
            }
            bounds.push((name.clone(), values));
        }
        Ok(bounds)
    }

    /// Reads the scopes under the policy's names.
    pub(super) fn scopes(&self, claims: &Json<'_>) -> Result<Vec<String>, TokenError> {
        let Some(path) = &self.scopes else { return Ok(self.default_scopes.clone()) };
        let scopes = match path.find(claims) {
            None if path.optional => return Ok(Vec::new()),
            // RFC 8693 section 4.2: one string with blanks.
            Some(Json::String(text)) => {
                text.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
            }
            Some(Json::Array(items)) => strings(items)?,
            _ => return Err(TokenError::Claims),
        };
        let Some(renamed) = &self.renamed else { return Ok(scopes) };
        let held = renamed.iter().filter(|(name, _)| scopes.contains(name));
        Ok(held.flat_map(|(_, names)| names.iter().cloned()).collect())
    }
}

impl ClaimPath {
    fn find<'j, 'a>(&self, claims: &'j Json<'a>) -> Option<&'j Json<'a>> {
        self.names.iter().try_fold(claims, |value, name| value.get(name))
    }
}

/// Reads a string, or a list of strings that is not empty; `None` when the claim is not mapped or may be absent.
fn texts(path: Option<&ClaimPath>, claims: &Json<'_>) -> Result<Option<Vec<String>>, TokenError> {
    let Some(path) = path else { return Ok(None) };
    match path.find(claims) {
        None if path.optional => Ok(None),
        Some(Json::String(text)) if !text.is_empty() => Ok(Some(vec![text.clone().into_owned()])),
        Some(Json::Array(items)) if !items.is_empty() => strings(items).map(Some),
        _ => Err(TokenError::Claims),
    }
}

fn strings(items: &[Json<'_>]) -> Result<Vec<String>, TokenError> {
    items.iter().map(|item| item.as_str().map(str::to_owned).ok_or(TokenError::Claims)).collect()
}
