//! What a principal may do now: platform ∩ team ∩ key ∩ token, computed at every use.
//!
//! Nothing is remembered between requests, so a revoked key, a shrunk ceiling or a number that was given back stops
//! every token at once (law 5).

use crate::credential::VerifiedToken;
use crate::number::Number;
use crate::policy::{ApiKey, PartyId, Policy, Reach, Route, RouteMatch, Tenant};
use crate::reason::Reason;

use super::authenticate::Principal;
use super::verdict::{Denial, Obligations};

/// What is demanded of whoever acts, and of whoever owns the number they act with.
pub struct Demands<'a> {
    /// The feature that must be on.
    pub feature: Option<&'a str>,
    /// The scopes that must be available.
    pub scopes: &'a [String],
}

impl<'a> Demands<'a> {
    /// What a route demands.
    pub fn of(route: &'a Route) -> Self {
        Self { feature: route.feature.as_deref(), scopes: &route.scopes }
    }
}

/// The present rights of a principal.
pub struct Rights<'a> {
    policy: &'a Policy,
    key: &'a ApiKey,
    token: Option<&'a VerifiedToken>,
}

impl<'a> Rights<'a> {
    /// Computes the rights.
    ///
    /// # Errors
    ///
    /// A 401 [`Reason`] when the credential, or the key a token was minted from, is no longer good at `now`.
    pub fn of(policy: &'a Policy, principal: &'a Principal, now: u64) -> Result<Self, Denial> {
        let (key, token) = match principal {
            Principal::Key { digest } => (policy.key_by_digest(digest).ok_or(Reason::KeyUnknown)?, None),
            Principal::Token { family, token } => {
                let family = policy.families.get(*family).ok_or(Reason::TokenType)?;
                family.check_time(token, now).map_err(|_| Reason::TokenExpired)?;
                (policy.key_by_id(&token.key_id).ok_or(Reason::TokenOwner)?, Some(token.as_ref()))
            }
        };
        let rights = Self { policy, key, token };
        rights.check_key(now)?;
        if !rights.token_fits_owner() {
            return Err(Reason::TokenOwner.into());
        }
        Ok(rights)
    }

    /// The rights of a key on its own: what the command-line tool mints from.
    ///
    /// # Errors
    ///
    /// As [`Rights::of`].
    pub fn of_key(policy: &'a Policy, key: &'a ApiKey, now: u64) -> Result<Self, Denial> {
        let rights = Self { policy, key, token: None };
        rights.check_key(now)?;
        Ok(rights)
    }

    fn check_key(&self, now: u64) -> Result<(), Denial> {
        if self.key.revoked {
            return Err(Reason::KeyRevoked.into());
        }
        if self.key.expires_at.is_some_and(|at| at <= now) {
            return Err(Reason::KeyExpired.into());
        }
        Ok(())
    }

    /// A token speaks for the party its key belonged to at mint, and for no other the key was moved to since.
    fn token_fits_owner(&self) -> bool {
        let (Some(token), Some(party)) = (self.token, self.policy.tree.party(self.key.owner)) else {
            return self.token.is_none();
        };
        match party.reach {
            Reach::User => token.user.as_deref() == Some(&party.id) && token.team.is_none(),
            Reach::Organization | Reach::SubEntity => {
                token.team.as_deref() == Some(&party.id) && token.user.is_none()
            }
        }
    }

    /// The API key behind the principal.
    pub fn key(&self) -> &'a ApiKey {
        self.key
    }

    /// Whether the principal is a client token.
    pub fn is_token(&self) -> bool {
        self.token.is_some()
    }

    /// Checks what a route requires of the principal, in the order of answers.
    pub(super) fn check(&self, route: &Route, found: &RouteMatch<'_, '_>) -> Result<(), Denial> {
        self.meets(&Demands::of(route))?;
        match &route.tenant {
            Some(Tenant::Path(name)) if !found.param(name).is_some_and(|id| self.reaches_team(id)) => {
                Err(Denial::of(Reason::TenantDenied, name.as_str()))
            }
            _ => Ok(()),
        }
    }

    /// Checks feature and scopes.
    ///
    /// # Errors
    ///
    /// [`Reason::FeatureOff`], whatever the scopes, or [`Reason::ScopeMissing`].
    pub fn meets(&self, demands: &Demands<'_>) -> Result<(), Denial> {
        if demands.feature.is_some_and(|feature| !self.has_feature(feature, self.key.owner)) {
            return Err(Reason::FeatureOff.into());
        }
        if !demands.scopes.iter().all(|scope| self.has_scope(scope)) {
            return Err(Reason::ScopeMissing.into());
        }
        Ok(())
    }

    /// Whether a feature is on for a party: on the platform, and off neither there nor above.
    pub(super) fn has_feature(&self, feature: &str, party: PartyId) -> bool {
        self.policy.platform.has_feature(feature) && self.policy.tree.feature_allowed(party, feature)
    }

    /// Whether a scope is held at every level.
    pub fn has_scope(&self, scope: &str) -> bool {
        let holds = |list: &[String]| list.iter().any(|held| held == scope);
        holds(&self.policy.platform.scopes)
            && holds(&self.key.scopes)
            && self.token.is_none_or(|token| holds(&token.scopes))
            && self.policy.tree.scope_allowed(self.key.owner, scope)
    }

    fn reaches_team(&self, id: &str) -> bool {
        let tree = &self.policy.tree;
        // A team unknown and a team out of reach get the same answer.
        tree.team(id).is_some_and(|team| tree.reaches(self.key.owner, team))
    }

    /// Whether the key or the token binds the caller ID.
    pub(super) fn is_from_bounded(&self) -> bool {
        self.key.ceiling.from.is_some() || self.token.is_some_and(|token| token.from.is_some())
    }

    /// Whether the key or the token binds the destination.
    pub(super) fn is_to_bounded(&self) -> bool {
        self.key.ceiling.to.is_some() || self.token.is_some_and(|token| token.to.is_some())
    }

    /// Judges a caller ID; what is demanded must also be open to the party that owns the number.
    pub(super) fn check_from(&self, number: Number, demands: &Demands<'_>) -> Result<(), Reason> {
        if number.is_emergency() {
            return Err(Reason::NumberEmergency);
        }
        if !self.token.is_none_or(|token| allows(token.from.as_deref(), number)) {
            return Err(Reason::FromDenied);
        }
        if !allows(self.key.ceiling.from.as_deref(), number) {
            return Err(Reason::FromCeiling);
        }
        let owner = self.policy.tree.owned(self.key.owner, number).ok_or(Reason::FromNotOwned)?;
        if demands.feature.is_some_and(|feature| !self.has_feature(feature, owner)) {
            return Err(Reason::FeatureOff);
        }
        if !demands.scopes.iter().all(|scope| self.policy.tree.scope_allowed(owner, scope)) {
            return Err(Reason::ScopeMissing);
        }
        Ok(())
    }

    /// Judges a destination.
    pub(super) fn check_to(&self, number: Number) -> Result<(), Reason> {
        if number.is_emergency() {
            return Err(Reason::NumberEmergency);
        }
        if !self.token.is_none_or(|token| allows(token.to.as_deref(), number)) {
            return Err(Reason::ToDenied);
        }
        if !allows(self.key.ceiling.to.as_deref(), number) {
            return Err(Reason::ToCeiling);
        }
        if number.is_premium() && !self.may_reach_premium() {
            return Err(Reason::ToPremium);
        }
        Ok(())
    }

    /// Premium-rate destinations must be named by somebody: for a key its policy or its ceiling, for a token its own
    /// list or, when it has none, the ceiling that stands in for it. Called only for numbers inside both lists.
    fn may_reach_premium(&self) -> bool {
        let by_key = self.policy.platform.premium_for_keys || self.key.ceiling.to.is_some();
        match self.token {
            None => by_key,
            Some(token) => by_key && (token.to.is_some() || self.key.ceiling.to.is_some()),
        }
    }

    /// Tells the upstream who is asking.
    pub(super) fn identify(&self, route: &Route, obligations: &mut Obligations) {
        let tree = &self.policy.tree;
        let owner = self.key.owner;
        obligations.set("x-callbound-key", Some(self.key.id.as_str()));
        if let Some(party) = tree.party(owner) {
            let name = if party.reach == Reach::User { "x-callbound-user" } else { "x-callbound-team" };
            obligations.set(name, Some(party.id.as_str()));
        }
        let parent = tree.parent_id(owner).filter(|_| route.read_parent);
        let teams = match (tree.reachable(owner), parent) {
            (teams, None) => teams.to_owned(),
            ("", Some(parent)) => parent.to_owned(),
            (teams, Some(parent)) => format!("{teams},{parent}"),
        };
        obligations.set("x-callbound-teams", Some(teams));
        obligations.set("x-callbound-token", self.token.map(|token| token.jti.as_str()));
        obligations.set("x-callbound-scopes", Some(self.scopes()));
    }

    /// The scopes held at every level, separated by blanks.
    fn scopes(&self) -> String {
        let narrowest = self.token.map_or(&self.key.scopes, |token| &token.scopes);
        let mut text = String::with_capacity(64);
        for scope in narrowest.iter().filter(|scope| self.has_scope(scope)) {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(scope);
        }
        text
    }

    /// The party the key belongs to, as a token's `team` or `user` claim.
    pub(super) fn party_claims(&self) -> (Option<&'a str>, Option<&'a str>) {
        match self.policy.tree.party(self.key.owner) {
            Some(party) if party.reach == Reach::User => (None, Some(&party.id)),
            Some(party) => (Some(&party.id), None),
            None => (None, None),
        }
    }
}

/// `None` is no bound; lists are sorted.
fn allows(list: Option<&[Number]>, number: Number) -> bool {
    list.is_none_or(|list| list.binary_search(&number).is_ok())
}
