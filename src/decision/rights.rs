//! What a principal may do now: platform ∩ team ∩ key ∩ token, computed at every use.
//!
//! Nothing is remembered between requests, so a revoked key, a shrunk ceiling or a number that was given back stops
//! every token at once (law 5).

use base64ct::{Base64UrlUnpadded, Encoding as _};

use crate::credential::VerifiedToken;
use crate::number::Number;
use crate::policy::{ApiKey, Ceiling, Endpoint, PartyId, Policy, Reach, Route, TextBound, Told};
use crate::reason::Reason;

use super::authenticate::Principal;
use super::bounds::Judged;
use super::reading::Part;
use super::verdict::{Denial, Obligations};

/// What is demanded of whoever acts, and of whoever owns the number they act with.
pub struct Demands<'a> {
    /// The features that must be on.
    pub features: &'a [String],
    /// The scopes that must be available.
    pub scopes: &'a [String],
}

impl<'a> Demands<'a> {
    /// What a route demands.
    pub fn of(route: &'a Route) -> Self {
        Self { features: &route.features, scopes: &route.scopes }
    }
}

/// Which part of a request is being judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Path, query and headers.
    Head,
    /// The body.
    Body,
}

/// The present rights of a principal.
pub struct Rights<'a> {
    policy: &'a Policy,
    key: &'a ApiKey,
    /// Who acts: the key's owner, or the team below it that an issuer says.
    party: PartyId,
    token: Option<&'a VerifiedToken>,
}

impl<'a> Rights<'a> {
    /// Computes the rights.
    ///
    /// # Errors
    ///
    /// A 401 [`Reason`] when the credential, or the key a token was minted from, is no longer good at `now`.
    pub fn of(policy: &'a Policy, principal: &'a Principal, now: u64) -> Result<Self, Denial> {
        let (source, token, key) = match principal {
            Principal::Key { key } => return Self::of_key(policy, key, now),
            Principal::Token { source, token, key } => (*source, token.as_ref(), key),
        };
        let verifier = policy.verifier(source).ok_or(Reason::TokenType)?;
        verifier.check_time(token, now).map_err(|_| Reason::TokenExpired)?;
        // A bound nobody here knows would be one nobody judges.
        if token.bounds.iter().any(|(name, _)| policy.bound(name).is_none()) {
            return Err(Reason::TokenClaims.into());
        }
        let mut rights = Self { token: Some(token), ..Self::of_key(policy, key, now)? };
        if !verifier.is_minted_here() {
            rights.party = rights.party_of_issuer().ok_or(Reason::TokenOwner)?;
        } else if !rights.token_fits_owner() {
            return Err(Reason::TokenOwner.into());
        }
        Ok(rights)
    }

    /// The team an issuer says somebody acts for, when its key reaches it.
    fn party_of_issuer(&self) -> Option<PartyId> {
        match self.token.and_then(|token| token.team.as_deref()) {
            None => Some(self.key.owner),
            Some(team) => {
                self.policy.tree.team(team).filter(|team| self.policy.tree.reaches(self.key.owner, *team))
            }
        }
    }

    /// The rights of a key on its own: what the command-line tool mints from.
    ///
    /// # Errors
    ///
    /// As [`Rights::of`].
    pub fn of_key(policy: &'a Policy, key: &'a ApiKey, now: u64) -> Result<Self, Denial> {
        let rights = Self { policy, key, party: key.owner, token: None };
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

    /// Who acts.
    pub(super) fn party(&self) -> PartyId {
        self.party
    }

    /// The token that acts, if it is one.
    pub(super) fn token(&self) -> Option<&'a VerifiedToken> {
        self.token
    }

    /// Whether the principal is a client token.
    pub fn is_token(&self) -> bool {
        self.token.is_some()
    }

    /// Checks the team a request names.
    pub(super) fn check_tenant(&self, route: &Route, part: &Part<'_>) -> Result<(), Denial> {
        let Some(tenant) = &route.tenant else { return Ok(()) };
        if tenant.place.is_in_body() != matches!(part, Part::Body(_)) {
            return Ok(());
        }
        match part.read(&tenant.place)? {
            None if tenant.optional => Ok(()),
            None => Err(Denial::at(Reason::MemberMissing, &tenant.place)),
            Some(id) if self.reaches_team(&id) => Ok(()),
            Some(_) => Err(Denial::at(Reason::TenantDenied, &tenant.place)),
        }
    }

    /// Checks feature and scopes.
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

    /// Whether a feature is on for a party: on the platform, and off neither there nor above.
    pub(super) fn has_feature(&self, feature: &str, party: PartyId) -> bool {
        self.policy.platform.has_feature(feature) && self.policy.tree.feature_allowed(party, feature)
    }

    /// Whether a scope is held at every level.
    pub fn has_scope(&self, scope: &str) -> bool {
        let platform = &self.policy.platform;
        platform.scopes.iter().any(|known| known == scope)
            && platform.holds(&self.key.scopes, scope)
            && self.token.is_none_or(|token| platform.holds(&token.scopes, scope))
            && self.policy.tree.scope_allowed(self.party, scope)
    }

    pub(super) fn reaches_team(&self, id: &str) -> bool {
        let tree = &self.policy.tree;
        // A team unknown and a team out of reach get the same answer.
        tree.team(id).is_some_and(|team| tree.reaches(self.party, team))
    }

    /// Everything that bounds whoever uses this key: its own ceiling and its teams'.
    fn ceilings(&self) -> impl Iterator<Item = &'a Ceiling> {
        std::iter::once(&self.key.ceiling).chain(self.policy.tree.ceilings(self.party))
    }

    /// Whether anything binds the caller ID.
    pub(super) fn is_from_bounded(&self) -> bool {
        self.ceilings().any(|ceiling| ceiling.from.is_some())
            || self.token.is_some_and(|token| token.from.is_some())
    }

    /// Whether anything binds the destination.
    pub(super) fn is_to_bounded(&self) -> bool {
        self.is_to_under_ceiling() || self.token.is_some_and(|token| token.to.is_some())
    }

    fn is_to_under_ceiling(&self) -> bool {
        self.ceilings().any(|ceiling| ceiling.to.is_some())
    }

    /// Whether anything binds a text.
    pub(super) fn is_text_bounded(&self, bound: usize) -> bool {
        self.ceilings().any(|ceiling| ceiling.text(bound).is_some()) || self.token_values(bound).is_some()
    }

    fn token_values(&self, bound: usize) -> Option<&'a [String]> {
        self.token?.bound(&self.policy.bounds.get(bound)?.name)
    }

    /// Refuses a token that is bound in a text the route says nothing of.
    pub(super) fn check_unmapped_bounds(&self, route: &Route) -> Result<(), Denial> {
        let is_spoken = |name: &str| self.policy.bound(name).is_some_and(|(index, _)| route.speaks_of(index));
        let bounds = self.token.map_or(&[][..], |token| &token.bounds);
        match bounds.iter().find(|(name, _)| !is_spoken(name)) {
            Some((name, _)) => Err(Denial::of(Reason::BoundUnreadable, name.as_str())),
            None => Ok(()),
        }
    }

    /// The value of a text that the token leaves no choice in.
    pub(super) fn only_value(&self, bound: usize) -> Option<&'a str> {
        match self.token_values(bound)? {
            [one] => Some(one),
            _ => None,
        }
    }

    /// Judges a canonical text.
    pub(super) fn check_text(&self, bound: usize, canonical: &str) -> Result<(), Reason> {
        let rule = self.policy.bounds.get(bound).ok_or(Reason::BoundUnknown)?;
        let is_allowed = |values: &[String]| values.iter().any(|value| rule.canonical(value) == canonical);
        if !self.token_values(bound).is_none_or(is_allowed) {
            return Err(Reason::BoundDenied);
        }
        match self.ceilings().all(|ceiling| ceiling.text(bound).is_none_or(is_allowed)) {
            true => Ok(()),
            false => Err(Reason::BoundCeiling),
        }
    }

    /// Judges an endpoint: one unknown and one out of reach get the same answer.
    pub(super) fn check_endpoint(
        &self,
        id: &str,
        capable: Option<&str>,
        demands: &Demands<'_>,
    ) -> Result<(), Reason> {
        let endpoint = self.policy.directory.get(id).filter(|endpoint| self.reaches(endpoint));
        let endpoint = endpoint.ok_or(Reason::EndpointUnknown)?;
        if !capable.is_none_or(|feature| endpoint.features.iter().any(|known| known == feature)) {
            return Err(Reason::EndpointIncapable);
        }
        if endpoint.is_archived {
            return Err(Reason::EndpointArchived);
        }
        self.check_owner(endpoint.owner, demands)
    }

    /// Whether an endpoint is the party's own or that of a team it reaches.
    pub(super) fn reaches(&self, endpoint: &Endpoint) -> bool {
        self.policy.tree.reaches(self.party, endpoint.owner)
    }

    /// What is demanded of who acts is demanded of who owns what they act with.
    fn check_owner(&self, owner: PartyId, demands: &Demands<'_>) -> Result<(), Reason> {
        if !demands.features.iter().all(|feature| self.has_feature(feature, owner)) {
            return Err(Reason::FeatureOff);
        }
        if !demands.scopes.iter().all(|scope| self.policy.tree.scope_allowed(owner, scope)) {
            return Err(Reason::ScopeMissing);
        }
        Ok(())
    }

    /// The longest session that may be opened, in seconds; `None` when nothing says.
    pub(super) fn session(&self, route: &Route) -> Option<u64> {
        let token = self.token.and_then(|token| token.session);
        self.session_ceiling().into_iter().chain(token).chain(route.session).min()
    }

    /// The longest session that a token of this key may open, in seconds.
    pub(super) fn session_ceiling(&self) -> Option<u64> {
        self.ceilings().filter_map(|ceiling| ceiling.session).min()
    }

    /// Judges a caller ID; what is demanded must also be open to the party that owns the number.
    pub(super) fn check_from(&self, number: Number, demands: &Demands<'_>) -> Result<(), Reason> {
        if number.is_emergency() {
            return Err(Reason::NumberEmergency);
        }
        if !self.token.is_none_or(|token| allows(token.from.as_deref(), number)) {
            return Err(Reason::FromDenied);
        }
        if !self.ceilings().all(|ceiling| allows(ceiling.from.as_deref(), number)) {
            return Err(Reason::FromCeiling);
        }
        let owner = self.policy.tree.owned(self.party, number).ok_or(Reason::FromNotOwned)?;
        self.check_owner(owner, demands)
    }

    /// Judges a destination.
    pub(super) fn check_to(&self, number: Number) -> Result<(), Reason> {
        if number.is_emergency() {
            return Err(Reason::NumberEmergency);
        }
        if !self.token.is_none_or(|token| allows(token.to.as_deref(), number)) {
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

    /// Premium-rate destinations must be named by somebody: for a key its policy or its ceiling, for a token its own
    /// list or, when it has none, the ceiling that stands in for it. Called only for numbers inside both lists.
    fn may_reach_premium(&self) -> bool {
        let is_named = self.is_to_under_ceiling();
        let by_key = self.policy.platform.premium_for_keys || is_named;
        by_key && self.token.is_none_or(|token| token.to.is_some() || is_named)
    }

    /// Tells the upstream who is asking.
    pub(super) fn identify(&self, route: &Route, obligations: &mut Obligations) {
        let tree = &self.policy.tree;
        let owner = self.party;
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

    /// Tells the upstream what the route asks for beside who is asking: the value judged in this request, else the
    /// token's.
    ///
    /// # Errors
    ///
    /// A token's value that is outside the present bounds: nothing is told that was not judged.
    pub(super) fn tell(
        &self,
        route: &Route,
        judged: &[Judged],
        stage: Stage,
        obligations: &mut Obligations,
    ) -> Result<(), Denial> {
        let is_due = |told: &&Told| match told {
            Told::Bound(bound) if route.reads_in_body(*bound) => stage == Stage::Body,
            Told::Bound(_) | Told::Metadata => stage == Stage::Head,
        };
        for told in route.identify.iter().filter(is_due) {
            match told {
                Told::Metadata => {
                    let metadata = self.token.and_then(|token| token.metadata.as_ref());
                    let text = metadata.and_then(|metadata| serde_json::to_vec(metadata).ok());
                    let text = text.map(|text| Base64UrlUnpadded::encode_string(&text));
                    obligations.set("x-callbound-metadata", text);
                }
                Told::Bound(bound) => {
                    let Some(rule) = self.policy.bounds.get(*bound) else { continue };
                    let value = match judged.iter().find(|judged| judged.bound == *bound) {
                        Some(judged) => Some(judged.value.clone()),
                        None => self.own_values(*bound, rule)?,
                    };
                    obligations.set(format!("x-callbound-{}", rule.name.replace('_', "-")), value);
                }
            }
        }
        Ok(())
    }

    /// The token's own values of a text that the request does not say, under their own names.
    fn own_values(&self, bound: usize, rule: &TextBound) -> Result<Option<String>, Denial> {
        let refuse = |reason| Denial::of(reason, rule.name.as_str());
        let Some(values) = self.token_values(bound) else {
            return if self.is_text_bounded(bound) { Err(refuse(Reason::BoundUnreadable)) } else { Ok(None) };
        };
        let values: Vec<&str> = values.iter().map(|value| rule.canonical(value)).collect();
        for value in &values {
            let known = if rule.has(value) { Ok(()) } else { Err(Reason::BoundUnknown) };
            known.and_then(|()| self.check_text(bound, value)).map_err(refuse)?;
        }
        Ok(Some(values.join(",")))
    }

    /// The scopes held at every level, separated by blanks.
    fn scopes(&self) -> String {
        let platform = &self.policy.platform;
        // Without implied scopes the narrowest list has them all.
        let narrowest = match platform.implied_by.as_slice() {
            [] => self.token.map_or(&self.key.scopes, |token| &token.scopes),
            _ => &platform.scopes,
        };
        let mut text = String::with_capacity(64);
        for scope in narrowest.iter().filter(|scope| self.has_scope(scope)) {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(scope);
        }
        text
    }

    /// The id of who acts.
    pub(super) fn party_id(&self) -> Option<&'a str> {
        self.policy.tree.party(self.party).map(|party| party.id.as_str())
    }

    /// The party the key belongs to, as a token's `team` or `user` claim.
    pub(super) fn party_claims(&self) -> (Option<&'a str>, Option<&'a str>) {
        match self.policy.tree.party(self.party) {
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
