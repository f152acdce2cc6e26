//! Principals and their present rights: platform ∩ team ∩ key ∩ token.
//!
//! Rights are computed at every use and never stored, so a revoked key, a smaller ceiling or a number that was given back stops
//! every token at once.

use std::rc::Rc;

use crate::credential::VerifiedToken;
use crate::number::Number;
use crate::policy::{
    Accept, ApiKey, Ceiling, Endpoint, FieldRef, PartyId, Policy, Reach, Route, TextBound, TokenSource,
};
use crate::reason::Reason;

use super::denial::Denial;

/// The identity a verified credential proves. [`Rights`] are computed from it.
pub enum Principal {
    /// An API key.
    Key {
        /// The registered key.
        key: Rc<ApiKey>,
    },
    /// A client token.
    Token {
        /// Family or issuer of the token.
        source: TokenSource,
        /// Claims its signature proved.
        token: Rc<VerifiedToken>,
        /// The key it was minted from, or the key that bounds its issuer's tokens.
        key: Rc<ApiKey>,
    },
}

impl Principal {
    /// Returns whether a route accepts this kind of credential.
    pub(super) fn is_accepted_by(&self, accept: &Accept) -> bool {
        match self {
            Self::Key { .. } => accepts(accept, None),
            Self::Token { source, .. } => accepts(accept, Some(source)),
        }
    }
}

/// Features and scopes that a route demands, both of the principal and of the owner of each number it uses.
pub struct Demands<'a> {
    /// Features that must be on.
    pub features: &'a [String],
    /// Scopes that must be available.
    pub scopes: &'a [String],
}

impl<'a> Demands<'a> {
    /// Returns the demands of a route.
    pub fn of(route: &'a Route) -> Self {
        Self { features: &route.features, scopes: &route.scopes }
    }
}

/// Present rights of a principal.
#[derive(Clone, Copy)]
pub struct Rights<'a> {
    policy: &'a Policy,
    key: &'a ApiKey,
    /// The acting party: the key's owner, or the team below it that an issuer's token names.
    party: PartyId,
    token: Option<(&'a TokenSource, &'a VerifiedToken)>,
}

impl<'a> Rights<'a> {
    /// Computes the rights at a Unix second.
    ///
    /// # Errors
    ///
    /// A 401 [`Reason`] when the credential, or the key behind a token, is no longer valid.
    pub fn of(policy: &'a Policy, principal: &'a Principal, now: u64) -> Result<Self, Denial> {
        let (source, token, key) = match principal {
            Principal::Key { key } => return Self::of_key(policy, key, now),
            Principal::Token { source, token, key } => (source, token.as_ref(), key),
        };
        let verifier = source.verifier();
        verifier.check_time(token, now).map_err(|_| Reason::TokenExpired)?;
        // A bound that the policy does not define would be judged nowhere.
        if token.bounds.iter().any(|(name, _)| policy.bound(name).is_none()) {
            return Err(Reason::TokenClaims.into());
        }
        let mut rights = Self { token: Some((source, token)), ..Self::of_key(policy, key, now)? };
        if !verifier.is_minted_here() {
            rights.party = rights.party_of(token).ok_or(Reason::TokenOwner)?;
        } else if !rights.is_token_of_owner(token) {
            return Err(Reason::TokenOwner.into());
        }
        Ok(rights)
    }

    /// Computes the rights of a key without a token, from which the command-line tool mints.
    ///
    /// # Errors
    ///
    /// As [`Rights::of`].
    pub fn of_key(policy: &'a Policy, key: &'a ApiKey, now: u64) -> Result<Self, Denial> {
        if key.revoked {
            return Err(Reason::KeyRevoked.into());
        }
        if key.expires_at.is_some_and(|at| at <= now) {
            return Err(Reason::KeyExpired.into());
        }
        Ok(Self { policy, key, party: key.owner, token: None })
    }

    /// Finds the party an issuer's token acts for; `None` when the issuer's key does not reach that team.
    fn party_of(&self, token: &VerifiedToken) -> Option<PartyId> {
        let tree = &self.policy.tree;
        match token.team.as_deref() {
            None => Some(self.key.owner),
            Some(team) => tree.team(team).filter(|team| tree.reaches(self.key.owner, *team)),
        }
    }

    /// Returns whether a token names the party that owns its key now: a key may have been moved since the mint.
    fn is_token_of_owner(&self, token: &VerifiedToken) -> bool {
        let Some(party) = self.policy.tree.party(self.key.owner) else { return false };
        match party.reach {
            Reach::User => token.user.as_deref() == Some(&party.id) && token.team.is_none(),
            Reach::Organization | Reach::SubEntity => {
                token.team.as_deref() == Some(&party.id) && token.user.is_none()
            }
        }
    }

    pub(super) fn policy(&self) -> &'a Policy {
        self.policy
    }

    /// Returns the API key behind the principal.
    pub fn key(&self) -> &'a ApiKey {
        self.key
    }

    pub(super) fn party(&self) -> PartyId {
        self.party
    }

    pub(super) fn party_id(&self) -> Option<&'a str> {
        self.policy.tree.party(self.party).map(|party| party.id.as_str())
    }

    /// Returns the acting party as the claims `team` and `user`; one of them is `None`.
    pub(super) fn party_claims(&self) -> (Option<&'a str>, Option<&'a str>) {
        match self.policy.tree.party(self.party) {
            Some(party) if party.reach == Reach::User => (None, Some(&party.id)),
            Some(party) => (Some(&party.id), None),
            None => (None, None),
        }
    }

    pub(super) fn token(&self) -> Option<&'a VerifiedToken> {
        self.token.map(|(_, token)| token)
    }

    /// Returns the acting token with its family or issuer; `None` when an API key acts.
    pub(super) fn sourced_token(&self) -> Option<(&'a TokenSource, &'a VerifiedToken)> {
        self.token
    }

    /// Returns whether a limit is for this kind of credential.
    pub(super) fn is_accepted_by(&self, accept: &Accept) -> bool {
        accepts(accept, self.token.map(|(source, _)| source))
    }

    /// Returns whether the principal is a client token.
    pub fn is_token(&self) -> bool {
        self.token.is_some()
    }

    /// Checks the features and scopes that are demanded.
    ///
    /// # Errors
    ///
    /// [`Reason::FeatureOff`], whatever the scopes, or [`Reason::ScopeMissing`].
    pub fn meets(&self, demands: &Demands<'_>) -> Result<(), Denial> {
        if !demands.features.iter().all(|feature| self.has_feature(feature, self.party)) {
            return Err(Reason::FeatureOff.into());
        }
        if !demands.scopes.iter().all(|scope| self.has_scope(scope)) {
            return Err(Reason::ScopeMissing.into());
        }
        Ok(())
    }

    /// Returns whether a feature is on for a party: on for the platform, off neither for the party nor above it.
    fn has_feature(&self, feature: &str, party: PartyId) -> bool {
        self.policy.platform.has_feature(feature) && self.policy.tree.feature_allowed(party, feature)
    }

    /// Returns whether platform, team, key and token all hold a scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        let platform = &self.policy.platform;
        platform.scopes.iter().any(|known| known == scope)
            && platform.holds(&self.key.scopes, scope)
            && self.token.is_none_or(|(source, token)| self.is_given(source, token, scope))
            && self.policy.tree.scope_allowed(self.party, scope)
    }

    /// Returns whether a token has a scope, or another that implies it, and may have it by the present policy.
    fn is_given(&self, source: &TokenSource, token: &VerifiedToken, scope: &str) -> bool {
        token.scopes.iter().any(|held| {
            self.policy.platform.holds(std::slice::from_ref(held), scope)
                && self.policy.gives_to_tokens(source, held)
        })
    }

    pub(super) fn check_tenant(&self, field: &FieldRef, team: Option<&str>) -> Result<(), Denial> {
        match team {
            None if field.optional => Ok(()),
            None => Err(Denial::at(Reason::MemberMissing, &field.place)),
            Some(id) if self.reaches_team(id) => Ok(()),
            Some(_) => Err(Denial::at(Reason::TenantDenied, &field.place)),
        }
    }

    /// Returns whether the acting party reaches a team; a team that does not exist is out of reach like any other.
    pub(super) fn reaches_team(&self, id: &str) -> bool {
        let tree = &self.policy.tree;
        tree.team(id).is_some_and(|team| tree.reaches(self.party, team))
    }

    fn ceilings(&self) -> impl Iterator<Item = &'a Ceiling> {
        std::iter::once(&self.key.ceiling).chain(self.policy.tree.ceilings(self.party))
    }

    pub(super) fn is_from_bounded(&self) -> bool {
        self.ceilings().any(|ceiling| ceiling.from.is_some())
            || self.token().is_some_and(|token| token.from.is_some())
    }

    pub(super) fn is_to_bounded(&self) -> bool {
        self.is_to_under_ceiling() || self.token().is_some_and(|token| token.to.is_some())
    }

    fn is_to_under_ceiling(&self) -> bool {
        self.ceilings().any(|ceiling| ceiling.to.is_some())
    }

    pub(super) fn is_text_bounded(&self, bound: &TextBound) -> bool {
        self.ceilings().any(|ceiling| ceiling.text(bound).is_some()) || self.token_values(bound).is_some()
    }

    /// Returns the values a token allows for a text bound; `None` when it does not limit that bound.
    pub(super) fn token_values(&self, bound: &TextBound) -> Option<&'a [String]> {
        self.token()?.bound(&bound.name)
    }

    /// Returns the one value a token allows for a text bound; `None` when it leaves a choice.
    pub(super) fn only_value(&self, bound: &TextBound) -> Option<&'a str> {
        match self.token_values(bound)? {
            [one] => Some(one),
            _ => None,
        }
    }

    /// Denies a token that carries a bound this route does not map.
    pub(super) fn check_unmapped_bounds(&self, route: &Route) -> Result<(), Denial> {
        let is_mapped = |name: &str| self.policy.bound(name).is_some_and(|bound| route.maps(bound));
        let bounds = self.token().map_or(&[][..], |token| &token.bounds);
        match bounds.iter().find(|(name, _)| !is_mapped(name)) {
            Some((name, _)) => Err(Denial::of(Reason::BoundUnreadable, name.as_str())),
            None => Ok(()),
        }
    }

    pub(super) fn check_text(&self, bound: &TextBound, canonical: &str) -> Result<(), Reason> {
        let is_allowed = |values: &[String]| values.iter().any(|value| bound.canonical(value) == canonical);
        if !self.token_values(bound).is_none_or(is_allowed) {
            return Err(Reason::BoundDenied);
        }
        match self.ceilings().all(|ceiling| ceiling.text(bound).is_none_or(is_allowed)) {
            true => Ok(()),
            false => Err(Reason::BoundCeiling),
        }
    }

    /// Checks an endpoint; one that does not exist and one out of reach get the same reason.
    pub(super) fn check_endpoint(
        &self,
        id: &str,
        required_feature: Option<&str>,
        demands: &Demands<'_>,
    ) -> Result<(), Reason> {
        let endpoint = self.policy.endpoints.get(id).filter(|endpoint| self.reaches(endpoint));
        let endpoint = endpoint.ok_or(Reason::EndpointUnknown)?;
        if !required_feature.is_none_or(|feature| endpoint.features.iter().any(|known| known == feature)) {
            return Err(Reason::EndpointIncapable);
        }
        if endpoint.is_archived {
            return Err(Reason::EndpointArchived);
        }
        self.check_owner(endpoint.owner, demands)
    }

    /// Returns whether the acting party owns an endpoint or reaches the team that does.
    pub(super) fn reaches(&self, endpoint: &Endpoint) -> bool {
        self.policy.tree.reaches(self.party, endpoint.owner)
    }

    /// Checks the demands of a route against the owner of a number or endpoint.
    fn check_owner(&self, owner: PartyId, demands: &Demands<'_>) -> Result<(), Reason> {
        if !demands.features.iter().all(|feature| self.has_feature(feature, owner)) {
            return Err(Reason::FeatureOff);
        }
        if !demands.scopes.iter().all(|scope| self.policy.tree.scope_allowed(owner, scope)) {
            return Err(Reason::ScopeMissing);
        }
        Ok(())
    }

    /// Returns the longest session the route may open, in seconds; `None` when it is unlimited.
    pub(super) fn session_seconds(&self, route: &Route) -> Option<u64> {
        let token = self.token().and_then(|token| token.session);
        self.session_ceiling().into_iter().chain(token).chain(route.session).min()
    }

    /// Returns the longest session a token of this key may open, in seconds; `None` when it is unlimited.
    pub(super) fn session_ceiling(&self) -> Option<u64> {
        self.ceilings().filter_map(|ceiling| ceiling.session).min()
    }

    /// Checks a caller ID; the owner of the number must meet the demands as well.
    pub(super) fn check_from(&self, number: Number, demands: &Demands<'_>) -> Result<(), Reason> {
        if number.is_emergency() {
            return Err(Reason::NumberEmergency);
        }
        if !self.token().is_none_or(|token| allows(token.from.as_deref(), number)) {
            return Err(Reason::FromDenied);
        }
        if !self.ceilings().all(|ceiling| allows(ceiling.from.as_deref(), number)) {
            return Err(Reason::FromCeiling);
        }
        let owner = self.policy.tree.owned(self.party, number).ok_or(Reason::FromNotOwned)?;
        self.check_owner(owner, demands)
    }

    pub(super) fn check_to(&self, number: Number) -> Result<(), Reason> {
        if number.is_emergency() {
            return Err(Reason::NumberEmergency);
        }
        if !self.token().is_none_or(|token| allows(token.to.as_deref(), number)) {
            return Err(Reason::ToDenied);
        }
        if !self.ceilings().all(|ceiling| allows(ceiling.to.as_deref(), number)) {
            return Err(Reason::ToCeiling);
        }
        if number.is_premium() && !self.may_reach_premium() {
            return Err(Reason::ToPremium);
        }
        Ok(())
    }

    /// Returns whether premium-rate destinations are open: to a key by the policy or a ceiling that lists them, to a
    /// token by its own list, or by the ceiling when it has none. Called only for numbers that all lists allow.
    fn may_reach_premium(&self) -> bool {
        let is_listed = self.is_to_under_ceiling();
        let is_key_allowed = self.policy.platform.premium_for_keys || is_listed;
        is_key_allowed && self.token().is_none_or(|token| token.to.is_some() || is_listed)
    }
}

/// Returns whether a list of credentials has a token's source, or `api_key` for `None`.
fn accepts(accept: &Accept, source: Option<&TokenSource>) -> bool {
    match (accept, source) {
        (Accept::Public, _) => true,
        (Accept::Credentials { api_key, .. }, None) => *api_key,
        (Accept::Credentials { tokens, .. }, Some(source)) => tokens.contains(source),
    }
}

/// Returns whether a sorted list holds a number; `None` allows every number.
fn allows(list: Option<&[Number]>, number: Number) -> bool {
    list.is_none_or(|list| list.binary_search(&number).is_ok())
}
